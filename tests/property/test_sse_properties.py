"""However a stream is split, it says the same; wherever it is cut, it does not lie."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agentpool import DriverError
from agentpool.abc import Completion
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._sse import SseEvent, SseParser

FOLDER = Path(__file__).parent.parent / "drivers" / "wire" / "openai"
STREAMS = [(FOLDER / f"{name}.sse").read_bytes() for name in ("text", "parallel_calls", "cut_call")]

LINES = st.sampled_from(
    [
        *(b"data: a", b"data: b", b"data:\xc3\xbc", b"data", b"event: x", b"event:y", b": note"),
        *(b"id: 1", b"", b"", b"\xf0\x9f\x91\x8b: 1"),
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Make a stream of lines with ends of all kinds."""
    lines = draw(st.lists(st.tuples(LINES, ENDS), max_size=12))
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return bom + b"".join(line + end for line, end in lines)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Return the pieces of *stream* between the cuts."""
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def events_of(pieces: list[bytes]) -> list[SseEvent]:
    """Return the events of a stream in pieces."""
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


CUTS = st.lists(st.integers(min_value=0, max_value=20_000), max_size=20)


@given(stream=streams() | st.sampled_from(STREAMS), cuts=CUTS)
def test_a_stream_split_anywhere_has_the_same_events(stream: bytes, cuts: list[int]) -> None:
    """Between two characters, inside one, between CR and LF."""
    assert events_of(split(stream, cuts)) == events_of([stream])


@given(stream=streams())
def test_a_stream_at_once_has_the_events_of_its_single_bytes(stream: bytes) -> None:
    """Events that come whole are read in another way than their lines one by one."""
    assert events_of([stream]) == events_of([bytes([byte]) for byte in stream])


def answer_of(pieces: list[bytes]) -> Completion:
    """Return what a stream in pieces comes to."""
    accumulator = ChatAccumulator()
    for event in events_of(pieces):
        accumulator.feed(event)
    return accumulator.finish()


@given(
    stream=st.sampled_from(STREAMS),
    cut=st.integers(min_value=0, max_value=20_000),
    cuts=CUTS,
)
def test_a_stream_cut_anywhere_is_an_error_or_the_whole_answer(
    stream: bytes, cut: int, cuts: list[int]
) -> None:
    """Never a part of it that looks like an answer."""
    whole = answer_of([stream])
    try:
        found = answer_of(split(stream[: cut % len(stream)], cuts))
    except DriverError:
        return
    assert (found.text, found.tool_calls) == (whole.text, whole.tool_calls)
    assert found.finish_reason is whole.finish_reason


@given(stream=st.binary(max_size=300), cuts=CUTS)
def test_any_bytes_are_events_or_a_driver_error(stream: bytes, cuts: list[int]) -> None:
    """A hostile server can make nothing else of it."""
    try:
        events_of(split(stream, cuts))
        answer_of([stream])
    except DriverError:
        pass
