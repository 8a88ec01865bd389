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
