"""What a manifest grants, made real: the memory and the tools of its agents.

The command line is built on it; whoever embeds a pool may prefer to choose by hand.

Rules:

1. The memory tools work on the memory that the loop uses, in the agent's own scope.
2. A grant for which there is no tool is said, not passed over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Final

from agentpool import memory as memories
from agentpool._capability import ANYTHING, CapabilityKind
from agentpool._manifest import DEFAULT_CAPABILITIES, AgentManifest
from agentpool._nursery import ToolBuilder
from agentpool._open import open_pool
from agentpool._pool import AgentPool
from agentpool.abc import AgentContext, DriverFactory, Memory, Observer
from agentpool.memory import InMemoryMemory
from agentpool.tools import EMPTY_REGISTRY, ToolRegistry, memory_tools
from agentpool.tools._mcp_rules import wants_server
from agentpool.tools._mcp_servers import McpServers, open_mcp_servers
from agentpool.tools._team import TEAM_TOOLS

_TEAM_KINDS: Final = frozenset({CapabilityKind.MESSAGE, CapabilityKind.SPAWN})
"""The grants for which the team tools are."""

_WITH_TOOLS: Final = _TEAM_KINDS | {CapabilityKind.MEMORY, CapabilityKind.MCP}
"""The grants for which there are tools here."""


@asynccontextmanager
async def open_furnished_pool(
    choose: DriverFactory,
    *,
    max_concurrent: int,
    max_queued: int,
    memory_file: str | None = None,
    observers: Sequence[Observer] = (),
    name: str = "pool",
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool whose agents have the memory and the tools that their manifests grant.

    Args:
        choose: The drivers.
        max_concurrent: Agents that run at the same time.
        max_queued: Agents that may wait for their first slot.
        memory_file: Where agents keep fragments. ``None``: in memory.
        observers: Called with every event.
        name: What the pool is called.

    Yields:
        The pool.
    """
    async with (
        _open_memory(memory_file) as memory,
        open_mcp_servers() as servers,
        open_pool(
            choose,
            max_concurrent=max_concurrent,
            max_queued=max_queued,
            memory=memory,
            tools=build_tools(memory, servers),
            observers=observers,
            name=name,
        ) as pool,
    ):
        yield pool


@asynccontextmanager
async def _open_memory(file: str | None) -> AsyncGenerator[Memory]:
    if file is None:
        yield InMemoryMemory()
    else:
        # Looked up here, since it loads SQLite.
        async with memories.open_sqlite_memory(file) as opened:
            yield opened


def build_tools(memory: Memory, servers: McpServers) -> ToolBuilder:
    """Return what makes the tools of one agent: those that its manifest grants.

    Args:
        memory: The pool's memory.
        servers: What starts the MCP servers of its manifest.
    """
    team = ToolRegistry(TEAM_TOOLS)

    def build(context: AgentContext) -> ToolRegistry | Awaitable[ToolRegistry]:
        registry = build_own(context)
        if not context.manifest.mcp_servers:
            return registry
        return add_servers(registry, context.manifest)

    async def add_servers(registry: ToolRegistry, manifest: AgentManifest) -> ToolRegistry:
        return registry.with_tools(*await servers.tools_for(manifest))

    def build_own(context: AgentContext) -> ToolRegistry:
        kinds = {grant.kind for grant in context.manifest.capabilities}
        registry = team if kinds & _TEAM_KINDS else EMPTY_REGISTRY
        if CapabilityKind.MEMORY not in kinds:
            return registry
        tools = memory_tools(memory, context.memory_scope)
        return registry.with_tools(*tools)

    return build


def missing_tools(manifest: AgentManifest) -> tuple[str, ...]:
    """Return what *manifest* grants and nothing here can do, in words.

    The grants of a manifest that says nothing about them are left out.
    """
    missing: list[str] = []
    # Whoever wrote no grants has these, and did not ask for anything.
    if manifest.capabilities != DEFAULT_CAPABILITIES:
        missing.extend(
            f"grants {str(grant)!r}, for which this version has no tool"
            for grant in manifest.capabilities
            if grant.kind not in _WITH_TOOLS
        )
    missing.extend(_missing_servers(manifest))
    return tuple(missing)


def _missing_servers(manifest: AgentManifest) -> Iterator[str]:
    for server in manifest.mcp_servers:
        if not server.capabilities:
            text = "whose 'capabilities' are empty: none of its tools may be called"
            yield f"names the MCP server {server.name!r}, {text}"
        elif not wants_server(server, manifest.capabilities):
            text = "of which nothing is granted: add a grant of type 'mcp'"
            yield f"names the MCP server {server.name!r}, {text}"
    if manifest.mcp_servers and find_spec("mcp") is None:
        yield "names MCP servers, which need: pip install 'trio-agentpool[mcp]'"
    names = {server.name for server in manifest.mcp_servers} | {ANYTHING}
    for grant in manifest.capabilities:
        if grant.kind is CapabilityKind.MCP and grant.scope[0] not in names:
            yield f"grants {str(grant)!r}, and names no MCP server {grant.scope[0]!r}"
