"""What a tool asks of a model is in the budget of the next process, also if its call was cut."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import attrs
import pytest
import trio

from agentpool import AgentManifest, Budget, SpawnConfig, Usage, UserMessage, open_pool
from agentpool.abc import CompletionRequest, Driver, OnUnknown, ToolContext
from agentpool.drivers import (
    FallbackDriver,
    FunctionDriver,
    OverloadedError,
    RateLimitError,
    call,
    say,
)
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, RecordKind
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

GO: Final = SpawnConfig(AgentManifest(name="worker"), "go", key="a")
ASIDE: Final = CompletionRequest((UserMessage("aside"),), max_tokens=50)
USED: Final = Usage(9, 9)

MODEL_SECONDS: Final = 1
"""What each answer takes."""

WORK_SECONDS: Final = 100
"""What the tool does after its questions."""


@attrs.define
class World:
    """A model, and a tool that asks it three times."""

    made: int = 0
    """Requests that have left."""
    refused: int = 0
    """How many of the tool's are refused first."""
    side_by_side: bool = False
    tools_driver: Driver | None = None
    """What the tool asks. ``None``: the driver of its agent."""

    async def answer(self, request: CompletionRequest) -> Answer:
        """Call the tool, then answer."""
        self.made += 1
        await trio.sleep(MODEL_SECONDS)
        first: Any = request.messages[0]
        if first.text == "aside":
            if self.refused:
                self.refused -= 1
                raise RateLimitError("later", retry_after_seconds=0)
            return say("thought", usage=USED)
        return call("think") if len(request.messages) == 1 else "done"

    def tools(self, driver: FunctionDriver, on_unknown: OnUnknown) -> ToolRegistry:
        """Return the tool."""
        asked = self.tools_driver or driver

        @tool(on_unknown=on_unknown)
        async def think(context: ToolContext) -> str:
            """Think."""
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    if self.side_by_side:
                        nursery.start_soon(context.agent.complete, asked, ASIDE)
                    else:
                        await context.agent.complete(asked, ASIDE)
            await trio.sleep(WORK_SECONDS)
            return "thought"

        return ToolRegistry([think])

    async def run(
        self,
        journal: InMemoryJournal,
        budget: Budget | None,
        seconds: float,
        on_unknown: OnUnknown = "report",
    ) -> float:
        """Run or continue for some seconds. Return the requests that the budget opened with."""
        driver = FunctionDriver(self.answer, record=False)
        opened_with = 0.0
        with trio.move_on_after(seconds):
            async with open_pool(
                driver, journal=journal, resume=True, budget=budget,
                tools=self.tools(driver, on_unknown),
            ) as pool:  # fmt: skip
                opened_with = requests_of(budget)
                await (await pool.spawn(GO)).wait()
        return opened_with


def requests_of(budget: Budget | None) -> float:
    """Return the requests that a budget has counted."""
    return 0 if budget is None else budget.statistics().requests.committed


@pytest.mark.parametrize("on_unknown", ["rerun", "report"])
@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("seconds", [1.5, 2.5, 3.5, 4.5])
def test_a_cut_call_never_makes_more_than_the_budget_allows(
    on_unknown: OnUnknown, seconds: float, *, side_by_side: bool
) -> None:
    """However often a process ends in the call, all that was asked is in the next one's budget."""

    async def main() -> None:
        journal, world = InMemoryJournal(), World(side_by_side=side_by_side)
        for cut in (seconds, seconds, seconds, 1000.0):
            before, budget = world.made, Budget(requests=6, name="all")
            assert await world.run(journal, budget, cut, on_unknown) == before
            assert world.made <= 6

    simulate(main)


def test_what_was_answered_counts_as_it_was_measured() -> None:
    """Of two answers and one request under way, the last is counted as it was set aside."""

    async def main() -> None:
        journal, world, first = InMemoryJournal(), World(), Budget(tokens=10_000)
        await world.run(journal, first, 3.5)
        budget = Budget(tokens=10_000)
        async with open_pool(FunctionDriver(world.answer), journal=journal, resume=True,
                             budget=budget):  # fmt: skip
            spent = budget.statistics().tokens.committed
            # The agent's own answer, two of the tool, and one that was cut: 50 and its text.
            assert spent == first.statistics().tokens.committed
            assert spent > 3 * 9 + 50

    simulate(main)


def test_a_refusal_is_free_in_a_cut_call() -> None:
    """A request that a provider refused costs no tokens, also if its call is cut later."""

    async def tokens(refused: int) -> float:
        journal, world = InMemoryJournal(), World(refused=refused)
        await world.run(journal, Budget(tokens=100_000), WORK_SECONDS)
        budget = Budget(tokens=100_000)
        async with open_pool(FunctionDriver(world.answer), journal=journal, resume=True,
                             budget=budget):  # fmt: skip
            return budget.statistics().tokens.committed

    assert simulate(tokens, 2) == simulate(tokens, 0)


def test_a_call_with_a_result_counts_once() -> None:
    """The result of a call has what its tool asked, so the rows of its requests add nothing."""

    async def main() -> None:
        journal, world = InMemoryJournal(), World()
        await world.run(journal, Budget(requests=100), WORK_SECONDS + 4.5)
        for _ in range(2):
            before = world.made
            assert await world.run(journal, Budget(requests=100), 1000) == before

    simulate(main)


def test_a_process_without_a_budget_leaves_what_the_next_one_counts() -> None:
    """A run begins without a budget, and goes on with one."""

    async def main() -> None:
        journal, world = InMemoryJournal(), World()
        await world.run(journal, None, 3.5)
        assert await world.run(journal, Budget(requests=100), 1000) == 4

    simulate(main)


def test_the_row_comes_before_the_request() -> None:
    """When a tool's request leaves, its row is stored."""

    async def main() -> None:
        journal, rows = InMemoryJournal(), list[int]()

        class Watching(World):
            async def answer(self, request: CompletionRequest) -> Answer:
                records = await journal.read("pool")
                rows.append(sum(one.kind is RecordKind.ASIDE for one in records))
                return await super().answer(request)

        await Watching().run(journal, Budget(requests=100), 1000)
        # Each has a row when it leaves, and one more when its answer has come.
        assert all(count >= asked for asked, count in enumerate(rows[:4]))

    simulate(main)


@pytest.mark.parametrize("seconds", [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5])
def test_each_driver_of_a_fallback_counts_in_a_cut_call(seconds: float) -> None:
    """A driver that failed before another one was asked has used a request as well."""

    async def main() -> None:
        world, journal = World(), InMemoryJournal()
        busy = FunctionDriver(partial(busily, world), record=False)
        world.tools_driver = FallbackDriver(busy, FunctionDriver(world.answer, record=False))
        first, budget = Budget(requests=100, tokens=10_000), Budget(requests=100, tokens=10_000)
        await world.run(journal, first, seconds)
        made = world.made
        async with open_pool(FunctionDriver(world.answer), journal=journal, resume=True,
                             budget=budget):  # fmt: skip
            before, now = first.statistics(), budget.statistics()
            assert now.requests.committed == before.requests.committed == made
            assert now.tokens.committed == before.tokens.committed

    simulate(main)


async def busily(world: World, _: CompletionRequest) -> Answer:
    """Say after a while that there is no time."""
    world.made += 1
    await trio.sleep(MODEL_SECONDS)
    raise OverloadedError("busy")
