"""A map that was left starts no agent, also where a source has just been given its turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    OutcomeStream,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.testing import cancel_everywhere, simulate
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import query_of

WORKER = AgentManifest(name="worker", capabilities=())
USED = 40
"""More calls than a pool yields at each of."""


async def take(pool: AgentPool, count: int) -> int:
    """Take so many outcomes of a long map, and return how many agents there are then."""
    taken = spawned = 0
    async with pool.map(WORKER, (f"query {at}" for at in range(1000))) as outcomes:
        async for _ in outcomes:
            taken += 1
            if taken == count:
                spawned = pool.statistics().spawned
                break
    return spawned


async def use(pool: AgentPool) -> None:
    """Spawn so many agents that a call that need not wait seldom lets others run."""
    for _ in range(USED):
        await (await pool.spawn(SpawnConfig(WORKER, "warm up"))).wait()


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 33, 40])
def test_the_owner_leaves_a_map(slots: int, count: int) -> None:
    """After it, no agent begins, and nobody is waited for who answers late."""

    async def scenario() -> None:
        asked: list[str] = []

        async def answer(request: CompletionRequest) -> Answer:
            asked.append(query_of(request))
            await trio.sleep(100 if len(asked) >= USED + count + slots else 1)
            return "ok"

        async with open_pool(FunctionDriver(answer), max_concurrent=slots) as pool:
            await use(pool)
            begun = trio.current_time()
            spawned = await take(pool, count)
            assert pool.statistics().spawned == spawned
            assert trio.current_time() - begun <= count + 1

    for seed in range(3):
        simulate(scenario, seed=seed)


async def run_tool(pool_slots: int, count: int) -> AgentStatus:
    """Let the tool of an agent leave a map."""

    @tool
    async def first(context: ToolContext) -> str:
        """Take the first answers."""
        assert context.agent is not None
        await take(pool, count)
        return "took them"

    async def answer(request: CompletionRequest) -> Answer:
        await trio.sleep(1)
        is_parent = query_of(request) == "parent"
        has_result = isinstance(request.messages[-1], ToolMessage)
        return call("first") if is_parent and not has_result else "ok"

    tools = ToolRegistry([first])
    async with open_pool(FunctionDriver(answer), max_concurrent=pool_slots, tools=tools) as pool:
        handle = await pool.spawn(SpawnConfig(WORKER, "parent"))
        return (await handle.wait()).status


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("count", [1, 3, 33])
def test_a_tool_leaves_a_map(slots: int, count: int) -> None:
    """The agent has its slot again, so one that begins late would wait for it for ever."""
    for seed in range(10):
        assert simulate(run_tool, slots, count, seed=seed) is AgentStatus.COMPLETED


@pytest.mark.parametrize("target", ["agents", "agent", "scenario"])
def test_a_tool_that_leaves_a_map_is_cancelled_anywhere(target: str) -> None:
    """At each of its waits, under several schedules."""

    async def scenario() -> object:
        return await run_tool(1, 2)

    for seed in range(4):
        report = cancel_everywhere(scenario, target=target, seed=seed)  # type: ignore[arg-type]
        assert report.points > 5


async def all_of(outcomes: OutcomeStream) -> list[AgentOutcome]:
    """Read a map to its end."""
    return [outcome async for outcome in outcomes]


def test_a_generator_that_never_began_is_closed_too() -> None:
    """Its task has just been started when another source raises."""

    async def some(number: int) -> AsyncGenerator[str]:  # noqa: ASYNC900  # as users write them
        await trio.lowlevel.checkpoint()
        yield f"query {number}"

    async def scenario() -> None:
        sources: list[Any] = [some(number) for number in range(3)]
        broken = (str(1 // zero) for zero in [0])
        async with (
            open_pool(FunctionDriver(lambda _: "ok")) as pool,
            pool.map(WORKER, broken, *sources) as outcomes,
        ):
            with pytest.raises(ZeroDivisionError):
                await all_of(outcomes)
        assert [source.ag_frame for source in sources] == [None] * 3

    for seed in range(30):
        simulate(scenario, seed=seed)
