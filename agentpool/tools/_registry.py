"""Holds the tools of an agent, and decides which of them it may see and run.

Rules:

1. A name belongs to one tool, and every provider accepts it as a function name.
2. Tools are shown in the order in which they were passed, so that the same pool sends the same
   bytes and a provider's prompt cache works.
3. An agent is shown only the tools that it may run. If the agent asks for a different tool anyway,
   the same rule refuses the call, with a text for the model.
4. The data of a Sovereign agent does not leave this machine: even if granted, a tool whose purpose
   is to talk to other machines is not shown to such an agent, and does not run.

This module does not load the code that makes schemas, since ``import agentpool`` loads this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, final

import msgspec

from agentpool._base import Shown
from agentpool._checks import expect_arguments, expect_each
from agentpool._errors import UsageError
from agentpool._manifest.capability import (
    Capability,
    CapabilityKind,
    PrivacyTier,
    grant_in_toml,
    grants_allow,
)
from agentpool._messages import ToolDefinition
from agentpool.abc import Tool
from agentpool.tools._facts import checked_name

_NAME = r"[a-zA-Z0-9_-]{1,64}"
"""OpenAI's and Anthropic's rule for function names; others allow more."""

EGRESS_KINDS: Final = frozenset({CapabilityKind.NETWORK, CapabilityKind.BROWSER})
"""The capabilities that a Sovereign agent never gets, since their purpose is to talk to other
machines.

