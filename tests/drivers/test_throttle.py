"""How many requests may go now: the rules alone."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import UsageError
from agentpool.drivers._throttle import (
    BURST_SECONDS,
    COOL_DOWN_SECONDS,
    MINUTE_SECONDS,
    SPREAD,
    START_IN_FLIGHT,
    Passage,
    Throttle,
)

MINUTE = MINUTE_SECONDS


def go(throttle: Throttle, now: float, tokens: int = 0) -> Passage:
    """Let a request in that is ready, and begin it."""
    assert throttle.ready_at(tokens, now) <= now
    passage = throttle.let_in(tokens, now)
    assert throttle.begin(passage, now)
    return passage


def answer_one(throttle: Throttle, now: float) -> None:
    """Make one request that is answered."""
    throttle.answer(go(throttle, now), now, None)


def fill(throttle: Throttle, now: float) -> list[Passage]:
    """Begin as many requests as may go now."""
    passages: list[Passage] = []
    while throttle.ready_at(0, now) <= now:
        passages.append(go(throttle, now))
    return passages


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "60"])
@pytest.mark.parametrize("name", ["max_in_flight", "requests_per_minute", "tokens_per_minute"])
def test_a_limit_is_a_whole_number(name: str, wrong: object) -> None:
    """A limit of nothing would be a gate for nobody."""
    with pytest.raises(UsageError, match=f"{name} must be a whole number >= 1, got {wrong!r}"):
        Throttle(**{name: wrong})  # type: ignore[arg-type]  # that is the test


# --- the minute


def test_requests_are_spread_over_the_minute() -> None:
    """Sixty a minute may be counted as one a second."""
    throttle = Throttle(requests_per_minute=60)
    begun = [go(throttle, 0.0) for _ in range(int(BURST_SECONDS) + 1)]
    assert throttle.ready_at(0, 0.0) == 1.0
    for passage in begun:
        throttle.answer(passage, 0.5, None)
    go(throttle, 1.0)
    assert throttle.ready_at(0, 1.0) == 2.0


def test_no_more_requests_begin_in_a_minute_than_allowed() -> None:
    """Even where the spread alone would let one more go."""
    throttle = Throttle(requests_per_minute=4)
    for now in (0.0, 15.0, 30.0, 43.0):
        answer_one(throttle, now)
    assert throttle.ready_at(0, 58.0) == MINUTE
    assert throttle.begun(58.0) == (4, None)
    answer_one(throttle, MINUTE)
    assert throttle.begun(MINUTE) == (4, None)


def test_tokens_are_estimated_and_then_corrected() -> None:
    """What was set aside for a long answer is free again when it was short."""
    throttle = Throttle(tokens_per_minute=1000)
    passage = go(throttle, 0.0, 900)
    assert throttle.ready_at(200, 0.0) == MINUTE
    throttle.answer(passage, 5.0, 100)
    assert throttle.begun(5.0) == (None, 100)
    assert throttle.ready_at(200, 5.0) <= 5.0


def test_an_estimate_that_was_too_low_counts_in_full() -> None:
    """The next ones wait for it."""
    throttle = Throttle(tokens_per_minute=1000)
    throttle.answer(go(throttle, 0.0, 10), 1.0, 1200)
    assert throttle.begun(1.0) == (None, 1200)
    assert throttle.ready_at(1, 1.0) > MINUTE


def test_unknown_usage_stays_as_it_was_estimated() -> None:
    """Unknown is not zero."""
    throttle = Throttle(tokens_per_minute=1000)
    throttle.answer(go(throttle, 0.0, 700), 1.0, None)
    assert throttle.begun(1.0) == (None, 700)


def test_an_answer_after_its_minute_corrects_nothing() -> None:
    """What it took was forgotten with its minute."""
    throttle = Throttle(tokens_per_minute=1000)
    early, late = go(throttle, 0.0, 10), go(throttle, 0.0, 10)
    throttle.answer(late, MINUTE, 500)
    assert throttle.begun(MINUTE) == (None, 0)
    throttle.answer(early, MINUTE + 1, 500)
    assert throttle.begun(MINUTE + 1) == (None, 0)


def test_what_needs_more_than_the_oldest_gives_back_waits_for_the_next() -> None:
    """60 of a minute come back at its end, and 40 are still taken then: 70 do not fit."""
    throttle = Throttle(tokens_per_minute=100)
    go(throttle, 0.0, 60)
    go(throttle, 40.0, 40)
    assert throttle.ready_at(60, 41.0) == pytest.approx(64 - BURST_SECONDS)
    assert throttle.ready_at(70, 41.0) == 40 + MINUTE


def test_a_request_larger_than_a_minute_goes_alone() -> None:
    """Or it would wait for ever."""
    throttle = Throttle(tokens_per_minute=100)
    throttle.answer(go(throttle, 0.0, 3), 0.5, 2)
    assert throttle.ready_at(500, 1.0) == MINUTE
    go(throttle, MINUTE, 500)
    assert throttle.ready_at(1, MINUTE) == MINUTE + 5 * MINUTE - BURST_SECONDS


def test_who_was_let_in_has_a_place_before_it_begins() -> None:
    """It waits for a slot, and nobody takes its place in the minute."""
    throttle = Throttle(requests_per_minute=1)
    first = throttle.let_in(0, 0.0)
    assert throttle.ready_at(0, 100.0) == math.inf
    assert throttle.begin(first, 100.0)
    assert throttle.ready_at(0, 100.0) == 160.0


def test_who_never_begins_gives_its_place_back() -> None:
    """A request that nobody made counts in no minute."""
    throttle = Throttle(requests_per_minute=1, tokens_per_minute=10)
    throttle.give_up(throttle.let_in(9, 0.0), 0.0)
    assert throttle.in_flight == 0
    assert throttle.begun(0.0) == (0, 0)
    assert throttle.ready_at(9, 0.0) <= 0.0


def test_who_began_and_was_cancelled_stays_counted() -> None:
    """The provider may have counted it."""
    throttle = Throttle(requests_per_minute=60, tokens_per_minute=1000)
    throttle.give_up(go(throttle, 0.0, 300), 0.0)
    assert throttle.begun(0.0) == (1, 300)
    assert throttle.in_flight == 0


# --- the limit in flight


def test_it_starts_small_and_doubles_with_each_round() -> None:
    """Slow start: a provider that is new is not met with a thousand requests."""
    throttle = Throttle()
    sizes: list[int] = []
    for now in range(4):
        passages = fill(throttle, float(now))
        sizes.append(len(passages))
        for passage in passages:
            throttle.answer(passage, float(now), None)
    assert sizes == [START_IN_FLIGHT, *(START_IN_FLIGHT * 2**n for n in (1, 2, 3))]


def test_it_grows_to_the_most_that_was_allowed() -> None:
    """A server with four places is never sent five."""
    throttle = Throttle(max_in_flight=4)
    for now in range(20):
        for passage in fill(throttle, float(now)):
            throttle.answer(passage, float(now), None)
    assert throttle.limit == 4


def test_it_does_not_grow_unused() -> None:
    """One request after the other says nothing about a thousand at the same time."""
    throttle = Throttle()
    for now in range(100):
        answer_one(throttle, float(now))
    assert throttle.limit == START_IN_FLIGHT


def test_a_refusal_closes_for_everybody_and_the_opening_is_gradual() -> None:
    """One tries, its answer lets two in, and so on up to half of what was too much."""
    throttle = Throttle()
    passages = fill(throttle, 0.0)
    throttle.refuse(passages.pop(), 0.0, 30.0, 0.0)
    assert throttle.ready_at(0, 29.0) == math.inf  # the others are in flight
    for passage in passages:
        throttle.answer(passage, 1.0, None)
    assert throttle.ready_at(0, 1.0) == 30.0
    sizes: list[int] = []
    for now in (30.0, 31.0, 32.0, 33.0):
        round_ = fill(throttle, now)
        sizes.append(len(round_))
        for passage in round_:
            throttle.answer(passage, now, None)
    assert sizes == [1, 2, 4, 4]


def test_after_the_cool_down_it_grows_by_one_with_each_round() -> None:
    """Additive increase: the mark was too much once."""
    throttle = Throttle()
    for passage in fill(throttle, 0.0):
        throttle.refuse(passage, 0.0, 1.0, 0.0)
    for second in range(1, 4):
        for passage in fill(throttle, float(second)):
            throttle.answer(passage, float(second), None)
    now, sizes = COOL_DOWN_SECONDS + 2, list[int]()
    for _ in range(4):
        passages = fill(throttle, now)
        sizes.append(len(passages))
        for passage in passages:
            throttle.answer(passage, now, None)
    assert sizes[0] == START_IN_FLIGHT // 2
    assert all(after - before in {0, 1} for before, after in itertools.pairwise(sizes))
    assert sizes[-1] > sizes[0]


@pytest.mark.parametrize(("early", "more"), [(0.5, 0), (0.0, 1)])
def test_the_cool_down_ends_when_it_has_passed(early: float, more: int) -> None:
    """A request that is answered at that moment is the first that raises the limit again."""
    throttle = Throttle()
    for passage in fill(throttle, 0.0):
        throttle.refuse(passage, 0.0, 1.0, 0.0)
    for second in range(1, 4):
        for passage in fill(throttle, float(second)):
            throttle.answer(passage, float(second), None)
    now = throttle.closed_until + COOL_DOWN_SECONDS - early
    for _ in range(2):
        for passage in fill(throttle, now):
            throttle.answer(passage, now, None)
    assert len(fill(throttle, now)) == START_IN_FLIGHT // 2 + more


def test_many_refusals_of_one_round_are_one() -> None:
    """Eight answers that say the same thing do not cut the limit eight times."""
    throttle = Throttle()
    for passage in fill(throttle, 0.0):
        throttle.refuse(passage, 0.0, None, 0.0)
    assert (throttle.pauses, throttle.refused) == (1, START_IN_FLIGHT)
    assert throttle.closed_until == 1.0


def test_a_late_refusal_with_a_longer_time_closes_for_longer() -> None:
    """The provider's last word counts, and never one that is shorter."""
    throttle = Throttle()
    one, two, three, _ = fill(throttle, 0.0)[:4]
    throttle.refuse(one, 0.0, 5.0, 0.0)
    throttle.refuse(two, 1.0, 20.0, 0.0)
    throttle.refuse(three, 2.0, 3.0, 0.0)
    assert throttle.closed_until == 21.0
    assert throttle.pauses == 1


