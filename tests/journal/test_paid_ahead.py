"""What earlier processes spent is in the budgets before anything more is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import attrs
import pytest
import trio

from agentpool import AgentManifest, Budget, Capability, SpawnConfig, open_pool
from agentpool._journal_records import begins_call
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, RecordKind
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

WORKER: Final = AgentManifest(name="worker", capabilities=())
CALLER: Final = AgentManifest(name="caller", capabilities=(Capability.spawn(2),))


@tool(on_unknown="rerun")
async def act(context: ToolContext) -> str:
    """Let a child do some work, and wait for it."""
    return (await context.agent.run_child(SpawnConfig(WORKER, "child"))).text


@attrs.define
class Model:
    """Counts the requests that were really made."""

    made: int = 0
    seconds: float = 10.0

    async def answer(self, request: CompletionRequest) -> Answer:
        """Answer in some seconds. A caller first calls its tool."""
        self.made += 1
        await trio.sleep(self.seconds)
        first: Any = request.messages[0]
        return call("act") if first.text == "call" and len(request.messages) == 1 else "done"

    async def run(
        self,
        journal: InMemoryJournal,
        budget: Budget | None,
        configs: Sequence[SpawnConfig],
        slots: int = 100,
        seconds: float | None = None,
    ) -> None:
        """Run agents in a pool; end the process after some seconds. ``None``: when all ended."""
        driver, tools = FunctionDriver(self.answer), ToolRegistry([act])
        with contextlib.suppress(KeyError):
            async with open_pool(
                driver, tools=tools, journal=journal, resume=True, budget=budget,
                max_concurrent=slots,
            ) as pool:  # fmt: skip
                await pool.fan_out(configs)
                if seconds is not None:
                    await trio.sleep(seconds)
                    raise KeyError


def workers(count: int, **terms: Any) -> list[SpawnConfig]:  # noqa: ANN401  # of a spawn
    """Return the configs of workers with keys."""
    return [SpawnConfig(WORKER, f"q{n}", key=f"k{n}", **terms) for n in range(count)]


def requests(budget: Budget) -> float:
    """Return how many requests a budget has as used; none may be reserved at the end."""
    meter = budget.statistics().requests
    assert meter.reserved == 0
    return meter.committed


@pytest.mark.parametrize("slots", [1, 10, 100])
@pytest.mark.parametrize("limit", [10, 12, 15])
def test_no_request_goes_out_beyond_the_limit_of_a_resumed_pool(slots: int, limit: int) -> None:
    """Ten were under way: none of them is made again before the others are charged."""

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model()
        await model.run(journal, Budget(requests=limit), workers(10), seconds=5)
        assert model.made == 10
        budget = Budget(requests=limit)
        await model.run(journal, budget, workers(10), slots)
        assert (model.made, requests(budget)) == (limit, limit)

    simulate(scenario)


def test_a_budget_of_spawns_alone_has_the_past_of_each_agent_at_its_spawn() -> None:
    """The pool has none, so it is known only then; with one slot none goes on meanwhile."""

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model()
        await model.run(journal, None, workers(6, budget=Budget(requests=8)), seconds=5)
        budget = Budget(requests=8)
        await model.run(journal, None, workers(6, budget=budget), slots=1)
        assert (model.made, requests(budget)) == (8, 8)

    simulate(scenario)


@pytest.mark.parametrize("seconds", [5, 15], ids=["broken off", "ended"])
def test_parts_of_a_budget_and_the_whole_have_everything_once(seconds: float) -> None:
    """Also when they are opened a third time."""

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model()
        for turn in range(3):
            whole = Budget(requests=100, name="whole")
            parts = [Budget(requests=50, parent=whole) for _ in range(3)]
            configs = [
                one for n, part in enumerate(parts) for one in workers(3, budget=part)[n : n + 1]
            ]
            await model.run(journal, whole, configs, seconds=None if turn else seconds)
            assert requests(whole) == model.made
            assert sum(map(requests, parts)) == model.made

    simulate(scenario)


def test_what_is_never_spawned_again_is_counted_as_well() -> None:
    """It was spent. Spawned later, it is counted no second time."""

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model()
        await model.run(journal, Budget(requests=100), workers(4), slots=3, seconds=15)
        assert model.made == 4  # three have ended, and one is under way
        budget = Budget(requests=100)
        await model.run(journal, budget, workers(1))
        assert (model.made, requests(budget)) == (4, 4)
        await model.run(journal, budget := Budget(requests=100), workers(4))
        assert (model.made, requests(budget)) == (5, 5)
        statistics = budget.statistics()
        assert (statistics.unmeasured, statistics.unpriced) == (1, 0)  # it was under way

    simulate(scenario)


def test_an_agent_that_is_cancelled_in_the_queue_has_its_past_counted_once() -> None:
    """It never comes to count it itself."""

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model()
        await model.run(journal, Budget(requests=100), workers(3), seconds=5)
        budget = Budget(requests=100)
        driver, tools = FunctionDriver(model.answer), ToolRegistry([act])
        async with open_pool(
            driver, tools=tools, journal=journal, resume=True, budget=budget, max_concurrent=1
        ) as pool:
            first, *others = [await pool.spawn(one) for one in workers(3)]
            for one in others:
                one.cancel("it is late")
            await first.wait()
        assert (model.made, requests(budget)) == (4, 4)

    simulate(scenario)


@pytest.mark.parametrize("seed", range(30))
def test_no_limit_is_passed_wherever_processes_end(seed: int) -> None:
    """Agents with children, in a few processes that end at any time, with few or many slots."""
    random = Random(seed)  # noqa: S311  # no secret

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model(seconds=random.choice([1.0, 3.0]))
        count, limit = random.randint(2, 6), random.randint(4, 16)
        calls = random.randint(1, 6)
        for turn in range(4):
            budget = Budget(requests=limit, tool_calls=calls)
            part = Budget(parent=budget) if random.random() < 0.5 else None
            configs = [
                SpawnConfig(CALLER if n % 2 else WORKER, "call" if n % 2 else "q", key=f"k{n}",
                            budget=part)
                for n in range(count)
                if turn in {0, 3} or random.random() < 0.7
            ]  # fmt: skip
            seconds = None if turn == 3 else random.uniform(0.1, 8)
            await model.run(journal, budget, configs, random.choice([1, 2, 100]), seconds)
            records = await journal.read("pool")
            started = [one for one in records if one.kind is RecordKind.STARTED]
            begun = [one for one in started if not begins_call(one)]
            # One that was refused, or had not left, when its process ended may have been made.
            assert model.made <= min(requests(budget), limit)
            assert requests(budget) <= len(begun)
            used = budget.statistics()
            assert used.tool_calls.committed <= calls
            assert used.unmeasured >= 0
            assert used.unpriced >= 0

    simulate(scenario)


def test_a_killed_request_counts_with_its_tokens_though_its_agent_never_comes_back() -> None:
    """At the opening of the next pool, as they were reserved."""

    async def scenario() -> None:
        journal, model = InMemoryJournal(), Model()
        first = Budget(tokens=100_000)
        await model.run(journal, first, [SpawnConfig(WORKER, "q", key="k")], seconds=5)
        records = journal._pools["pool"]
        lost = records.pop()  # as if it had been killed at once: that it broke off is not kept
        assert lost.kind is RecordKind.LOST
        budget = Budget(tokens=100_000)
        async with open_pool(
            FunctionDriver(model.answer), tools=ToolRegistry([act]), journal=journal, resume=True,
            budget=budget,
        ):  # fmt: skip
            used = budget.statistics()
            assert used.requests.committed == model.made == 1
            assert used.tokens.committed == first.statistics().tokens.committed > 0

    simulate(scenario)
