"""A circuit breaker: it stops requests to a provider that keeps failing.

Rules:

1. Closed, everybody goes. After ``max_failures`` in a row it opens.
2. Open, no request goes, for ``cool_down_seconds``, or as long as the provider asked to wait
   if that is longer.
3. Then one goes, to try, and everybody else is still turned away. If that attempt
   succeeds, the breaker closes; if it fails, it opens anew. If it is abandoned (cancelled,
   or no fault of the provider), the next one tries.
4. How attempts end that began before it opened is old news, and changes nothing.

Time is told, not looked at: seconds on any clock that does not go back.
"""

from __future__ import annotations

import enum
from typing import final

import attrs

from agentpool._errors import UsageError


class BreakerState(enum.Enum):
    """The requests that a breaker lets through."""

    CLOSED = "closed"
    """Everybody."""
    OPEN = "open"
    """No request, until its time has come."""
    HALF_OPEN = "half-open"
    """One, to try."""


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
    """How long it then stays open at least."""
    _failures: int = attrs.field(init=False, default=0)
    _times_opened: int = attrs.field(init=False, default=0)
    _opens_until: float | None = attrs.field(init=False, default=None)
    """``None``: it is closed."""
    _probe: Attempt | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Refuse limits that are not positive."""
        if self.max_failures < 1:
            raise UsageError(f"max_failures must be >= 1, got {self.max_failures!r}")
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
        """Return how long all requests are stopped. 0.0: one may go, or is under way."""
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
            attempt: Which attempt told so.
            now: When.
            retry_after_seconds: What the provider asked to wait. ``None``: it did not say.
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
