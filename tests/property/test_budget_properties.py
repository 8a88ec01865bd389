"""What holds of budgets for every order of reservations, answers, failures and waits.

The model knows no sums: it keeps what was reserved and what was charged, each with the
budget where that happened, and adds it up anew each time.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable
from functools import partial
from typing import TypeAlias

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentpool import Budget, LimitExceededError, ResourceQuota, Usage, UsageError, UsageLimits
from agentpool._budget.budget import ledger_of
from agentpool._budget.claims import MAX_PASSED, Claim
from agentpool._budget.reservation import RequestReservation
from agentpool._loop.conversation import fixed_tokens, message_tokens, request_tokens
from agentpool._loop.tokens import Estimator
from agentpool._messages import ANSWER_TOKENS
from agentpool.abc import CompletionRequest
from agentpool.drivers import AnswerForm, ChatMessage, UserMessage
from agentpool.observe import BudgetMeter, BudgetStatistics
from agentpool.testing import strategies
from agentpool.tools import Reservation

KINDS = ("tokens", "cost", "requests", "tool_calls")
EXACT = ("requests", "tool_calls")
LIMITS = st.none() | st.integers(1, 30)
AMOUNTS = st.integers(0, 12)
PLACES = st.integers(0, 50)

Spent: TypeAlias = tuple[Budget, dict[str, int]]
"""Where something was spent, and how much of each kind."""


def meters(budget: Budget) -> dict[str, BudgetMeter]:
    """Return what a budget counts, by kind."""
    now = budget.statistics()
    return {kind: getattr(now, kind) for kind in KINDS}


@attrs.define(eq=False)
class Held:
    """A reservation, as the model knows it."""

    at: Budget
    amounts: dict[str, int]
    reservation: Reservation
    is_request: bool = False
    stalled: bool = False


@attrs.define(eq=False)
class Waiting:
    """A claim that waits, as the model knows it."""

    at: Budget
    amounts: dict[str, int]
    claim: Claim
    woken: int = 0
    stalled: bool = False


def path_of(budget: Budget) -> list[Budget]:
    """Return *budget* and every budget above it."""
    return [budget] if budget.parent is None else [budget, *path_of(budget.parent)]


class BudgetMachine(RuleBasedStateMachine):
    """A tree of budgets, and everybody who draws on it."""

    def __init__(self) -> None:
        """Begin with a root that is easily spent."""
        super().__init__()
        root = Budget(tokens=40, cost_usd=40.0, requests=12, tool_calls=8, name="root")
        self.budgets = [root]
        self.open: list[Held] = []
        self.waiting: list[Waiting] = []
        self.charged: list[Spent] = []
        self.wrong: dict[tuple[int, str], int] = {}
        """By how much estimates were too low since the last reservation that was granted."""

    # --- the model

    def below(
        self, budget: Budget, things: Iterable[tuple[Budget, dict[str, int]]]
    ) -> dict[str, int]:
        """Add up what happened at or below *budget*."""
        sums = dict.fromkeys(KINDS, 0)
        for at, amounts in things:
            if budget in path_of(at):
                for kind in KINDS:
                    sums[kind] += amounts[kind]
        return sums

    def fits(self, at: Budget, amounts: dict[str, int]) -> bool:
        """Say whether a reservation fits at *at* and everywhere above."""
        for budget in path_of(at):
            taken = self.below(budget, self.charged)
            held = self.below(budget, [(one.at, one.amounts) for one in self.open])
            for kind, meter in meters(budget).items():
                # Whoever wants no tool call may go on where too many were made.
                wants = amounts[kind] or amounts["requests"]
                used = taken[kind] + held[kind] + amounts[kind]
                if meter.limit is not None and used > meter.limit and wants:
                    return False
        return True

    def is_held_up(self, one: Waiting) -> bool:
        """Say whether somebody before it was passed too often, and wants of what it wants."""
        before = itertools.takewhile(lambda other: other is not one, self.waiting)
        return any(
            other.claim.passed >= MAX_PASSED and set(path_of(other.at)) & set(path_of(one.at))
            for other in before
        )

    def is_behind_many(self, one: Waiting) -> bool:
        """Say whether so many wait before it for a budget of its own that it may overtake none."""
        before = itertools.takewhile(lambda other: other is not one, self.waiting)
        path = set(path_of(one.at))
        return sum(not path.isdisjoint(path_of(other.at)) for other in before) >= MAX_PASSED

    def granted(self, held: Held) -> None:
        """Take note of a reservation; from here on estimates may be wrong again."""
        self.open.append(held)
        for budget in path_of(held.at):
            for kind in KINDS:
                self.wrong[id(budget), kind] = 0

    def settle(self, held: Held, used: dict[str, int] | None) -> None:
        """Take note of an end."""
        self.open.remove(held)
        if used is not None:
            self.charged.append((held.at, used))
            for budget in path_of(held.at):
                for kind in KINDS:
                    low = max(0, used[kind] - held.amounts[kind])
                    self.wrong[id(budget), kind] = self.wrong.get((id(budget), kind), 0) + low
        self.collect()

    def collect(self) -> None:
        """Take note of those who waited and have their result."""
        for one in [one for one in self.waiting if one.claim.result is not None]:
            assert one.woken == 1, "somebody was served and not woken"
            self.waiting.remove(one)
            self.take(one)

    def take(self, one: Waiting) -> None:
        """Take note of what a claim got."""
        result = one.claim.result
        if isinstance(result, Reservation):
            held = Held(one.at, one.amounts, result, is_request=True)
            self.stalls[id(one)] = held
            self.granted(held)

    @property
    def stalls(self) -> dict[int, Held]:
        """What became of claims, for their functions that say whether they are stalled."""
        found: dict[int, Held] = self.__dict__.setdefault("_stalls", {})
        return found

    # --- rules

    @rule(limits=st.tuples(LIMITS, LIMITS, LIMITS), place=PLACES)
    def narrow(self, limits: tuple[int | None, int | None, int | None], place: int) -> None:
        """Make a budget inside another."""
        if len(self.budgets) < 6:
            parent = self.budgets[place % len(self.budgets)]
            tokens, cost, requests = limits
            self.budgets.append(
                Budget(tokens=tokens, cost_usd=cost, requests=requests, parent=parent)
            )

    @rule(place=PLACES, tokens=AMOUNTS, cost=AMOUNTS, calls=st.integers(0, 2))
    def reserve(self, place: int, tokens: int, cost: int, calls: int) -> None:
        """Set something aside by hand, if it fits."""
        at = self.budgets[place % len(self.budgets)]
        amounts = {"tokens": tokens, "cost": cost, "requests": 1, "tool_calls": calls}
        fits = self.fits(at, amounts)
        before = [meters(budget) for budget in self.budgets]
        made: Reservation | None = None
        with contextlib.suppress(LimitExceededError):
            made = at.reserve(tokens=tokens, cost_usd=cost, requests=1, tool_calls=calls)
        assert (made is not None) is fits
        if made is None:
            assert [meters(budget) for budget in self.budgets] == before
        else:
            self.granted(Held(at, amounts, made))

    @rule(place=PLACES, tokens=AMOUNTS, cost=AMOUNTS)
    def want(self, place: int, tokens: int, cost: int) -> None:
        """Want a request, and wait if need be."""
        at = self.budgets[place % len(self.budgets)]
        amounts = {"tokens": tokens, "cost": cost, "requests": 1, "tool_calls": 0}
        fits = self.fits(at, amounts)
        stalls = self.stalls
        key: list[int] = []

        def is_stalled() -> bool:
            held = stalls.get(key[0]) if key else None
            return held is not None and held.stalled

        claim = ledger_of(at).claim(tokens=tokens, cost_usd=cost, is_stalled=is_stalled)
        one = Waiting(at, amounts, claim)
        key.append(id(one))
        self.keep.append(one)
        if self.is_held_up(one):
            assert not isinstance(claim.result, Reservation)
        elif fits and self.is_behind_many(one):
            assert not isinstance(claim.result, LimitExceededError)
        else:
            assert isinstance(claim.result, Reservation) is fits
        if claim.result is None:

            def wake() -> None:
                one.woken += 1

            claim.wake = wake
            self.waiting.append(one)
        else:
            self.take(one)

    @property
    def keep(self) -> list[Waiting]:
        """Every claim, so that no two have the same id."""
        found: list[Waiting] = self.__dict__.setdefault("_keep", [])
        return found

    @precondition(lambda self: self.open)
    @rule(place=PLACES, tokens=st.none() | st.integers(0, 15), cost=st.none() | st.integers(0, 15))
    def answer(self, place: int, tokens: int | None, cost: int | None) -> None:
        """Charge what was used, or what was set aside if nobody says."""
        held = self.open[place % len(self.open)]
        if isinstance(held.reservation, RequestReservation):
            held.reservation.start()
        used = dict(held.amounts)
        if tokens is not None:
            used["tokens"] = tokens
        if cost is not None:
            used["cost"] = cost
        passed = held.reservation.commit(tokens=tokens, cost_usd=cost)
        self.settle(held, used)
        over = any(
            meter.limit is not None and meter.committed > meter.limit
            for budget in path_of(held.at)
            for meter in meters(budget).values()
        )
        assert passed is over

    @precondition(lambda self: self.open)
    @rule(place=PLACES)
    def lose(self, place: int) -> None:
        """A request breaks off: all of it is charged."""
        held = self.open[place % len(self.open)]
        held.reservation.charge()
        self.settle(held, held.amounts)

    @precondition(lambda self: self.open)
    @rule(place=PLACES)
    def refund(self, place: int) -> None:
        """A refund never leaves more than there was before."""
        held = self.open[place % len(self.open)]
        held.reservation.refund()
        self.settle(held, None)

    @precondition(lambda self: self.open)
    @rule(place=PLACES, stalled=st.booleans())
    def stall(self, place: int, *, stalled: bool) -> None:
        """Who makes a request begins to wait for others, or goes on."""
        held = self.open[place % len(self.open)]
        if isinstance(held.reservation, RequestReservation):
            held.reservation.start()
        held.stalled = stalled
        ledger_of(self.budgets[0]).reconsider()
        self.collect()

    @precondition(lambda self: self.waiting)
    @rule(place=PLACES)
    def give_up(self, place: int) -> None:
        """Who waits is cancelled."""
        one = self.waiting.pop(place % len(self.waiting))
        one.claim.withdraw()
        assert one.claim.result is None
        self.collect()  # the turn of others may have come, or what they waited for is gone

    # --- what holds

    @invariant()
    def a_tree_adds_up(self) -> None:
        """What each budget counts is what happened at or below it."""
        for budget in self.budgets:
            used = self.below(budget, self.charged)
            held = self.below(budget, [(one.at, one.amounts) for one in self.open])
            for kind, meter in meters(budget).items():
                assert meter.committed == used[kind], (budget, kind)
                assert meter.reserved == held[kind], (budget, kind)

    @invariant()
    def limits_hold(self) -> None:
        """G12: exactly, or but for the estimates of what was under way."""
        for budget in self.budgets:
            for kind, meter in meters(budget).items():
                if meter.limit is None:
                    continue
                excess = meter.committed + meter.reserved - meter.limit
                wrong = 0 if kind in EXACT else self.wrong.get((id(budget), kind), 0)
                assert excess <= wrong, (budget, kind, excess, wrong)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Who waits does not fit now, and somebody who goes on holds what it waits for."""
        for one in self.waiting:
            is_behind = self.is_held_up(one) or self.is_behind_many(one)
            assert not self.fits(one.at, one.amounts) or is_behind
            assert any(held.is_request and not held.stalled for held in self.open)

    def teardown(self) -> None:
        """When everything has ended, nothing is set aside and nobody waits."""
        while self.open:
            self.lose(0)
        assert not self.waiting
        for budget in self.budgets:
            assert [meter.reserved for meter in meters(budget).values()] == [0, 0, 0, 0]
            assert not ledger_of(budget).under_way


