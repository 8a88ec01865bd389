"""When a provider that fails is not asked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import UsageError
from agentpool.drivers import BreakerState
from agentpool.drivers._breaker import Attempt, CircuitBreaker


def opened(breaker: CircuitBreaker, now: float = 0.0, wish: float | None = None) -> CircuitBreaker:
    """Return *breaker* after as many failures as it takes."""
    for _ in range(breaker.max_failures):
        breaker.failed(going(breaker, now), now, wish)
    return breaker


def going(breaker: CircuitBreaker, now: float) -> Attempt:
    """Return an attempt that the breaker lets through."""
    attempt = breaker.begin(now)
    assert attempt is not None
    return attempt


def test_it_opens_at_the_last_failure_in_a_row() -> None:
    """One failure is a hiccup; as many as it was told are a state."""
    breaker = CircuitBreaker(max_failures=3)
    for _ in range(2):
        breaker.failed(going(breaker, 0.0), 0.0, None)
    assert breaker.state(0.0) is BreakerState.CLOSED
    breaker.failed(going(breaker, 0.0), 0.0, None)
    assert breaker.state(0.0) is BreakerState.OPEN
    assert breaker.begin(0.0) is None
    assert (breaker.times_opened, breaker.rest_seconds(10.0)) == (1, 20.0)


def test_a_success_ends_the_row() -> None:
    """A provider that fails one time in three is asked on."""
    breaker = CircuitBreaker(max_failures=2)
    for _ in range(5):
        breaker.failed(going(breaker, 0.0), 0.0, None)
        breaker.succeeded(going(breaker, 0.0))
    assert breaker.state(0.0) is BreakerState.CLOSED


@pytest.mark.parametrize(("wish", "rest"), [(None, 30.0), (5.0, 30.0), (90.0, 90.0)])
def test_what_the_provider_asked_for_is_not_cut_short(wish: float | None, rest: float) -> None:
    """And its being modest does not shorten our own patience."""
    breaker = opened(CircuitBreaker(max_failures=2), now=100.0, wish=wish)
    assert breaker.rest_seconds(100.0) == rest
    assert breaker.state(100.0 + rest - 0.001) is BreakerState.OPEN
    assert breaker.state(100.0 + rest) is BreakerState.HALF_OPEN


def test_one_goes_to_try_and_the_others_wait_for_what_it_finds() -> None:
    """A provider that has just come back is not run over by everybody at once."""
    breaker = opened(CircuitBreaker(max_failures=1))
    probe = going(breaker, 30.0)
    assert breaker.begin(30.0) is None
    assert breaker.rest_seconds(30.0) == 0.0
    breaker.succeeded(probe)
    assert breaker.state(30.0) is BreakerState.CLOSED
    assert going(breaker, 30.0) is not probe


def test_a_failed_try_opens_it_anew() -> None:
    """One is enough: that it is unwell was known."""
    breaker = opened(CircuitBreaker(max_failures=3))
    breaker.failed(going(breaker, 40.0), 40.0, None)
    assert breaker.begin(69.0) is None
    assert (breaker.times_opened, breaker.rest_seconds(40.0)) == (2, 30.0)


def test_an_abandoned_try_lets_the_next_one_try() -> None:
    """A cancelled probe must not lock the provider out for ever."""
    breaker = opened(CircuitBreaker(max_failures=1))
    breaker.abandoned(going(breaker, 30.0))
    assert breaker.state(30.0) is BreakerState.HALF_OPEN
    breaker.succeeded(going(breaker, 30.0))
    assert breaker.state(30.0) is BreakerState.CLOSED


def test_an_abandoned_attempt_neither_heals_nor_harms() -> None:
    """It says nothing about the provider, so the row goes on around it."""
    breaker = CircuitBreaker(max_failures=2)
    breaker.failed(going(breaker, 0.0), 0.0, None)
    breaker.abandoned(going(breaker, 0.0))
    breaker.failed(going(breaker, 0.0), 0.0, None)
    assert breaker.state(0.0) is BreakerState.OPEN


def test_old_news_changes_nothing() -> None:
    """What began before it opened neither closes it nor lengthens its rest."""
    breaker = CircuitBreaker(max_failures=2)
    early, late = going(breaker, 0.0), going(breaker, 0.0)
    opened(breaker)
    breaker.succeeded(early)
    breaker.failed(late, 20.0, 500.0)
    assert breaker.state(29.0) is BreakerState.OPEN
    assert breaker.rest_seconds(0.0) == 30.0


def test_half_open_closes() -> None:
    """The original's never did, once the day's budget was gone."""
    breaker = opened(CircuitBreaker(max_failures=1, cool_down_seconds=0.0))
    breaker.succeeded(going(breaker, 0.0))
    assert breaker.state(0.0) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("max_failures", "cool_down_seconds", "says"),
    [
        (0, 1.0, "max_failures must be a whole number >= 1, got 0"),
        (1, -0.5, "cool_down_seconds must be >= 0, got -0.5"),
        (1, math.nan, "cool_down_seconds must be >= 0, got nan"),
    ],
)
def test_numbers_without_meaning_are_refused(
    max_failures: int, cool_down_seconds: float, says: str
) -> None:
    """The message names the field and the value."""
    with pytest.raises(UsageError, match=says):
        CircuitBreaker(max_failures, cool_down_seconds)


class Watched:
    """A breaker beside what it should be: the rules, written down a second time."""

    def __init__(self, max_failures: int, cool_down_seconds: float) -> None:
        """Begin at time zero, closed."""
        self.breaker = CircuitBreaker(max_failures, cool_down_seconds)
        self.now = 0.0
        self.under_way: list[tuple[Attempt, int]] = []
        """Attempts, and how often the breaker had opened when each began."""
        self.failures = self.openings = 0
        self.until: float | None = None

    @property
    def state(self) -> BreakerState:
        """Whom it should let through."""
        if self.until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.now < self.until else BreakerState.HALF_OPEN

    def begin(self) -> None:
        """Try to go: one at a time where it is half open."""
        attempt = self.breaker.begin(self.now)
        is_tried = any(opening == self.openings for _, opening in self.under_way)
        may_go = {BreakerState.CLOSED: True, BreakerState.HALF_OPEN: not is_tried}
        assert (attempt is not None) is may_go.get(self.state, False)
        if attempt is not None:
            self.under_way.append((attempt, self.openings))

    def end(self, number: int, how: str, wish: float | None) -> None:
        """Let one of the attempts end; old news changes nothing."""
        attempt, opening = self.under_way.pop(number % len(self.under_way))
        is_news = opening == self.openings
        if how == "succeed":
            self.breaker.succeeded(attempt)
            if is_news:
                self.failures, self.until = 0, None
        elif how == "fail":
            self.breaker.failed(attempt, self.now, wish)
            if is_news:
                self._fail(wish)
        else:
            self.breaker.abandoned(attempt)

    def _fail(self, wish: float | None) -> None:
        self.failures += 1
        if self.until is not None or self.failures >= self.breaker.max_failures:
            self.failures, self.openings = 0, self.openings + 1
            self.until = self.now + max(self.breaker.cool_down_seconds, wish or 0.0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "succeed", "fail", "fail", "abandon", "wait"]),
        st.integers(0, 5),
        st.sampled_from([None, 0.0, 1.0, 40.0]),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 4), st.sampled_from([0.0, 1.0, 30.0]))
def test_whatever_happens_the_rules_hold(
    script: list[tuple[str, int, float | None]], max_failures: int, cool_down_seconds: float
) -> None:
    """Rules 1 to 4, for attempts that begin and end in any order while time goes on."""
    watched = Watched(max_failures, cool_down_seconds)
    for word, number, wish in script:
        if word == "wait":
            watched.now += number * 10.0
        elif word == "begin":
            watched.begin()
        elif watched.under_way:
            watched.end(number, word, wish)
        assert watched.breaker.state(watched.now) is watched.state
        assert watched.breaker.times_opened == watched.openings
        rest = max(0.0, (watched.until or 0.0) - watched.now)
        assert watched.breaker.rest_seconds(watched.now) == rest
