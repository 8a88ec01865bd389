"""What requests took that broke off counts in the next process as it did in this one."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias

import attrs
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    Budget,
    ContextConfig,
    DriverError,
    ModelConfig,
    ResourceQuota,
    SpawnConfig,
    UserMessage,
    open_pool,
)
from agentpool._loop.window_strategy import ASK_FOR_SUMMARY
from agentpool.abc import CompletionRequest
from agentpool.drivers import (
    FunctionDriver,
    NetworkError,
    RateLimitError,
    ToolMessage,
    call,
)
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal, RecordKind
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import ToolContext, ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())
GO = SpawnConfig(READER, "go", key="a")
Failure: TypeAlias = Literal["broken", "refused", "measured"]

open_kept = partial(open_pool, name="kept", resume=True)


def failing(failure: Failure) -> DriverError:
    """Return what a provider fails with. Measured: it says what the half of its answer took."""
    if failure == "refused":
        return RateLimitError("slowly")
    error = NetworkError("cut")
    if failure == "measured":
        error.has_begun, error.tokens, error.cost_usd = True, (30_000, 20_000), 0.5
    return error


@attrs.define(eq=False)
class World:
    """A provider that fails the first time that it is asked something, in any process."""

    failure: Failure
    asked: list[str] = attrs.field(factory=list[str])

    def fail_once(self, what: str) -> None:
        """Raise, unless this was asked before."""
        self.asked.append(what)
        if self.asked.count(what) == 1:
            raise failing(self.failure)

    def answer(self, request: CompletionRequest) -> Answer:
        """Call the tool, then say what it said."""
        last = request.messages[-1]
        self.fail_once(str(last))
        if isinstance(last, ToolMessage):
            return last.content
        return call("think") if last == UserMessage("go") else "thought"


def tools_of(driver: FunctionDriver) -> ToolRegistry:
    """Return a tool that asks the model."""

    @tool(on_unknown="rerun")
    async def think(context: ToolContext) -> str:
        """Think."""
        request = CompletionRequest(messages=(UserMessage("think"),))
        return (await context.agent.complete(driver, request)).text

    return ToolRegistry([think])


def told(outcome: AgentOutcome, budget: Budget) -> tuple[Any, ...]:
    """Return what a run and its budget have counted."""
    return (
        outcome.status, outcome.text, outcome.unmeasured_requests, outcome.usage,
        outcome.cost_usd, outcome.repeated_requests, budget.statistics(),
    )  # fmt: skip


@tool(on_unknown="rerun", name="think")
async def plain() -> str:
    """Think without a model."""
    await trio.lowlevel.checkpoint()
    return "thought"


async def run(
    journal: Journal, world: World, *, asks: bool = False, config: SpawnConfig = GO
) -> tuple[AgentOutcome, Budget]:
    """Run one agent, or go on with it. *asks*: its tool asks the model as well."""
    driver = FunctionDriver(world.answer, price_per_token_usd=0.001)
    budget, tools = Budget(requests=100), tools_of(driver) if asks else ToolRegistry([plain])
    async with open_kept(driver, journal=journal, budget=budget, tools=tools) as pool:
        return await (await pool.spawn(config)).wait(), budget


def without(journal: InMemoryJournal, *kinds: RecordKind) -> InMemoryJournal:
    """Return a copy of *journal* that lacks the records of some kinds."""
    copy = InMemoryJournal()
    copy._pools["kept"] = [one for one in journal._pools["kept"] if one.kind not in kinds]
    return copy


@pytest.mark.parametrize("failure", ["broken", "refused", "measured"])
def test_a_request_that_was_retried_is_never_forgotten(failure: Failure) -> None:
    """Whatever the crash: not one less than were made, and one more if it was in flight."""
    world = World(failure)

    async def scenario(journal: Journal) -> object:
        if not await journal.read("kept"):
            world.asked.clear()  # another point
        outcome, budget = await run(journal, world)
        made, again = len(world.asked), outcome.repeated_requests
        assert made <= budget.statistics().requests.committed <= made + again <= made + 1
        lost = 2 if failure == "broken" else 0
        assert lost <= outcome.unmeasured_requests + again <= lost + 1
        measured = outcome.usage.input_tokens // 30_000
        assert outcome.usage.output_tokens // 20_000 == measured
        lost = 2 if failure == "measured" else 0
        assert lost <= measured + again <= lost + 1
        return outcome.text

    assert crash_everywhere(scenario).points > 6


@pytest.mark.parametrize(
    ("failure", "unmeasured"), [("broken", 2), ("refused", 0), ("measured", 0)]
)
@pytest.mark.parametrize("asks", [False, True])
def test_what_was_retried_counts_in_the_next_process_as_in_this_one(
    failure: Failure,
    unmeasured: int,
    asks: bool,  # noqa: FBT001  # parametrized
) -> None:
    """To the token: whether the run has ended, or is gone on with; also what a tool asked."""

    async def scenario() -> None:
        journal, world = InMemoryJournal(), World(failure)
        outcome, budget = await run(journal, world, asks=asks)
        requests = 6 if asks else 4
        assert outcome.unmeasured_requests == unmeasured * requests // 4
        assert budget.statistics().requests.committed == len(world.asked) == requests
        for kept in (journal, without(journal, RecordKind.ENDED)):
            assert told(*await run(kept, world, asks=asks)) == told(outcome, budget)
        assert len(world.asked) == requests

    simulate(scenario)


def test_what_an_agent_that_failed_had_lost_stays_spent() -> None:
    """Its last attempt as well, which nothing followed."""

    async def scenario() -> None:
        journal = InMemoryJournal()

        def fail(_: CompletionRequest) -> Answer:
            raise NetworkError("cut")

        async def go() -> tuple[AgentOutcome, Budget]:
            budget = Budget(requests=100)
            async with open_kept(FunctionDriver(fail), journal=journal, budget=budget) as pool:
                return await (await pool.spawn(GO)).wait(), budget

        outcome, budget = await go()
        assert outcome.unmeasured_requests > 1
        assert budget.statistics().requests.committed == outcome.unmeasured_requests
        assert told(*await go()) == told(outcome, budget)

    simulate(scenario)


def test_a_crash_while_a_request_is_made_again_is_counted_each_time() -> None:
    """Three processes that end in the middle of a request have made three."""

    async def hang(_: CompletionRequest) -> Answer:
        await trio.sleep_forever()

    def never(_: CompletionRequest) -> Answer:
        raise AssertionError

    async def go(journal: Journal, model: Any) -> tuple[int, int, float]:  # noqa: ANN401  # as a driver takes it
        budget = Budget(requests=100)
        async with open_kept(FunctionDriver(model), journal=journal, budget=budget) as pool:
            outcome = await (await pool.spawn(GO)).wait()
        committed = budget.statistics().requests.committed
        return outcome.repeated_requests, outcome.unmeasured_requests, committed

    async def scenario() -> None:
        journal = InMemoryJournal()
        for kills in (1, 2, 3):
            with trio.move_on_after(1):
                await go(journal, hang)
            if kills == 2:  # as if it had been killed at once: that it broke off is not kept
                assert journal._pools["kept"].pop().kind is RecordKind.LOST
        assert await go(journal, lambda _: "there") == (3, 0, 4)
        assert await go(without(journal, RecordKind.ENDED), never) == (3, 0, 4)
        ended, _, committed = await go(journal, never)
        assert (ended, committed) == (3, 4)

    simulate(scenario)


def test_a_summary_that_came_too_late_counts_in_the_next_process() -> None:
    """It was cancelled, and the run went on: nobody knows what it took."""
    manifest = attrs.evolve(
        READER,
        model=ModelConfig(max_tokens=200, context_window=1_500),
        resources=ResourceQuota(request_seconds=5, max_iterations=100),
        context=ContextConfig(strategy="summary"),
    )

    @tool(on_unknown="rerun")
    async def tell(number: int) -> str:
        """Tell a story, at length."""
        await trio.lowlevel.checkpoint()
        return f"{number} " + "the same old story, told at length; " * 12

    async def scenario() -> None:
        asked = 0

        async def model(request: CompletionRequest) -> Answer:
            nonlocal asked
            asked += 1
            if request.messages[-1] == ASK_FOR_SUMMARY:
                await trio.sleep_forever()
            return call("tell", number=asked) if asked < 9 else "done"

        async def go(journal: Journal) -> tuple[AgentOutcome, Budget]:
            budget, tools = Budget(requests=100), ToolRegistry([tell])
            driver = FunctionDriver(model)
            async with open_kept(driver, journal=journal, budget=budget, tools=tools) as pool:
                config = SpawnConfig(manifest, "go", key="a")
                return await (await pool.spawn(config)).wait(), budget

        journal = InMemoryJournal()
        outcome, budget = await go(journal)
        assert outcome.unmeasured_requests > 0
        assert budget.statistics().requests.committed == asked
        again = await go(without(journal, RecordKind.ENDED))
        assert told(*again) == told(outcome, budget)

    simulate(scenario)
