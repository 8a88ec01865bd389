"""Each driver that a fallback asked counts in the next process, wherever this one ended."""

from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import Any, Literal, TypeAlias

import attrs
import pytest
import trio
from msgspec.structs import replace

from agentpool import (
    AgentManifest,
    AgentOutcome,
    Budget,
    DriverError,
    SpawnConfig,
    UserMessage,
    open_pool,
)
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    OnDelta,
    PrivacyTier,
)
from agentpool.drivers import (
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    NetworkError,
    OverloadedError,
    RequestGate,
    ScriptedDriver,
    ToolMessage,
    call,
    calls,
)
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal, RecordKind
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, NoConnection

GO = SpawnConfig(AgentManifest(name="reader", capabilities=()), "go", key="a")
Failure: TypeAlias = Literal["broken", "refused"]

open_kept = partial(open_pool, name="kept", resume=True)


@attrs.define(eq=False)
class World:
    """Two providers, of which the first always fails."""

    failure: Failure
    made: int = 0
    """Requests that have left."""
    hangs: bool = False
    """Whether the second one never answers."""

    async def fail(self, _: CompletionRequest) -> Answer:
        """Fail after a while."""
        self.made += 1
        await trio.sleep(1)
        error: DriverError = OverloadedError("busy")
        raise error if self.failure == "refused" else NetworkError("cut")

    async def answer(self, request: CompletionRequest) -> Answer:
        """Call the tool, then say what it said."""
        self.made += 1
        await trio.sleep(math.inf if self.hangs else 1)
        last = request.messages[-1]
        if isinstance(last, ToolMessage):
            return last.content
        return call("think") if last == UserMessage("go") else "thought"

    @property
    def driver(self) -> FallbackDriver:
        """Both, one after the other."""
        return FallbackDriver(
            FunctionDriver(self.fail, record=False), FunctionDriver(self.answer, record=False)
        )

    def tools(self) -> ToolRegistry:
        """Return a tool that asks them."""

        @tool(on_unknown="rerun")
        async def think(context: ToolContext) -> str:
            """Think."""
            request = CompletionRequest(messages=(UserMessage("think"),))
            return (await context.agent.complete(self.driver, request)).text

        return ToolRegistry([think])

    async def run(self, journal: Journal, budget: Budget) -> AgentOutcome:
        """Run one agent, or go on with it."""
        kept = open_kept(self.driver, journal=journal, budget=budget, tools=self.tools())
        async with kept as pool:
            return await (await pool.spawn(GO)).wait()


@pytest.mark.parametrize("failure", ["broken", "refused"])
def test_no_driver_is_forgotten_whatever_the_crash(failure: Failure) -> None:
    """Not one less than were asked, and two more at most: a turn's and a tool's in flight."""
    world = World(failure)

    async def scenario(journal: Journal) -> object:
        if not await journal.read("kept"):
            world.made = 0  # another point
        budget = Budget(requests=1000)
        outcome = await world.run(journal, budget)
        assert world.made <= budget.statistics().requests.committed <= world.made + 2
        return outcome.text

    assert crash_everywhere(scenario).points > 12


@pytest.mark.parametrize("failure", ["broken", "refused"])
def test_a_kill_while_the_second_is_asked_forgets_neither(failure: Failure) -> None:
    """Three processes that end there have asked six."""

    async def scenario() -> None:
        journal, world = InMemoryJournal(), World(failure, hangs=True)
        for kills in (1, 2, 3):
            with trio.move_on_after(1.5):
                await world.run(journal, Budget(requests=1000))
            assert world.made == 2 * kills
            if kills == 2:  # as if it had been killed at once: that it broke off is not kept
                assert journal._pools["kept"].pop().kind is RecordKind.LOST
        world.hangs, budget = False, Budget(requests=1000)
        outcome = await world.run(journal, budget)
        assert outcome.repeated_requests == 3
        assert budget.statistics().requests.committed == world.made
        again = Budget(requests=1000)
        assert (await world.run(journal, again)).text == outcome.text
        assert again.statistics().requests.committed == world.made

    simulate(scenario)


