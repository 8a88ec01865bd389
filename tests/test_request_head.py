"""The head of a request is one head, whatever stands in it: nothing can be put behind its end."""

from __future__ import annotations

from typing import Final

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool._connection import LENGTH_HEADERS, RequestHead
from tests.support.keys import KEY, find_key

HOST: Final = (b"host", b"example")


def read_by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    """Return the method, the target, the headers and the body of the one request in *data*."""
    http = h11.Connection(h11.SERVER)
    http.receive_data(data)
    request = http.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += event.data
    assert http.trailing_data == (b"", False)
    return request.method, request.target, list(request.headers.raw_items()), body


BYTES: Final = st.one_of(
    st.binary(max_size=12),
    st.lists(
        st.sampled_from([b"x", b"A-b", b" ", b"\r", b"\n", b"\0", b":", b"\t", b"\xff", b"\x7f"]),
        max_size=6,
    ).map(b"".join),
)
NAMES: Final = st.one_of(
    BYTES, st.sampled_from([b"Host", b"content-length", b"Transfer-Encoding", b"x-a"])
)


@given(
    method=st.sampled_from(["GET", "POST", "HEAD"]) | st.text(max_size=5),
    target=st.sampled_from([b"/", b"/v1/x?y=z"]) | BYTES,
    headers=st.lists(st.tuples(NAMES, BYTES), max_size=4),
    body=st.binary(max_size=40),
    says_length=st.booleans(),
)
def test_another_reader_finds_what_was_asked_for(
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    *,
    says_length: bool,
) -> None:
    """Or it is refused: no name, value, path or method ends its line, or the head."""
    try:
        head = RequestHead.build(method, target, [HOST, *headers], says_length=says_length)
    except ValueError:
        return
    found = read_by_h11(head.with_body(body))
    length = [(b"content-length", b"%d" % len(body))] if body or says_length else []
    assert found[:2] == (method.encode(), target)
    assert found[2] == [HOST, *headers, *length]
    assert found[3] == body


@pytest.mark.parametrize("bad", [b"\r\nx: y", b"\n", b"\r", b"\0", b"a\r\n\r\nGET / HTTP/1.1"])
@pytest.mark.parametrize("where", ["method", "target", "name", "value"])
def test_nothing_ends_a_line(where: str, bad: bytes) -> None:
    """And the refusal does not show it, since it may be a key."""
    what = {"method": b"GET", "target": b"/", "name": b"x", "value": b"y"}
    what[where] += KEY.encode() + bad
    with pytest.raises(ValueError, match="bytes that") as caught:
        RequestHead.build(
            what["method"].decode(),
            what["target"],
            [HOST, (what["name"], what["value"])],
            says_length=True,
        )
    assert find_key(str(caught.value)) is None


@pytest.mark.parametrize(
    "headers", [[], [HOST, (b"Host", b"other")], *([HOST, (name, b"0")] for name in LENGTH_HEADERS)]
)
def test_what_another_reader_would_be_unsure_of_is_refused(
    headers: list[tuple[bytes, bytes]],
) -> None:
    """No host or two; a length beside the one that is added."""
    with pytest.raises(ValueError, match="one host, and no header about the length"):
        RequestHead.build("POST", b"/", headers, says_length=True)


def test_a_head_may_be_anything_that_is_allowed() -> None:
    """Latin letters and tabs in values, no value, every sign of a name."""
    headers = [HOST, (b"!#$%&'*+-.^_`|~09Az", b"\xe4 \t b"), (b"x", b"")]
    head = RequestHead.build("PATCH", b"/%20?a=b&c", headers, says_length=False)
    assert read_by_h11(head.with_body(b"")) == (b"PATCH", b"/%20?a=b&c", headers, b"")


@pytest.mark.parametrize(
    ("method", "header", "has_answer_body", "keeps_alive"),
    [
        ("GET", (b"x", b"close"), True, True),
        ("HEAD", (b"connection", b"keep-alive"), False, True),
        ("GET", (b"Connection", b"x, Close"), True, False),
    ],
)
def test_what_a_request_means_for_its_answer(
    method: str, header: tuple[bytes, bytes], *, has_answer_body: bool, keeps_alive: bool
) -> None:
    """Whether it has a body, and whether another request may follow it."""
    head = RequestHead.build(method, b"/", [HOST, header], says_length=False)
    assert (head.has_answer_body, head.keeps_alive) == (has_answer_body, keeps_alive)
