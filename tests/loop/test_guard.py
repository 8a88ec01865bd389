"""What the guard of a run counts, and when it speaks."""

import math

import attrs
import pytest

from agentpool import ManifestError, ResourceQuota, StopReason, Usage, UsageError
from agentpool._loop.guard import ALLOW, Allow, Block, LoopGuard, Stop, Warn
from agentpool._loop.seen_calls import SeenCalls
from agentpool.drivers import ToolCall


def guard(**limits: float) -> LoopGuard:
    """Return a guard with these limits."""
    return LoopGuard(attrs.evolve(ResourceQuota(), **limits))  # type: ignore[arg-type]  # wrong ones too


def batch(*names: str, arguments: str = "{}") -> tuple[ToolCall, ...]:
    """Return calls of these tools; ids differ from call to call, as they do in life."""
    return tuple(ToolCall(f"call-{name}", name, arguments) for name in names)


# --- iterations


def test_the_last_fifth_of_the_iterations_warns_and_the_next_one_stops() -> None:
    """Five iterations make five requests, and the sixth check ends the run."""
    five = guard(max_iterations=5)
    assert [five.check_iteration() for _ in range(6)] == [
        ALLOW,
        ALLOW,
        ALLOW,
        Warn("iteration 4/5 (80% of max_iterations)"),
        Warn("iteration 5/5 (100% of max_iterations)"),
        Stop(StopReason.MAX_ITERATIONS, "max iterations reached (5)", 5, 5),
    ]


def test_ten_iterations_warn_from_the_eighth() -> None:
    """As in the original."""
    ten = guard(max_iterations=10)
    kinds = [type(ten.check_iteration()) for _ in range(11)]
    assert kinds == [Allow] * 7 + [Warn] * 3 + [Stop]


@pytest.mark.parametrize(("limit", "first_warning"), [(1, None), (2, 2), (3, 3), (4, 4)])
def test_few_iterations_do_not_warn_too_early(limit: int, first_warning: int | None) -> None:
    """Four fifths of 3 are not reached at 2, and a run of one turn is not news."""
    few = guard(max_iterations=limit)
    kinds = [type(few.check_iteration()) for _ in range(limit + 1)]
    warned = kinds.index(Warn) + 1 if Warn in kinds else None
    assert warned == first_warning
    assert kinds[-1] is Stop


def test_turns_are_the_iterations_that_were_allowed() -> None:
    """The check that stops a run made no request."""
    two = guard(max_iterations=2)
    assert two.turns == 0
    for _ in range(4):
        two.check_iteration()
    assert (two.iterations, two.turns) == (4, 2)


def test_a_stop_becomes_an_error_with_all_its_parts() -> None:
    """Callers branch on the kind, not on the words."""
    stop = guard(max_iterations=1)
    stop.check_iteration()
    verdict = stop.check_iteration()
    assert isinstance(verdict, Stop)
    error = verdict.to_error(quota=ResourceQuota(max_iterations=1))
    assert (error.kind, error.used, error.limit, error.source) == ("max_iterations", 1, 1, "guard")
    assert str(error) == "max iterations reached (1); the limit is [resources] max_iterations"
    narrowed = verdict.to_error(quota=ResourceQuota(max_iterations=9))
    assert str(narrowed) == "max iterations reached (1)"


# --- tool calls


def test_the_third_same_call_is_refused() -> None:
    """In the original's words."""
    fresh = guard()
    verdicts = [fresh.check_tool_call("search", '{"for": "x"}') for _ in range(4)]
    assert verdicts == [
        ALLOW,
        ALLOW,
        *[
            Block(
                f"ping-pong detected: tool 'search' called {n} times with same input, and its "
                "result has not changed; do something else"
            )
            for n in (3, 4)
        ],
    ]


