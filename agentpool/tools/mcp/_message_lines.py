"""MCP messages over a pair of pipes, one per line, for client and server.

The SDK's own code is not used. Its client stores lines of any length, and copies them for every
piece that arrives. Its server reads standard input in a thread that no cancellation ends.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, final

import anyio
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from agentpool._errors import ToolError
from agentpool.tools.mcp._trimmed import trimmed

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""The largest message: a screenshot of a large display is 10 MB in base64. Reading this much takes
0.1 s, during which no other agent can run."""

MAX_NODES: Final = 500_000
"""The most objects and lists of one message. Each of them takes 300 bytes when the message is read,
and ten times as much if the line is not a valid message. Reading 16 MB of objects and lists took 12
seconds and some gigabytes."""

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)

Incoming: TypeAlias = SessionMessage | Exception
"""What the SDK's sessions read. The SDK's own code passes an exception for a line that is not a
message; this module never does."""

# Passed over at once: a server that writes nothing else takes no time from agents.
_BLANK_LINES: Final = re.compile(rb"\n[ \t\r\n]*\n")


@final
@attrs.define(eq=False)
class LineSplitter:
    """Splits bytes into lines, looking at each byte once. Joins several blank lines into one."""

    _limit: int = MAX_MESSAGE_BYTES
    _rest: bytearray = attrs.field(factory=bytearray)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* completes.

        Raises:
            ToolError: If a line is longer than the limit.
        """
        first, *others = _BLANK_LINES.sub(b"\n", data).split(b"\n")
        self._rest += first
        lines: list[bytes] = []
        for other in others:
            lines.append(bytes(self._rest))
            self._rest = bytearray(other)
        # The pieces are smaller than the limit, so only what was collected can pass it.
        if max(len(self._rest), *map(len, lines), 0) > self._limit:
            raise ToolError(f"it sent a message of more than {self._limit:,} bytes")
        return lines


def nodes_in(data: bytes) -> int:
    """Return how many objects and lists begin in *data*, including those inside texts."""
    return data.count(b"{") + data.count(b"[")


def has_too_many_nodes(line: bytes) -> bool:
    """Return whether *line*, a whole message, has more objects and lists than the limit."""
    # Those in texts cost nothing, and are looked for only where it matters.
    return nodes_in(line) > MAX_NODES and nodes_in(_TEXT.sub(b"", line)) > MAX_NODES


async def read_messages(
    receive: Callable[[], Awaitable[bytes]],
    to: MemoryObjectSendStream[Incoming],
    *,
    note: Callable[[bytes], object],
) -> None:
    """Read messages until the input ends or the receiver has closed.

    Args:
        receive: Returns the next bytes, or no bytes at the end.
        to: Where the messages go.
        note: Called with each line that is not a message.

    Raises:
        ToolError: If a message is too long, or has too many parts.
    """
    splitter = LineSplitter()
    begun = False
    while data := await receive():
        for line in splitter.feed(data):
            # Programs on Windows write a mark before their first line.
            line = line if begun else line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
            begun = True
            if line.isspace() or not line:
                continue
            if has_too_many_nodes(line):
                raise ToolError(f"it sent a message of more than {MAX_NODES:,} objects and lists")
            try:
                used = trimmed(line)
                if not used:
                    continue
                message = jsonrpc_message_adapter.validate_json(used, by_name=False)
            except ValueError:
                note(line + b"\n")
                continue
            try:
                await to.send(SessionMessage(message))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                return


async def write_messages(
    messages: MemoryObjectReceiveStream[SessionMessage], send: Callable[[bytes], Awaitable[None]]
) -> None:
    """Write *messages* until there are no more.

    Raises:
        trio.BrokenResourceError, OSError: If *send* raises this error, because the messages are not
            read.
    """
    async for one in messages:
        line = one.message.model_dump_json(by_alias=True, exclude_unset=True)
        await send(line.encode() + b"\n")
