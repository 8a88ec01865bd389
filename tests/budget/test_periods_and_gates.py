"""What an outside judge found of budgets: gates, fallbacks, periods and stores that fail."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Final

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Budget,
    DriverError,
    ModelConfig,
    PrivacyTier,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool._budget.account import Amounts
from agentpool._budget.period import Period
from agentpool._budget.store import Limits, StoredUse
from agentpool.abc import BudgetStore, CompletionRequest, Correction, Driver, OnDelta, Usage
from agentpool.drivers import (
    Completion,
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    NetworkError,
    OverloadedError,
    RequestGate,
    say,
)
from agentpool.journal import InMemoryJournal
from agentpool.testing import LatencyDriver, simulate
from tests.support.fakes import LiveDriver

SMALL: Final = AgentManifest(
    name="small",
    capabilities=(),
    model=ModelConfig(max_tokens=40),
)
SEEDS: Final = 10


def small(query: str) -> SpawnConfig:
    """Ask *query* of a model that writes little."""
    return SpawnConfig(SMALL, query)


def broken(_: CompletionRequest) -> Completion:
    """Break on the way."""
    raise NetworkError("broke on the way")


async def slow(_: CompletionRequest, __: OnDelta) -> str:
    """Answer after 200 seconds, and do not say what was used."""
    await trio.sleep(200)
    return "done"


async def used(store: BudgetStore, name: str = "team", per: Period = "hour") -> tuple[int, ...]:
    """Return what the store has counted in the current period."""
    nothing = (0, 0, 0, 0)
    found = await store.spend(name, per, (None, None, None, None), nothing, ())
    return found.used


# --- gates and fallbacks


class Around(Driver):
    """A user's driver around another one, which does not tell when a request is sent."""

    context_window = 8192
    privacy = PrivacyTier.SOVEREIGN

    def __init__(self, inner: Driver) -> None:
        """Ask *inner*."""
        self.inner = inner

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Pass it on."""
        return await self.inner.complete(request, on_delta=on_delta)


@pytest.mark.parametrize("tokens", [100, 140, 160, 180, 240, 400])
@pytest.mark.parametrize("is_silent", [True, False])
def test_who_holds_the_turn_at_a_gate_waits_for_nobody_at_it(
    tokens: int, *, is_silent: bool
) -> None:
    """It asks its next driver; the others have reserved, and wait at the gate."""

    async def run() -> list[AgentStatus]:
        first, second = LatencyDriver(FunctionDriver(broken)), FunctionDriver(lambda _: say("fine"))
        both = FallbackDriver(first, LatencyDriver(second))
        gated = GatedDriver(both, RequestGate(max_in_flight=1))
        driver = Around(gated) if is_silent else gated
        async with open_pool(driver, budget=Budget(tokens=tokens)) as pool:
            await pool.fan_out(small(f"job {number}") for number in range(3))
            return [one.status for one in (await pool.join_all()).values()]

    for seed in range(SEEDS):
        ended = simulate(run, seed=seed)
        assert set(ended) <= {AgentStatus.COMPLETED, AgentStatus.STOPPED}


class OneAtATime(Around):
    """Asks one after the other by a limiter of its own, of which no pool knows."""

    def __init__(self, inner: Driver) -> None:
        """Ask *inner*."""
        super().__init__(inner)
        self.turn = trio.CapacityLimiter(1)

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Wait for the turn, and pass it on."""
        async with self.turn:
            return await super().complete(request, on_delta=on_delta)


@pytest.mark.parametrize("tokens", [100, 160, 240, 400])
@pytest.mark.parametrize("error", [OverloadedError("busy"), NetworkError("broke off")])
def test_who_holds_a_limiter_of_a_driver_waits_for_nobody_at_it(
    tokens: int, error: DriverError
) -> None:
    """The others have reserved, and nobody knows whether their requests were sent."""

    async def refuse(_: CompletionRequest) -> str:
        await trio.sleep(1)
        raise copy(error)

    async def run() -> list[AgentStatus]:
        second = LatencyDriver(FunctionDriver(lambda _: say("fine")))
        driver = OneAtATime(FallbackDriver(FunctionDriver(refuse), second))
        async with open_pool(driver, budget=Budget(tokens=tokens)) as pool:
            await pool.fan_out(small(f"job {number}") for number in range(3))
            return [one.status for one in (await pool.join_all()).values()]

    for seed in range(SEEDS):
        ended = simulate(run, seed=seed)
        assert set(ended) <= {AgentStatus.COMPLETED, AgentStatus.STOPPED}