TestBudgets = BudgetMachine.TestCase
TestBudgets.settings = settings(stateful_step_count=30)


@given(
    st.lists(
        st.tuples(st.sampled_from(["want"] * 3 + ["end", "end", "give up"]), st.integers(1, 100)),
        min_size=20,
        max_size=120,
    )
)
def test_nobody_starves(steps: list[tuple[str, int]]) -> None:
    """However many come later and want less, so many go before one that waits and no more."""
    budget = Budget(tokens=100)
    claims: list[Claim] = []
    served: list[Claim] = []
    for what, number in steps:
        waiting = [one for one in claims if one.result is None]
        open_ones = [one for one in served if _is_open(one)]
        if what == "want":
            one = ledger_of(budget).claim(tokens=number, cost_usd=0.0, is_stalled=lambda: False)
            one.wake = partial(served.append, one)
            claims.append(one)
            if one.result is not None:
                served.append(one)
        elif what == "end" and open_ones:
            _end(open_ones[number % len(open_ones)])
        elif what == "give up" and waiting:
            one = waiting[number % len(waiting)]
            claims.remove(one)
            one.withdraw()
    for one in served:  # it grows
        if _is_open(one):
            _end(one)
    assert all(isinstance(one.result, Reservation) for one in claims)
    for place, one in enumerate(served):
        came_later = claims[claims.index(one) :] if one in claims else []
        assert sum(other in came_later for other in served[:place]) <= MAX_PASSED
    assert budget.statistics().tokens.reserved == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["want"] * 8 + ["end", "end", "give up", "wait"]),
            st.integers(0, 2),
            st.integers(1, 100),
        ),
        min_size=30,
        max_size=150,
    )
)
def test_nobody_in_a_long_line_waits_in_vain(steps: list[tuple[str, int, int]]) -> None:
    """Who waits longest does not fit, and somebody who goes on holds a part of what it wants."""
    root = Budget(tokens=150)
    budgets = [root, Budget(tokens=100, parent=root), Budget(tokens=100, parent=root)]
    claims: list[tuple[Budget, Claim]] = []
    stalled: set[int] = set()  # by number, since one that gives up leaves the list
    numbers: dict[Claim, int] = {}
    for what, place, number in steps:
        waiting = [one for _, one in claims if one.result is None]
        under_way = [one for _, one in claims if _is_open(one)]
        if what == "want":
            me = len(numbers)
            ledger = ledger_of(budgets[place])
            one = ledger.claim(
                tokens=number, cost_usd=0.0, is_stalled=partial(stalled.__contains__, me)
            )
            claims.append((budgets[place], one))
            numbers[one] = me
        elif what == "end" and under_way:
            _end(under_way[number % len(under_way)])
        elif what == "give up" and waiting:
            one = waiting[number % len(waiting)]
            claims = [(at, other) for at, other in claims if other is not one]
            one.withdraw()
        elif what == "wait" and under_way:
            one = under_way[number % len(under_way)]
            assert isinstance(one.result, RequestReservation)
            one.result.start()
            stalled.add(numbers[one])
            ledger_of(root).reconsider()
        going_on = [at for at, one in claims if _is_open(one) and numbers[one] not in stalled]
        _assert_all_have_their_turn(claims, going_on)
    for _, one in claims:
        if _is_open(one):
            _end(one)
    while any(map(_is_open, (one for _, one in claims))):
        _end(next(one for _, one in claims if _is_open(one)))
    assert all(one.result is not None for _, one in claims)
    assert len(ledger_of(root).waiting) == 0


