"""Budgets: set aside first, used then, counted once, in every budget above."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from agentpool import Budget, LimitExceededError, StopReason, UsageError, UsageLimits
from agentpool._budget.account import BudgetNotice
from agentpool._budget.budget import family_budget, ledger_of
from agentpool._budget.claims import MAX_PASSED, Claim
from agentpool._budget.reservation import RequestReservation
from agentpool.observe import BudgetMeter
from agentpool.tools import Reservation


def reserved(budget: Budget) -> tuple[float, float, float, float]:
    """Return what is set aside of each kind."""
    now = budget.statistics()
    return (
        now.tokens.reserved,
        now.cost.reserved,
        now.requests.reserved,
        now.tool_calls.reserved,
    )


def committed(budget: Budget) -> tuple[float, float, float, float]:
    """Return what is used of each kind."""
    now = budget.statistics()
    return (
        now.tokens.committed,
        now.cost.committed,
        now.requests.committed,
        now.tool_calls.committed,
    )


def claim(budget: Budget, tokens: int, *, stalled: bool = False) -> Claim:
    """Want one request of so many tokens, and wait if need be."""
    return ledger_of(budget).claim(tokens=tokens, cost_usd=0.0, is_stalled=lambda: stalled)


def granted(claim: Claim) -> RequestReservation:
    """Return the reservation of a claim that has it."""
    assert isinstance(claim.result, RequestReservation), claim.result
    return claim.result


def refusal(claim: Claim) -> LimitExceededError:
    """Return the error of a claim that was refused."""
    assert isinstance(claim.result, LimitExceededError), claim.result
    return claim.result


# --- limits


@pytest.mark.parametrize("name", ["tokens", "requests", "tool_calls"])
@pytest.mark.parametrize("limit", [0, -1, 1.5, math.nan, math.inf, True, "7"])
def test_a_limit_is_a_whole_number_above_nothing(name: str, limit: object) -> None:
    """A limit of 0 divided by zero, and NaN switched the guard off."""
    with pytest.raises(UsageError, match=f"{name} must be a whole number >= 1, got"):
        Budget(**{name: limit})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["tokens", "requests", "tool_calls"])
@pytest.mark.parametrize("number", [-1, 1.5, math.nan, math.inf, True, "7"])
def test_an_amount_is_a_whole_number(name: str, number: object) -> None:
    """A flag that lands in a number was taken for one token."""
    budget = Budget(tokens=10)
    with pytest.raises(UsageError, match=f"{name} must be a whole number >= 0, got"):
        budget.reserve(**{name: number})  # type: ignore[arg-type]  # that is the point
    assert budget.statistics().tokens.reserved == 0


@pytest.mark.parametrize("limit", [0, 0.0, -0.5, math.nan, math.inf])
def test_a_limit_on_cost_is_finite_and_above_nothing(limit: float) -> None:
    """A limit of NaN was never exceeded."""
    with pytest.raises(UsageError, match="cost_usd must be finite and > 0, got"):
        Budget(cost_usd=limit)


@pytest.mark.parametrize("limit", [Decimal("0.5"), "3", b"3", [3], True])
def test_a_cost_of_the_wrong_type_is_told_by_its_type(limit: Any) -> None:  # noqa: ANN401  # that is the point
    """It may well be finite and above 0."""
    says = re.escape(f"must be an int or a float, got {limit!r}; ")
    with pytest.raises(UsageError, match=f"cost_usd {says}leave it out for no limit"):
        Budget(cost_usd=limit)
    with pytest.raises(UsageError, match=f"cost_limit_usd {says}"):
        UsageLimits(cost_limit_usd=limit)
    budget = Budget(cost_usd=1)
    with pytest.raises(UsageError, match=f"cost_usd {says}"):
        budget.change_limit("cost_usd", limit)
    with pytest.raises(UsageError, match=f"cost_usd {says}use None if it is unknown"):
        budget.reserve(cost_usd=limit)


def test_without_limits_it_only_counts() -> None:
    """A budget may be there to see what was spent."""
    budget = Budget(name="all")
    budget.reserve(tokens=10**9, cost_usd=1e6, requests=10**6, tool_calls=10**6).commit(
        tokens=5, cost_usd=0.25
    )
    assert committed(budget) == (5, 0.25, 10**6, 10**6)
    assert repr(budget) == "<Budget 'all': no limit>"


def test_its_repr_says_what_is_limited() -> None:
    """For logs."""
    budget = Budget(tokens=10_000, cost_usd=2.5, requests=3, tool_calls=4)
    assert repr(budget) == (
        "<Budget 'budget': 10,000 tokens, 2.500000 US dollars, 3 requests, 4 tool calls>"
    )


# --- reserve and settle


def test_what_was_not_used_comes_back() -> None:
    """A reservation is an estimate, and the provider's usage is the truth."""
    budget = Budget(tokens=100, cost_usd=1.0)
    reservation = budget.reserve(tokens=90, cost_usd=0.9, requests=1)
    assert (reservation.tokens, reservation.is_settled) == (90, False)
    assert reserved(budget) == (90, 0.9, 1, 0)
    assert reservation.commit(tokens=20, cost_usd=0.1) is False
    assert (committed(budget), reserved(budget)) == ((20, 0.1, 1, 0), (0, 0, 0, 0))
    assert reservation.is_settled


