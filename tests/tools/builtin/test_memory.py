"""Tools with which a model itself remembers and recalls."""

from types import SimpleNamespace
from typing import cast

import trio

from agentpool import Capability, CapabilityKind
from agentpool.abc import AgentContext, Fragment, MemoryQuery, ToolContext, ToolResult
from agentpool.memory import InMemoryMemory
from agentpool.tools import ToolRegistry, memory_tools
from agentpool.tools.builtin._memory import MAX_CONTENT_CHARS, MAX_RECALLED, MAX_SHOWN_CHARS

AGENT = cast("AgentContext", SimpleNamespace(agent_id=1, name="reader"))
CONTEXT = ToolContext(AGENT, "call-1")


def registry_on(memory: InMemoryMemory, scope: str = "mine") -> ToolRegistry:
    """Return the memory tools on *memory* in a registry."""
    return ToolRegistry(memory_tools(memory, scope))


async def call(registry: ToolRegistry, name: str, arguments: str) -> ToolResult:
    """Call the tool *name*."""
    tool = registry.get(name)
    assert tool is not None
    return await tool.run(arguments, CONTEXT)


async def test_what_a_model_remembers_is_in_the_memory_that_it_was_given() -> None:
    """In the original the tool writes to a store of its own, which nobody else reads."""
    memory = InMemoryMemory()
    told = await call(registry_on(memory), "remember", '{"content": "the sea is cold"}')
    assert told == ToolResult("Stored memory: mem-1")
    (hit,) = await memory.recall(MemoryQuery(text="sea", scope="mine"))
    assert hit.fragment == Fragment(
        content="the sea is cold",
        scope="mine",
        source="tool",
        fragment_id="mem-1",
        created_at=hit.fragment.created_at,
    )


async def test_a_model_recalls_by_words_best_first() -> None:
    """The texts are the original's."""
    memory = InMemoryMemory()
    registry = registry_on(memory)
    for content in ("the sea is cold", "the cold cold wind", "warm bread"):
        await memory.remember(Fragment(content=content, scope="mine"))
    told = await call(registry, "recall", '{"query": "cold wind"}')
    assert not told.is_error
    first, second = told.content.split("\n")
    assert first == "1. [score=1.00] the cold cold wind"
    assert second.startswith("2. [score=0.")
    assert second.endswith("] the sea is cold")
    assert await call(registry, "recall", '{"query": "fish"}') == ToolResult("No memories found.")


async def test_a_model_recalls_only_what_is_its_own() -> None:
    """In the original a recall by tool sees what every agent has remembered."""
    memory = InMemoryMemory()
    await memory.remember(Fragment(content="the sea is cold", scope="of another"))
    for query in ("sea", ""):
        told = await call(registry_on(memory), "recall", f'{{"query": "{query}"}}')
        assert told == ToolResult("No memories found.")


async def test_content_is_required_and_bounded() -> None:
    """In the original a call without content stores an empty fragment."""
    memory = InMemoryMemory()
    registry = registry_on(memory)
    for arguments in (
        "{}",
        '{"content": ""}',
        '{"content": " \\n"}',
        '{"content": "' + "a" * (MAX_CONTENT_CHARS + 1) + '"}',
    ):
        told = await call(registry, "remember", arguments)
        assert told.is_error
        assert "content" in told.content
    assert memory.statistics().fragments == 0


async def test_a_recall_has_a_limit() -> None:
    """In the original a model can ask for all there is, and fill its window with it."""
    memory = InMemoryMemory()
    registry = registry_on(memory)
    for number in range(50):
        await memory.remember(Fragment(content=f"note {number}", scope="mine"))
    told = await call(registry, "recall", '{"query": "note"}')
    assert told.content.count("\n") == 4
    arguments = f'{{"query": "note", "limit": {MAX_RECALLED}}}'
    assert (await call(registry, "recall", arguments)).content.count("\n") == 19
    for limit in (0, -1, MAX_RECALLED + 1, 10**30):
        told = await call(registry, "recall", f'{{"query": "note", "limit": {limit}}}')
        assert told.is_error
        assert "limit" in told.content


async def test_a_long_fragment_is_cut_between_characters() -> None:
    """One page pasted into the memory must not push the task out of the window."""
    memory = InMemoryMemory()
    await memory.remember(Fragment(content="🙂 note " * 1_000, scope="mine"))
    told = await call(registry_on(memory), "recall", '{"query": "note"}')
    assert len(told.content) < MAX_SHOWN_CHARS + 60
    assert told.content.endswith("… [5000 more characters]")


def test_memory_tools_need_the_memory_capability() -> None:
    """Nothing is allowed unless it is granted."""
    for tool in memory_tools(InMemoryMemory(), "mine"):
        assert tool.capability == Capability(CapabilityKind.MEMORY)


async def test_the_clock_is_that_of_the_memory() -> None:
    """So that a simulated run repeats itself to the byte."""
    memory = InMemoryMemory()
    before = trio.current_time()
    await call(ToolRegistry(memory_tools(memory, "mine")), "remember", '{"content": "note"}')
    (hit,) = await memory.recall(MemoryQuery(text="", scope="mine"))
    assert before <= hit.fragment.created_at <= trio.current_time()
