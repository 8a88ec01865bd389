"""Which tools there are, and which of them an agent may see and run."""

import os
from pathlib import Path

import pytest

from agentpool import Capability, CapabilityKind, PrivacyTier, UsageError
from agentpool.abc import Tool, ToolContext, ToolDefinition, ToolResult
from agentpool.drivers import ScriptedDriver
from agentpool.memory import InMemoryMemory
from agentpool.tools import (
    EMPTY_REGISTRY,
    TEAM_TOOLS,
    ToolRegistry,
    file_tools,
    http_tools,
    inference_tools,
    memory_tools,
    shell_tools,
)
from agentpool.tools._registry import _MAX_REMEMBERED, may_run

MEMORY = Capability(CapabilityKind.MEMORY)
BROWSER = Capability(CapabilityKind.BROWSER)
NETWORK = Capability.network("example.org")
STANDARD, PRIVATE, SOVEREIGN = (
    PrivacyTier.STANDARD,
    PrivacyTier.PRIVATE,
    PrivacyTier.SOVEREIGN,
)


class NamedTool(Tool):
    """A tool that is not made of a function; it counts how often it was looked at."""

    def __init__(self, name: str, capability: Capability | None = None) -> None:
        """Make one that needs *capability*."""
        self._definition = ToolDefinition(name, "Do it.", {"type": "object"})
        self._capability = capability
        self.looks = 0

    @property
    def definition(self) -> ToolDefinition:
        """What it is."""
        return self._definition

    @property
    def capability(self) -> Capability | None:
        """What it needs."""
        self.looks += 1
        return self._capability

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Be never run here."""
        raise NotImplementedError


def names(definitions: tuple[ToolDefinition, ...]) -> list[str]:
    """Return the names of *definitions*, in order."""
    return [definition.name for definition in definitions]


def test_tools_are_shown_in_the_order_in_which_they_were_given() -> None:
    """The original's order is random per process: no prompt cache, nothing to repeat."""
    given = [f"tool-{number}" for number in (3, 1, 2, 9, 5)]
    registry = ToolRegistry(NamedTool(name) for name in given)
    assert registry.names == tuple(given)
    assert [tool.definition.name for tool in registry] == given
    assert names(registry.definitions_for((), STANDARD)) == given


def test_a_name_can_be_taken_once() -> None:
    """The original overwrites without a word, and somebody's tool is gone."""
    with pytest.raises(UsageError, match="two tools with the name 'look'"):
        ToolRegistry([NamedTool("look"), NamedTool("look")])
    with pytest.raises(UsageError, match="two tools with the name 'look'"):
        ToolRegistry([NamedTool("look")]).with_tools(NamedTool("look"))


@pytest.mark.parametrize("name", ["", "a b", "ü", "a.b", "x" * 65, "a\n", "\u0661"])
def test_a_name_that_a_provider_would_refuse_is_refused_here(name: str) -> None:
    """Later it would be an HTTP error 400 in the middle of a run."""
    with pytest.raises(UsageError, match="1 to 64 letters a-z, digits, '_' or '-', got"):
        ToolRegistry([NamedTool(name)])


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 64])
def test_a_legal_name_is_taken_as_it_is(name: str) -> None:
    """What the model calls must be what was registered."""
    assert ToolRegistry([NamedTool(name)]).names == (name,)


def test_a_plain_function_is_refused_with_the_way_out() -> None:
    """To forget @tool is the usual slip."""

    def look() -> str:
        """Look."""
        return "seen"

    with pytest.raises(UsageError, match="is not a tool; decorate the function with @tool"):
        ToolRegistry([look])  # type: ignore[list-item]  # on purpose


def test_a_registry_is_a_collection_of_tools_by_name() -> None:
    """It answers what the agent and the pool ask."""
    look, listen = NamedTool("look"), NamedTool("listen")
    registry = ToolRegistry([look, listen])
    assert registry.get("look") is look
    assert registry.get("smell") is None
    assert "look" in registry
    assert "smell" not in registry
    assert len(registry) == 2
    assert list(registry) == [look, listen]
    assert repr(registry) == "<ToolRegistry look, listen>"


def test_more_tools_make_another_registry() -> None:
    """Agents share a registry: it must not change under one of them."""
    registry = ToolRegistry([NamedTool("look")])
    larger = registry.with_tools(NamedTool("listen"), NamedTool("smell"))
    assert registry.names == ("look",)
    assert larger.names == ("look", "listen", "smell")


def test_the_empty_registry_has_nothing_and_remembers_nothing() -> None:
    """It is one object for all pools."""
    assert EMPTY_REGISTRY.names == ()
    assert EMPTY_REGISTRY.definitions_for([MEMORY], STANDARD) == ()
    assert EMPTY_REGISTRY.refusal("look", [MEMORY], STANDARD) == (
        "unknown tool: look; there are no tools"
    )
    assert not EMPTY_REGISTRY._remembered
    assert repr(EMPTY_REGISTRY) == "<ToolRegistry without tools>"


def test_only_what_may_run_is_shown() -> None:
    """A tool that is shown and refused wastes a turn of the model each time it tries."""
    registry = ToolRegistry(
        [
            NamedTool("browse", BROWSER),
            NamedTool("fetch", NETWORK),
            NamedTool("look"),
            NamedTool("recall", MEMORY),
        ]
    )
    grants = (MEMORY, Capability.network("*"))
    assert names(registry.definitions_for((), STANDARD)) == ["look"]
    assert names(registry.definitions_for(grants, STANDARD)) == ["fetch", "look", "recall"]
    assert names(registry.definitions_for(grants, PRIVATE)) == ["fetch", "look", "recall"]
    assert names(registry.definitions_for(grants, SOVEREIGN)) == ["look", "recall"]