@pytest.mark.parametrize(
    ("limits", "wanted", "kind", "used", "limit"),
    [
        ({"tokens": 100}, {"tokens": 41}, StopReason.TOKEN_BUDGET, 60, 100),
        ({"cost_usd": 1.0}, {"cost_usd": 0.41}, StopReason.COST_BUDGET, 0.6, 1.0),
        ({"requests": 2}, {"requests": 1}, StopReason.REQUEST_BUDGET, 2, 2),
        ({"tool_calls": 2}, {"tool_calls": 1}, StopReason.TOOL_CALL_BUDGET, 2, 2),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    limits: dict[str, float],
    wanted: dict[str, float],
    kind: StopReason,
    used: float,
    limit: float,
) -> None:
    """The error says what, how much, of how much, and whose limit it is."""
    budget = Budget(name="night", **limits)  # type: ignore[arg-type]  # one of four
    budget.reserve(tokens=30, cost_usd=0.3, requests=1, tool_calls=1).commit()
    budget.reserve(tokens=30, cost_usd=0.3, requests=1, tool_calls=1)
    before = (committed(budget), reserved(budget))
    with pytest.raises(LimitExceededError, match="budget 'night' has too little left") as caught:
        budget.reserve(**wanted)  # type: ignore[arg-type]  # one of four
    error = caught.value
    assert (error.kind, error.used, error.limit) == (kind.value, used, limit)
    assert error.source == "night"
    assert (committed(budget), reserved(budget)) == before
    assert budget.statistics().refused == 1


def test_exactly_the_rest_fits() -> None:
    """Up to the limit, not below it."""
    budget = Budget(tokens=100, requests=1)
    budget.reserve(tokens=100, requests=1)
    assert budget.statistics().tokens.left == 0


def test_nothing_is_always_allowed() -> None:
    """A free request is not an expense, so no limit on cost is in its way."""
    budget = Budget(cost_usd=1.0)
    budget.reserve(cost_usd=1.0).commit()
    budget.reserve(cost_usd=0.0, requests=1).commit(tokens=0, cost_usd=0.0)
    statistics = budget.statistics()
    assert (statistics.cost_usd, statistics.requests.committed) == (1.0, 1)


def test_a_request_that_is_thought_to_be_free_is_none_above_the_limit() -> None:
    """Found by the properties: a driver that estimates nothing was never stopped."""
    budget = Budget(cost_usd=1.0)
    budget.reserve(cost_usd=0.0, requests=1).commit(tokens=0, cost_usd=1.5)
    with pytest.raises(LimitExceededError):
        budget.reserve(cost_usd=0.0, requests=1)
    budget.reserve(tool_calls=1)


@pytest.mark.parametrize("how", ["commit", "charge", "refund"])
@pytest.mark.parametrize("again", ["commit", "charge", "refund"])
def test_a_reservation_is_settled_once(how: str, again: str) -> None:
    """Whatever it was the first time: nothing is given back twice."""
    budget = Budget(tokens=100)
    reservation = budget.reserve(tokens=60)
    getattr(reservation, how)()
    before = (committed(budget), reserved(budget))
    with pytest.raises(UsageError, match="has already been settled"):
        getattr(reservation, again)()
    assert (committed(budget), reserved(budget)) == before


def test_a_refund_gives_everything_back() -> None:
    """Also the request: it was not made."""
    budget = Budget(tokens=100, cost_usd=1.0, requests=1, tool_calls=1)
    budget.reserve(tokens=60, cost_usd=0.5, requests=1, tool_calls=1).refund()
    assert (committed(budget), reserved(budget)) == ((0, 0, 0, 0), (0, 0, 0, 0))
    assert budget.statistics().unmeasured == 0


def test_unknown_usage_charges_the_reservation_and_is_counted() -> None:
    """A provider that does not say what it used has not used nothing."""
    budget = Budget(tokens=100, cost_usd=1.0)
    budget.reserve(tokens=60, cost_usd=0.5, requests=1).commit()
    assert committed(budget) == (60, 0.5, 1, 0)
    now = budget.statistics()
    assert (now.unmeasured, now.unpriced, now.cost_usd) == (1, 0, 0.5)


def test_a_block_that_does_not_settle_charges_the_reservation() -> None:
    """However it was left: it was under way, and nobody has said what it used."""
    budget = Budget(tokens=100)
    with pytest.raises(OSError, match="gone"), budget.reserve(tokens=60) as reservation:
        raise OSError("gone")
    assert reservation.is_settled
    assert committed(budget)[0] == 60
    assert budget.statistics().unmeasured == 1


def test_nobody_waits_for_what_was_reserved_by_hand() -> None:
    """Its owner may keep it for as long as the pool is open."""
    budget = Budget(tokens=10)
    budget.reserve(tokens=5, requests=1)
    refusal(claim(budget, 6))


def test_a_block_that_settles_is_left_alone() -> None:
    """What was said inside counts."""
    budget = Budget(tokens=100)
    with budget.reserve(tokens=60) as reservation:
        reservation.commit(tokens=5, cost_usd=0.0)
    assert committed(budget)[0] == 5


@pytest.mark.parametrize("tokens", [-1, 1.5, "7"])
def test_tokens_that_mean_nothing_change_nothing(tokens: object) -> None:
    """A negative usage was a refund."""
    budget = Budget(tokens=100)
    reservation = budget.reserve(tokens=60)
    with pytest.raises(UsageError, match="tokens must be a whole number >= 0"):
        reservation.commit(tokens=tokens)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(UsageError, match="tokens must be a whole number >= 0"):
        budget.reserve(tokens=tokens)  # type: ignore[arg-type]  # that is the point
    assert (committed(budget)[0], reserved(budget)[0]) == (0, 60)


@pytest.mark.parametrize("cost_usd", [-0.5, math.nan, math.inf, -math.inf])
def test_a_cost_that_means_nothing_changes_nothing(cost_usd: float) -> None:
    """NaN switched the cost limit off."""
    budget = Budget(cost_usd=1.0)
    reservation = budget.reserve(cost_usd=0.5)
    with pytest.raises(UsageError, match="cost_usd must be finite and >= 0"):
        reservation.commit(tokens=1, cost_usd=cost_usd)
    with pytest.raises(UsageError, match="cost_usd must be finite and >= 0"):
        budget.reserve(cost_usd=cost_usd)
    assert (committed(budget)[1], reserved(budget)[1]) == (0, 0.5)


def test_an_answer_may_pass_a_limit_and_says_so() -> None:
    """It is there and paid for; nothing more is allowed after it."""
    outer = Budget(tokens=100, name="outer")
    inner = Budget(parent=outer)
    assert inner.reserve(tokens=50).commit(tokens=101) is True
    assert committed(outer)[0] == 101
    with pytest.raises(LimitExceededError):
        inner.reserve(tokens=1)
    assert outer.statistics().tokens.left == 0


def test_sums_of_money_are_exact() -> None:
    """Ten times ten cents are a dollar, which they are not in floats."""
    budget = Budget(cost_usd=1.0)
    for _ in range(10):
        budget.reserve(cost_usd=0.1).commit(tokens=0, cost_usd=0.1)
    assert budget.statistics().cost == BudgetMeter(limit=1.0, committed=1.0, reserved=0.0)


def test_money_beyond_every_float_is_still_money() -> None:
    """A price list with a slip in it must not end in an error that nobody understands."""
    budget = Budget(cost_usd=1e300)
    budget.reserve(cost_usd=1e299).commit(tokens=0, cost_usd=1e299)
    assert math.isclose(committed(budget)[1], 1e299)


# --- trees


def test_a_child_spends_of_every_budget_above() -> None:
    """What a sub-agent spent counted nowhere."""
    root = Budget(tokens=100, name="root")
    middle = Budget(tokens=80, parent=root, name="middle")
    leaf = Budget(parent=middle, name="leaf")
    leaf.reserve(tokens=30, requests=1).commit(tokens=20, cost_usd=0.0)
    middle.reserve(tokens=10)
    assert [committed(budget)[0] for budget in (leaf, middle, root)] == [20, 20, 20]
    assert [reserved(budget)[0] for budget in (leaf, middle, root)] == [0, 10, 10]
    assert leaf.is_within(root)
    assert leaf.is_within(leaf)
    assert not root.is_within(leaf)
    assert (leaf.parent, middle.parent, root.parent) == (middle, root, None)


@pytest.mark.parametrize(("own", "above"), [(10, 100), (100, 10)])
def test_a_child_can_only_narrow(own: int, above: int) -> None:
    """A larger limit below a smaller one allows nothing more."""
    root = Budget(tokens=above, name="root")
    child = Budget(tokens=own, parent=root, name="child")
    with pytest.raises(LimitExceededError) as caught:
        child.reserve(tokens=11)
    assert caught.value.source == ("child" if own < above else "root")
    assert reserved(root) == reserved(child) == (0, 0, 0, 0)
    assert root.statistics().refused == child.statistics().refused == 1


# --- costs that nobody knows


def test_an_answer_without_a_price_ends_a_limit_on_cost() -> None:
    """A driver that priced everything at 0 switched the cost limit off."""
    budget = Budget(cost_usd=1.0, name="night")
    other = Budget(cost_usd=1.0)
    for one in (budget, other):
        one.reserve(cost_usd=None, requests=1).commit(tokens=5)
    now = budget.statistics()
    assert (now.unpriced, now.unmeasured, now.cost_usd) == (1, 0, None)
    with pytest.raises(LimitExceededError, match="an answer has no known price") as caught:
        budget.reserve(cost_usd=0.1)
    assert caught.value.kind == StopReason.COST_BUDGET.value
    with pytest.raises(LimitExceededError, match="an answer has no known price"):
        budget.reserve(cost_usd=None, requests=1)
    budget.reserve(requests=1, cost_usd=0.0).commit(tokens=1, cost_usd=0.0)


def test_a_budget_may_allow_what_nobody_can_price() -> None:
    """It is then held against what is known."""
    budget = Budget(cost_usd=1.0, allow_unpriced=True)
    budget.reserve(cost_usd=None, requests=1).commit(tokens=5)
    budget.reserve(cost_usd=0.6).commit(tokens=5, cost_usd=0.6)
    assert budget.statistics().cost_usd is None
    with pytest.raises(LimitExceededError):
        budget.reserve(cost_usd=0.6)


def test_without_a_limit_on_cost_nobody_needs_prices() -> None:
    """The number is unknown, and nothing stops for it."""
    budget = Budget(tokens=100)
    budget.reserve(tokens=1, cost_usd=None, requests=1).commit(tokens=1)
    budget.reserve(tokens=1, cost_usd=None, requests=1).commit(tokens=1)
    assert budget.statistics().cost_usd is None


def test_a_spent_limit_on_cost_allows_nothing_without_a_price() -> None:
    """Nobody knows how much it takes, and nothing is left."""
    budget = Budget(cost_usd=1.0)
    budget.reserve(cost_usd=1.0).commit()
    with pytest.raises(LimitExceededError):
        budget.reserve(cost_usd=None, requests=1)


def test_an_estimate_stands_in_for_a_price_that_did_not_come() -> None:
    """The answer of another model than was asked may have no price."""
    budget = Budget(cost_usd=1.0)
    budget.reserve(cost_usd=0.3, requests=1).commit(tokens=5)
    now = budget.statistics()
    assert (now.unmeasured, now.unpriced, now.cost_usd) == (1, 0, 0.3)
    budget.reserve(cost_usd=0.3)


def test_a_request_without_an_answer_does_not_end_a_limit_on_cost() -> None:
    """An answer would perhaps have had a price: one that broke off proves nothing."""
    budget = Budget(cost_usd=1.0)
    budget.reserve(cost_usd=None, requests=1).charge()
    assert budget.statistics().cost_usd is None
    budget.reserve(cost_usd=None, requests=1).commit(tokens=5, cost_usd=0.2)


# --- waiting


def test_who_finds_too_little_waits_for_what_may_come_back() -> None:
    """The others have set aside more than they will use."""
    budget = Budget(tokens=100)
    first = granted(claim(budget, 80))
    woken = list[str]()
    second, third = claim(budget, 60), claim(budget, 30)
    for name, one in (("second", second), ("third", third)):
        assert one.result is None
        one.wake = _noting(woken, name)
    first.start()
    first.commit(tokens=5)
    assert woken == ["second", "third"]
    assert third.passed == 0
    assert reserved(budget)[0] == granted(second).tokens + granted(third).tokens == 90


def _noting(names: list[str], name: str) -> Callable[[], object]:
    return lambda: names.append(name)


def test_who_fits_goes_before_who_does_not() -> None:
    """A budget ends, so nobody waits for ever; and waiting would help nobody."""
    budget = Budget(tokens=100)
    first = granted(claim(budget, 80))
    large = claim(budget, 50)
    assert large.result is None
    granted(claim(budget, 20)).commit(tokens=20)
    first.commit(tokens=40)
    refusal(large)


def test_one_that_wants_much_does_not_starve_among_those_that_want_little() -> None:
    """They went before it for as long as there were any: it waited for the last of them."""
    budget = Budget(tokens=100)
    under_way = deque(granted(claim(budget, 30)) for _ in range(3))
    large = claim(budget, 90)
    for _ in range(20):
        small = claim(budget, 10)
        if isinstance(small.result, Reservation):
            under_way.append(small.result)
        if under_way:
            under_way.popleft().commit(tokens=0)
    assert granted(large).tokens == 90


def test_who_waits_for_a_turn_has_it_when_the_one_before_gives_up() -> None:
    """It is not what the budget has that they wait for."""
    budget = Budget(tokens=100)
    granted(claim(budget, 30)).start()
    large = claim(budget, 90)
    for _ in range(MAX_PASSED):
        granted(claim(budget, 5)).commit(tokens=0)
    held_up = claim(budget, 5)
    assert held_up.result is None
    large.withdraw()
    granted(held_up)


def test_who_spends_of_another_budget_waits_for_no_turn() -> None:
    """What it takes would not be missed."""
    root = Budget(tokens=1000)
    here, there = Budget(tokens=100, parent=root), Budget(tokens=100, parent=root)
    first = granted(claim(here, 30))
    large = claim(here, 90)
    for _ in range(MAX_PASSED):
        granted(claim(there, 5)).commit(tokens=0)
        granted(claim(here, 5)).commit(tokens=0)
    assert claim(here, 5).result is None
    granted(claim(there, 5))
    granted(claim(root, 5))
    first.commit(tokens=0)
    granted(large)


def test_who_cannot_be_served_holds_up_nobody() -> None:
    """The one that it waits for waits as well: it is told, and the others have their turn."""
    budget = Budget(tokens=100)
    waits = False
    first = granted(ledger_of(budget).claim(tokens=30, cost_usd=0.0, is_stalled=lambda: waits))
    first.start()
    large = claim(budget, 90)
    for _ in range(MAX_PASSED):
        granted(claim(budget, 5)).commit(tokens=0)
    held_up = claim(budget, 5)
    waits = True
    ledger_of(budget).reconsider()
    refusal(large)
    granted(held_up)


def test_who_can_never_fit_is_refused_at_once() -> None:
    """What is used does not come back."""
    budget = Budget(tokens=100)
    budget.reserve(tokens=50).commit()
    claim(budget, 30)
    assert "has too little left" in str(refusal(claim(budget, 51)))


def test_who_waits_is_refused_when_nothing_more_can_come() -> None:
    """The last one that was under way took it all."""
    budget = Budget(tokens=100)
    first = granted(claim(budget, 80))
    second = claim(budget, 60)
    first.commit(tokens=70)
    assert refusal(second).used == 70


def test_nobody_waits_for_requests() -> None:
    """What was made is made: a limit of requests is settled when it is reserved."""
    budget = Budget(requests=1)
    granted(claim(budget, 1))
    assert refusal(claim(budget, 1)).kind == StopReason.REQUEST_BUDGET.value


def test_nobody_waits_for_a_reservation_that_is_for_no_request() -> None:
    """Whoever made it by hand may keep it as long as the pool lives."""
    budget = Budget(tokens=100)
    budget.reserve(tokens=80)
    refusal(claim(budget, 60))


def test_nobody_waits_for_one_who_waits() -> None:
    """The request of an agent that waits for others may wait for who waits for it."""
    budget = Budget(tokens=100)
    waits = False
    first = granted(ledger_of(budget).claim(tokens=80, cost_usd=0.0, is_stalled=lambda: waits))
    first.start()
    second = claim(budget, 60)
    assert second.result is None
    waits = True
    ledger_of(budget).reconsider()
    refusal(second)


def test_one_that_did_not_start_is_waited_for() -> None:
    """It got its reservation while it had no slot: it takes one before it goes on."""
    budget = Budget(tokens=100)
    granted(claim(budget, 80, stalled=True))
    assert claim(budget, 60).result is None


def test_a_claim_that_is_withdrawn_leaves_nothing() -> None:
    """Whoever is cancelled while it waits, or just after it was served."""
    budget = Budget(tokens=100)
    first = granted(claim(budget, 80))
    second, third = claim(budget, 60), claim(budget, 60)
    second.withdraw()
    first.commit(tokens=0, cost_usd=0.0)
    assert second.result is None
    granted(third)
    third.withdraw()
    assert (reserved(budget), committed(budget)) == ((0, 0, 0, 0), (0, 0, 1, 0))


def test_a_request_that_did_not_start_is_given_back() -> None:
    """Nothing was sent, so there is nothing to pay."""
    budget = Budget(tokens=100, requests=1)
    granted(claim(budget, 60)).close()
    second = granted(claim(budget, 60))
    second.start()
    second.close()
    second.close()
    assert committed(budget) == (60, 0, 1, 0)


def test_a_run_is_held_to_its_limits_as_by_a_guard() -> None:
    """One more request to whoever is not above them, whatever the estimate says."""
    budget = family_budget(
        tokens=100, cost_usd=None, requests=4, tool_calls=0, parent=None, name="run"
    )
    for tokens in (90, 10, 1):
        granted(claim(budget, 1000)).commit(tokens=tokens, cost_usd=0.0)
    refusal(claim(budget, 1))


def test_requests_and_calls_of_a_run_are_exact() -> None:
    """An estimate may be wrong, a count is not; and of calls there may be none left."""
    budget = family_budget(
        tokens=None, cost_usd=None, requests=2, tool_calls=0, parent=None, name="run"
    )
    with pytest.raises(LimitExceededError, match="0 of 0 tool calls"):
        budget.reserve(tool_calls=1)
    for _ in range(2):
        granted(claim(budget, 1000)).commit(tokens=1, cost_usd=0.0)
    refusal(claim(budget, 1))


# --- news


def test_that_a_limit_is_near_and_reached_is_told_once() -> None:
    """At four fifths, and at the end."""
    root = Budget(tokens=100, name="root")
    leaf = Budget(requests=1, parent=root, name="leaf")
    root.reserve(tokens=79).commit()
    assert ledger_of(root).account.take_news() == ()
    root.reserve(tokens=1).commit()
    root.reserve(tokens=1).commit()
    leaf.reserve(requests=1).commit()
    root.reserve(tokens=19).commit()
    with pytest.raises(LimitExceededError):
        root.reserve(tokens=1)
    assert ledger_of(leaf).account.take_news() == (
        BudgetNotice("root", StopReason.TOKEN_BUDGET, 80, 100, reached=False),
        BudgetNotice("leaf", StopReason.REQUEST_BUDGET, 1, 1, reached=True),
        BudgetNotice("root", StopReason.TOKEN_BUDGET, 100, 100, reached=True),
    )
    assert ledger_of(root).account.take_news() == ()


def test_a_limit_that_leaves_too_little_counts_as_reached() -> None:
    """Somebody was refused, so somebody has to know."""
    budget = Budget(tokens=100)
    budget.reserve(tokens=50)
    with pytest.raises(LimitExceededError):
        budget.reserve(tokens=60)
    (notice,) = ledger_of(budget).account.take_news()
    assert (notice.used, notice.limit, notice.reached) == (50, 100, True)


def test_a_meter_without_a_limit_has_no_rest() -> None:
    """None is not zero."""
    assert Budget().statistics().tokens.left is None


# --- what a mutation once got past


def test_a_budget_says_what_it_is_a_part_of() -> None:
    """Whoever is given one can find the whole."""
    whole = Budget(tokens=100)
    assert Budget(parent=whole).parent is whole
    assert whole.parent is None


def test_nobody_waits_for_what_could_not_come_back() -> None:
    """All is used, and what is set aside beside it is not what lacks: the answer comes at once."""
    budget = Budget(tokens=100)
    under_way = granted(claim(budget, 1))
    budget.reserve(tokens=99).commit(tokens=100)
    assert refusal(claim(budget, 0)).kind == "token_budget"
    under_way.refund()


def test_what_fits_to_the_last_token_is_waited_for() -> None:
    """What is set aside beside it may come back, and then there is just enough."""
    budget = Budget(tokens=100)
    budget.reserve(tokens=50).commit(tokens=50)
    under_way = granted(claim(budget, 40))
    waiting = claim(budget, 50)
    assert waiting.result is None
    under_way.refund()
    granted(waiting)


def test_what_a_store_does_not_know_yet_is_used_as_well() -> None:
    """It tells what all have used and set aside; what this process has used since is added."""
    account = ledger_of(Budget(tokens=100)).account
    account.see((50, 0, 0, 0), (7, 0, 0, 0), (10, 0, 0, 0))
    assert account.committed[0] == 50 + 7 - 10


def test_a_refusal_says_what_is_used_set_aside_and_wanted() -> None:
    """Each with its own number: somebody has to find out which of them to change."""
    budget = Budget(tokens=1_000, name="night")
    budget.reserve(tokens=200).commit(tokens=250)
    budget.reserve(tokens=700)
    with pytest.raises(LimitExceededError) as caught:
        budget.reserve(tokens=60, requests=1)
    assert str(caught.value) == (
        "budget 'night' has too little left: 250 of 1,000 tokens are used and 700 set aside, and "
        "60 are wanted for the input of a request and its longest possible answer, which a lower "
        "model.max_tokens shortens; increase the limit to go on"
    )
    with pytest.raises(LimitExceededError, match="2 are wanted; increase the limit to go on"):
        Budget(requests=1).reserve(tokens=0, requests=2)
    # A tool that reserves by hand asks for something else.
    with pytest.raises(LimitExceededError, match="60 are wanted; increase the limit to go on"):
        budget.reserve(tokens=60)