@pytest.mark.parametrize("at_once", [1, 10, 50])
def test_a_driver_without_a_price_leaves_the_others_theirs(at_once: int) -> None:
    """What they may cost is reserved, although one of them says nothing."""

    async def run() -> tuple[int, int, float]:
        priced = FunctionDriver(lambda _: say("x", usage=Usage(60, 40)), price_per_token_usd=0.01)
        other = FunctionDriver(lambda _: say("x"), price_per_token_usd=None)
        both, budget = FallbackDriver(LatencyDriver(priced), other), Budget(cost_usd=2.0)
        async with open_pool(both, max_concurrent=at_once, budget=budget) as pool:
            await pool.fan_out(small(f"job {number}") for number in range(50))
            await pool.join_all()
        return len(priced.requests), len(other.requests), budget.statistics().cost.committed

    asked, others, cost_usd = simulate(run)
    # What the estimates are too low by, of those that were under way.
    assert asked <= 3
    assert others == 0
    assert cost_usd == asked


def test_an_answer_without_a_price_stops_the_rest_also_after_a_fallback() -> None:
    """The first driver has a price, and it was reserved; the one that answers has none."""

    async def run() -> tuple[int, int]:
        first = FunctionDriver(broken, price_per_token_usd=0.01)
        other = FunctionDriver(lambda _: say("x"), price_per_token_usd=None, estimate_usage=False)
        budget = Budget(cost_usd=20.0)
        async with open_pool(FallbackDriver(first, other), max_concurrent=1, budget=budget) as pool:
            await pool.fan_out(small(f"job {number}") for number in range(5))
            await pool.join_all()
        return len(other.requests), budget.statistics().unpriced

    assert simulate(run) == (1, 1)


# --- periods


def test_what_is_under_way_from_the_last_hour_takes_nothing_of_this_one() -> None:
    """A request that was sent at two minutes to one is paid by the hour before."""

    async def run() -> tuple[AgentStatus, tuple[int, ...], tuple[float, ...]]:
        store = InMemoryJournal()
        budget = Budget(requests=1, tokens=100, per="hour", store=store, name="team")
        await trio.sleep(3500)
        async with open_pool(LiveDriver(slow), budget=budget) as pool:
            await pool.spawn(small("one"))
            await trio.sleep(110)
            second = await pool.spawn(small("two"))
            await trio.sleep(10)
            under_way = budget.statistics()
            outcome = await second.wait()
        ended = budget.statistics()
        seen = (under_way.requests.reserved, ended.requests.committed, ended.tokens.committed)
        return outcome.status, await used(store), seen

    for seed in range(SEEDS):
        status, stored, seen = simulate(run, seed=seed)
        assert status is AgentStatus.COMPLETED
        assert (stored[2], stored[0]) == seen[1:]
        assert seen[0] == 1


def test_who_waited_into_the_next_hour_is_judged_by_it() -> None:
    """Not by what the hour has used that is over."""

    async def run() -> AgentOutcome:
        budget = Budget(tokens=100, per="hour", store=InMemoryJournal(), name="team")
        await trio.sleep(3500)
        async with open_pool(LiveDriver(slow), budget=budget) as pool:
            await pool.spawn(small("one"))
            await trio.sleep(1)
            return await (await pool.spawn(small("two"))).wait()

    for seed in range(SEEDS):
        assert simulate(run, seed=seed).status is AgentStatus.COMPLETED


def test_the_numbers_stay_right_after_a_refusal_by_what_others_have_spent() -> None:
    """A part has too little in its store, and what was set aside above it is given back."""

    async def run() -> tuple[float, int]:
        store = InMemoryJournal()
        top = Budget(requests=100, per="day", store=store, name="top")
        part = Budget(requests=2, per="day", store=store, name="part", parent=top)
        quick = FunctionDriver(lambda _: say("x"), estimate_usage=False)
        async with open_pool(quick, budget=top) as pool:
            for name in ("part", "top"):  # another process
                await store.spend(name, "day", (None, None, None, None), (0, 0, 2, 0), ())
            await pool.fan_out([small("a"), SpawnConfig(SMALL, "b", budget=part)])
            await pool.join_all()
            told = top.statistics().requests.committed
        return told, (await used(store, "top", "day"))[2]

    for seed in range(3 * SEEDS):
        told, stored = simulate(run, seed=seed)
        assert told == stored, seed


# --- stores