def test_pauses_without_a_time_double_up_to_a_minute() -> None:
    """A provider that is down is asked less and less often."""
    throttle, now, pauses = Throttle(), 0.0, list[float]()
    for _ in range(9):
        throttle.refuse(go(throttle, now), now, None, 0.0)
        pauses.append(throttle.closed_until - now)
        now = throttle.closed_until
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == 60.0
    answer_one(throttle, now)
    throttle.refuse(go(throttle, now), now, None, 0.0)
    assert throttle.closed_until - now == 1.0


def test_the_one_who_tries_tells_nothing_about_how_many() -> None:
    """A long refusal does not make the next start slower."""
    throttle = Throttle()
    for now in (0.0, 10.0, 20.0):
        throttle.refuse(go(throttle, now), now, 10.0, 0.0)
    for now in (30.0, 31.0, 32.0):
        passages = fill(throttle, now)
        for passage in passages:
            throttle.answer(passage, now, None)
    assert throttle.limit == START_IN_FLIGHT // 2


def test_who_was_let_in_does_not_begin_while_it_is_closed() -> None:
    """It waited for its slot when somebody else was refused."""
    throttle = Throttle()
    first, second = go(throttle, 0.0), throttle.let_in(0, 0.0)
    throttle.refuse(first, 1.0, 9.0, 0.0)
    assert not throttle.begin(second, 5.0)
    throttle.give_up(second, 5.0)
    assert throttle.in_flight == 0


