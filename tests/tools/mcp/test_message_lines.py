"""Messages on the pipes of an MCP server."""

from __future__ import annotations

import math

import anyio
import pytest
from mcp.shared.message import SessionMessage

from agentpool import ToolError
from agentpool.tools.mcp._message_lines import MAX_NODES, has_too_many_nodes, read_messages


async def test_reading_ends_when_nobody_wants_the_messages() -> None:
    """A session that has ended closes its side, while its server may go on talking."""
    send, receive = anyio.create_memory_object_stream[SessionMessage | Exception](math.inf)
    noted: list[bytes] = []
    asked = 0

    async def talk() -> bytes:
        nonlocal asked
        asked += 1
        await anyio.lowlevel.checkpoint()
        if asked == 2:
            receive.close()
        return b'{"jsonrpc": "2.0", "method": "a"}\n'

    await read_messages(talk, to=send, note=noted.append)
    send.close()
    assert (asked, noted) == (2, [])


LARGE = b'{"jsonrpc":"2.0","method":"a","params":{"more":"' + b"x" * 20_000 + b'"}}\n'


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf  \n\t\n", b"  \n", LARGE])
async def test_lines_that_say_nothing_are_no_messages(before: bytes) -> None:
    """Some servers indent, and of a large message without a question or an answer none is used.

    Nothing of them is shown as what is no message.
    """
    pieces = [before, b'{"jsonrpc":"2.0","method":"a"}\n', b""]
    notes: list[bytes] = []
    to, arrived = anyio.create_memory_object_stream[SessionMessage | Exception](9)

    async def receive() -> bytes:
        await anyio.lowlevel.checkpoint()
        return pieces.pop(0)

    with to, arrived:
        await read_messages(receive, to, note=notes.append)
        assert arrived.statistics().current_buffer_used == 1
    assert notes == []


@pytest.mark.parametrize("part", [b"{}", b"[]"])
async def test_a_message_of_too_many_parts_ends_its_server(part: bytes) -> None:
    """A line that is no message, of 16 MB of them, took 12 s and some gigabytes."""
    line = b"[" + (part + b",") * MAX_NODES + b"1]\n"
    to, arrived = anyio.create_memory_object_stream[SessionMessage | Exception](9)

    async def receive() -> bytes:
        await anyio.lowlevel.checkpoint()
        return line

    with to, arrived, pytest.raises(ToolError, match="more than 500,000 objects and lists"):
        await read_messages(receive, to, note=lambda _: None)


def test_brackets_in_texts_are_no_parts() -> None:
    """A tool may return a document of them."""
    text = rb'{"a":"' + rb"[{\"" * MAX_NODES + rb'"}'
    assert not has_too_many_nodes(text)
    assert not has_too_many_nodes(b"[" * MAX_NODES)
    assert has_too_many_nodes(text + b"{" * MAX_NODES)