``shell`` and ``mcp`` are not among them, even though the programs that they start can also talk to
other machines. Such a grant names a program, and its name does not tell what the program does."""

_OURS: Final[Mapping[str, CapabilityKind]] = MappingProxyType(
    {
        "file_read": CapabilityKind.FILE_READ,
        "glob": CapabilityKind.FILE_READ,
        "grep": CapabilityKind.FILE_READ,
        "file_write": CapabilityKind.FILE_WRITE,
        "file_edit": CapabilityKind.FILE_WRITE,
        "shell": CapabilityKind.SHELL,
        "http_request": CapabilityKind.NETWORK,
        "inference": CapabilityKind.INFERENCE,
        "remember": CapabilityKind.MEMORY,
        "recall": CapabilityKind.MEMORY,
        "send_message": CapabilityKind.MESSAGE,
        "ask_agent": CapabilityKind.MESSAGE,
        "wait_for_message": CapabilityKind.MESSAGE,
        "list_agents": CapabilityKind.MESSAGE,
        "spawn_agent": CapabilityKind.SPAWN,
    }
)
"""Our own tools, and the capability that each of them needs. The command line makes only the tools
that are granted, so the others are missing from its registries."""

_MAX_NAMED = 30
"""The most tools that are named to a model that asked for an unknown tool. The model has been shown
all its tools anyway."""

_MAX_REMEMBERED = 128
"""The most sets of grants whose allowed tools are kept. Most pools have a handful of manifests, but
a pool that makes a new manifest for each agent must not grow with the number of agents."""


def check_name(name: str) -> None:
    """Raise if any provider would refuse the tool name.

    Raises:
        UsageError: If *name* is not a valid name for a tool.
    """
    if not re.fullmatch(_NAME, name):
        raise UsageError(
            f"a tool's name must be 1 to 64 letters a-z, digits, '_' or '-', got {name!r}; "
            "give it another name with @tool(name=...)"
        )


@final
class Allowed(msgspec.Struct, frozen=True):
    """The tools that agents with certain grants can see and run."""

    definitions: tuple[ToolDefinition, ...]
    """The definitions that the agents see: only those of tools that they may run."""
    waiting: frozenset[str]
    """The names of the tools that wait for other agents."""
    refusal: Callable[[str], str | None]
    """Explains to the model why the agents may not run the tool of that name. ``None``: they may
    run the tool. This is not a method, because a bound method would be one more object for each
    agent."""


def _refusal(names: Mapping[str, None], refused: Mapping[str, str], name: str) -> str | None:
    if name in names:
        return None
    if (reason := refused.get(name)) is not None:
        return reason
    text = f"unknown tool: {name}; {_named(names)}"
    if (kind := _OURS.get(name)) is not None:
        text += f"; its manifest grants it with {grant_in_toml(Capability(kind))}"
    return text


def _named(names: Iterable[str]) -> str:
    """Name the available tools."""
    every = list(names)
    if not every:
        return "there are no tools"
    more = f" and {len(every) - _MAX_NAMED} more" if len(every) > _MAX_NAMED else ""
    return f"there are {', '.join(every[:_MAX_NAMED])}{more}"


def _with(known: Mapping[str, Tool], tools: Iterable[Tool]) -> dict[str, Tool]:
    """Return the *known* tools, which were checked before, and *tools*, by name."""
    by_name = {**known}
    for tool in tools:
        check_name(name := checked_name(tool))
        if name in by_name:
            raise UsageError(
                f"there are two tools with the name {name!r}; "
                "give one of them another name with @tool(name=...)"
            )
        by_name[name] = tool
    return by_name


_NOTHING = Allowed((), frozenset(), partial(_refusal, {}, {}))


@final
class ToolRegistry(Shown):
    """The tools of an agent, in the order in which models see them.

    It does not change; ``with_tools`` makes a larger one.

    >>> from agentpool.tools import ToolRegistry, tool
    >>> @tool
    ... def add(a: int, b: int) -> int:
    ...     '''Add two numbers.'''
    ...     return a + b
    >>> registry = ToolRegistry([add])
    >>> registry.names, "add" in registry, len(registry)
    (('add',), True, 1)
    """

    __slots__ = ("_last", "_remembered", "_tools")

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        """Make a registry of *tools*, in their order.

        Raises:
            UsageError: If something is not a tool, has a property of a wrong type, or a name is
                invalid or already taken.
        """
        expect_each(tools, Tool, "tools must be an iterable of tools", "write ToolRegistry([tool])")
        self._tools: Mapping[str, Tool] = _with({}, tools)
        self._remembered: dict[tuple[tuple[Capability, ...], PrivacyTier], Allowed] = {}
        self._last: tuple[object, object, Allowed] = (None, None, _NOTHING)

    def with_tools(self, *tools: Tool) -> ToolRegistry:
        """Return a new registry with *tools* added at the end.

        Raises:
            UsageError: If something is not a tool, has a property of a wrong type, or a name is
                invalid or already taken.
        """
        registry = ToolRegistry()
        registry._tools = _with(self._tools, tools)
        return registry

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tools, in order."""
        return tuple(self._tools)

    def get(self, name: str) -> Tool | None:
        """Return the tool *name*, even if it is not granted. ``None``: no tool has that name."""
        return self._tools.get(name)

    def definitions_for(
        self, grants: Iterable[Capability], privacy: PrivacyTier
    ) -> tuple[ToolDefinition, ...]:
        """Return the definitions of the tools that *grants* allow."""
        return self.allowed(grants, privacy).definitions

    def refusal(self, name: str, grants: Iterable[Capability], privacy: PrivacyTier) -> str | None:
        """Explain to the model why *grants* do not allow tool *name*. ``None``: it is allowed."""
        expect_arguments(ToolRegistry.refusal, locals())
        return self.allowed(grants, privacy).refusal(name)

    def allowed(self, grants: Iterable[Capability], privacy: PrivacyTier) -> Allowed:
        """Return the tools for agents with *grants*; always the same object."""
        # EMPTY_REGISTRY is shared by all; it has nothing to remember and never changes.
        if not self._tools:
            return _NOTHING
        last_grants, last_privacy, last = self._last
        if grants is last_grants and privacy is last_privacy:
            return last  # of the same manifest, without the hashes of all its grants
        try:
            key = (tuple(grants), privacy)
            allowed = self._remembered.get(key)
        except TypeError:
            expect_arguments(ToolRegistry.allowed, locals())
            raise
        if allowed is None:
            expect_arguments(ToolRegistry.allowed, {"grants": key[0], "privacy": privacy})
            refused = {
                name: reason
                for name, tool in self._tools.items()
                if (reason := may_run(tool, key[0], privacy)) is not None
            }
            definitions = tuple(
                tool.definition for name, tool in self._tools.items() if name not in refused
            )
            names = dict.fromkeys(name for name in self._tools if name not in refused)
            waiting = frozenset(name for name in names if self._tools[name].waits)
            allowed = Allowed(definitions, waiting, partial(_refusal, names, refused))
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = allowed
        if grants is key[0]:  # a tuple, which does not change
            self._last = grants, privacy, allowed
        return allowed

    def __len__(self) -> int:
        """Return the number of tools."""
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        """Iterate over the tools, in order."""
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        """Return whether there is a tool called *name*."""
        return name in self._tools

    def __repr__(self) -> str:
        """Return the names of the tools."""
        return f"<ToolRegistry {', '.join(self._tools) or 'without tools'}>"


def may_run(tool: Tool, grants: Iterable[Capability], privacy: PrivacyTier) -> str | None:
    """Explain to the model why *grants* do not allow *tool*. ``None``: *grants* allow it.

    An agent needs both the grant and a privacy tier that allows the tool.
    """
    required = tool.capability
    if not grants_allow(grants, required):
        assert required is not None  # noqa: S101  # who needs nothing is allowed
        return (
            f"capability denied for tool '{tool.definition.name}'; a manifest grants it with "
            f"{grant_in_toml(required)}"
        )
    if required is not None and privacy is PrivacyTier.SOVEREIGN:
        return "sovereign privacy blocks network egress" if required.kind in EGRESS_KINDS else None
    return None


EMPTY_REGISTRY: Final = ToolRegistry()
"""No tools at all."""
