"""What an earlier process had asked stays counted if its agent ends before it asks again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
import trio

from agentpool import AgentManifest, Budget, SpawnConfig, open_pool
from agentpool.abc import AgentContext, CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, RecordKind
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry


def config(name: str) -> SpawnConfig:
    """Return the config of the agent with that name."""
    return SpawnConfig(AgentManifest(name=name, capabilities=()), name, key=name)


class World:
    """Two agents of which only one has a slot, or one whose tools take a while to make."""

    def __init__(self, tools_seconds: float) -> None:
        """Let tools take that long in the second process."""
        self.journal, self.tools_seconds, self.asked = InMemoryJournal(), tools_seconds, 0
        self.is_first = True

    async def answer(self, _: CompletionRequest) -> Answer:
        """Hang in the first process."""
        self.asked += 1
        await trio.sleep(math.inf if self.is_first else 1)
        return "done"

    async def tools(self, _: AgentContext) -> ToolRegistry:
        """Make no tools, slowly."""
        await trio.sleep(0 if self.is_first else self.tools_seconds)
        return ToolRegistry([])

    async def run(self, names: str, then: Callable[..., object]) -> tuple[float, float]:
        """Run the agents with these names. Return the requests counted at the start and the end."""
        budget, driver = Budget(requests=1000), FunctionDriver(self.answer, record=False)
        async with open_pool(
            driver, journal=self.journal, resume=True, budget=budget, tools=self.tools,
            max_concurrent=9 if self.is_first else 1, name="kept",
        ) as pool:  # fmt: skip
            began = budget.statistics().requests.committed
            handles = [await pool.spawn(config(name)) for name in names]
            then(*handles)
            await pool.join_all()
        return began, budget.statistics().requests.committed

    @contextmanager
    def killed(self) -> Iterator[trio.CancelScope]:
        """End the process in the block as a kill does: nothing is kept of what it was ended in."""
        with trio.move_on_after(1) as scope:
            yield scope
        rows = self.journal._pools["kept"]
        rows[:] = [row for row in rows if row.kind is not RecordKind.LOST]
        self.is_first = False


@pytest.mark.parametrize("names", ["ab", "a"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_was_asked_stays_counted(names: Literal["ab", "a"], times: int) -> None:
    """One that waits for a slot is cancelled, or one that waits for its tools."""

    async def scenario() -> None:
        world = World(0 if names == "ab" else 10)
        for _ in range(times):
            world.is_first = True
            with world.killed():
                await world.run(names, lambda *_: None)
        assert world.asked == len(names) * times
        before, after = await world.run(names, lambda *all_of: all_of[-1].cancel("no more"))
        assert before == world.asked - (len(names) - 1)
        assert after == world.asked
        for _ in range(2):
            assert await world.run(names, lambda *_: None) == (after, after)
        assert world.asked == after

    simulate(scenario)