def _assert_all_have_their_turn(claims: list[tuple[Budget, Claim]], going_on: list[Budget]) -> None:
    """Assert that the first that waits is right to wait, and that nobody was overtaken too often.

    Args:
        claims: All that were not given up, in order.
        going_on: The budgets of the requests whose agents do not wait for another.
    """
    waits = [(at, one) for at, one in claims if one.result is None]
    if waits:
        at, first = waits[0]
        assert first.amounts[0] > min(one.statistics().tokens.left or 0 for one in path_of(at))
        assert any(set(path_of(other)) & set(path_of(at)) for other in going_on)
        assert all(one.passed <= MAX_PASSED for _, one in waits)


def _is_open(one: Claim) -> bool:
    return isinstance(one.result, Reservation) and not one.result.is_settled


def _end(one: Claim) -> None:
    assert isinstance(one.result, Reservation)
    one.result.commit(tokens=0, cost_usd=0.0)


@given(
    strategies.budgets(),
    st.lists(
        st.tuples(st.floats(0, 5, allow_nan=False), st.floats(0, 5, allow_nan=False) | st.none()),
        max_size=20,
    ),
)
def test_cost_is_the_sum_of_what_is_known(
    budget: Budget, requests: list[tuple[float, float | None]]
) -> None:
    """It never goes down, and an estimate counts only where nobody knows better."""
    expected = 0
    for estimate, actual in requests:
        before = budget.statistics().cost.committed
        try:
            reservation = budget.reserve(cost_usd=estimate, requests=1)
        except LimitExceededError:
            assert budget.statistics().cost.committed == before
            continue
        reservation.commit(tokens=0, cost_usd=actual)
        expected += round((estimate if actual is None else actual) * 10**12)
        now = budget.statistics()
        assert now.cost.committed == expected / 10**12 >= before
        assert now.cost_usd == now.cost.committed


