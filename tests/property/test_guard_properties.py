"""What holds of a guard for every sequence of things that a run can do."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentpool import ManifestError, ResourceQuota, StopReason, Usage, UsageError
from agentpool._loop.guard import ALLOW, Allow, Block, LoopGuard, Stop, Warn
from agentpool._messages import NO_USAGE, Json
from agentpool.drivers import ToolCall

NAMES = st.sampled_from(["a", "b", "ab"])
JSONS: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3
        )
    ),
    max_leaves=6,
)
USAGES = st.builds(
    Usage, st.integers(0, 500), st.integers(0, 500), st.integers(0, 9), st.integers(0, 9)
)
COSTS = st.floats(0, 10, allow_nan=False)
WRONG_COSTS = st.sampled_from([math.nan, math.inf, -math.inf, -0.5])


def canonical(value: Json) -> str:
    """Return *value* in the one spelling that all equal values share."""
    return json.dumps(value, sort_keys=True)


def turned(value: Json) -> Json:
    """Return *value* with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [turned(item) for item in value]
    return value


class Iterations(RuleBasedStateMachine):
    """Only `check_iteration` moves the iterations, and always by one."""

    def __init__(self) -> None:
        """Begin with a guard that everything can bring to its limits."""
        super().__init__()
        self.guard = LoopGuard(
            ResourceQuota(max_iterations=5, max_tool_calls=4, max_tokens_budget=100)
        )
        self.checked = 0

    @rule()
    def iterate(self) -> None:
        """Whatever the verdict is, it counts."""
        verdict = self.guard.check_iteration()
        self.checked += 1
        assert isinstance(verdict, Stop) is (self.checked > 5)
        assert isinstance(verdict, Warn) is (4 <= self.checked <= 5)

    @rule(name=NAMES)
    def call(self, name: str) -> None:
        """Tool calls have a count of their own."""
        self.guard.check_stuck((ToolCall("1", name, "{}"),))
        self.guard.check_tool_call(name, "{}")

    @rule(usage=USAGES | st.none(), cost=COSTS | st.none())
    def spend(self, usage: Usage | None, cost: float | None) -> None:
        """So have tokens and money."""
        self.guard.record_usage(usage)
        self.guard.record_cost(cost)

    @rule(cost=WRONG_COSTS)
    def spend_nonsense(self, cost: float) -> None:
        """A refused cost changes nothing at all."""
        before = self.guard.cost_usd
        with pytest.raises(UsageError):
            self.guard.record_cost(cost)
        assert self.guard.cost_usd == before

    @rule()
    def truncate(self) -> None:
        """So have truncated answers."""
        self.guard.record_truncation()

    @invariant()
    def iterations_are_the_checks(self) -> None:
        """By exactly one each."""
        assert self.guard.iterations == self.checked
        assert self.guard.turns == min(self.checked, 5)
        assert self.guard.tool_calls <= 4


TestInv002IterationsAreMonotonic = Iterations.TestCase
# Twenty steps reach every limit of this guard; the usual fifty only take longer.
TestInv002IterationsAreMonotonic.settings = settings(stateful_step_count=20)


@given(
    st.lists(st.tuples(NAMES, JSONS, st.booleans()), max_size=20),
    st.integers(2, 5),
)
def test_a_call_is_refused_from_its_kth_occurrence_on(
    calls: list[tuple[str, Json, bool]], k: int
) -> None:
    """Same name and same meaning, whatever the order of keys, and nothing else."""
    guard = LoopGuard(ResourceQuota(max_repeated_calls=k, max_tool_calls=100))
    counts: Counter[tuple[str, str]] = Counter()
    for name, value, turn in calls:
        counts[name, canonical(value)] += 1
        text = json.dumps(turned(value) if turn else value, ensure_ascii=turn)
        verdict = guard.check_tool_call(name, text)
        assert isinstance(verdict, Block) is (counts[name, canonical(value)] >= k)
    assert guard.tool_calls == len(calls)


@given(st.lists(st.text(max_size=3), max_size=20))
def test_arguments_may_be_anything(texts: list[str]) -> None:
    """A model writes what it likes; what is not JSON means its own text."""
    guard = LoopGuard(ResourceQuota(max_tool_calls=100))
    for text in texts:
        guard.check_stuck((ToolCall("1", "a", text),))
        assert isinstance(guard.check_tool_call("a", text), Allow | Block)


