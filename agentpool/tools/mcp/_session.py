"""Sessions with MCP servers. No other module uses the SDK's client.

Loaded when the first server is started, since loading takes 0.6 s. A session lives in the task that
opened it; any task can make calls, and the server learns when one is cancelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, assert_never, cast, final

import anyio
import attrs
import httpx2
import mcp_types as types
import trio
from mcp.client import Client
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from agentpool._errors import ToolError
from agentpool._manifest.parts import McpServerConfig, McpTransport
from agentpool._messages import Json
from agentpool.abc import ToolResult
from agentpool.tools._idempotency_key import KEY_IN_META
from agentpool.tools.mcp._child import DYING_SECONDS, Child, open_child
from agentpool.tools.mcp._http import open_http_client
from agentpool.tools.mcp._message_lines import (
    MAX_MESSAGE_BYTES,
    Incoming,
    read_messages,
    write_messages,
)
from agentpool.tools.mcp._repaired_messages import MAX_REMOTE_NAME_CHARS, Faults, mend_streams
from agentpool.tools.mcp._secrets import Secrets
from agentpool.tools.mcp._tool_views import (
    MAX_HINT_CHARS,
    hidden_sign,
    one_line,
    read_result,
    shown_description,
    shown_schema,
)
from agentpool.tools.mcp._trimmed import MAX_TOOLS

_QUEUED_MESSAGES: Final = 256
"""The most messages that wait for a server that does not read them. This many calls can be
cancelled without waiting for the server."""


@final
@attrs.frozen
class ListedTool:
    """A tool as its server describes it, cleaned for a model."""

    name: str
    """The tool's name on the server, which may be any text."""
    description: str
    """What the tool does, and which server it comes from."""
    input_schema: Mapping[str, object]
    """The JSON Schema of its arguments."""


@final
@attrs.define(eq=False, repr=False)
class Life:
    """The state of a session: whether it is alive, and why it ended."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when the session can no longer be used."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """Set when everything is closed."""
    why: str = ""
    """Why the session ended. Empty: not known yet."""
    last_words: str = ""
    """The server's last output, to append to a sentence. Empty: unknown."""

    def end(self, why: str) -> None:
        """Mark the session as ended."""
        self.why = self.why or why
        self.ended.set()