@given(strategies.budgets(), st.lists(st.tuples(st.integers(1, 12), AMOUNTS), max_size=30))
def test_no_request_is_made_above_the_limit(
    budget: Budget, requests: list[tuple[int, int]]
) -> None:
    """One after the other, tokens pass a limit by no more than the last estimate was low."""
    limit = budget.statistics().tokens.limit
    for estimate, actual in requests:
        try:
            reservation = budget.reserve(tokens=estimate)
        except LimitExceededError:
            assert limit is not None
            assert budget.statistics().tokens.committed + estimate > limit
        else:
            reservation.commit(tokens=actual, cost_usd=0.0)
            committed = budget.statistics().tokens.committed
            assert limit is None or committed <= limit + max(0, actual - estimate)


@given(st.data())
def test_a_refund_leaves_a_tree_as_it_was(data: st.DataObject) -> None:
    """Whatever is wanted, and in whichever budget of a tree."""
    root = data.draw(strategies.budgets())
    tree = [root]
    for _ in range(data.draw(st.integers(0, 3))):
        tree.append(data.draw(strategies.budgets(data.draw(st.sampled_from(tree)))))
    before = [meters(budget) for budget in tree]
    at = data.draw(st.sampled_from(tree))
    try:
        reservation = at.reserve(
            tokens=data.draw(st.integers(0, 1000)),
            cost_usd=data.draw(st.none() | st.floats(0, 10)),
            requests=data.draw(st.integers(0, 2)),
            tool_calls=data.draw(st.integers(0, 2)),
        )
    except LimitExceededError:
        pass
    else:
        reservation.refund()
    assert [meters(budget) for budget in tree] == before


