"""What never waits lets others run all the same."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentPool,
    AgentStatus,
    Budget,
    PrivacyTier,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import Driver, OnDelta
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, RequestGate, call, say
from agentpool.tools import ToolRegistry, tool

TURNS = 500
MANY = "name='w'\n[resources]\nmax_iterations=1000\nmax_tool_calls=1000\nrequest_seconds=5\n"


class Ticker:
    """Counts the turns of a task that only lets others run."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.turns = 0

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()


class AtOnce(Driver):
    """Answers from what it has, without a checkpoint."""

    context_window = None
    privacy = PrivacyTier.SOVEREIGN

    def __init__(self, answer: Callable[[], Completion]) -> None:
        """Answer with *answer*."""
        self.answer = answer

    async def complete(  # noqa: ASYNC910  # it never waits
        self,
        request: CompletionRequest,  # noqa: ARG002  # as in the seam
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002  # as in the seam
    ) -> Completion:
        """Answer."""
        return self.answer()


@tool
async def look(number: int) -> str:  # noqa: ASYNC124  # called like its neighbours
    """Look."""
    return str(number)


async def test_an_agent_that_never_waits_lets_others_run() -> None:
    """Its driver and its tool answer at once: an abort and its deadline must reach it."""
    asked = list[int]()

    def answer() -> Completion:
        asked.append(ticker.turns)
        return call("look", number=len(asked)) if len(asked) < TURNS else say("done")

    ticker = Ticker()
    driver = AtOnce(answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        async with open_pool(driver, tools=ToolRegistry([look])) as pool:
            config = SpawnConfig(AgentManifest.parse(MANY), "look")
            outcome = await (await pool.spawn(config)).wait()
        nursery.cancel_scope.cancel()
    assert outcome.status is AgentStatus.COMPLETED
    # One checkpoint in 32 requests; trio may give two turns in a row to one task.
    assert len(set(asked)) >= TURNS // 64
    assert max(map(asked.count, set(asked))) <= 64


async def test_an_abort_reaches_an_agent_that_never_waits() -> None:
    """It went on to its end, since nobody else could run."""
    numbers = itertools.count()
    driver = AtOnce(lambda: call("look", number=next(numbers)))
    budget = Budget(requests=1000)
    async with open_pool(driver, tools=ToolRegistry([look]), budget=budget) as pool:
        handle = await pool.spawn(SpawnConfig(AgentManifest.parse(MANY), "look"))
        await trio.lowlevel.checkpoint()
        pool.abort_all()
        outcome = await handle.wait()
    assert outcome.status is AgentStatus.CANCELLED
    assert outcome.iterations < 100
    # The one before which it was cancelled was not made: nothing is reserved or charged for it.
    spent = budget.statistics().requests
    assert (spent.committed, spent.reserved) == (next(numbers), 0)


async def _through(gate: RequestGate) -> None:
    async with gate.request():
        pass


CALLS: dict[str, Callable[[AgentPool, RequestGate], Awaitable[object]]] = {
    "broadcast": lambda pool, _: pool.broadcast("x"),
    "supervise": lambda pool, _: pool.supervise([]),
    "fan_out": lambda pool, _: pool.fan_out([]),
    "join_all": lambda pool, _: pool.join_all(),
    "gate": lambda _, gate: _through(gate),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_loop_of_calls_with_nothing_to_do_lets_others_run(name: str) -> None:
    """Whoever asks again and again stands in nobody's way."""
    ticker, gate = Ticker(), RequestGate(max_in_flight=3)
    async with trio.open_nursery() as nursery, open_pool(FunctionDriver(lambda _: "x")) as pool:
        nursery.start_soon(ticker.run)
        for _ in range(TURNS):
            await CALLS[name](pool, gate)
        assert ticker.turns >= TURNS // 64
        nursery.cancel_scope.cancel()
