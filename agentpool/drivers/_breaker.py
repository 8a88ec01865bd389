"""A circuit breaker: it stops requests to a provider that keeps failing.

Rules:

1. While the breaker is closed, it lets every request through. After ``max_failures`` failures in a
   row it opens.
2. While it is open, it lets no request through. It stays open for ``cool_down_seconds``, or longer
   if the provider asked for a longer wait.
3. Then it lets a single request through as a trial, and still turns all others away. If the trial
   succeeds, the breaker closes; if it fails, the breaker opens again. If the trial is abandoned
   (cancelled, or failed through no fault of the provider), the next request is the trial.
4. Attempts that began before the breaker opened change nothing when they end.

The caller passes the time, in seconds on any clock that does not go back.
"""

from __future__ import annotations

import enum
from typing import final

import attrs

from agentpool._checks import at_least
from agentpool._errors import UsageError


class BreakerState(enum.Enum):
    """Which requests a breaker lets through."""

    CLOSED = "closed"
    """All requests."""
    OPEN = "open"
    """No request, until the pause is over."""
    HALF_OPEN = "half-open"
    """One request, as a trial."""


@final
@attrs.define(eq=False, repr=False)
class Attempt:
    """One request that the breaker let through. Report how it ended."""

    opened_before: int
    """How often the breaker had opened when the attempt began."""


@final
@attrs.define(eq=False, repr=False)
class CircuitBreaker:
    """Stops requests for a while after several failures in a row."""

    max_failures: int = 5
    """Failures in a row at which it opens."""
    cool_down_seconds: float = 30.0
    """The least time that it then stays open."""
    _failures: int = attrs.field(init=False, default=0)
    _times_opened: int = attrs.field(init=False, default=0)
    _opens_until: float | None = attrs.field(init=False, default=None)
    """When it lets a trial through. ``None``: it is closed."""
    _probe: Attempt | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Refuse limits that are not positive."""
        at_least(1, "max_failures", self.max_failures)
        if not self.cool_down_seconds >= 0:
            raise UsageError(f"cool_down_seconds must be >= 0, got {self.cool_down_seconds!r}")

    @property
    def times_opened(self) -> int:
        """How often it has opened."""
        return self._times_opened

    def state(self, now: float) -> BreakerState:
        """Return which requests may go at the time *now*."""
        if self._opens_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._opens_until else BreakerState.HALF_OPEN

    def rest_seconds(self, now: float) -> float:
        """Return how long no request may go. 0.0: a request may go, or a trial is under way."""
        return 0.0 if self._opens_until is None else max(0.0, self._opens_until - now)

    def begin(self, now: float) -> Attempt | None:
        """Return an attempt for a request that may go. ``None``: it may not go now."""
        state = self.state(now)
        if state is BreakerState.OPEN or self._probe is not None:
            return None
        attempt = Attempt(self._times_opened)
        if state is BreakerState.HALF_OPEN:
            self._probe = attempt
        return attempt

    def succeeded(self, attempt: Attempt) -> None:
        """Record an answer of the provider."""
        if attempt.opened_before == self._times_opened:
            self._failures = 0
            self._probe = self._opens_until = None

    def failed(self, attempt: Attempt, now: float, retry_after_seconds: float | None) -> None:
        """Record a failure of the provider.

        Args:
            attempt: The attempt that failed.
            now: The current time.
            retry_after_seconds: How long the provider asked to wait. ``None``: it did not say.
        """
        if attempt.opened_before != self._times_opened:
            return
        self._failures += 1
        if attempt is self._probe or self._failures >= self.max_failures:
            self._probe = None
            self._failures = 0
            self._times_opened += 1
            self._opens_until = now + max(self.cool_down_seconds, retry_after_seconds or 0.0)

    def abandoned(self, attempt: Attempt) -> None:
        """Record an attempt that ended without information about the provider."""
        if attempt is self._probe:
            self._probe = None


@final
@attrs.frozen(kw_only=True)
class FallbackCounts:
    """How the requests to one of the drivers ended."""

    answered: int
    """Requests that it answered."""
    failed: int
    """Requests in which it failed."""
    skipped: int
    """Requests that its breaker kept away."""
    breaker: BreakerState
    """Which requests its breaker lets through now."""
    times_opened: int
    """How often its breaker has opened."""
