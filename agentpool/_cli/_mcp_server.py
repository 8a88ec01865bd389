"""A pool as an MCP server, through the official SDK: over pipes, or over HTTP.

This is the server side; ``agentpool.tools`` has the client. Only ``agentpool serve`` loads it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, cast, final

import anyio
import attrs
import hypercorn.trio
import mcp_types as types
import trio
from hypercorn.typing import ASGIFramework
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage

from agentpool import AgentPool, AgentPoolError, RestartPolicy, SpawnConfig
from agentpool._background import background
from agentpool._cli._command import Options
from agentpool._cli._hidden_keys import hide_keys
from agentpool._cli._mcp_sessions import SessionRoom
from agentpool._cli._mcp_tools import (
    QUERY_SCHEMA,
    Answer,
    Offer,
    Progress,
    ProgressDesk,
    read_outcome,
    read_query,
)
from agentpool.tools.mcp._message_lines import Incoming, read_messages, write_messages

PROGRESS_SECONDS: Final = 0.25
"""Seconds between two notifications about one call: often enough for a person who watches."""

MAX_SESSIONS: Final = 100
"""The most sessions of clients over HTTP. Each session takes memory, and time when the server
ends."""

IDLE_SESSION_SECONDS: Final = 60.0
"""Seconds until a session is ended whose client has gone or does nothing. The client may begin a
new session. A session with a request or an event stream under way is not idle. If there are too
many sessions, the session whose last request is the oldest is ended."""

_HTTP_PORT: Final = 80

_PIECE_BYTES: Final = 65_536

# For what was written last to reach a client that has closed its end.
_FLUSH_SECONDS: Final = 1.0

_ONCE: Final = RestartPolicy(restart="never")

_Context = ServerRequestContext[Any, Any]


@final
@attrs.define(eq=False)
class PoolServer:
    """Answers MCP clients with the agents of a pool."""

    _pool: AgentPool
    _offers: dict[str, Offer]
    _desk: ProgressDesk
    _options: Options

    def build(self, version: str) -> Server[Any]:
        """Build the SDK's server, to be run over a transport."""
        return Server(
            "agentpool",
            version=version,
            instructions="Each tool is an agent: it is asked in words and answers in words.",
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def _list_tools(
        self,
        context: _Context,  # noqa: ARG002  # every client is offered the same
        params: types.PaginatedRequestParams | None,  # noqa: ARG002  # there is one page
    ) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        tools = [
            types.Tool(
                name=offer.name, description=offer.description, input_schema=dict(QUERY_SCHEMA)
            )
            for offer in self._offers.values()
        ]
        return types.ListToolsResult(tools=tools)

    async def _call_tool(
        self, context: _Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        await trio.lowlevel.checkpoint()
        offer = self._offers.get(params.name)
        if offer is None:
            names = ", ".join(self._offers)
            text = f"there is no agent {params.name!r}; there are {names}"
            raise MCPError(types.INVALID_PARAMS, text)
        name, progress = self._desk.open(offer)
        try:
            answer = await self._ask(offer, name, params.arguments, context.session, progress)
        except AgentPoolError as error:
            answer = Answer(hide_keys(str(error)), is_error=True, data={})
        finally:
            self._desk.close(name)
        return types.CallToolResult(
            content=[types.TextContent(text=answer.text)],
            structured_content=dict(answer.data) or None,
            is_error=answer.is_error,
        )

    async def _ask(
        self,
        offer: Offer,
        name: str,
        arguments: dict[str, Any] | None,
        session: ServerSession,
        progress: Progress,
    ) -> Answer:
        config = SpawnConfig(
            offer.manifest,
            read_query(arguments),
            name=name,
            deadline_seconds=self._options.deadline_seconds,
            memory_scope=self._options.memory_scope,
        )
        async with background() as nursery:
            nursery.start_soon(_report, session, progress)
            # An agent that need not be restarted: it ends with the request that wants
            # it, and the pool does not keep its outcome, as it does after a spawn.
            (outcome,) = await self._pool.supervise([config], _ONCE)
            return read_outcome(outcome)


async def _report(session: ServerSession, progress: Progress) -> None:
    while True:
        await progress.wait_news()
        await session.report_progress(progress.steps, None, progress.text)
        await trio.sleep(PROGRESS_SECONDS)


# --- over pipes


@contextlib.contextmanager
def claim_pipes() -> Generator[tuple[int, int]]:
    """Reserve standard input and output for messages until the end of the block.

    Meanwhile, other code that reads standard input finds nothing there, and everything that other
    code prints to standard output goes to standard error. Otherwise a stray ``print`` would garble
    the messages.

    Raises:
        OSError: If standard input or standard output is closed.
    """
    read_fd, write_fd = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    try:
        yield read_fd, write_fd
    finally:
        # The copies stay open: a thread may still read, and must not overlap another file.
        os.dup2(read_fd, 0)
        os.dup2(write_fd, 1)


async def serve_pipes(
    server: Server[Any], read_fd: int, write_fd: int, *, note: Callable[[bytes], object]
) -> None:
    """Serve one client until it closes its end of *read_fd*.

    Args:
        server: The server.
        read_fd: The descriptor with the client's messages.
        write_fd: The descriptor for the answers.
        note: Called with each line that is not a message.

    Raises:
        ToolError: If a message is too long.
    """

    async def receive() -> bytes:
        # In a thread, for what is read may be a file or a terminal, and one that is left
        # alone when this ends: it waits for input that may never come.
        return await trio.to_thread.run_sync(os.read, read_fd, _PIECE_BYTES, abandon_on_cancel=True)

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(write_fd, rest) :]

    async def send(data: bytes) -> None:
        await trio.to_thread.run_sync(write, data, abandon_on_cancel=True)

    into, arriving = anyio.create_memory_object_stream[Incoming](0)
    leaving, queued = anyio.create_memory_object_stream[SessionMessage](0)
    written = trio.Event()

    async def write_all() -> None:  # noqa: ASYNC910  # what it waits for is suppressed
        with queued, contextlib.suppress(OSError):  # it is not read any more
            await write_messages(queued, send)
        written.set()
        into.close()  # then there is no point in asking either

    async def read_all() -> None:
        with into:
            await read_messages(receive, into, note=note)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all)
            nursery.start_soon(write_all)
            await server.run(arriving, leaving, server.create_initialization_options())
            leaving.close()
            with trio.move_on_after(_FLUSH_SECONDS):
                await written.wait()
            nursery.cancel_scope.cancel()
    finally:
        for stream in (into, arriving, leaving, queued):
            stream.close()