@given(strategies.budget_statistics())
def test_what_is_left_is_never_less_than_nothing(seen: BudgetStatistics) -> None:
    """Also where more was used than allowed; and a cost that nobody knows is no 0."""
    for meter in (seen.tokens, seen.cost, seen.requests, seen.tool_calls):
        assert (meter.left is None) is (meter.limit is None)
        if meter.left is not None and meter.limit is not None:
            assert meter.left == 0 or meter.left + meter.committed + meter.reserved == meter.limit
    assert seen.cost_usd == (None if seen.unpriced else seen.cost.committed)


@given(strategies.usage_limits(), strategies.resources())
def test_limits_of_a_run_only_narrow(limits: UsageLimits, quota: ResourceQuota) -> None:
    """A child's limits are never wider than its parent's."""

    def as_limit(number: float | None) -> float:
        return number or math.inf

    narrow = limits.narrow(quota)
    assert narrow.max_iterations == min(quota.max_iterations, limits.request_limit or math.inf)
    assert narrow.max_tool_calls == min(quota.max_tool_calls, limits.tool_calls_limit or math.inf)
    assert as_limit(narrow.max_tokens_budget) == min(
        as_limit(quota.max_tokens_budget), as_limit(limits.total_tokens_limit)
    )
    assert as_limit(narrow.max_cost_usd) == min(
        as_limit(quota.max_cost_usd), as_limit(limits.cost_limit_usd)
    )
    assert (
        attrs.evolve(
            narrow,
            max_iterations=quota.max_iterations,
            max_tool_calls=quota.max_tool_calls,
            max_tokens_budget=quota.max_tokens_budget,
            max_cost_usd=quota.max_cost_usd,
        )
        == quota
    )
    assert limits.narrow(narrow) == narrow