def test_a_run_with_a_fallback_counts_in_the_next_process_as_in_this_one() -> None:
    """What the drivers that failed have used is counted once."""

    async def scenario() -> None:
        journal, world = InMemoryJournal(), World("broken")
        first, second = Budget(requests=1000), Budget(requests=1000)
        outcome = await world.run(journal, first)
        assert first.statistics().requests.committed == world.made == 6
        again = await world.run(journal, second)
        assert second.statistics() == first.statistics()
        assert (again.usage, again.unmeasured_requests) == (
            outcome.usage, outcome.unmeasured_requests,
        )  # fmt: skip

    simulate(scenario)


def test_a_request_that_never_left_does_not_count_in_the_next_process() -> None:
    """It was cut while it waited at a gate."""

    async def scenario() -> None:
        journal, world = InMemoryJournal(), World("refused")
        gate = RequestGate("slow", requests_per_minute=1)
        slow = GatedDriver(FunctionDriver(world.answer, record=False), gate)

        async def run(seconds: float) -> tuple[float, int]:
            budget = Budget(requests=1000)
            with trio.move_on_after(seconds):
                async with open_kept(
                    slow, journal=journal, budget=budget, tools=world.tools()
                ) as pool:
                    await (await pool.spawn(GO)).wait()
            return budget.statistics().requests.committed, world.made

        assert await run(30) == (3, 3)  # the first one, and two of its tool
        assert await run(1) == (3, 3)

    simulate(scenario)


def test_a_tools_request_that_never_left_does_not_count_in_the_next_process() -> None:
    """Of two side by side, one waited at a gate when its call was cut."""

    async def scenario() -> None:
        journal, made = InMemoryJournal(), list[str]()
        gate = RequestGate("narrow", max_in_flight=1)

        async def answer(request: CompletionRequest) -> Answer:
            made.append("asked")
            await trio.sleep(1)
            return "thought" if not request.messages else calls(call("think"), call("think"))

        model = FunctionDriver(answer, record=False)
        gated = GatedDriver(FunctionDriver(answer, record=False), gate)

        @tool(on_unknown="rerun")
        async def think(context: ToolContext) -> str:
            """Think."""
            return (await context.agent.complete(gated, CompletionRequest(()))).text

        async def count(seconds: float) -> tuple[float, int]:
            budget = Budget(requests=1000)
            with trio.move_on_after(seconds):
                async with open_kept(
                    model, journal=journal, budget=budget, tools=ToolRegistry([think])
                ) as pool:
                    await (await pool.spawn(GO)).wait()
            return budget.statistics().requests.committed, len(made)

        assert await count(1.5) == (2, 2)
        assert await count(0.5) == (3, 3)  # one of the two again
        assert await count(0.5) == (4, 4)

    simulate(scenario)


def test_the_row_of_each_driver_comes_before_its_request() -> None:
    """A kill while the second one is asked finds both in the file."""

    async def scenario() -> None:
        journal, seen = InMemoryJournal(), list[list[str]]()

        async def look(_: CompletionRequest) -> Answer:
            rows = await journal.read("kept")
            seen.append([row.digest for row in rows if row.kind is RecordKind.ASIDE])
            if len(seen) == 1:
                raise OverloadedError("busy")
            return "thought"

        inner = FunctionDriver(look, record=False)

        @tool
        async def think(context: ToolContext) -> str:
            """Think."""
            driver = FallbackDriver(inner, inner)
            return (await context.agent.complete(driver, CompletionRequest(()))).text

        model = ScriptedDriver([call("think"), "done"])
        tools = ToolRegistry([think])
        async with open_kept(model, journal=journal, tools=tools) as pool:
            assert (await (await pool.spawn(GO)).wait()).text == "done"
        assert seen == [["1"], ["1", "1", "2"]]  # begun; begun, counted, and the next one begun

    simulate(scenario)


