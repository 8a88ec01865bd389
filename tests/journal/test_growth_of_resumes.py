"""What is looked at for one agent of an earlier process does not grow with their number.

Counted in lines of the rooms that know of them, for n agents and for twice as many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentManifest, AgentPool, Budget, Capability, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, UserMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.tools import ToolRegistry, tool
from tests.support.growth import lines_run

N: Final = 100
MOST_GROWTH: Final = 2.3
"""Of twice as many. What grows with the square takes four times as many lines."""

ROOMS: Final = tuple(
    f"_pool/{room}.py"
    for room in ("journal", "branch", "past", "past_families", "agent_keys", "absent_agents")
)
CHILD: Final = AgentManifest(name="child", capabilities=())
PARENT: Final = AgentManifest(name="parent", capabilities=(Capability.spawn(3),))

Use: TypeAlias = Callable[[AgentPool, int], Awaitable[object]]


@tool(on_unknown="rerun")
async def have_children(context: ToolContext, count: int) -> str:
    """Have that many children, of which each is done before the next one begins."""
    for _ in range(count):
        await context.agent.run_child(SpawnConfig(CHILD, "child", key="the same"))
    return "had them"


async def answer(request: CompletionRequest, *, is_cut: bool = False) -> Answer:
    """Have children as a parent, and work as a child."""
    await trio.lowlevel.checkpoint()
    first, last = request.messages[0], request.messages[-1]
    assert isinstance(first, UserMessage)
    word, _, count = first.text.partition(" ")
    if isinstance(last, ToolMessage) and is_cut:
        await trio.sleep_forever()
    if word == "parent" and not isinstance(last, ToolMessage):
        return call("have_children", count=int(count))
    return "done"


async def mapped(pool: AgentPool, n: int) -> None:
    """Map over *n* queries."""
    async with pool.map(CHILD, [f"query {at}" for at in range(n)]) as outcomes:
        async for _ in outcomes:
            pass


async def keyed(pool: AgentPool, n: int, manifest: AgentManifest = CHILD) -> None:
    """Spawn *n* agents with keys."""
    await pool.fan_out([SpawnConfig(manifest, "query", key=f"{at}") for at in range(n)])
    await pool.join_all()


async def families(pool: AgentPool, n: int) -> None:
    """Spawn *n* agents that have two children each."""
    await pool.fan_out([SpawnConfig(PARENT, "parent 2", key=f"{at}") for at in range(n)])
    await pool.join_all()


async def one_family(pool: AgentPool, n: int) -> None:
    """Spawn an agent that has *n* children with one key."""
    await (await pool.spawn(SpawnConfig(PARENT, f"parent {n}", key="a"))).wait()


changed = partial(keyed, manifest=attrs.evolve(CHILD, version="2"))

WAYS: Final[dict[str, tuple[Use, Use, bool]]] = {
    "a map": (mapped, mapped, False),
    "keys": (keyed, keyed, False),
    "families": (families, families, False),
    "families that were cut": (families, families, True),
    "children of one key": (one_family, one_family, False),
    "children of one key, cut": (one_family, one_family, True),
    "branches": (keyed, changed, False),
}
"""What the first process does, what the second one does, and whether the first one is cut."""


async def run(journal: InMemoryJournal, use: Use, n: int, *, is_cut: bool) -> None:
    """Run one process."""
    driver = FunctionDriver(partial(answer, is_cut=is_cut), record=False)
    with trio.move_on_after(1):
        async with open_pool(
            driver, journal=journal, resume="branch", max_concurrent=2 * N,
            budget=Budget(requests=10**6), tools=ToolRegistry([have_children]),
        ) as pool:  # fmt: skip
            await use(pool, n)


def lines(way: str, n: int) -> tuple[int, int]:
    """Return the lines that the first process runs for *n* agents, and the second one."""
    first, then, is_cut = WAYS[way]
    journal = InMemoryJournal()

    def process(use: Use, *, is_cut: bool) -> None:
        clock = MockClock(autojump_threshold=0)
        trio.run(partial(run, journal, use, n, is_cut=is_cut), clock=clock)

    return (
        lines_run(lambda: process(first, is_cut=is_cut), *ROOMS),
        lines_run(lambda: process(then, is_cut=False), *ROOMS),
    )


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_of_before_costs_the_same_among_many(way: str) -> None:
    """Each of them looked through all others, and a key that is used again through all before."""
    lines(way, 2)
    for many, few in zip(lines(way, 2 * N), lines(way, N), strict=True):
        assert many < MOST_GROWTH * few