# --- over HTTP


async def serve_http(
    server: Server[Any], listener: socket.socket, *, wait_end: Callable[[], Awaitable[None]]
) -> None:
    """Serve all clients that connect to *listener*, until *wait_end* returns.

    Args:
        server: The server, at ``/mcp``.
        listener: A listening socket on a loopback address. It is closed at the end.
        wait_end: Returns when it is time to end.
    """
    host, port, *_ = listener.getsockname()
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = _FLUSH_SECONDS
    names = [f"[{host}]" if ":" in host else host, "localhost"]
    places = [f"{name}:{port}" for name in names] + (names if port == _HTTP_PORT else [])
    # A browser's page must not reach it by a name that leads here. The SDK looks only if it
    # is told to, or for three spellings of this machine's address.
    security = TransportSecuritySettings(
        allowed_hosts=places, allowed_origins=[f"http://{place}" for place in places]
    )
    app = server.streamable_http_app(
        host=host,
        transport_security=security,
        max_sessions=MAX_SESSIONS,
        session_idle_timeout=IDLE_SESSION_SECONDS,
    )
    hosts, origins = ([one.encode() for one in some] for some in (places, security.allowed_origins))
    room = cast("ASGIFramework", SessionRoom(app, MAX_SESSIONS, hosts, origins))
    serve = hypercorn.trio.serve  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # its WSGI half has no types
    await serve(room, config, shutdown_trigger=wait_end, mode="asgi")