def test_how_often_a_call_may_repeat_is_a_setting() -> None:
    """An agent that polls has reason to ask the same thing again."""
    polling = guard(max_repeated_calls=10)
    kinds = [type(polling.check_tool_call("status", "{}")) for _ in range(10)]
    assert kinds == [Allow] * 9 + [Block]


def test_same_calls_need_not_follow_each_other() -> None:
    """Another call in between does not make the same one new."""
    fresh = guard()
    for other in range(2):
        fresh.check_tool_call("search", '{"for": "x"}')
        fresh.check_tool_call("search", f'{{"for": "{other}"}}')
    assert isinstance(fresh.check_tool_call("search", '{"for": "x"}'), Block)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ('{"a": {"x": 1, "y": 2}}', '{"a": {"y": 2, "x": 1}}', True),
        ('{"a": "\\u00e9"}', '{"a": "é"}', True),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": 1}', '{"b": 1}', False),
        ("{not json", "{not json", True),
        ("{not json", "{ not json", False),
        ("", "{}", False),
        ("\ud800", "\ud800", True),
        ("[" * 100_000, "[" * 100_000, True),
    ],
)
def test_calls_are_the_same_if_their_arguments_mean_the_same(
    one: str, other: str, *, same: bool
) -> None:
    """Models change the order of keys from one answer to the next."""
    fresh = guard(max_repeated_calls=2)
    fresh.check_tool_call("search", one)
    assert isinstance(fresh.check_tool_call("search", other), Block) is same
    assert fresh.check_tool_call("other", one) is ALLOW


def test_one_call_too_many_stops_and_is_not_counted() -> None:
    """The count never says more than was allowed, nor does that call count as a repeat."""
    two = guard(max_tool_calls=2)
    two.check_tool_call("a", "{}")
    two.check_tool_call("b", "{}")
    stop = Stop(StopReason.MAX_TOOL_CALLS, "max tool calls reached (2)", 2, 2)
    assert [two.check_tool_call("a", "{}") for _ in range(3)] == [stop] * 3
    assert two.tool_calls == 2


def test_refused_calls_count_as_well() -> None:
    """Ten thousand invented calls in one answer must use up the limit."""
    fresh = guard(max_tool_calls=50)
    kinds = [type(fresh.check_tool_call("no_such_tool", "{}")) for _ in range(10_000)]
    assert kinds[:51] == [Allow] * 2 + [Block] * 48 + [Stop]
    assert fresh.tool_calls == 50


# --- stuck


def test_the_same_batch_four_times_in_a_row_is_stuck() -> None:
    """That is an end of its own, and no success."""
    fresh = guard()
    verdicts = [fresh.check_stuck(batch("a", "b")) for _ in range(4)]
    text = "stuck: the same tool calls 4 times in a row, with the same results"
    assert verdicts == [ALLOW, ALLOW, ALLOW, Stop(StopReason.STUCK, text, 4, 4)]


def test_the_whole_batch_is_compared() -> None:
    """A model that reads another file each time begins with the same call, and works."""
    fresh = guard()
    assert all(fresh.check_stuck(batch("list", f"read_{i}")) is ALLOW for i in range(20))


def test_two_batches_in_turn_four_times_each_are_stuck() -> None:
    """A and B in turn go in a circle just as A alone does."""
    fresh = guard()
    verdicts = [fresh.check_stuck(batch("ab"[turn % 2])) for turn in range(8)]
    text = "stuck: the same two sets of tool calls in turn, 4 times each"
    assert verdicts == [ALLOW] * 7 + [Stop(StopReason.STUCK, text, 4, 4)]


@pytest.mark.parametrize("turns", ["aaabaaab", "abababaab", "abcabcabcabc", "abababcababab"])
def test_a_row_that_is_broken_is_not_stuck(turns: str) -> None:
    """Anything else in between begins the row anew."""
    fresh = guard()
    assert all(fresh.check_stuck(batch(name)) is ALLOW for name in turns)


