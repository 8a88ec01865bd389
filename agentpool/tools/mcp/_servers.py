"""MCP servers shared by agents: started on demand, restarted, ended with the block.

Rules:

1. A server has one session, owned by the block, not by an agent or a call. It starts when the first
   agent that may call one of its tools is set up; that agent holds no slot while it waits. Agents
   whose manifests name the same server share it if they have the same privacy tier.
2. If a server cannot start, dies or hangs, only the calls that use it fail, with an error that says
   what happened.
3. Such a server is started again when it is next needed. A server that has been started three times
   in a row without answering a call is given up for good.
4. A server gets the environment variables that every program needs, and those that its manifest
   names. The values of the latter are redacted in its output.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import AsyncGenerator, Mapping
from contextvars import Context, copy_context
from importlib import import_module
from typing import TYPE_CHECKING, Final, final

import attrs
import msgspec
import trio

from agentpool._base import Shown, Unique
from agentpool._block_errors import raise_unless_cancelled
from agentpool._checks import expect_arguments
from agentpool._environ import build_environ
from agentpool._errors import ToolError, UsageError
from agentpool._install import as_installed
from agentpool._manifest.capability import Capability, PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._manifest.parts import McpServerConfig
from agentpool._messages import Json, ToolDefinition
from agentpool._needs_trio import check_trio
from agentpool._opening import opening
from agentpool._scheduling.owner import as_bystander
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait
from agentpool._secrets import remember_secrets
from agentpool.abc import AgentContext, OnUnknown, Tool, ToolContext, ToolResult
from agentpool.tools._idempotency_key import key_for_others
from agentpool.tools._registry import ToolRegistry
from agentpool.tools.mcp._child import GRACE_SECONDS
from agentpool.tools.mcp._secrets import Secrets
from agentpool.tools.mcp._tool_views import (
    ToolKey,
    offered_tools,
    read_arguments,
    tool_names,
    wants_server,
)

if TYPE_CHECKING:
    from agentpool.tools.mcp._session import ListedTool, Session

_log: Final = logging.getLogger("agentpool")

MAX_FAILURES: Final = 3
"""How many starts in a row may fail. A server that is overloaded for a moment recovers within this
many starts, and a broken server does not cost every agent a handshake."""


@final
@attrs.frozen(eq=False, repr=False)
class McpTool(Tool):
    """One tool of an MCP server."""

    _server: _Server
    _remote_name: str
    _definition: ToolDefinition
    _on_unknown: OnUnknown

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model sees it."""
        return self._definition

    @property
    def capability(self) -> Capability:
        """The grant that the agent needs: this server and this tool."""
        return Capability.mcp(self._server.config.name, self._remote_name)

    @property
    def on_unknown(self) -> OnUnknown:
        """What to do with a call that had begun when the program ended."""
        return self._on_unknown

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Call the tool; if its server has ended, restart it first.

        The server gets the call's key, but learns nothing about the agent.

        Raises:
            ToolError: If the arguments are not a JSON object, or the server does not answer.

        Cancellation:
            The server learns that the call is given up.
        """
        await trio.lowlevel.checkpoint()
        key = key_for_others(context)
        return await self._server.call(self._remote_name, read_arguments(arguments), key)


@final
@attrs.define(eq=False, repr=False)
class _Start:
    """A start of a server, and the calls that wait for it."""

    scope: trio.CancelScope
    done: trio.Event = attrs.field(factory=trio.Event)
    session: Session | None = None
    why: str = "the block in which it would have run has ended"


@final
@attrs.define(eq=False, repr=False)
class _Server:
    config: McpServerConfig
    _environ: Mapping[str, str]
    _start_seconds: float
    _nursery: trio.Nursery
    _context: Context
    """The context variables of the block: it serves many agents, and is none's."""
    _start: _Start | None = None
    _session: Session | None = None
    _failures: int = 0
    _why: str = ""
    _closed: bool = False
    _secrets: Secrets = attrs.field(factory=Secrets)
    """The secrets that the server was given, which are removed from its output."""

    def begin(self) -> None:
        """Start the server if it is needed and may be started.

        ``wait_session`` waits for the start.
        """
        open_already = self._session is not None and not self._session.life.ended.is_set()
        if open_already or self._closed or self._start or self._failures >= MAX_FAILURES:
            return
        self._session = None
        self._failures += 1  # until a call is answered, this start has come to nothing
        deadline = trio.current_time() + self._start_seconds
        self._start = _Start(trio.CancelScope(deadline=deadline))
        self._context.run(self._start_soon, self._start)

    def _start_soon(self, start: _Start) -> None:
        with as_bystander():
            self._nursery.start_soon(self._keep, start, name=f"MCP server {self.config.name}")

    async def wait_session(self) -> Session:
        """Return the open session. While the server starts, the agent holds no slot.

        Raises:
            ToolError: If no session can be used. The error says why.
        """
        await trio.lowlevel.checkpoint()
        name = self.config.name
        if self._session is not None and not self._session.life.ended.is_set():
            return self._session
        if self._closed:
            raise ToolError(
                f"the MCP server {name!r} is closed: the block that started it has ended"
            )
        if self._failures >= MAX_FAILURES and self._start is None:
            session = self._session
            why = self._why if session is None else self._secrets.redact(session.life.why)
            raise ToolError(
                f"the MCP server {name!r} is gone after {MAX_FAILURES} starts; the last one: {why}"
            )
        self.begin()
        start = self._start
        assert start is not None  # noqa: S101  # the other cases are above
        async with parked(Wait.other(f"the start of the MCP server {name!r}")):
            await start.done.wait()
        if start.session is None:
            raise ToolError(f"the MCP server {name!r} could not be started: {start.why}")
        return start.session

    async def call(self, tool: str, arguments: Mapping[str, Json], key: str) -> ToolResult:
        """Call *tool*.

        Raises:
            ToolError: If the server does not answer. The error says why.
        """
        session = await self.wait_session()
        try:
            result = await session.call(tool, arguments, key=key)
        except ToolError as error:
            self._failures = 0 if session.answered else self._failures
            # The same error with other words: a second one would have the first for its
            # cause, and a traceback would show the key that was redacted.
            error.args = (self._secrets.redact(str(error)),)
            raise error from None
        self._failures = 0
        return msgspec.structs.replace(result, content=self._secrets.redact(result.content))

    def close(self) -> None:
        """Ask the server to end, and never start it again."""
        self._closed = True
        if self._session is not None:
            self._session.life.end("the block in which it ran has ended")
        if self._start is not None:
            self._start.scope.cancel()

    async def _keep(self, start: _Start) -> None:  # noqa: ASYNC910  # the session has checkpoints
        """Start the server and hold its session until the server or the block ends."""
        why = ""
        try:
            why = await self._hold(start)
        finally:
            start.why = self._secrets.redact(why) or start.why
            if self._start is start:  # it came to nothing
                self._start = None
            if start.session is not None:
                start.session.life.end(start.why)
                start.session.life.over.set()
            self._why = start.why
            start.done.set()

    async def _hold(self, start: _Start) -> str:
        """Hold the session. Return why it could not be opened, or why it ended."""
        try:
            # In a thread, for it takes 0.6 s, in which other agents can go on.
            await trio.to_thread.run_sync(import_module, "agentpool.tools.mcp._session")
            from agentpool.tools.mcp import _session as door  # noqa: PLC0415  # the extra is optional
        except ImportError as error:
            how = as_installed("run: pip install 'trio-agentpool[mcp]'")
            return f"it needs the package mcp ({error}); {how}"  # noqa: ASYNC910  # a thread was waited for
        life = door.Life()
        try:
            environment, token = self._handed_on()
            given = [environment[name] for name in self.config.env]
            self._secrets = Secrets.of([*given, token or ""])
            remember_secrets([token or ""])
            with start.scope:
                async with door.open_session(
                    self.config, environment, token=token, secrets=self._secrets, life=life
                ) as session:
                    # Opened, it may live for ever; ended, it is given a moment to close.
                    start.scope.deadline = math.inf
                    self._session = start.session = session
                    self._start = None
                    start.done.set()
                    for name, fault in session.faults.items():
                        text = self._secrets.redact(f"its tool {name!r} is left out: {fault}")
                        _log.warning("the MCP server %r: %s", self.config.name, text)
                    await life.ended.wait()
                    start.scope.deadline = trio.current_time() + GRACE_SECONDS
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this server's alone
            return life.why or door.tell(error)
        if start.session is None and not self._closed:
            seconds = f"{self._start_seconds:g} seconds"
            return f"it did not finish the handshake within {seconds}{life.last_words}"
        return life.why

    def _handed_on(self) -> tuple[dict[str, str], str | None]:
        """Return the environment for a program, and the token for an HTTP server."""
        also = ("SHELL", "TERM", *self.config.env)
        environment = build_environ(self._environ, also=also)
        token = None
        if self.config.api_key_env is not None:
            token = self._environ.get(self.config.api_key_env, "").strip()
        missing = [name for name in self.config.env if name not in self._environ]
        if token == "":
            missing.append(self.config.api_key_env or "")
        if missing:
            raise ToolError(
                f"the environment variable {missing[0]} is not set, or blank; set it, or take it "
                "out of the manifest"
            )
        return environment, token


