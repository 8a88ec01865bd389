"""Limits and repairs a server's messages before the SDK checks them.

The SDK refuses a whole answer because of one bad part. Messages that are too large have already
been cut when they arrive here. Rules:

1. From a list of tools, the tools with a valid description are kept, with the fields that are used.
   Every other tool is named, together with its fault.
2. A server that keeps sending requests but does not read the answers is disconnected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Generic, Self, TypeAlias, TypeVar, cast, final

import mcp_types as types
import msgspec
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse
from mcp_types.methods import validate_server_result
from pydantic import ValidationError

from agentpool.tools.mcp._tool_views import MAX_HINT_CHARS, one_line
from agentpool.tools.mcp._trimmed import MAX_RAW_SCHEMA_BYTES, MAX_TOOLS

MAX_REMOTE_NAME_CHARS: Final = 256
"""The longest name of a tool on its server. The specification recommends 128."""

MAX_UNANSWERED: Final = 256
"""The most requests (such as pings) that a server may send without reading our answers."""

_VERSION: Final = "2025-11-25"
"""The version of the protocol by which tools are checked. Later versions only allow more fields,
which are not used."""

S = TypeVar("S", bound=ReadStream[SessionMessage | Exception] | WriteStream[SessionMessage])

Faults: TypeAlias = dict[str, str]
"""The faults of the tools that are left out, by the tools' names."""


def mend_tools(result: dict[str, object], faults: Faults) -> None:
    """Keep the tools of a list that have a valid description, and record the faults of the others.

    Args:
        result: The server's answer, which is changed in place.
        faults: Gets the faults of the tools that are left out.
    """
    listed = result.get("tools")
    if not isinstance(listed, list):
        return
    kept: list[object] = []
    for place, tool in enumerate(cast("list[object]", listed)[:MAX_TOOLS]):
        known: Mapping[str, object] = {}
        if isinstance(tool, Mapping):
            known = cast("Mapping[str, object]", tool)
        if len(msgspec.json.encode(known.get("inputSchema"))) > MAX_RAW_SCHEMA_BYTES:
            # It is left out in the end, and to look at each part of it stands still.
            known = {**known, "inputSchema": {"type": "object"}}
        name = known.get("name")
        if fault := _fault_of(known):
            shown = one_line(name, MAX_REMOTE_NAME_CHARS) if isinstance(name, str) else ""
            faults[shown or f"number {place + 1}"] = fault
            continue
        # What is not used of it may be faulty, or megabytes.
        kept.append(
            {key: known[key] for key in ("name", "description", "inputSchema") if key in known}
        )
    result["tools"] = kept


def _fault_of(tool: Mapping[str, object]) -> str:
    """Return the fault in the description of a tool. Empty: the description has no fault."""
    name = tool.get("name")
    if isinstance(name, str) and len(name) > MAX_REMOTE_NAME_CHARS:
        return (
            f"its name has {len(name):,} characters; no more than {MAX_REMOTE_NAME_CHARS} are taken"
        )
    used = {key: tool[key] for key in ("name", "description", "inputSchema") if key in tool}
    try:
        types.Tool.model_validate(used, by_name=False)
        validate_server_result("tools/list", _VERSION, {"tools": [used]})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in {"tools", 0})
        return one_line(f"{where}: {first['msg']}", MAX_HINT_CHARS)
    return ""


class _Around(Generic[S]):
    """Wraps a stream of the SDK, and is closed with it."""

    def __init__(self, inner: S) -> None:
        self._inner: S = inner

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)  # noqa: ASYNC102  # the inner one's own way out


@final
class _Reader(_Around[ReadStream[SessionMessage | Exception]]):
    """Reads messages, and repairs them."""

    def __init__(
        self,
        inner: ReadStream[SessionMessage | Exception],
        faults: Faults,
        end: Callable[[str], object],
    ) -> None:
        super().__init__(inner)
        self._faults = faults
        self._end = end
        self.unanswered = 0

    @property
    def last_context(self) -> object:
        """The context of the last message, which the SDK asks for."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return await anext(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        item = await anext(self._inner)
        if isinstance(item, Exception):
            return item
        match item.message:
            case JSONRPCResponse(result=result):
                mend_tools(result, self._faults)
            case JSONRPCRequest():
                self.unanswered += 1
                if self.unanswered > MAX_UNANSWERED:
                    self._end("it goes on asking, and reads no answers")
                    raise StopAsyncIteration
            case JSONRPCNotification(method="notifications/cancelled"):
                self.answered()  # it will not be answered any more
            case _:
                pass
        return item

    def answered(self) -> None:
        """Count down the requests that wait for answers."""
        self.unanswered = max(self.unanswered - 1, 0)


@final
class _Writer(_Around[WriteStream[SessionMessage]]):
    """Writes messages, and counts which requests of the server are answered."""

    def __init__(self, inner: WriteStream[SessionMessage], reader: _Reader) -> None:
        super().__init__(inner)
        self._reader = reader

    async def send(self, item: SessionMessage, /) -> None:
        await self._inner.send(item)
        if isinstance(item.message, (JSONRPCResponse, JSONRPCError)):
            self._reader.answered()


def mend_streams(
    streams: TransportStreams, faults: Faults, end: Callable[[str], object]
) -> TransportStreams:
    """Return *streams* with the server's messages limited and repaired.

    Args:
        streams: The messages from the server, and those to it.
        faults: Gets the faults of its tools, by their names.
        end: Called with the reason when the server is disconnected.
    """
    reading, writing = streams
    reader = _Reader(reading, faults, end)
    return reader, _Writer(writing, reader)