@pytest.mark.parametrize(("turns", "stuck_at"), [("bbaaaa", 6), ("aababababa", 9), ("baaaa", 5)])
def test_a_row_may_begin_late(turns: str, stuck_at: int) -> None:
    """What came before the row does not hide it; two A in a row begin no turn-taking."""
    fresh = guard()
    kinds = [type(fresh.check_stuck(batch(name))) for name in turns]
    assert kinds.index(Stop) + 1 == stuck_at


def ask(fresh: LoopGuard, *calls: tuple[str, str | None]) -> type:
    """Make one answer of calls with these results; return what the guard says first."""
    asked = batch(*(name for name, _ in calls))
    stop = fresh.check_stuck(asked)
    if stop is not ALLOW:
        return type(stop)
    verdicts = [fresh.check_tool_call(call.name, call.arguments) for call in asked]
    ran = [verdict is ALLOW for verdict in verdicts]
    results = [result if may else None for (_, result), may in zip(calls, ran, strict=True)]
    fresh.record_results(results)
    return next((type(verdict) for verdict in verdicts if verdict is not ALLOW), Allow)


def test_equal_calls_with_different_results_are_no_loop() -> None:
    """An agent that polls a job sees it move: 10, 20, 30 percent."""
    fresh = guard(max_tool_calls=1000, max_iterations=1000)
    assert {ask(fresh, ("status", f"{n} percent")) for n in range(100)} == {Allow}
    turns = ((("a", f"{n}"),) if n % 2 else (("b", "the same"),) for n in range(100))
    assert {ask(guard(), *turn) for turn in turns} == {Allow}


def test_a_result_that_has_not_changed_makes_the_call_a_repeat() -> None:
    """Two may be the same, the third is refused, and then the run is stuck."""
    fresh = guard()
    said = [ask(fresh, ("status", "10 percent")) for _ in range(4)]
    assert said == [Allow, Allow, Block, Stop]


def test_a_result_that_changes_begins_the_count_anew() -> None:
    """Moved on once, it may stand still again as long as before."""
    patient = guard(max_repeated_calls=4)
    results = ["10", "10", "20", "20", "20", "20", "20"]
    said = [ask(patient, ("status", f"{result} percent")) for result in results]
    assert said == [Allow] * 5 + [Block, Stop]


def test_two_batches_in_turn_are_stuck_only_if_nothing_changes() -> None:
    """Look and wait, look and wait: each look may see something new."""
    fresh = guard(max_repeated_calls=100, max_tool_calls=1000)
    said = [ask(fresh, ("look", f"{n}") if n % 2 else ("nap", "ok")) for n in range(150)]
    assert set(said) == {Allow}
    fresh = guard(max_repeated_calls=5)
    said = [ask(fresh, ("look", "same") if n % 2 else ("nap", "ok")) for n in range(12)]
    assert said == [Allow] * 8 + [Block] * 3 + [Stop]


def test_one_knob_says_how_often_a_call_may_repeat() -> None:
    """Fifty equal looks are fifty looks: being stuck comes after the knob, not before."""
    fresh = guard(max_repeated_calls=50, max_tool_calls=1000)
    said = [ask(fresh, ("status", "10 percent")) for _ in range(51)]
    assert said == [Allow] * 49 + [Block, Stop]


def test_a_tool_that_waits_never_repeats() -> None:
    """Also beside other calls; those count as ever."""
    fresh = LoopGuard(ResourceQuota(max_tool_calls=1000), frozenset({"wait"}))
    assert {ask(fresh, ("wait", "no news")) for _ in range(100)} == {Allow}
    assert fresh.tool_calls == 100
    said = [ask(fresh, ("wait", "no news"), ("look", "same")) for _ in range(5)]
    assert said == [Allow, Allow, Block, Block, Block]