class FullOnce(BudgetStore):
    """Has no room once, when the first request is settled."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self.inner, self.left = InMemoryJournal(), 1

    async def spend(
        self,
        name: str,
        per: Period,
        limits: Limits,
        wanted: Amounts,
        corrections: Sequence[Correction],
    ) -> StoredUse:
        """Fail once, then pass on."""
        if corrections and self.left:
            self.left -= 1
            raise OSError(28, "No space left on device")
        return await self.inner.spend(name, per, limits, wanted, corrections)


async def test_an_answer_whose_payment_was_not_stored_is_counted() -> None:
    """It came, and it was paid: the outcome and the budget say the same."""
    budget = Budget(requests=50, per="ever", store=FullOnce(), name="team")
    driver = FunctionDriver(
        lambda _: say("The answer.", usage=Usage(60, 40)), price_per_token_usd=0.01
    )
    async with open_pool(driver, budget=budget) as pool:
        outcome = await (await pool.spawn(small("go"))).wait()
    assert isinstance(outcome.error, OSError)
    assert outcome.usage.total_tokens == budget.statistics().tokens.committed == 100
    assert outcome.cost_usd == pytest.approx(1.0)


@pytest.mark.parametrize("answer", [None, 17, "used"])
async def test_what_is_no_answer_of_a_store_is_refused_with_words(answer: object) -> None:
    """A store may be a user's."""

    class Odd(BudgetStore):
        async def spend(self, *_: object) -> object:  # type: ignore[override]
            """Answer with something else."""
            await trio.lowlevel.checkpoint()
            return answer

    budget = Budget(requests=5, per="ever", store=Odd())
    with pytest.raises(UsageError, match=r"Odd\.spend\(\) must return a StoredUse"):
        async with open_pool(FunctionDriver(lambda _: "x"), budget=budget):
            pytest.fail("it opened")


def test_a_part_must_not_share_the_row_of_its_whole() -> None:
    """Each request would count twice in it."""
    store = InMemoryJournal()
    whole = Budget(requests=10, per="ever", store=store)
    with pytest.raises(UsageError, match="the same name and store"):
        Budget(requests=5, per="ever", store=store, parent=whole)
    Budget(requests=5, per="ever", store=store, parent=whole, name="part")
    Budget(requests=5, per="day", store=store, parent=whole)


# --- what is unknown


def test_an_answer_without_a_price_stops_the_next_process_too() -> None:
    """Each process would otherwise make one such request, under one limit."""

    async def run() -> list[tuple[AgentStatus, float | None, int]]:
        store, seen = InMemoryJournal(), list[tuple[AgentStatus, float | None, int]]()
        for _ in range(3):
            budget = Budget(cost_usd=20.0, per="hour", store=store, name="team")
            unpriced = FunctionDriver(
                lambda _: say("x", usage=Usage(60, 40)), price_per_token_usd=None
            )
            async with open_pool(unpriced, budget=budget) as pool:
                outcome = await (await pool.spawn(small("go"))).wait()
                told = pool.statistics().budget
                assert told is not None
            seen.append((outcome.status, told.cost_usd, told.unpriced))
        await trio.sleep(3600)
        again = Budget(cost_usd=20.0, per="hour", store=store, name="team")
        async with open_pool(FunctionDriver(lambda _: "x"), budget=again):
            assert again.statistics().unpriced == 0
        return seen

    first, *others = simulate(run)
    assert first == (AgentStatus.COMPLETED, None, 1)
    assert others == [(AgentStatus.STOPPED, None, 1)] * 2


def test_two_pools_open_at_once_have_one_answer_without_a_price_between_them() -> None:
    """The second asks the store before it sends what has no price."""

    async def run() -> int:
        store, asked = InMemoryJournal(), 0

        def answer(_: CompletionRequest) -> Completion:
            nonlocal asked
            asked += 1
            return say("x", usage=Usage(60, 40))

        driver = FunctionDriver(answer, price_per_token_usd=None)
        one = Budget(cost_usd=20.0, per="ever", store=store, name="team")
        two = Budget(cost_usd=20.0, per="ever", store=store, name="team")
        async with open_pool(driver, budget=one) as first, open_pool(driver, budget=two) as second:
            await (await first.spawn(small("go"))).wait()
            await (await second.spawn(small("go"))).wait()
        return asked

    assert simulate(run) == 1


def test_what_is_unknown_stays_known_as_such_over_resumes() -> None:
    """Of a budget with a store as of one without."""

    async def run() -> list[tuple[float, int, int, float | None]]:
        journal, seen = InMemoryJournal(), list[tuple[float, int, int, float | None]]()
        for _ in range(3):
            budget = Budget(requests=5, per="ever", store=journal, name="team")
            driver = FunctionDriver(lambda _: say("x"), estimate_usage=False,
                                    price_per_token_usd=None)  # fmt: skip
            async with open_pool(driver, budget=budget, journal=journal, resume=True) as pool:
                await (await pool.spawn(SpawnConfig(SMALL, "go", key="a"))).wait()
            told = budget.statistics()
            seen.append((told.requests.committed, told.unmeasured, told.unpriced, told.cost_usd))
        return seen

    assert simulate(run) == [(1, 1, 1, None)] * 3
