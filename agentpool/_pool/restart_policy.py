"""When an ended agent is restarted, and which others are restarted with it.

The terms are those of Erlang's supervisors.

Source: https://www.erlang.org/doc/system/sup_princ.html (2026-11).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal, TypeAlias, final

import attrs
import msgspec

from agentpool._base import Live
from agentpool._checks import expect_arguments, expect_fields
from agentpool._errors import UsageError
from agentpool._outcome import AgentOutcome, AgentStatus

Restart: TypeAlias = Literal["never", "transient", "permanent"]
"""``transient``: when it failed. ``permanent``: however it ended, unless it was cancelled."""

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Which agents are restarted together with one that ended: none, all, or all that were started
after that one."""


@final
@attrs.frozen(kw_only=True)
class RestartPolicy:
    """When the agents of one supervision are restarted.

    >>> from agentpool import RestartPolicy
    >>> RestartPolicy(restart="permanent", max_restarts=5, period_seconds=60.0).strategy
    'one_for_one'
    """

    restart: Restart = "transient"
    """After which ends an agent is restarted."""
    strategy: Strategy = "one_for_one"
    """Which agents are restarted together."""
    max_restarts: int = 3
    """How many restarts are allowed within the period, counted over all agents together. One more
    ends them all: three agents that fail twice each are six restarts."""
    period_seconds: float = 60.0
    """The period, in seconds."""
    max_restarts_each: int | None = None
    """How many restarts each agent may have. An agent that fails once more keeps that outcome, and
    the others go on. ``None``: as many as the period allows."""
    delay_seconds: float = 0.0
    """How long the first restart of an agent waits. Each further restart waits twice as long as the
    one before, until the agent has run for a whole period."""
    max_delay_seconds: float = 60.0
    """The longest wait before a restart."""

    def __attrs_post_init__(self) -> None:
        """Refuse unknown words and numbers that make no sense."""
        expect_fields(self)
        if self.max_restarts < 0:
            raise UsageError(f"max_restarts must be >= 0, got {self.max_restarts!r}")
        if not self.period_seconds > 0:
            raise UsageError(f"period_seconds must be > 0, got {self.period_seconds!r}")
        if self.max_restarts_each is not None and self.max_restarts_each < 0:
            raise UsageError(f"max_restarts_each must be >= 0, got {self.max_restarts_each!r}")
        for name in ("delay_seconds", "max_delay_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be finite and >= 0, got {getattr(self, name)!r}")

    def wants(self, outcome: AgentOutcome) -> bool:
        """Return whether an agent with this outcome is restarted.

        A cancelled agent is never restarted, since it was ended on purpose.
        """
        expect_arguments(RestartPolicy.wants, locals())
        if self.restart == "never" or outcome.status is AgentStatus.CANCELLED:
            return False
        return self.restart == "permanent" or outcome.status is AgentStatus.FAILED

    def delay(self, restarts: int) -> float:
        """Return the seconds to wait before a restart, after *restarts* others in a row."""
        expect_arguments(RestartPolicy.delay, locals())
        # A power of so many is not a number any more, and the longest wait is long passed.
        return min(self.delay_seconds * 2.0 ** min(restarts, 1000), self.max_delay_seconds)

    def together(self, place: int, count: int) -> range:
        """Return the positions of the agents that restart together with the one at *place*."""
        expect_arguments(RestartPolicy.together, locals())
        match self.strategy:
            case "one_for_one":
                return range(place, place + 1)
            case "one_for_all":
                return range(count)
            case _:  # rest_for_one
                return range(place, count)


@final
class RestartCounter(Live):
    """Counts restarts within a period."""

    _policy: RestartPolicy
    _times: deque[float] = msgspec.field(default_factory=deque[float])

    def allows(self, now: float) -> bool:
        """Count one restart at *now*, in seconds. Return whether it is still allowed."""
        while self._times and self._times[0] <= now - self._policy.period_seconds:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self._policy.max_restarts