@given(chance=st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_cut_short(chance: float) -> None:
    """Chance makes it longer, by a tenth at most."""
    throttle = Throttle()
    throttle.refuse(go(throttle, 0.0), 0.0, 30.0, chance)
    assert 30.0 <= throttle.closed_until <= 30.0 * (1 + SPREAD)


# --- properties


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("go"), st.integers(0, 60)),
        st.tuples(st.just("let in"), st.integers(0, 60)),
        st.tuples(st.just("begin"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["answer", "refuse", "give up"]), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(1, 200)),
        st.tuples(st.just("wait until ready"), st.just(1)),
    ),
    max_size=150,
)
LIMITS = st.none() | st.integers(1, 12)


@attrs.define(eq=False)
class Bystander:
    """Drives a throttle and writes down what began when."""

    throttle: Throttle
    now: float = 0.0
    promised: list[Passage] = attrs.field(factory=list)
    begun: list[Passage] = attrs.field(factory=list)
    starts: list[tuple[float, int]] = attrs.field(factory=list)

    def step(self, op: str, number: int) -> None:
        """Do one thing."""
        throttle, now = self.throttle, self.now
        if op == "wait":
            self.now += number / 4
        elif op == "wait until ready":
            ready_at = throttle.ready_at(number, now)
            self.now = max(now, ready_at) if ready_at < math.inf else now
        elif op in {"go", "let in"}:
            if throttle.ready_at(number, now) <= now:
                assert throttle.in_flight < throttle.limit
                self.promised.append(throttle.let_in(number, now))
                if op == "go":
                    self.begin(self.promised.pop())
        elif op == "begin" and self.promised:
            self.begin(self.promised.pop(number % len(self.promised)))
        elif self.begun:
            self.end(op, self.begun.pop(number % len(self.begun)))

    def begin(self, passage: Passage) -> None:
        """Begin it, or give it up if that is not the time."""
        if self.throttle.begin(passage, self.now):
            assert self.now >= self.throttle.closed_until
            self.begun.append(passage)
            self.starts.append((self.now, passage.tokens))
        else:
            self.throttle.give_up(passage, self.now)

    def end(self, op: str, passage: Passage) -> None:
        """End it."""
        if op == "answer":
            self.throttle.answer(passage, self.now, passage.tokens)
        elif op == "refuse":
            self.throttle.refuse(passage, self.now, self.now % 7 or None, 0.5)
        else:
            self.throttle.give_up(passage, self.now)


