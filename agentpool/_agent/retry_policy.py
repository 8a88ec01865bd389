"""When a failed request is retried, and when it is given up.

Rules:

1. Delays double from attempt to attempt, up to a cap. Each delay is chosen at random between half
   of its value and all of it, so that agents that failed together do not retry together.
2. A delay that the provider asked for is never shortened, even if it is longer than the cap.
3. There are at most ``max_attempts`` attempts, and no delay that would bring the sum of all delays
   above ``max_total_seconds``. After that the error is raised.

The error itself says whether it may be retried at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, final

import attrs

from agentpool._base import Value
from agentpool._checks import expect_arguments, expect_fields
from agentpool._errors import DriverError, FailedAttemptError, UsageError

MAX_DOUBLINGS: Final = 60
"""Beyond any sensible cap; a higher power overflows a float."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class RetryPolicy(Value):
    """How often a request to a model is retried, and after which delays.

    Give one to ``open_pool(request_retries=...)``.
    """

    max_attempts: int = 4
    """Attempts in all, the first one included. 1 means no retry."""
    base_seconds: float = 1.0
    """The longest delay after the first attempt; each one after it is twice as long."""
    max_delay_seconds: float = 60.0
    """The longest delay that doubling leads to."""
    max_total_seconds: float = 120.0
    """The most that all delays of one request take together."""

    def __attrs_post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        expect_fields(self)
        if self.max_attempts < 1:
            raise UsageError(
                f"max_attempts must be >= 1, got {self.max_attempts!r}; 1 means no retry"
            )
        for name in ("base_seconds", "max_delay_seconds", "max_total_seconds"):
            seconds: float = getattr(self, name)
            if not 0 <= seconds < math.inf:
                raise UsageError(f"{name} must be finite and >= 0, got {seconds!r}")

    def next_delay_seconds(
        self,
        attempt: int,
        waited_seconds: float,
        retry_after_seconds: float | None,
        jitter: float,
    ) -> float | None:
        """Return the delay before the next attempt. ``None``: give up.

        Args:
            attempt: Which attempt failed, from 1.
            waited_seconds: What the earlier delays of this request took together.
            retry_after_seconds: What the provider asked for. ``None``: nothing.
            jitter: A random number from 0.0 up to, not including, 1.0.
        """
        expect_arguments(RetryPolicy.next_delay_seconds, locals())
        if attempt >= self.max_attempts:
            return None
        doubled = self.base_seconds * 2.0 ** min(attempt - 1, MAX_DOUBLINGS)
        delay = min(doubled, self.max_delay_seconds) * (0.5 + 0.5 * jitter)
        if retry_after_seconds is not None:
            # A provider tells all of its clients the same time: without a spread they
            # would come back at the same moment.
            delay = max(delay, retry_after_seconds + self.base_seconds * jitter)
        return delay if waited_seconds + delay <= self.max_total_seconds else None


def delay_after(
    policy: RetryPolicy,
    error: DriverError,
    attempt: int,
    waited_seconds: float,
    dice: Callable[[], float],
) -> float | None:
    """Return the delay before the next attempt after *error*. ``None``: give up.

    Args:
        policy: When a failed request is made again.
        error: The error of the attempt.
        attempt: Which attempt failed, from 1.
        waited_seconds: What the earlier delays of this request took together.
        dice: Returns a random number from 0.0 up to, not including, 1.0.
    """
    if not error.retryable or (isinstance(error, FailedAttemptError) and attempt > 1):
        return None
    asked_seconds = error.retry_after_seconds
    return policy.next_delay_seconds(attempt, waited_seconds, asked_seconds, dice())
