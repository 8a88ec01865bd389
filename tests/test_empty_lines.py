"""Streams of lines with nothing in them take next to no time: a peer can send megabytes of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import pytest
import trio
from mcp.shared.message import SessionMessage

from agentpool.drivers.wire._sse import SseParser
from agentpool.observe._trace import parse_trace
from agentpool.tools.mcp._message_lines import read_messages
from tests.support.growth import lines_run

PIECE = 64 * 1024
MOST_STEPS = 60
"""For a piece: each of its lines was one step and more."""

HEADER = (
    b'{"format":"agentpool-trace","run_id":"ab","pool":"p","opened_at":1.0,"max_concurrent":2}\n'
)
WHOLE = b"data: a\n\n\n\n\n\ndata: b\n\n"


def feed_events(data: bytes) -> None:
    """Read *data* as a stream of events."""
    parser = SseParser()
    for at in range(0, len(data), PIECE):
        assert not parser.feed(data[at : at + PIECE])


def feed_messages(data: bytes) -> None:
    """Read *data* as the output of an MCP server."""
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    noted: list[bytes] = []

    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[SessionMessage | Exception](math.inf)

        async def next_piece() -> bytes:
            await trio.lowlevel.checkpoint()
            return pieces.pop() if pieces else b""

        await read_messages(next_piece, to=send, note=noted.append)
        send.close()
        receive.close()

    trio.run(main)
    assert not noted


@pytest.mark.parametrize(
    ("feed", "room", "line"),
    [
        (feed_events, "drivers/wire/_sse.py", b"\n"),
        (feed_events, "drivers/wire/_sse.py", b"\r\n"),
        (feed_events, "drivers/wire/_sse.py", b"\r"),
        (feed_messages, "tools/mcp/_message_lines.py", b"\n"),
        (feed_messages, "tools/mcp/_message_lines.py", b"\r\n"),
        (feed_messages, "tools/mcp/_message_lines.py", b" \t\n"),
    ],
    ids=lambda one: getattr(one, "__name__", ascii(one)),
)
def test_empty_lines_take_steps_by_the_piece(
    feed: Callable[[bytes], None], room: str, line: bytes
) -> None:
    """And not by the line: four megabytes of them took seconds in which no agent moved."""

    def steps(pieces: int) -> int:
        data = (line * PIECE)[: pieces * PIECE // len(line) * len(line)]
        return lines_run(lambda: feed(data), room)

    assert 0 < steps(1) <= MOST_STEPS
    assert steps(len(line)) <= MOST_STEPS * len(line)


def test_empty_lines_between_events_are_no_events() -> None:
    """However many there are, and however they are cut."""
    for at in range(len(WHOLE)):
        parser = SseParser()
        events = [*parser.feed(WHOLE[:at]), *parser.feed(WHOLE[at:])]
        assert [event.data for event in events] == ["a", "b"]


@pytest.mark.parametrize("line", [b"\n", b" \n", b"[]\n", b"x\n"])
def test_lines_of_a_trace_that_are_no_objects_are_not_decoded(line: bytes) -> None:
    """They are damaged: a decoder, and its error, take ten times as long as to see that."""
    given = [HEADER, *([line] * 1000)]
    assert parse_trace(given).problems == ("1,000 lines are damaged",)
    assert lines_run(lambda: parse_trace(given), "observe/_trace.py") <= 7 * len(given)
