"""Builds the tools that a manifest grants to its agents.

Rules:

1. The memory tools work on the memory that the loop uses, in the agent's own scope.
2. A grant without a tool is reported, not ignored.
3. Relative paths, in grants and from a model, start at the folder in which the command was called,
   like every other path on its command line. Programs run in that folder.
4. The programs of a Sovereign agent have no network. Where that is impossible, such an agent fails
   before its model is asked anything.
5. The packaged model gets memory tools only on request: it tends to answer about them instead of
   the query.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final, final

import attrs
import trio

from agentpool._install import as_installed
from agentpool._manifest.capability import (
    ANYTHING,
    Capability,
    CapabilityKind,
    PrivacyTier,
    UnsaidCapabilities,
)
from agentpool._errors import PrivacyError
from agentpool._manifest.manifest import AgentManifest
from agentpool._manifest.parts import McpServerConfig
from agentpool._pool.starting import ToolBuilder
from agentpool.abc import AgentContext, DriverFactory, Memory, Tool
from agentpool.memory import InMemoryMemory
from agentpool.tools import (
    EMPTY_REGISTRY,
    FileWork,
    ToolRegistry,
    file_tools,
    find_isolation,
    http_tools,
    inference_tools,
    memory_tools,
    shell_tools,
)
from agentpool.tools.builtin._shell import search_path
from agentpool.tools.builtin._team import TEAM_TOOLS
from agentpool.tools.mcp._tool_views import wants_server
from agentpool.tools.mcp._servers import McpServers
from agentpool.tools.system._program_runners import carriers

_TEAM_KINDS: Final = frozenset({CapabilityKind.MESSAGE, CapabilityKind.SPAWN})
"""The grants that need the team tools."""

HAND_KINDS: Final = frozenset(
    {CapabilityKind.FILE_READ, CapabilityKind.FILE_WRITE, CapabilityKind.SHELL}
)
"""The grants that need the tools for files and programs."""

_WITH_TOOLS: Final = (
    _TEAM_KINDS
    | HAND_KINDS
    | {CapabilityKind.INFERENCE, CapabilityKind.MCP, CapabilityKind.MEMORY, CapabilityKind.NETWORK}
)
"""The grants that have tools in this program."""

_ADVICE: Final[Mapping[CapabilityKind, str]] = {
    CapabilityKind.COMPUTE: ": it would be a shell without a list; grant programs with 'shell'"
}

NO_ISOLATION: Final = (
    "may not run programs here: they would have a network, and this system cannot take it "
    "away (Linux with unshare can); choose another privacy, or grant no 'shell'"
)
"""The warning about Sovereign manifests with ``shell`` on such a system."""

_MAX_MADE: Final = 128
"""The number of different sets of grants whose tools are kept."""


def build_tools(
    memory: Memory,
    servers: McpServers,
    system_tools: SystemTools,
    choose: DriverFactory,
    own: ToolRegistry = EMPTY_REGISTRY,
    *,
    spares_packaged: bool = False,
) -> ToolBuilder:
    """Return a tool builder that gives each agent the tools granted by its manifest.

    Args:
        memory: The pool's memory.
        servers: Starts the MCP servers of an agent's manifest.
        system_tools: Builds an agent's tools for files and programs.
        choose: Chooses the driver of an agent, which its tools may ask.
        own: The program's own tools, which every agent also has.
        spares_packaged: Whether the packaged model gets memory tools only on request.
    """
    with_team = own.with_tools(*TEAM_TOOLS)

    def build(context: AgentContext) -> ToolRegistry | Awaitable[ToolRegistry]:
        registry, manifest = build_own(context), context.manifest
        if not manifest.mcp_servers and not _kinds(manifest) & HAND_KINDS:
            return registry
        return add_others(registry, manifest)

    async def add_others(registry: ToolRegistry, manifest: AgentManifest) -> ToolRegistry:
        registry = registry.with_tools(*await system_tools.tools_for(manifest))
        if not manifest.mcp_servers:
            return registry
        return registry.with_tools(*await servers.tools_for(manifest))

    def build_own(context: AgentContext) -> ToolRegistry:
        grants = context.manifest.capabilities
        kinds = _kinds(context.manifest)
        registry = with_team if kinds & _TEAM_KINDS else own
        is_spared = spares_packaged and lacks_memory_tools(context.manifest)
        if CapabilityKind.MEMORY in kinds and not is_spared:
            registry = registry.with_tools(*memory_tools(memory, context.memory_scope))
        if CapabilityKind.INFERENCE in kinds:
            registry = registry.with_tools(*inference_tools(choose(context.manifest)))
        if CapabilityKind.NETWORK in kinds:
            hosts = [h for g in grants if g.kind is CapabilityKind.NETWORK for h in g.scope]
            registry = registry.with_tools(*http_tools(*hosts))
        return registry

    return build


def _kinds(manifest: AgentManifest) -> frozenset[CapabilityKind]:
    return frozenset(grant.kind for grant in manifest.capabilities)


@final
@attrs.define(eq=False)
class SystemTools:
    """Builds the file and program tools, once for all agents with the same grants."""

    _environ: Mapping[str, str]
    _folder: str | Path = "."
    _work: FileWork = attrs.field(init=False, factory=FileWork)
    _isolation: tuple[str, ...] | None = attrs.field(init=False, default=None)
    _made: dict[tuple[tuple[Capability, ...], PrivacyTier], tuple[Tool, ...]] = attrs.field(
        init=False, factory=dict[tuple[tuple[Capability, ...], PrivacyTier], tuple[Tool, ...]]
    )

    async def tools_for(self, manifest: AgentManifest) -> tuple[Tool, ...]:
        """Return the file and program tools that *manifest* grants.

        Raises:
            PrivacyError: If its programs must not have a network, and this system cannot prevent
                that.
        """
        await trio.lowlevel.checkpoint()
        grants, privacy = manifest.capabilities, manifest.privacy
        made = self._made.get((grants, privacy))
        if made is None:
            alone: tuple[str, ...] = ()
            if privacy is PrivacyTier.SOVEREIGN and CapabilityKind.SHELL in _kinds(manifest):
                alone = await self._without_network()
            shell = shell_tools(
                grants, environ=self._environ, folder=self._folder, without_network=alone
            )
            made = (*file_tools(grants, folder=self._folder, work=self._work), *shell)
            # Children have fewer grants at each depth, so there are a few of each manifest.
            if len(self._made) >= _MAX_MADE:
                self._made.clear()
            self._made[grants, privacy] = made
        return made

    async def _without_network(self) -> tuple[str, ...]:
        if self._isolation is None:
            self._isolation = await find_isolation(self._environ)
        if self._isolation is None:
            raise PrivacyError(f"a Sovereign agent {NO_ISOLATION}")
        return self._isolation  # noqa: ASYNC910  # tools_for() has had its checkpoint


def lacks_memory_tools(manifest: AgentManifest) -> bool:
    """Return whether *manifest* gets no memory tools, even though it grants memory.

    Such a manifest says nothing about grants, and its model is the packaged one, which is too small
    for tools that it does not need.
    """
    model = manifest.model
    is_packaged = not (model.remote_model or model.model_path or model.model_repo)
    return is_packaged and isinstance(manifest.capabilities, UnsaidCapabilities)


def tool_names(manifest: AgentManifest) -> tuple[str, ...]:
    """Return the names of the tools of *manifest*, without those of MCP servers."""
    kinds = _kinds(manifest)
    if lacks_memory_tools(manifest):
        kinds -= {CapabilityKind.MEMORY}
    tools = [
        *(tool for tool in TEAM_TOOLS if tool.capability and tool.capability.kind in kinds),
        *(memory_tools(InMemoryMemory(), "") if CapabilityKind.MEMORY in kinds else ()),
        *file_tools(manifest.capabilities),
        *shell_tools(manifest.capabilities, environ=os.environ),
    ]
    return tuple(tool.definition.name for tool in tools)


def missing_tools(manifest: AgentManifest) -> tuple[str, ...]:
    """Return the grants of *manifest* without a tool in this program, in words.

    Grants that the manifest only has by default are left out.
    """
    missing: list[str] = []
    # Whoever wrote no grants has these, and did not ask for anything.
    if not isinstance(manifest.capabilities, UnsaidCapabilities):
        missing.extend(
            f"grants {str(grant)!r}, for which this version has no tool"
            + _ADVICE.get(grant.kind, "")
            for grant in manifest.capabilities
            if grant.kind not in _WITH_TOOLS
        )
    missing.extend(_missing_programs(manifest))
    missing.extend(_missing_servers(manifest))
    return tuple(missing)


def _missing_programs(manifest: AgentManifest) -> Iterator[str]:
    path = search_path(os.environ)
    for grant in manifest.capabilities:
        if grant.kind is not CapabilityKind.SHELL:
            continue
        for name in carriers(grant.scope):
            yield f"grants {name!r}, which runs whatever it is told to: that is the same as '*'"
        for name in grant.scope:
            if name != ANYTHING and shutil.which(name, path=path) is None:
                alone = name.split()[0]  # a grant is of a program, whatever its arguments
                how = f"; name the program alone: {alone!r}" if alone != name else ""
                yield f"grants the program {name!r}, which is not on this machine{how}"


def _missing_servers(manifest: AgentManifest) -> Iterator[str]:
    grants = [one for one in manifest.capabilities if one.kind is CapabilityKind.MCP]
    servers = {server.name: server for server in manifest.mcp_servers}
    strangers = [grant for grant in grants if grant.scope[0] not in {ANYTHING, *servers}]
    meant = {_nearest(grant.scope[0], servers) for grant in strangers}
    for server in manifest.mcp_servers:
        wrong = tuple(_misspelt(server, grants))
        yield from wrong
        if not server.capabilities:
            text = "whose 'capabilities' are empty: none of its tools may be called"
            yield f"names the MCP server {server.name!r}, {text}"
        elif not (wrong or server.name in meant or wants_server(server, grants)):
            text = "of which nothing is granted: add a grant of type 'mcp'"
            yield f"names the MCP server {server.name!r}, {text}"
    if manifest.mcp_servers and find_spec("mcp") is None:
        yield as_installed("names MCP servers, which need: pip install 'trio-agentpool[mcp]'")
    for grant in strangers:
        hint = _did_you_mean(grant.scope[0], servers)
        yield f"grants {str(grant)!r}, and names no MCP server {grant.scope[0]!r}{hint}"


def _misspelt(server: McpServerConfig, grants: Iterable[Capability]) -> Iterator[str]:
    """Yield what is wrong with grants of tools that the entry of *server* does not offer."""
    offered = server.capabilities
    if not offered or ANYTHING in offered:
        return
    for name, tool in (grant.scope for grant in grants):
        if name == server.name and tool not in {ANYTHING, *offered}:
            yield (
                f"grants {tool!r} of the MCP server {name!r}, whose entry offers "
                f"{', '.join(map(repr, offered))}{_did_you_mean(tool, offered)}"
            )


def _nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the most similar one of *words*. ``None``: none is similar."""
    import difflib  # noqa: PLC0415  # for those who slipped

    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=0.7)), None)


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    near = _nearest(word, words)
    return f"; did you mean {near!r}?" if near else ""
