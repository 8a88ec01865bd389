"""Each driver that a fallback asks is reserved for, and counted, before the next one is asked."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, final

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentOutcome,
    AgentStatus,
    Budget,
    DriverError,
    LimitExceededError,
    RetryPolicy,
    SpawnConfig,
    Usage,
    open_pool,
)
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    OnDelta,
    OnSent,
    PrivacyTier,
    SendingDriver,
    ToolContext,
)
from agentpool.drivers import (
    AllDriversFailedError,
    FallbackDriver,
    GatedDriver,
    NetworkError,
    OverloadedError,
    RequestGate,
    ToolMessage,
)
from agentpool.journal import InMemoryJournal
from agentpool.observe import BudgetStatistics
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    NoConnection,
    calling,
    job,
    jobs,
    manifest,
    tool_call,
)

BUSY = OverloadedError("busy")
CUT = NetworkError("cut", retryable=False)


@attrs.define(eq=False)
class Asked:
    """Two providers, and how often they were asked."""

    failure: DriverError = BUSY
    count: int = 0
    last_seconds: float = 1
    """What the second one takes to answer."""

    async def fail(self, _: CompletionRequest, __: OnDelta) -> str:
        """Fail after a second."""
        self.count += 1
        await trio.sleep(1)
        raise self.failure

    async def answer(self, _: CompletionRequest, __: OnDelta) -> Completion:
        """Answer."""
        self.count += 1
        await trio.sleep(self.last_seconds)
        return Completion("done", usage=Usage(5, 5))

    def fallback(self) -> FallbackDriver:
        """Return a driver that asks both, and never learns that the first one always fails."""
        return FallbackDriver(
            LiveDriver(self.fail), LiveDriver(self.answer), max_failures=1_000_000
        )


async def run(driver: Driver, budget: Budget, **pool: object) -> AgentOutcome:
    """Run one agent that draws on *budget*."""
    async with open_pool(driver, budget=budget, **pool) as agents:  # type: ignore[arg-type]  # by name
        return await (await agents.spawn(job())).wait()


def spent(budget: Budget) -> BudgetStatistics:
    """Return what was spent, of a budget of which nothing is reserved any more."""
    now = budget.statistics()
    assert (now.requests.reserved, now.tokens.reserved) == (0, 0)
    return now


async def test_no_driver_is_asked_beyond_the_limit(autojump_clock: MockClock) -> None:
    """However many agents share it. Nothing is left of what they reserved."""
    for limit in range(1, 9):
        asked, budget = Asked(), Budget(requests=limit)
        async with open_pool(asked.fallback(), max_concurrent=10, budget=budget) as pool:
            await pool.fan_out(jobs(*"abcdefghij"))
            outcomes = (await pool.join_all()).values()
        assert asked.count == spent(budget).requests.committed == limit
        assert {outcome.status for outcome in outcomes} <= {
            AgentStatus.STOPPED, AgentStatus.COMPLETED,
        }  # fmt: skip


async def test_the_run_ends_at_the_limit_as_at_any_other(autojump_clock: MockClock) -> None:
    """Its error says which budget; what the first driver took is counted."""
    asked, budget = Asked(CUT), Budget(requests=1, name="night")
    outcome = await run(asked.fallback(), budget)
    assert isinstance(outcome.error, LimitExceededError)
    assert (outcome.status, outcome.error.source) == (AgentStatus.STOPPED, "night")
    assert (asked.count, outcome.unmeasured_requests, spent(budget).refused) == (1, 1, 1)


async def test_the_next_driver_waits_for_what_others_have_reserved(
    autojump_clock: MockClock,
) -> None:
    """It is asked when they give some back: there is enough for one at a time."""
    asked, budget = Asked(), Budget(tokens=1_500)
    async with open_pool(asked.fallback(), max_concurrent=1, budget=budget) as pool:
        await pool.fan_out(jobs(*"abc"))
        outcomes = (await pool.join_all()).values()
    assert [outcome.text for outcome in outcomes] == ["done"] * 3
    assert spent(budget).requests.committed == asked.count == 6


async def test_whoever_is_cancelled_before_the_next_driver_has_asked_one(
    autojump_clock: MockClock,
) -> None:
    """Also if it waits for the budget then."""
    for seconds in (0.5, 1.5):
        asked, budget = Asked(last_seconds=math.inf), Budget(tokens=3_000, requests=9)
        with trio.move_on_after(seconds):
            await run(asked.fallback(), budget)
        assert spent(budget).requests.committed == asked.count == math.ceil(seconds)


async def test_a_tool_is_told_that_the_next_driver_was_not_asked(autojump_clock: MockClock) -> None:
    """By the error of every other refusal."""
    asked = Asked()

    async def consult(_: str, context: ToolContext) -> str:
        try:
            return (await context.agent.complete(asked.fallback(), CompletionRequest(()))).text
        except LimitExceededError as error:
            return error.kind

    async def ask(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.lowlevel.checkpoint()
        return calling(tool_call("consult")) if len(request.messages) == 1 else "done"

    tools = ToolRegistry([FakeTool("consult", consult)])
    for limit, told in ((2, "request_budget"), (3, "done")):
        asked.count, budget = 0, Budget(requests=limit)
        outcome = await run(LiveDriver(ask), budget, tools=tools)
        assert [m.content for m in outcome.messages if isinstance(m, ToolMessage)] == [told]
        assert (asked.count, spent(budget).requests.committed) == (limit - 1, limit)


async def test_a_retry_reserves_anew_for_each_driver(autojump_clock: MockClock) -> None:
    """Two drivers that both fail are four requests in two attempts."""
    asked, budget = Asked(), Budget(requests=100)
    driver = FallbackDriver(LiveDriver(asked.fail), LiveDriver(asked.fail), max_failures=100)
    outcome = await run(driver, budget, request_retries=RetryPolicy(max_attempts=2))
    assert isinstance(outcome.error, AllDriversFailedError)
    assert spent(budget).requests.committed == asked.count == 4
    asked.count, few = 0, Budget(requests=3)
    assert (await run(driver, few)).status is AgentStatus.STOPPED
    assert spent(few).requests.committed == asked.count == 3


# --- drivers of a user's own, around fallbacks


def around(ask: Callable[[CompletionRequest], Awaitable[Completion]]) -> LiveDriver:
    """Return a driver that asks others by *ask*."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion:
        return await ask(request)

    return LiveDriver(answer)


