"""Joined chunks say what the chunks said, whatever a server sends and wherever it is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool._chunks import ChunkJoiner

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Heard: TypeAlias = tuple[bytes, list[tuple[bytes, bytes]] | None, str]
"""The body so far, the trailer if it has ended, and the error."""


class Reader:
    """Reads a body by h11."""

    def __init__(self) -> None:
        """Read the head."""
        self.http = h11.Connection(h11.CLIENT)
        self.http.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        self.http.send(h11.EndOfMessage())
        self.http.receive_data(HEAD)
        assert isinstance(self.http.next_event(), h11.Response)
        self.body = b""
        self.pieces = 0
        self.trailer: list[tuple[bytes, bytes]] | None = None
        self.error = ""

    def read(self, data: bytes) -> Heard:
        """Read *data*; return what is known now."""
        if not self.error and self.trailer is None:
            self.http.receive_data(data)
            self._take()
        return self.body, self.trailer, self.error

    def _take(self) -> None:
        try:
            while isinstance(event := self.http.next_event(), h11.Event):
                if isinstance(event, h11.EndOfMessage):
                    self.trailer = list(event.headers)
                    return
                assert isinstance(event, h11.Data)
                self.body += event.data
                self.pieces += 1
        except h11.RemoteProtocolError as error:
            self.error = str(error)


def test_whole_chunks_are_one() -> None:
    """And the end stays the end."""
    data = b"3\r\nabc\r\n02\r\nde\r\n1;a=b\r\nf\r\n0\r\n\r\n"
    assert ChunkJoiner().join(data) == b"5\r\nabcde\r\n1;a=b\r\nf\r\n0\r\n\r\n"


def test_chunks_are_joined_behind_one_that_was_cut() -> None:
    """The rest of it goes first, and what is cut next goes last."""
    joiner = ChunkJoiner()
    assert joiner.join(b"4\r\nab") == b"4\r\nab"
    assert joiner.join(b"c") == b"c"
    rest = b"d\r\n1\r\ne\r\n1\r\nf\r\n5\r\ng"
    assert joiner.join(rest) == b"d\r\n2\r\nef\r\n5\r\ng"
    assert joiner.join(b"hijk\r\n") == b"hijk\r\n"
    assert joiner.join(b"1\r\nl\r\n1\r\nm\r\n") == b"2\r\nlm\r\n"


@pytest.mark.parametrize("cut", [b"1", b"1\r", b"1;x\r\n", b"1\r\nxyz", b"0\r\n"])
def test_where_the_next_chunk_begins_unknown_nothing_is_joined(cut: bytes) -> None:
    """It could be in the middle of something else."""
    joiner, more = ChunkJoiner(), b"1\r\na\r\n1\r\nb\r\n"
    assert joiner.join(cut) == cut
    assert joiner.join(more) == more


PLAIN = st.binary(min_size=1, max_size=40)

CHUNKS = st.one_of(
    PLAIN.map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    PLAIN.map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    PLAIN.map(lambda data: b"%X\r\n%b\r\n" % (len(data), data)),
    PLAIN.map(lambda data: b"%020x\r\n%b\r\n" % (len(data), data)),
    PLAIN.map(lambda data: b"%x;a=b \r\n%b\r\n" % (len(data), data)),
    PLAIN.map(lambda data: b"%x\r\n%b" % (len(data), data)),
    st.sampled_from([b"0\r\n", b"\r\n", b"x: y\r\n", b"0\r\n\r\n", b"+1\r\na\r\n", b"1\na\n"]),
    st.binary(max_size=3),
)


@given(
    chunks=st.lists(CHUNKS, max_size=12),
    end=st.sampled_from([b"0\r\n\r\n", b"000\r\nx: y\r\n\r\n", b""]),
    splits=st.lists(st.floats(0, 1), max_size=8),
)
def test_what_is_heard_is_the_same(
    chunks: Sequence[bytes], end: bytes, splits: list[float]
) -> None:
    """The body and where it ends, the trailer, the errors: after each part that arrives."""
    sent = b"".join(chunks) + end
    places = [0, *sorted(int(at * len(sent)) for at in splits), len(sent)]
    plain, joined, joiner = Reader(), Reader(), ChunkJoiner()
    for a, b in itertools.pairwise(places):
        if a < b:
            assert joined.read(joiner.join(sent[a:b])) == plain.read(sent[a:b])
    assert joined.read(b"") == plain.read(b"")
    assert joined.pieces <= plain.pieces
