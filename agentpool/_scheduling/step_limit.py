"""The time limit of one step of a run: a request or a tool call.

A run makes its steps one after the other, so one cancel scope serves all of them: moving its
deadline costs a quarter of what a scope costs. A scope that has cancelled a step cannot be used
again, and the next step gets a new one.

Rule: before each step that may wait, ``allow`` says how long it may take, even if that is for ever.
So no step is ended by the deadline of the previous one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


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
    if seconds is None:
        if scope.deadline != math.inf:
            scope.deadline = math.inf
        return math.inf
    scope.deadline = deadline = now() + seconds
    return deadline