async def test_a_fallback_that_cannot_tell_when_it_sends_counts_too(
    autojump_clock: MockClock,
) -> None:
    """The driver around it is asked, so each of its drivers is."""
    for seconds in (1.5, math.inf):
        asked = Asked(CUT, last_seconds=1 if seconds == math.inf else math.inf)
        budget = Budget(requests=9)
        with trio.move_on_after(seconds):
            await run(around(asked.fallback().complete), budget)
        assert spent(budget).requests.committed == asked.count == 2


async def test_a_second_driver_that_was_not_sent_to_does_not_count(
    autojump_clock: MockClock,
) -> None:
    """Though the one before it was, and the patience of a fallback around both is over."""
    asked, budget = Asked(), Budget(requests=9)

    inner = FallbackDriver(LiveDriver(asked.fail), NoConnection(math.inf))
    outer = FallbackDriver(inner, LiveDriver(asked.answer), patience_seconds=5)
    outcome = await run(outer, budget)
    assert (outcome.text, outcome.unmeasured_requests) == ("done", 0)
    assert spent(budget).requests.committed == asked.count == 2


async def test_a_driver_that_says_once_that_it_sends_counts_each_of_a_fallback(
    autojump_clock: MockClock,
) -> None:
    """Also one that is cut while the second is asked."""
    asked, budget = Asked(last_seconds=math.inf), Budget(requests=9)

    @final
    class Outer(SendingDriver):
        """A driver that tells for itself, and asks a fallback."""

        context_window = None
        privacy = PrivacyTier.SOVEREIGN

        async def complete(
            self,
            request: CompletionRequest,
            *,
            on_delta: OnDelta | None = None,  # noqa: ARG002  # it does not stream
            on_sent: OnSent | None = None,
        ) -> Completion:
            assert on_sent is not None
            on_sent()
            return await asked.fallback().complete(request)

    with trio.move_on_after(1.5):
        await run(Outer(), budget)
    assert spent(budget).requests.committed == asked.count == 2


async def test_one_more_driver_after_a_fallback_is_counted(autojump_clock: MockClock) -> None:
    """The fallback knows nothing of it, so that it was not reserved."""
    asked, budget = Asked(), Budget(requests=9, tokens=9_000)
    pair = FallbackDriver(LiveDriver(asked.fail), LiveDriver(asked.fail))

    async def ask(request: CompletionRequest) -> Completion:
        try:
            return await pair.complete(request)
        except AllDriversFailedError:
            return await asked.answer(request, print)

    assert (await run(around(ask), budget)).text == "done"
    assert spent(budget).requests.committed == asked.count == 3
    assert spent(budget).tokens.committed > 0