def denied(name: str, kind: str, more: str = "") -> str:
    """Return what a model is told of a tool that is there and not granted."""
    how = f'[[capabilities]] type = "{kind}"{more}'
    return f"capability denied for tool '{name}'; a manifest grants it with {how}"


@pytest.mark.parametrize(
    ("name", "grants", "privacy", "text"),
    [
        ("smell", (MEMORY,), STANDARD, "unknown tool: smell; there are look, recall"),
        ("recall", (), STANDARD, denied("recall", "memory")),
        ("recall", (NETWORK,), SOVEREIGN, denied("recall", "memory")),
        ("recall", (MEMORY,), SOVEREIGN, None),
        ("fetch", (NETWORK,), SOVEREIGN, "sovereign privacy blocks network egress"),
        (
            "fetch",
            (MEMORY,),
            SOVEREIGN,
            denied("fetch", "network", ', allowed_hosts = ["example.org"]'),
        ),
        ("fetch", (NETWORK,), PRIVATE, None),
        ("browse", (BROWSER,), SOVEREIGN, "sovereign privacy blocks network egress"),
        ("browse", (BROWSER,), STANDARD, None),
        ("look", (), SOVEREIGN, None),
    ],
)
def test_a_refusal_names_its_reason(
    name: str, grants: tuple[Capability, ...], privacy: PrivacyTier, text: str | None
) -> None:
    """The original lets a Sovereign agent have a browser."""
    registry = ToolRegistry(
        [
            NamedTool("browse", BROWSER),
            NamedTool("fetch", NETWORK),
            NamedTool("look"),
            NamedTool("recall", MEMORY),
        ]
    )
    assert registry.refusal(name, grants, privacy) == text
    tool = registry.get(name)
    if tool is not None:
        assert may_run(tool, grants, privacy) == text


def test_what_is_shown_is_worked_out_once_per_set_of_grants() -> None:
    """A pool runs the same manifest a hundred thousand times."""
    tool = NamedTool("recall", MEMORY)
    registry = ToolRegistry([tool])
    first = registry.definitions_for([MEMORY], STANDARD)
    looks = tool.looks
    assert registry.definitions_for((MEMORY,), STANDARD) is first
    assert registry.refusal("recall", [MEMORY], STANDARD) is None
    assert tool.looks == looks
    assert registry.definitions_for([MEMORY], SOVEREIGN) is not first


def test_grants_that_change_are_looked_at_again() -> None:
    """A list may have others the next time, and an iterator has none."""
    registry = ToolRegistry([NamedTool("recall", MEMORY), NamedTool("fetch", NETWORK)])
    grants = [MEMORY]
    assert names(registry.definitions_for(grants, STANDARD)) == ["recall"]
    grants.append(NETWORK)
    assert names(registry.definitions_for(grants, STANDARD)) == ["recall", "fetch"]
    once = iter(grants)
    assert names(registry.definitions_for(once, STANDARD)) == ["recall", "fetch"]
    assert names(registry.definitions_for(once, STANDARD)) == []
    kept = tuple(grants)
    assert names(registry.definitions_for(kept, STANDARD)) == ["recall", "fetch"]
    assert names(registry.definitions_for(kept, SOVEREIGN)) == ["recall"]
    assert names(registry.definitions_for(kept, STANDARD)) == ["recall", "fetch"]


def test_what_is_remembered_has_a_bound() -> None:
    """A pool with a manifest per agent must not grow with the number of its agents."""
    registry = ToolRegistry([NamedTool("fetch", NETWORK)])
    for number in range(3 * _MAX_REMEMBERED):
        grant = Capability.network(f"{number}.example.org")
        assert registry.definitions_for([grant], STANDARD) == ()
        assert len(registry._remembered) <= _MAX_REMEMBERED
    assert names(registry.definitions_for([NETWORK], STANDARD)) == ["fetch"]


def test_our_own_tools_are_known_with_what_they_need(tmp_path: Path) -> None:
    """The command line makes those that are granted; what another needs is told by its name."""
    granted = Capability.file_read("."), Capability.file_write("."), Capability.shell("ls")
    ours = [
        *TEAM_TOOLS,
        *file_tools(granted, folder=tmp_path),
        *shell_tools(granted, environ={"PATH": os.defpath}, folder=tmp_path),
        *http_tools("example.org"),
        *inference_tools(ScriptedDriver(["hi"])),
        *memory_tools(InMemoryMemory(), "a"),
    ]
    for one in ours:
        assert one.capability is not None
        told = EMPTY_REGISTRY.refusal(one.definition.name, (), STANDARD)
        assert told is not None
        assert f'type = "{one.capability.kind.value}"' in told, told


def test_of_many_tools_some_are_named() -> None:
    """An error must not be longer than what it is about."""
    registry = ToolRegistry([NamedTool(f"t{number}") for number in range(40)])
    told = registry.refusal("look", (), STANDARD)
    assert told is not None
    assert told.startswith("unknown tool: look; there are t0, t1, ")
    assert told.endswith(", t29 and 10 more")