def fail(fresh: LoopGuard, *names: str, failed: frozenset[int], result: str = "gone") -> type:
    """Make one answer of calls that end in *result*; return what the guard says."""
    asked = batch(*names)
    stop = fresh.check_stuck(asked)
    if stop is not ALLOW:
        return type(stop)
    verdicts = [fresh.check_tool_call(call.name, call.arguments) for call in asked]
    results = [result if verdict is ALLOW else None for verdict in verdicts]
    fresh.record_results(results, failed)
    return next((type(verdict) for verdict in verdicts if verdict is not ALLOW), Allow)


def test_a_tool_that_waits_and_fails_in_the_same_way_is_stuck() -> None:
    """What fails has waited for nothing. It is not refused: next time somebody may answer."""
    first = frozenset({0})
    fresh = LoopGuard(ResourceQuota(max_tool_calls=1000), frozenset({"wait"}))
    assert [fail(fresh, "wait", failed=first) for _ in range(4)] == [Allow] * 3 + [Stop]
    fresh = LoopGuard(ResourceQuota(max_tool_calls=1000), frozenset({"wait"}))
    said = [fail(fresh, "wait", failed=first, result=str(n)) for n in range(50)]
    assert said == [Allow] * 50
    # One that waits and works in between, or something else is done, begins the count anew.
    fresh = LoopGuard(ResourceQuota(max_tool_calls=1000), frozenset({"wait"}))
    for _ in range(20):
        assert [fail(fresh, "wait", failed=first) for _ in range(3)] == [Allow] * 3
        assert fail(fresh, f"look {fresh.tool_calls}", failed=frozenset()) is Allow
        assert [fail(fresh, "wait", failed=frozenset()) for _ in range(9)] == [Allow] * 9
    # Beside one that waited well it is no repeat.
    fresh = LoopGuard(ResourceQuota(max_tool_calls=1000), frozenset({"wait", "listen"}))
    assert [fail(fresh, "wait", "listen", failed=first) for _ in range(9)] == [Allow] * 9


def test_a_request_that_broke_off_is_counted_as_far_as_it_is_known() -> None:
    """The text that came is counted, the request is unmeasured, and its cost is unknown."""
    fresh = guard()
    assert fresh.record_lost(35, None) is ALLOW
    assert (fresh.usage, fresh.unmeasured_requests) == (Usage(0, 35), 1)
    assert (fresh.cost_usd, fresh.known_cost_usd) == (None, 0.0)
    free = guard()
    free.record_lost(35, 0.0)
    assert free.cost_usd == 0.0
    assert isinstance(guard(max_tokens_budget=100).record_lost(1, 0.0), Warn)


def test_stuck_compares_what_arguments_mean() -> None:
    """Another order of keys is not progress."""
    fresh = guard()
    texts = ['{"a":1,"b":2}', '{"b":2,"a":1}', '{ "a":1,"b":2}', '{"a":1, "b":2}']
    kinds = [type(fresh.check_stuck(batch("x", arguments=text))) for text in texts]
    assert kinds == [Allow, Allow, Allow, Stop]


def test_looking_whether_it_is_stuck_counts_no_call() -> None:
    """The two checks share what they know of a call, not the count."""
    fresh = guard()
    calls = batch("a")
    fresh.check_stuck(calls)
    assert fresh.tool_calls == 0
    assert fresh.check_tool_call("a", "{}") is ALLOW


# --- truncation


def test_the_fifth_truncated_answer_in_a_row_stops() -> None:
    """And not the fourth."""
    fresh = guard()
    verdicts = [fresh.record_truncation() for _ in range(5)]
    text = "5 consecutive MaxTokens responses"
    assert verdicts == [ALLOW] * 4 + [Stop(StopReason.TRUNCATION, text, 5, 5)]


def test_tool_calls_end_a_row_of_truncated_answers() -> None:
    """The model came to a point, so the next cut begins a new row."""
    fresh = guard()
    for _ in range(4):
        fresh.record_truncation()
    fresh.reset_truncation()
    assert [fresh.record_truncation() for _ in range(4)] == [ALLOW] * 4