@pytest.mark.parametrize(
    ("last", "unmeasured"),
    [(Completion("x", usage=Usage(5, 5)), 0), (Completion("x"), 1), (7, 1), (CUT, 1)],
    ids=["measured", "unmeasured", "wrong", "cut"],
)
async def test_one_more_driver_counts_the_same_in_the_next_process(
    autojump_clock: MockClock, last: object, unmeasured: int
) -> None:
    """Whatever came of it: it was priced, and it was sent."""
    asked, journal = Asked(), InMemoryJournal()
    pair = FallbackDriver(LiveDriver(asked.fail), LiveDriver(asked.fail))

    async def ask(request: CompletionRequest, _: OnDelta, on_sent: OnSent) -> Any:  # noqa: ANN401  # it may be wrong
        try:
            return await pair.complete(request, on_sent=on_sent)
        except AllDriversFailedError:
            on_sent()
            await asked.answer(request, print)  # noqa: ASYNC120  # it is not cancelled
            if isinstance(last, DriverError):
                raise last from None
            return last

    told = list[tuple[float, float, float, int, int]]()
    for _ in range(3):
        budget = Budget(requests=9, tokens=9_000, cost_usd=99)
        async with open_pool(
            Telling(ask), budget=budget, journal=journal, resume=True, name="kept"
        ) as pool:
            await (await pool.spawn(SpawnConfig(manifest(), "go", key="a"))).wait()
        now = spent(budget)
        used = now.requests.committed, now.tokens.committed, now.cost.committed
        told.append((*used, now.unmeasured, now.unpriced))
    assert told[0] == told[1] == told[2]
    assert (told[0][0], *told[0][3:]) == (asked.count, unmeasured, 0)
    assert asked.count == 3


@final
@attrs.define(eq=False)
class Telling(SendingDriver):
    """A driver with a price that asks others, and says when they send."""

    ask: Callable[[CompletionRequest, OnDelta, OnSent], Awaitable[Completion]]

    context_window = None
    privacy = PrivacyTier.SOVEREIGN

    def price(self, usage: Usage, *, model: str | None = None) -> float:  # noqa: ARG002  # one price
        """Return a thousandth of a dollar for each token."""
        return usage.total_tokens / 1000

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Ask them."""
        assert on_sent is not None
        return await self.ask(request, on_delta or print, on_sent)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("late_seconds", [0.0, 0.5, 2.0])
async def test_two_fallbacks_at_once_leave_nothing_reserved(
    autojump_clock: MockClock, late_seconds: float, *, is_stored: bool
) -> None:
    """Whichever answers first, and where both reserve at the same time: a store takes a while."""
    asked, budget = Asked(), Budget(requests=9, tokens=9_000)
    if is_stored:
        budget = Budget(requests=9, tokens=9_000, per="day", store=InMemoryJournal())

    async def race(request: CompletionRequest) -> Completion:
        answers: list[Completion] = []

        async def ask(seconds: float) -> None:
            await trio.sleep(seconds)
            answers.append(await asked.fallback().complete(request))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 0.0)
            nursery.start_soon(ask, late_seconds)
        return answers[0]

    assert (await run(around(race), budget)).text == "done"
    assert 2 <= spent(budget).requests.committed <= asked.count


# --- money


def priced(price_usd: float, answer: Callable[..., Awaitable[Completion]]) -> LiveDriver:
    """Return a driver with a price for each token."""
    return LiveDriver(answer, price_per_token_usd=price_usd)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("prices_usd", [(0.01, 0.001), (0.001, 0.01), (0.0, 0.01)])
async def test_a_fallback_reserves_the_highest_price(
    autojump_clock: MockClock, prices_usd: tuple[float, float], *, wrap: bool
) -> None:
    """Any of its drivers may answer. A request may cost 11 dollars, and costs 0.1 at most."""
    asked = Asked()
    driver: Driver = FallbackDriver(*(priced(price, asked.answer) for price in prices_usd))
    if wrap:
        driver = GatedDriver(driver, RequestGate("gate", max_in_flight=99))
    for limit_usd, most in ((0.5, 0), (20, 1), (40, 3)):
        budget, asked.count = Budget(cost_usd=limit_usd), 0
        async with open_pool(driver, max_concurrent=10, budget=budget) as pool:
            await pool.fan_out(jobs(*"abcdefghij"))
            await trio.sleep(0.5)
            reserved = budget.statistics().cost.reserved
            outcomes = (await pool.join_all()).values()
        assert reserved <= limit_usd
        assert (reserved > 0) is (most > 0)
        assert asked.count == sum(one.status is AgentStatus.COMPLETED for one in outcomes)
        assert (asked.count == 0) is (most == 0)
        assert spent(budget).cost.committed <= limit_usd


def test_a_fallback_has_the_highest_price_that_is_known() -> None:
    """A driver without a price is no reason to reserve nothing for the others."""
    asked = Asked()
    unpriced = LiveDriver(asked.answer)
    driver = FallbackDriver(priced(0.01, asked.answer), unpriced)
    assert driver.highest_price(Usage(1, 1)) == pytest.approx(0.02)
    assert FallbackDriver(unpriced, unpriced).highest_price(Usage(1, 1)) is None
    both = FallbackDriver(priced(0.01, asked.answer), FallbackDriver(priced(0.02, asked.answer)))
    assert both.highest_price(Usage(1, 1)) == pytest.approx(0.04)
    assert both.price(Usage(1, 1)) is None
