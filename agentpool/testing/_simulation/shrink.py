"""Shrinks a finding to the fewest preemptions that still fail.

Rules:

1. The failed run is repeated and recorded, and then followed one task at a time. This gives a plan
   with all preemptions of the run, often hundreds.
2. Ever smaller parts of the plan are left out, as long as the rest fails in the same way: with an
   error of the same type.
3. If more than one preemption is left, all plans with fewer preemptions are tried, within the
   limits below. So the result has the fewest possible preemptions, rather than few by chance.
"""

from __future__ import annotations

import time  # noqa: TID251  # how long a person waits for the finding
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, final

import attrs

from agentpool.testing._simulation.findings import alike
from agentpool.testing._simulation.orders import Follower, Order, Plan, Recorder

MAX_RUNS: Final = 400
"""The most runs for shrinking."""

MAX_STEPS: Final = 150_000
"""The most task steps in all runs for shrinking: a few seconds."""

MAX_SECONDS: Final = 60.0
"""The most real seconds for shrinking. With sockets or threads, each run that hangs takes some of
these seconds before it counts as hanging."""

Attempt: TypeAlias = Callable[[Order], tuple[int, Exception | None]]
"""Runs the scenario once, and returns the number of steps and the failure."""

Change: TypeAlias = tuple[str, int, float]
"""One preemption or delay: which of the two, where, and how much."""


@final
@attrs.frozen(kw_only=True)
class Shrunk:
    """The shrunk plan."""

    preemptions: dict[int, int]
    """As in ``Plan``."""
    delays: dict[int, float]
    """As in ``Plan``."""


def shrink(attempt: Attempt, order: Order, error: Exception) -> Shrunk | None:
    """Return the fewest preemptions with which *attempt* fails as it does with *order*.

    Args:
        attempt: Runs the scenario.
        order: A fresh copy of the order that failed.
        error: The error with which *order* failed.

    Returns:
        The shrunk plan. ``None``: the scenario does not fail every time with this order.
    """
    work = _Shrinking(attempt, error)
    recorder = Recorder(order)
    if not work.fails(recorder):
        return None
    follower = Follower({}, recorder.delays, picks=recorder.picks)
    if not work.fails(follower):
        return None
    changes: list[Change] = [("d", jump, late) for jump, late in recorder.delays.items()]
    changes += [("p", place, back) for place, back in follower.found.items()]
    if not work.fails(_plan(changes)):
        return None
    changes = work.fewer(work.without_parts(changes))
    plan = _plan(changes)
    return Shrunk(preemptions=dict(plan.preemptions), delays=dict(plan.delays))


def _plan(changes: Sequence[Change]) -> Plan:
    return Plan(
        {place: int(back) for kind, place, back in changes if kind == "p"},
        {jump: late for kind, jump, late in changes if kind == "d"},
    )


@final
@attrs.define(eq=False)
class _Shrinking:
    """The state of shrinking one finding."""

    attempt: Attempt
    error: Exception
    runs: int = 0
    steps: int = 0
    began: float = attrs.field(factory=time.monotonic)

    @property
    def tired(self) -> bool:
        """Whether shrinking has reached one of its limits."""
        return self.runs >= MAX_RUNS or self.steps >= MAX_STEPS

    def fails(self, order: Order) -> bool:
        """Return whether the scenario fails in the same way with *order*."""
        steps, error = self.attempt(order)
        self.runs += 1
        self.steps += steps
        return error is not None and alike(error, self.error)

    def without_parts(self, changes: list[Change]) -> list[Change]:
        """Return only the needed parts of *changes*."""
        size = len(changes)
        while size and not self.tired:
            start, found = 0, False
            while start < len(changes) and not self.tired:
                fewer = changes[:start] + changes[start + size :]
                if self.fails(_plan(fewer)):
                    changes, found = fewer, True
                else:
                    start += size
            if size > 1:
                size //= 2
            elif not found:
                break
        return changes

    def fewer(self, changes: list[Change]) -> list[Change]:
        """Return a plan with fewer preemptions, if one is found within the limits."""
        delays = [change for change in changes if change[0] == "d"]
        for count in range(1, len(changes) - len(delays)):
            found = self._with(count, delays, 0)
            if found is not None:
                return found
        return changes

    def _with(self, count: int, before: list[Change], place: int) -> list[Change] | None:
        """Return a plan that fails, with *count* more preemptions from *place* on."""
        probe = _plan(before)
        steps, _ = self.attempt(probe)
        self.runs += 1
        self.steps += steps
        for at in range(place, probe.places):
            if self.tired:
                return None
            plan: list[Change] = [*before, ("p", at, 1)]
            if count > 1:
                found = self._with(count - 1, plan, at + 1)
                if found is not None:
                    return found
            elif self.fails(_plan(plan)):
                return plan
        return None
