"""The time limit of one step of a run: a request or a tool call.

A run makes its steps one after the other, so one cancel scope serves all of them: moving its
deadline costs a quarter of what a scope costs. A scope that has cancelled a step cannot be used
again, and the next step gets a new one.

Rules:

1. Before each step that may wait, ``allow`` says how long it may take, even if that is for ever. So
   no step is ended by the deadline of the previous one.
2. No step takes longer than its limit. A deadline that is at most ``SLACK`` of the limit too early
   stays where it is: where steps take microseconds, moving it would take a sixth of each turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

SLACK: Final = 0.001
"""The part of its limit by which a step may be ended too early: 60 milliseconds of a minute."""


def allow(
    scope: trio.CancelScope | None,
    seconds: float | None,
    now: Callable[[], float] = trio.current_time,
) -> float:
    """Give the next step *seconds*. Return the time when they are over.

    Args:
        scope: Cancels the step. ``None``: no step of the agent has a limit.
        seconds: The longest that the step may take. ``None`` and ``inf``: no limit.
        now: Returns the time. A clock's own method takes half as long as trio's.
    """
    if scope is None:
        return math.inf
    kept = scope.deadline
    if seconds is None or seconds == math.inf:
        if kept != math.inf:
            scope.deadline = math.inf
        return math.inf
    deadline = now() + seconds
    if 0.0 <= deadline - kept <= seconds * SLACK:
        return kept
    scope.deadline = deadline
    return deadline