@given(strategies.histories(), st.lists(st.integers(0, 6), max_size=8), st.integers(1, 500))
def test_an_estimate_of_a_part_is_that_of_the_whole(
    messages: tuple[ChatMessage, ...], cuts: list[int], max_tokens: int
) -> None:
    """What was measured before is not measured again, and the sum is the same."""
    estimator = Estimator()
    told = list(messages)
    for cut in [*cuts, len(told)]:
        sent = told[cut // 2 : cut]
        request = CompletionRequest(sent, "be brief", max_tokens=max_tokens)
        tokens = estimator.estimate(request).total_tokens
        expected = sum(map(message_tokens, sent)) + fixed_tokens("be brief", ())
        assert tokens == expected + max_tokens
    assert estimator.estimate(CompletionRequest([])).total_tokens == ANSWER_TOKENS


@pytest.mark.parametrize("name", ["request_limit", "tool_calls_limit", "total_tokens_limit"])
@given(limit=st.integers(max_value=0))
def test_a_limit_that_allows_nothing_is_refused(name: str, limit: int) -> None:
    """A limit of 0 divided by zero."""
    with pytest.raises(UsageError, match=f"{name} must be a whole number"):
        UsageLimits(**{name: limit})


def test_the_usage_that_is_priced_is_the_estimate() -> None:
    """Nothing of it cached, and as long an answer as is allowed, or fits a small window."""
    request = CompletionRequest([], "hello there!")
    seen = [Estimator().estimate(request), Estimator().estimate(request, 8192)]
    assert seen == [Usage(9, ANSWER_TOKENS), Usage(9, 2048)]


def test_the_form_of_the_answer_is_estimated_as_it_is_sent() -> None:
    """A schema may be longer than the question; each request has its own."""
    estimator = Estimator()
    form = AnswerForm("review", {"type": "object", "description": "x" * 250})
    plain, formed = CompletionRequest([]), CompletionRequest([], answer_form=form)
    sizes = [estimator.estimate(one).total_tokens for one in (plain, formed, plain)]
    assert sizes[0] == sizes[2] == ANSWER_TOKENS
    assert 100 < sizes[1] - ANSWER_TOKENS < 130
    assert [request_tokens(one) for one in (plain, formed)] == sizes[:2]


def test_an_estimate_sees_that_the_middle_was_left_out() -> None:
    """The pinned query stays, and between it and the newest turn something else stands."""
    query, old, new = UserMessage("q"), UserMessage("old " * 99), UserMessage("new")
    estimator, fresh = Estimator(), Estimator()
    estimator.estimate(CompletionRequest([query, old]))
    shorter = CompletionRequest([query, new])
    assert estimator.estimate(shorter) == fresh.estimate(shorter)