@given(steps=STEPS, in_flight=LIMITS, requests=LIMITS, tokens=LIMITS)
def test_no_limit_is_ever_passed(
    steps: list[tuple[str, int]], in_flight: int | None, requests: int | None, tokens: int | None
) -> None:
    """In flight, requests and tokens of any 60 seconds, whatever happens in between."""
    allowed_tokens = None if tokens is None else tokens * 10
    world = Bystander(Throttle(in_flight, requests, allowed_tokens))
    for op, number in steps:
        world.step(op, number)
        throttle = world.throttle
        assert throttle.in_flight == len(world.promised) + len(world.begun)
        assert throttle.in_flight <= (in_flight or math.inf)
        assert 1 <= throttle.limit <= (in_flight or math.inf)
    times = [at for at, _ in world.starts]
    for place, (at, own) in enumerate(world.starts):
        first = bisect_left(times, at - MINUTE + 1e-9)
        within = world.starts[first : place + 1]
        assert len(within) <= (requests or math.inf)
        if allowed_tokens is not None and own <= allowed_tokens:
            assert sum(amount for _, amount in within) <= max(
                allowed_tokens, *(amount for _, amount in within)
            )


@given(steps=STEPS, in_flight=LIMITS, requests=LIMITS, tokens=LIMITS)
def test_once_nothing_is_in_flight_everybody_can_go(
    steps: list[tuple[str, int]], in_flight: int | None, requests: int | None, tokens: int | None
) -> None:
    """No state is a dead end: at the time that it names, a request is let in."""
    world = Bystander(Throttle(in_flight, requests, tokens))
    for op, number in steps:
        world.step(op, number)
    for passage in (*world.promised, *world.begun):
        world.throttle.give_up(passage, world.now)
    for tokens_wanted in (1, 1000):
        ready_at = world.throttle.ready_at(tokens_wanted, world.now)
        assert ready_at < math.inf
        now = max(world.now, ready_at)
        assert world.throttle.ready_at(tokens_wanted, now) <= now
