"""An observer in which the program ends: Ctrl-C comes there, or it raises what no pool handles."""

from __future__ import annotations

import math
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentPool,
    Budget,
    Capability,
    SpawnConfig,
    Usage,
    open_pool,
)
from agentpool._budget.statistics import PoolStatistics
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import FallbackDriver, FunctionDriver, OverloadedError, call, say
from agentpool.journal import InMemoryJournal
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentResumed,
    BudgetNear,
    Event,
    FellBack,
    Observer,
    PoolInfo,
    RequestStarted,
)
from agentpool.testing import assert_quiescent
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import job, manifest, query_of, results_of

pytestmark = pytest.mark.usefixtures("slots_handed_on")

PARENT: Final = manifest(capabilities=(Capability.spawn(2),))


class Ends(Observer):
    """Ends the program when it is told of something for the *at*-th time."""

    def __init__(self, at: int, end: Callable[[], object]) -> None:
        """Nothing was told yet."""
        self.at, self.end, self.told = at, end, 0
        self.raised = False

    def on_open(self, _: PoolInfo) -> None:
        """Count."""
        self._count()

    def on_event(self, _: Event) -> None:
        """Count."""
        self._count()

    def on_close(self, _: PoolStatistics) -> None:
        """Count."""
        self._count()

    def _count(self) -> None:
        self.told += 1
        if self.told == self.at:
            try:
                self.end()
            except BaseException:
                self.raised = True
                raise


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def leave() -> None:
    """End the program."""
    raise SystemExit


@tool(timeout_seconds=math.inf)
async def ask(context: ToolContext) -> str:
    """Ask a child."""
    return (await context.agent.run_child("child")).text


def answers() -> Callable[[CompletionRequest], Awaitable[Completion | str]]:
    """Return a slow model, whose parents ask a child and then end.

    It is busy at first, so that an agent waits, and comes back while another one has its slot.
    """
    refused: list[str] = ["child", "parent"]

    async def answer(request: CompletionRequest) -> Completion | str:
        query = query_of(request)
        is_parent = query == "parent" and not results_of(request)
        if query in refused:
            refused.remove(query)
            raise OverloadedError("busy")
        await trio.sleep(30)
        return call("ask") if is_parent else "done"

    return answer


@pytest.mark.parametrize(("end", "error"), [(press, KeyboardInterrupt), (leave, SystemExit)])
@pytest.mark.parametrize("slots", [1, 3])
def test_at_any_event_every_agent_gets_its_outcome_and_nothing_hangs(
    end: Callable[[], object], error: type[BaseException], slots: int
) -> None:
    """Also at the last phase of an agent, just before its outcome is made."""
    pools = list[AgentPool]()

    async def run(observer: Ends) -> None:
        driver, tools = FunctionDriver(answers()), ToolRegistry([ask])
        with trio.fail_after(900):
            async with open_pool(
                driver, tools=tools, max_concurrent=slots, observers=[observer]
            ) as pool:
                pools.append(pool)
                for _ in range(3):
                    await pool.spawn(job("parent"))
                await pool.join_all()

    at = told = 0
    while at <= told:
        at += 1
        observer = Ends(at, end)
        pools.clear()
        try:
            trio.run(run, observer, clock=MockClock(autojump_threshold=0))
        except BaseException:  # looked at
            told = max(told, at)
            with pytest.RaisesGroup(error, flatten_subgroups=True, allow_unwrapped=True):
                raise
            assert observer.raised
        for pool in pools:
            assert_quiescent(pool)
            for number in range(1, pool.statistics().spawned + 1):
                assert pool[number].has_ended
    assert told > 30


class EndsAt(Ends):
    """Ends the program when it is told of one kind of event for the *at*-th time."""

    def __init__(self, kind: type[Event], at: int, end: Callable[[], object]) -> None:
        """Nothing was told yet."""
        super().__init__(at, end)
        self.kind = kind

    def on_open(self, _: PoolInfo) -> None:
        """Count no pool."""

    def on_event(self, event: Event) -> None:
        """Count."""
        if isinstance(event, self.kind):
            self._count()

    def on_close(self, _: PoolStatistics) -> None:
        """Count no pool."""


@pytest.mark.parametrize("end", [press, leave])
@pytest.mark.parametrize("stored", ["nothing", "the upper one", "both"])
@pytest.mark.parametrize(
    "kind",
    [AgentParked, AgentResumed, BudgetNear, FellBack, RequestStarted,
     AgentFinished],
)  # fmt: skip
def test_at_any_event_nothing_stays_reserved(
    kind: type[Event], end: Callable[[], object], stored: str
) -> None:
    """Also as an agent begins to wait for a budget, comes back, or asks its next driver."""
    writer = manifest(max_tokens=30)

    async def run(observer: Observer, upper: Budget, budget: Budget, count: int) -> None:
        calls = 0

        async def answer(_: CompletionRequest) -> Completion:
            nonlocal calls
            await trio.sleep(0.1)
            calls += 1
            if calls == 4:
                raise OverloadedError("busy")
            return say("done", usage=Usage(3, 2))

        driver = FallbackDriver(FunctionDriver(answer), FunctionDriver(answer))
        with trio.fail_after(900):
            async with open_pool(
                driver, budget=budget, observers=[observer], max_concurrent=3, random_seed=0
            ) as pool:
                for _ in range(count):
                    await pool.spawn(SpawnConfig(writer, "hello"))
                await pool.join_all()

    at, raised = 0, True
    while raised:
        at += 1
        observer, store = EndsAt(kind, at, end), InMemoryJournal()
        upper = Budget(
            name="upper",
            requests=5,
            per=None if stored == "nothing" else "ever",
            store=None if stored == "nothing" else store,
        )
        budget = Budget(
            parent=upper,
            tokens=100,
            per="ever" if stored == "both" else None,
            store=store if stored == "both" else None,
        )
        with suppress(BaseException):
            trio.run(run, observer, upper, budget, 4, clock=MockClock(autojump_threshold=0))
        raised = observer.raised
        for one in (budget, upper):
            statistics = one.statistics()
            assert (statistics.requests.reserved, statistics.tokens.reserved) == (0, 0)
    assert at > 1


def test_an_ended_agent_is_closed_though_an_observer_ends_the_program_as_it_is_told() -> None:
    """Its budget would count it for as long as the process lives, and keep its store."""
    store = InMemoryJournal()
    budget = Budget(requests=9, per="day", store=store)

    class Last(Observer):
        def on_event(self, event: Event) -> None:
            if isinstance(event, AgentFinished):
                raise SystemExit

    async def run() -> None:
        async with open_pool(
            FunctionDriver(lambda _: "done"), budget=budget, observers=[Last()]
        ) as pool:
            await pool.spawn(job())

    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True, allow_unwrapped=True):
        trio.run(run)
    kept = budget._ledger.kept
    assert kept is not None
    assert (kept.agents, kept.marks.holders) == (0, {})