# --- tokens


def test_tokens_warn_from_four_fifths_and_stop_above_the_budget() -> None:
    """Exactly the budget is still inside."""
    fresh = guard(max_tokens_budget=100)
    assert fresh.record_usage(Usage(70, 9)) is ALLOW
    assert fresh.record_usage(Usage(1, 0)) == Warn("token usage 80/100 (80% of max_tokens_budget)")
    assert fresh.record_usage(Usage(0, 20)) == Warn(
        "token usage 100/100 (100% of max_tokens_budget)"
    )
    stop = Stop(StopReason.TOKEN_BUDGET, "token budget exhausted: 101 > 100", 101, 100)
    assert fresh.record_usage(Usage(1, 0)) == stop


def test_a_budget_of_no_tokens_cannot_be_set() -> None:
    """It would stop each run at its first answer, or divide by zero at an empty one."""
    with pytest.raises(ManifestError, match="max_tokens_budget: must be > 0, got 0"):
        guard(max_tokens_budget=0)


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_an_answer_without_tokens_is_no_division_by_zero(budget: int) -> None:
    """Four fifths of a budget of 1, rounded down, are reached by nothing at all."""
    verdict = guard(max_tokens_budget=budget).record_usage(Usage(0, 0))
    assert type(verdict) is (Warn if budget == 1 else Allow)


def test_no_budget_never_warns() -> None:
    """None means no limit."""
    assert guard().record_usage(Usage(10**12, 10**12)) is ALLOW


def test_usage_is_summed_in_all_its_parts() -> None:
    """The outcome shows cached and reasoning tokens too."""
    fresh = guard()
    fresh.record_usage(Usage(1, 2, 3, 4))
    fresh.record_usage(Usage(10, 20, 30, 40))
    assert fresh.usage == Usage(11, 22, 33, 44)


def test_an_answer_without_usage_counts_as_unmeasured() -> None:
    """Unknown is not zero: somebody should see that the sum is not the whole."""
    fresh = guard()
    assert fresh.record_usage(None) is ALLOW
    assert (fresh.unmeasured_requests, fresh.usage) == (1, Usage())


def test_a_token_budget_that_cannot_be_checked_warns_once() -> None:
    """A limit that never held looked like one that did. What is known still stops."""
    fresh = guard(max_tokens_budget=100)
    text = "usage of an answer is unknown: the budget of 100 tokens cannot be checked"
    assert [fresh.record_usage(None), fresh.record_usage(None)] == [Warn(text), ALLOW]
    assert isinstance(fresh.record_usage(Usage(101, 0)), Stop)


@pytest.mark.parametrize("usage", [Usage(-1, 5), Usage(5, -1)])
def test_negative_tokens_refund_nothing(usage: Usage) -> None:
    """A provider's slip must not make room in a budget."""
    fresh = guard(max_tokens_budget=100)
    fresh.record_usage(Usage(90, 0))
    with pytest.raises(UsageError, match="tokens must be >= 0"):
        fresh.record_usage(usage)
    assert fresh.usage == Usage(90, 0)


# --- cost


def test_cost_stops_above_the_budget_and_not_at_it() -> None:
    """In the original's words, with four digits."""
    fresh = guard(max_cost_usd=0.5)
    assert fresh.record_cost(0.25) is ALLOW
    assert fresh.record_cost(0.25) is ALLOW
    text = "cost budget exceeded: $0.7500 > $0.5000"
    assert fresh.record_cost(0.25) == Stop(StopReason.COST_BUDGET, text, 0.75, 0.5)


def test_no_cost_budget_never_stops() -> None:
    """0 means no limit, as in manifests that exist."""
    assert guard(max_cost_usd=0.0).record_cost(1e12) is ALLOW


