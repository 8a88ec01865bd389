"""What a manifest grants, made real: the memory and the tools of its agents.

The command line is built on it; whoever embeds a pool may prefer to choose by hand.

Rules:

1. The memory tools work on the memory that the loop uses, in the agent's own scope.
2. A grant for which there is no tool is said, not passed over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from agentpool import memory as memories
from agentpool._capability import CapabilityKind
from agentpool._manifest import DEFAULT_CAPABILITIES, AgentManifest
from agentpool._nursery import ToolBuilder
from agentpool._open import open_pool
from agentpool._pool import AgentPool
from agentpool.abc import AgentContext, DriverFactory, Memory, Observer
from agentpool.memory import InMemoryMemory
from agentpool.tools import EMPTY_REGISTRY, ToolRegistry, memory_tools
from agentpool.tools._team import TEAM_TOOLS

_TEAM_KINDS: Final = frozenset({CapabilityKind.MESSAGE, CapabilityKind.SPAWN})
"""The grants for which the team tools are."""

_WITH_TOOLS: Final = _TEAM_KINDS | {CapabilityKind.MEMORY}
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
        open_pool(
            choose,
            max_concurrent=max_concurrent,
            max_queued=max_queued,
            memory=memory,
            tools=build_tools(memory),
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


def build_tools(memory: Memory) -> ToolBuilder:
    """Return what makes the tools of one agent: those that its manifest grants.

    Args:
        memory: The pool's memory.
    """
    team = ToolRegistry(TEAM_TOOLS)

    def build(context: AgentContext) -> ToolRegistry:
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
    missing.extend(
        f"names the MCP server {server.name!r}, which this version does not start"
        for server in manifest.mcp_servers
    )
    return tuple(missing)
