"""Circles of maps, races, questions and joins in several tasks of one tool, in random orders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from random import Random
from typing import TypeAlias

import pytest
import trio

from agentpool import (
    AgentGoneError,
    AgentManifest,
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    DeadlockError,
    ResourceQuota,
    SpawnConfig,
    open_pool,
)
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, call
from agentpool.testing import simulate
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import query_of, results_of

PATIENT = AgentManifest(
    capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(3)),
    resources=ResourceQuota(tool_seconds=None),
)

Step: TypeAlias = tuple[str, float, int]
"""What a task does, after how many seconds, and the agent that it depends on (0: none)."""
Plan: TypeAlias = list[list[Step]]
"""The tasks of the tool of each agent."""


def plan_of(random: Random) -> Plan:
    """Return what some agents do."""
    count = random.randint(2, 4)
    return [
        [
            (
                random.choice(["join", "ask", "map", "map", "source", "race", "work"]),
                random.choice([0, 0, 1, 2, 2.5]),
                random.choice([0, *(one for one in range(1, count + 1) if one != me)]),
            )
            for _ in range(random.randint(1, 3))
        ]
        for me in range(1, count + 1)
    ]


def ever_ending(plan: Plan) -> set[int]:
    """Return the agents that can end: those that depend only on others that can."""
    ending = {0}
    for _ in plan:
        for agent_id, steps in enumerate(plan, 1):
            if all(way == "work" or other in ending for way, _, other in steps):
                ending.add(agent_id)
    return ending


class Actors:
    """Agents that do what a plan says, and what they were told."""

    pool: AgentPool

    def __init__(self, plan: Plan) -> None:
        """Begin with nobody told."""
        self.plan = plan
        self.told: list[DeadlockError] = []

    async def wait_for(self, context: ToolContext, way: str, other: int) -> None:
        """Wait for another agent, or for a while."""
        try:
            if other == 0 or way == "work":
                await trio.sleep(1)
            elif way == "ask":
                await context.agent.ask(other, "?")
            else:
                await self.pool[other].wait()
        except AgentGoneError:
            pass
        except DeadlockError as error:
            self.told.append(error)

    async def do(self, context: ToolContext, way: str, seconds: float, other: int) -> None:
        """Take one step of the plan."""
        await trio.sleep(seconds)
        try:
            if way == "map":
                queries = [f"ask {other}", f"join {other}"]
                async with self.pool.map(PATIENT, queries) as outcomes:
                    async for outcome in outcomes:
                        assert outcome.status is AgentStatus.COMPLETED
            elif way == "source":
                async with self.pool.map(PATIENT, self.queries(other)) as outcomes:
                    assert len([outcome async for outcome in outcomes]) == 2
            elif way == "race":
                await self.pool.race([SpawnConfig(PATIENT, f"join {other}")] * 2)
            else:
                await self.wait_for(context, way, other)
        except DeadlockError as error:
            self.told.append(error)

    async def queries(self, other: int) -> AsyncIterator[str]:  # noqa: ASYNC900  # as users do
        """Yield a query, and another one when another agent has ended."""
        yield "join 0"
        if other:
            await self.pool[other].wait()
        yield "join 0"

    async def act(self, context: ToolContext, query: str) -> None:
        """Do what the query says."""
        way, _, other = query.partition(" ")
        if way != "plan":
            await self.wait_for(context, way, int(other))
            return
        async with trio.open_nursery() as nursery:
            for step in self.plan[int(other) - 1]:
                nursery.start_soon(self.do, context, *step)


async def run(plan: Plan, *, owner_sleeps: bool) -> list[DeadlockError]:
    """Let agents do what *plan* says; return what they were told."""
    actors = Actors(plan)

    @tool
    async def act(context: ToolContext, query: str) -> None:
        """Do what the query says."""
        await actors.act(context, query)

    def answer(request: CompletionRequest) -> Completion | str:
        return "ok" if results_of(request) else call("act", query=query_of(request))

    driver = FunctionDriver(answer, record=False)
    async with open_pool(driver, tools=ToolRegistry([act]), max_concurrent=2) as actors.pool:
        actors.pool.fan_out_nowait(
            SpawnConfig(PATIENT, f"plan {one}") for one in range(1, len(plan) + 1)
        )
        if owner_sleeps:  # they are told all the same
            await trio.sleep(1000)
            assert not actors.pool.active_count, plan
        await actors.pool.join_all()
    return actors.told


def check(seed: int) -> int:
    """Run a random plan in a random order; return how many were told of a deadlock."""
    plan = plan_of(Random(seed))  # noqa: S311  # a test, no secret
    # It raises where it hangs.
    told = simulate(partial(run, plan, owner_sleeps=seed % 2 == 0), seed=seed)
    ending = ever_ending(plan)
    never = {one for one in range(1, len(plan) + 1) if one not in ending}
    assert bool(told) == bool(never), plan
    for error in told:
        named = {one for one in error.agent_ids if one <= len(plan)}
        assert named <= never, (plan, error)
    return len(told)


@pytest.mark.parametrize("begin", range(0, 200, 40))
def test_a_deadlock_is_always_found_and_never_falsely(begin: int) -> None:
    """Whoever can never end is told, whatever waits beside, and nobody else is."""
    counts = [check(seed) for seed in range(begin, begin + 40)]
    assert 0 in counts
    assert any(counts)