@pytest.mark.parametrize("cost", [math.nan, -0.01, math.inf, -math.inf])
def test_a_cost_that_is_none_is_refused_and_changes_nothing(cost: float) -> None:
    """NaN would switch the budget off, a negative cost would refund."""
    fresh = guard(max_cost_usd=1.0)
    fresh.record_cost(0.9)
    with pytest.raises(UsageError, match="cost_usd must be finite and >= 0"):
        fresh.record_cost(cost)
    assert fresh.cost_usd == 0.9
    assert isinstance(fresh.record_cost(0.2), Stop)


@pytest.mark.parametrize("cost", [math.nan, -1.0, math.inf])
def test_a_cost_budget_that_is_none_cannot_be_set(cost: float) -> None:
    """NaN compares as false with everything, so it would never stop anything."""
    with pytest.raises(ManifestError, match="max_cost_usd: must be a finite number >= 0"):
        guard(max_cost_usd=cost)


def test_the_cost_so_far_can_be_read() -> None:
    """Free is 0.0, and so is nothing yet."""
    fresh = guard()
    assert fresh.cost_usd == 0.0
    fresh.record_cost(0.125)
    assert fresh.cost_usd == 0.125


def test_a_cost_of_which_a_part_is_unknown_is_unknown() -> None:
    """And stays so: what is known is not the whole."""
    fresh = guard()
    fresh.record_cost(0.1)
    assert fresh.record_cost(None) is ALLOW
    fresh.record_cost(0.1)
    assert fresh.cost_usd is None


def test_a_budget_that_cannot_be_checked_warns_once() -> None:
    """Its owner believes that it holds."""
    fresh = guard(max_cost_usd=0.5)
    text = "cost of an answer is unknown: the budget of $0.5000 cannot be checked"
    assert [fresh.record_cost(None), fresh.record_cost(None)] == [Warn(text), ALLOW]


def test_the_known_part_of_a_cost_still_stops() -> None:
    """What is known already exceeds the budget, whatever the rest may be."""
    fresh = guard(max_cost_usd=0.5)
    fresh.record_cost(None)
    assert isinstance(fresh.record_cost(0.6), Stop)


def test_turn_10_000_looks_back_no_further_than_turn_10() -> None:
    """The guard keeps two batches and one entry for each different call."""
    fresh = guard(max_tool_calls=100_000)
    for turn in range(10_000):
        calls = batch("read", arguments=f'{{"page": {turn % 100}}}')
        fresh.check_stuck(calls)
        fresh.check_tool_call(calls[0].name, calls[0].arguments)
    seen = fresh._calls  # pyright: ignore[reportPrivateUsage]  # what it remembers
    assert isinstance(seen, SeenCalls)
    kept = [getattr(seen, name) for name in SeenCalls.__slots__]
    held = [value for value in kept if hasattr(value, "__len__")]
    assert max(map(len, held)) == 100


@pytest.mark.parametrize("known", [None, "same", "other"])
@pytest.mark.parametrize("had_failed", [False, True])
def test_a_text_is_recorded_as_any_result(known: str | None, *, had_failed: bool) -> None:
    """The short way of a single call comes to the same as the long one, whatever was before."""
    states: list[object] = []
    for is_short in (False, True):
        guard = LoopGuard(ResourceQuota())
        for is_last, result in ((False, known), (True, "same")):
            if result is None:
                continue
            call = ToolCall("1", "look", "{}")
            assert guard.check_stuck((call,)) is ALLOW
            guard.check_tool_call("look", "{}")
            if not is_last:
                guard.record_results([result], frozenset({0} if had_failed else ()))
            elif is_short:
                guard.record_text(result)
            else:
                guard.record_results([result])
        assert guard._calls is not None
        newest = guard._calls.batches[0]
        seen = newest.calls[0]
        states.append((seen.count, seen.result, seen.failed, seen.waits, newest.results))
    assert states[0] == states[1]