@final
@attrs.define(eq=False, repr=False)
class Session:
    """An open session."""

    tools: tuple[ListedTool, ...]
    """The server's tools, as it listed them at the start."""
    faults: Faults
    """The faults of listed tools that cannot be used, by their names."""
    life: Life
    _server: str
    _client: Client
    answered: bool = False
    """Whether any call was answered, even with an error."""

    async def call(self, tool: str, arguments: Mapping[str, Json], *, key: str = "") -> ToolResult:
        """Call *tool* and return its result.

        Args:
            tool: The tool's name on the server.
            arguments: The arguments of the call.
            key: The key of the call, which stays the same if the call is made again. Empty: no key.

        Raises:
            ToolError: If the server refuses the call, answers with something other than a result,
                or ends before it has answered.

        Cancellation:
            The server learns that the call is given up.
        """
        params = types.CallToolRequestParams(name=tool, arguments=dict(arguments))
        if key:
            params.meta = cast("types.RequestParamsMeta", {KEY_IN_META: key})
        try:
            # Not the client's call_tool(): it checks the result against the server's own
            # schema, and a pattern in it may have been written to take for ever.
            result = await self._client.session.send_request(
                types.CallToolRequest(params=params), types.CallToolResult
            )
        except MCPError as exc:
            refused = exc
        except ValidationError as exc:
            self.answered = True
            raise ToolError(self._say("sent an answer that is not a tool result")) from exc
        else:
            self.answered = True
            return read_result(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        if not _means_lost(refused):
            self.answered = True
            raise ToolError(self._say(f"refused: {_say(refused)}")) from refused
        self.life.end("")
        if not self.life.why:
            with trio.move_on_after(DYING_SECONDS):
                await self.life.over.wait()
        why = self.life.why or _say(refused)
        text = f"ended before it answered, so it may or may not be done: {why}"
        raise ToolError(self._say(text)) from refused

    def _say(self, text: str) -> str:
        return f"the MCP server {self._server!r} {text}"


@contextlib.asynccontextmanager
async def open_session(
    config: McpServerConfig,
    environment: Mapping[str, str],
    *,
    token: str | None,
    secrets: Secrets,
    life: Life,
) -> AsyncGenerator[Session]:
    """Open a session with a server, starting it if it is a program.

    Args:
        config: Which server.
        environment: The environment variables of the server's program.
        token: The bearer token for an HTTP server. ``None``: none is sent.
        secrets: Texts that are removed from the server's messages before the SDK reads them.
        life: Marked when the session can no longer be used.

    Raises:
        ExceptionGroup: Everything that went wrong. ``tell`` puts the errors into words.
    """
    match config.transport:
        case McpTransport.STDIO:
            opening = _open_stdio(config, environment, secrets, life)
        case McpTransport.HTTP:
            opening = _open_http(config, token, secrets)
        case _:
            assert_never(config.transport)
    faults: Faults = {}
    async with Client(_mended(opening, faults, life), cache=None) as client:
        tools = await _list_tools(client, config.name, faults)
        yield Session(tools, faults, life, config.name, client)


@contextlib.asynccontextmanager
async def _mended(
    opening: AbstractAsyncContextManager[TransportStreams], faults: Faults, life: Life
) -> AsyncGenerator[TransportStreams]:
    async with opening as streams:
        yield mend_streams(streams, faults, life.end)


async def _list_tools(client: Client, server: str, faults: Faults) -> tuple[ListedTool, ...]:
    found: dict[str, ListedTool] = {}
    cursor: str | None = None
    capabilities = client.session.server_capabilities
    while len(found) < MAX_TOOLS:
        before = len(found)
        params = types.PaginatedRequestParams(cursor=cursor)
        try:
            page = await client.session.list_tools(params=params)
        except MCPError as error:
            if capabilities is not None and capabilities.tools is None:
                # It never said that it has any: it may have resources alone.
                return ()  # noqa: ASYNC910  # it has answered
            raise ToolError(f"it answered the request for its tools with {_say(error)}") from error
        except ValidationError as error:
            raise ToolError("it did not answer the request for its tools with a list") from error
        for tool in page.tools:
            # Of a page no more than are kept: the others cost time, and are never seen.
            if len(found) < MAX_TOOLS and tool.name not in found:
                description = shown_description(server, tool.description)
                schema = shown_schema(tool.input_schema)
                if sign := hidden_sign(schema):
                    where = "inputSchema: a name or a value has the invisible character"
                    known = one_line(tool.name, MAX_REMOTE_NAME_CHARS)
                    faults[known] = f"{where} U+{ord(sign):04X}"
                    continue
                found[tool.name] = ListedTool(tool.name, description, schema)
        cursor = page.next_cursor
        # A page that brings nothing new would be followed by more of them.
        if cursor is None or len(found) == before:
            break
    return tuple(found.values())[:MAX_TOOLS]  # noqa: ASYNC910  # it has asked at least once


@contextlib.asynccontextmanager
async def _open_stdio(
    config: McpServerConfig, environment: Mapping[str, str], secrets: Secrets, life: Life
) -> AsyncGenerator[TransportStreams]:
    async with (
        open_child(config.command, environment, secrets) as child,
        trio.open_nursery() as nursery,
    ):
        into, arriving = anyio.create_memory_object_stream[Incoming](0)
        leaving, queued = anyio.create_memory_object_stream[SessionMessage](_QUEUED_MESSAGES)
        reading, read, drained = trio.CancelScope(), trio.Event(), trio.Event()

        async def read_all() -> None:  # noqa: ASYNC910  # to receive is a checkpoint
            # Whoever waits for an answer learns that none will come when `into` closes,
            # and can say why.
            with into:
                why = ""
                with reading:
                    try:
                        await read_messages(child.receive, into, note=child.note)
                    except ToolError as error:
                        why = str(error)
                read.set()
                life.end(why or await _last_of(child, drained))

        async def write_all() -> None:  # noqa: ASYNC910  # what it waits for is suppressed
            with queued, contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await write_messages(queued, child.send)
            reading.cancel()  # it reads no more, so it will answer nothing more

        async def drain() -> None:  # noqa: ASYNC910  # see Child.drain
            await child.drain()
            drained.set()

        async def watch() -> None:
            # What it left behind may hold its pipes, and then they never end.
            await child.wait_died()
            with trio.move_on_after(DYING_SECONDS):
                await read.wait()
            reading.cancel()

        for task in (read_all, write_all, drain, watch):
            nursery.start_soon(task)
        try:
            yield arriving, leaving
        finally:
            life.last_words = f"; {child.last_words()}"
            nursery.cancel_scope.cancel()
            for stream in (into, arriving, leaving, queued):
                stream.close()


async def _last_of(child: Child, drained: trio.Event) -> str:
    with trio.move_on_after(DYING_SECONDS):
        await drained.wait()
    return await child.say_how()


@contextlib.asynccontextmanager
async def _open_http(
    config: McpServerConfig, token: str | None, secrets: Secrets
) -> AsyncGenerator[TransportStreams]:
    assert config.url is not None  # noqa: S101  # the manifest has seen to it
    # The SDK follows no redirect to another host. Who waits how long is ours to say.
    async with (
        open_http_client(token, secrets) as client,
        streamable_http_client(
            config.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES
        ) as streams,
    ):
        yield streams


# --- what went wrong, in words


def _means_lost(error: MCPError) -> bool:
    """Return whether the session can no longer answer calls."""
    # What the SDK says by itself, the second of an HTTP server that does not know the session.
    # Not the code alone: servers use the same one for whatever they like.
    return error.message in {"Connection closed", "Session terminated"}


def tell(error: Exception) -> str:
    """Put into words what went wrong with a session."""
    # What the groups hold besides is the same end, as other tasks saw it.
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    match error:
        case ToolError():
            return str(error)
        case MCPError():
            return f"it answered the handshake with an error: {_say(error)}"
        case httpx2.HTTPError():
            text = one_line(str(error), MAX_HINT_CHARS)
            return f"the connection failed: {type(error).__name__}: {text}"
        case ValidationError():
            return "it answered the handshake with something that is not an MCP"
        case _:
            return f"{type(error).__name__}: {one_line(str(error), MAX_HINT_CHARS)}"


def _say(error: MCPError) -> str:
    return f"{one_line(error.message, MAX_HINT_CHARS)} (code {error.code})"