@given(st.lists(COSTS | WRONG_COSTS, max_size=20), st.floats(0, 20, exclude_min=True))
def test_cost_stops_exactly_above_the_budget(costs: list[float], limit: float) -> None:
    """The sum is that of the costs that are some, and never goes down."""
    guard = LoopGuard(ResourceQuota(max_cost_usd=limit))
    spent = 0.0
    for cost in costs:
        if math.isfinite(cost) and cost >= 0:
            spent += cost
            assert isinstance(guard.record_cost(cost), Stop) is (spent > limit)
        else:
            with pytest.raises(UsageError):
                guard.record_cost(cost)
        assert guard.cost_usd == spent


@given(st.lists(COSTS | st.none(), max_size=20))
def test_no_budget_never_stops(costs: list[float | None]) -> None:
    """0 means no limit, also where a part of the cost is unknown."""
    guard = LoopGuard(ResourceQuota(max_cost_usd=0.0))
    assert all(guard.record_cost(cost) is ALLOW for cost in costs)
    assert (guard.cost_usd is None) is (None in costs)


@given(st.lists(COSTS | st.none(), max_size=20), st.floats(0.1, 20))
def test_what_is_known_is_held_against_the_budget(costs: list[float | None], limit: float) -> None:
    """An unknown cost adds nothing, warns once and hides nothing."""
    guard = LoopGuard(ResourceQuota(max_cost_usd=limit))
    verdicts = [guard.record_cost(cost) for cost in costs]
    assert sum(isinstance(verdict, Warn) for verdict in verdicts) == (None in costs)
    known = math.fsum(cost for cost in costs if cost is not None)
    if abs(known - limit) > 1e-6:
        assert any(isinstance(verdict, Stop) for verdict in verdicts) is (known > limit)


@given(st.lists(st.booleans(), max_size=40))
def test_truncation_stops_exactly_at_the_fifth_in_a_row(truncated: list[bool]) -> None:
    """Any answer with tool calls in between begins the row anew."""
    guard = LoopGuard(ResourceQuota())
    row = 0
    for cut in truncated:
        if cut:
            row += 1
            assert isinstance(guard.record_truncation(), Stop) is (row >= 5)
        else:
            row = 0
            guard.reset_truncation()


@given(st.lists(USAGES | st.none(), max_size=20), st.integers(1, 3000))
def test_tokens_stop_above_the_budget_and_warn_before(
    usages: list[Usage | None], budget: int
) -> None:
    """From four fifths, rounded down; what is unknown warns once."""
    guard = LoopGuard(ResourceQuota(max_tokens_budget=budget))
    spent = NO_USAGE
    for usage in usages:
        unmeasured = guard.unmeasured_requests
        verdict = guard.record_usage(usage)
        if usage is None:
            assert isinstance(verdict, Warn if unmeasured == 0 else Allow)
            continue
        spent += usage
        total = spent.total_tokens
        assert isinstance(verdict, Stop) is (total > budget)
        assert isinstance(verdict, Warn) is (math.floor(Fraction(4, 5) * budget) <= total <= budget)
    assert guard.usage == spent
    assert guard.unmeasured_requests == usages.count(None)


@given(st.integers(max_value=0))
def test_a_budget_without_tokens_is_refused(budget: int) -> None:
    """When the limits are made, so no run begins with them."""
    with pytest.raises(ManifestError):
        ResourceQuota(max_tokens_budget=budget)


def stuck(batches: Sequence[object]) -> bool:
    """Say whether the last of *batches* completes a circle, by looking at all of them."""
    last, before = batches[-4:], batches[-8:]
    same = len(last) == 4 and len(set(last)) == 1
    alternating = len(before) == 8 and before[0::2] == [before[0]] * 4
    return same or (alternating and before[1::2] == [before[1]] * 4 and before[0] != before[1])


@given(st.lists(st.lists(NAMES, max_size=2), max_size=30))
def test_a_guard_that_does_not_look_back_sees_every_circle(batches: list[list[str]]) -> None:
    """Its few counters agree with a look at the last eight batches."""
    guard = LoopGuard(ResourceQuota())
    seen: list[tuple[str, ...]] = []
    for names in batches:
        seen.append(tuple(names))
        verdict = guard.check_stuck([ToolCall("1", name, "{}") for name in names])
        assert isinstance(verdict, Stop) is stuck(seen)
        if isinstance(verdict, Stop):
            assert verdict.reason is StopReason.STUCK