def test_an_answer_to_a_tool_that_is_refused_counts_in_the_next_process() -> None:
    """Its call ends with an error, and the agent goes on."""

    async def wrong(_: CompletionRequest, __: OnDelta) -> Any:  # noqa: ANN401  # it is wrong
        await trio.lowlevel.checkpoint()
        return 7

    async def scenario() -> None:
        journal, world = InMemoryJournal(), World("refused")
        model = FunctionDriver(world.answer, record=False)

        @tool
        async def think(context: ToolContext) -> str:
            """Think."""
            return (await context.agent.complete(LiveDriver(wrong), CompletionRequest(()))).text

        async def count() -> tuple[float, float]:
            budget = Budget(requests=1000)
            async with open_kept(
                model, journal=journal, budget=budget, tools=ToolRegistry([think])
            ) as pool:
                await (await pool.spawn(GO)).wait()
            now = budget.statistics()
            return now.requests.committed, now.tokens.committed

        first = await count()
        assert first == await count()
        assert first[0] == world.made + 1 == 3

    simulate(scenario)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_tools_driver_without_a_connection_does_not_count(*, is_first: bool) -> None:
    """Neither before nor after one that refuses, and in no attempt of four."""

    async def scenario() -> None:
        journal, asked = InMemoryJournal(), list[str]()

        async def answer(request: CompletionRequest) -> Answer:
            await trio.lowlevel.checkpoint()
            asked.append("model")
            if not request.messages:
                raise OverloadedError("busy")
            return call("think")

        model = FunctionDriver(answer, record=False)
        drivers = (NoConnection(), model) if is_first else (model, NoConnection())

        @tool(on_unknown="rerun")
        async def think(context: ToolContext) -> None:
            """Think, and then do something else."""
            with contextlib.suppress(DriverError):
                await context.agent.complete(FallbackDriver(*drivers), CompletionRequest(()))
            await trio.sleep_forever()

        async def count(seconds: float) -> float:
            budget = Budget(requests=1000)
            with trio.move_on_after(seconds):
                async with open_kept(
                    model, journal=journal, budget=budget, tools=ToolRegistry([think])
                ) as pool:
                    await (await pool.spawn(GO)).wait()
            return budget.statistics().requests.committed

        assert await count(100) == len(asked) == 5  # its own, and four of the tool
        assert await count(100) == len(asked) == 9

    simulate(scenario)


class Prompt(Driver):
    """A driver that has sent its request before anything else may happen."""

    context_window = None
    privacy = PrivacyTier.SOVEREIGN
    calls = 0

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # nobody reads it
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002  # it does not stream
    ) -> Completion:
        """Answer after a second."""
        self.calls += 1
        await trio.sleep(1)
        return Completion("done")


def test_a_request_that_is_cut_before_it_begins_does_not_count_in_the_next_process() -> None:
    """At every step up to the first request, its record being written or just kept."""
    told = set[tuple[float, float, int]]()

    async def scenario(steps: int) -> bool:
        journal, driver, budget = InMemoryJournal(), Prompt(), Budget(requests=1000)
        with trio.CancelScope() as scope:
            async with open_kept(driver, journal=journal, budget=budget) as pool:
                for key in "abc":
                    pool.spawn_nowait(replace(GO, key=key))
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        used, next_budget = budget.statistics().requests.committed, Budget(requests=1000)
        with trio.CancelScope() as scope:
            async with open_kept(driver, journal=journal, budget=next_budget) as pool:
                scope.cancel()
        told.add((used, next_budget.statistics().requests.committed, driver.calls))
        return driver.calls == 3

    for seed in range(5):
        steps = 0
        while not simulate(partial(scenario, steps), seed=seed):
            steps += 1
    assert all(used == again == made for used, again, made in told)
    assert {made for _, _, made in told} >= {0, 3}


def test_an_answer_that_is_refused_was_sent_and_counts_in_the_next_process() -> None:
    """What is wrong with it is found after it has come."""

    async def wrong(_: CompletionRequest, __: OnDelta) -> Any:  # noqa: ANN401  # it is wrong
        await trio.lowlevel.checkpoint()
        return 7

    async def scenario() -> list[float]:
        journal, counted = InMemoryJournal(), list[float]()
        for _ in range(2):
            budget = Budget(requests=1000)
            async with open_kept(LiveDriver(wrong), journal=journal, budget=budget) as pool:
                assert (await (await pool.spawn(GO)).wait()).error is not None
            counted.append(budget.statistics().requests.committed)
        return counted

    first, second = simulate(scenario)
    assert first == second == 1