@final
@attrs.define(eq=False, repr=False)
class McpServers(Unique, Shown):
    """The MCP servers of one block. Opened by ``open_mcp_servers``."""

    _nursery: trio.Nursery
    _environ: Mapping[str, str]
    _start_seconds: float
    _context: Context = attrs.field(factory=copy_context)
    _servers: dict[tuple[object, ...], _Server] = attrs.field(
        factory=dict[tuple[object, ...], _Server]
    )

    async def build(self, context: AgentContext) -> ToolRegistry:
        """Return the MCP tools of one agent: pass it as ``tools=servers.build``.

        Args:
            context: The agent.

        Raises:
            ToolError: If one of its servers cannot be used. The error says which, and why.
        """
        expect_arguments(McpServers.build, locals())
        return ToolRegistry(await self.tools_for(context.manifest))

    async def tools_for(self, manifest: AgentManifest) -> tuple[Tool, ...]:
        """Start the servers of *manifest* and return their tools.

        A server is not started if none of its tools is granted.

        Args:
            manifest: The agent's manifest.

        Raises:
            ToolError: If one of its servers cannot be used. The error says which, and why.

        Cancellation:
            Servers that have started keep running.
        """
        expect_arguments(McpServers.tools_for, locals())
        await trio.lowlevel.checkpoint()
        wanted = [
            (config, self._server_of(config, manifest.privacy))
            for config in manifest.mcp_servers
            if wants_server(config, manifest.capabilities)
        ]
        for _, server in wanted:
            server.begin()
        found: dict[ToolKey, tuple[_Server, ListedTool, OnUnknown]] = {}
        for config, server in wanted:
            session = await server.wait_session()
            listed = {tool.name: tool for tool in session.tools}
            for name in offered_tools(config, listed, session.faults):
                found[config.name, name] = (server, listed[name], config.on_unknown)
        names = tool_names(found)
        return tuple(
            McpTool(
                server,
                tool.name,
                ToolDefinition(names[key], tool.description, tool.input_schema),
                on_unknown,
            )
            for key, (server, tool, on_unknown) in found.items()
        )

    def close(self) -> None:
        """Ask all servers to end, and start no more."""
        for server in self._servers.values():
            server.close()

    def _server_of(self, config: McpServerConfig, privacy: PrivacyTier) -> _Server:
        # What one agent's calls left in a server, another's may read. So tiers share none.
        key = (attrs.evolve(config, capabilities=(), on_unknown="report"), privacy)
        server = self._servers.get(key)
        if server is None:
            server = _Server(
                config, self._environ, self._start_seconds, self._nursery, self._context
            )
            self._servers[key] = server
        return server


