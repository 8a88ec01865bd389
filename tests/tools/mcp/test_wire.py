"""Messages on the pipes of an MCP server."""

from __future__ import annotations

import math

import anyio
from mcp.shared.message import SessionMessage

from agentpool.tools.mcp._wire import read_messages


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


async def test_lines_of_blanks_are_no_messages() -> None:
    """Some servers indent, and none of it is shown as what is no message."""
    pieces = [b"\xef\xbb\xbf  \n\t\n", b'  \n{"jsonrpc":"2.0","method":"a"}\n', b""]
    notes: list[bytes] = []
    to, arrived = anyio.create_memory_object_stream[SessionMessage | Exception](9)

    async def receive() -> bytes:
        await anyio.lowlevel.checkpoint()
        return pieces.pop(0)

    with to, arrived:
        await read_messages(receive, to, note=notes.append)
        assert arrived.statistics().current_buffer_used == 1
    assert notes == []