@opening("servers")
@contextlib.asynccontextmanager
async def open_mcp_servers(  # noqa: ASYNC911  # a nursery that ends is a checkpoint
    *, environ: Mapping[str, str] | None = None, start_seconds: float = 30.0
) -> AsyncGenerator[McpServers]:
    """Let agents use the MCP servers of their manifests, until the end of the block.

    A server starts when the first agent needs it, and is shared from then on.

    Args:
        environ: The environment from which servers get their variables. ``None``: the environment
            of this process.
        start_seconds: The longest that a server may take to start and list its tools.

    Yields:
        The servers, for ``open_pool(driver, tools=servers.build)``.

    Raises:
        UsageError: If *start_seconds* is not above 0.
    """
    expect_arguments(open_mcp_servers, locals())
    check_trio("open_mcp_servers")
    if not start_seconds > 0:
        raise UsageError(f"start_seconds must be > 0, got {start_seconds!r}")
    failed: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            servers = McpServers(nursery, os.environ if environ is None else environ, start_seconds)
            try:
                yield servers
            except Exception as raised:  # noqa: BLE001  # raised again below, and in no group
                failed = raised
            finally:
                servers.close()
    except BaseException as outside:  # noqa: ASYNC103, BLE001  # see there
        raise_unless_cancelled(failed, outside)
    if failed is not None:
        raise failed
