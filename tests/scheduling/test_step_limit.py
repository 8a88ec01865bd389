"""The deadline of a step: never late, and a thousandth of its limit early at most."""

from __future__ import annotations

import math

import trio
from hypothesis import given
from hypothesis import strategies as st

from agentpool._scheduling.step_limit import SLACK, allow

STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0.0, max_value=2.0) | st.sampled_from([0.0, 1e-6, 0.05, 0.0601]),
        st.none() | st.sampled_from([math.inf, 0.01, 1.0, 10.0, 60.0]),
    ),
    min_size=1,
    max_size=20,
)
"""How long after the last one each step begins, and its limit."""


@given(STEPS)
def test_no_step_ends_late_or_more_than_a_thousandth_early(
    steps: list[tuple[float, float | None]],
) -> None:
    """Whatever limits the steps before it had, and however quick they were."""
    scope, now = trio.CancelScope(), 1000.0
    for pause, seconds in steps:
        now += pause
        limit = math.inf if seconds is None else seconds
        deadline = allow(scope, seconds, lambda: now)  # noqa: B023  # called at once
        assert deadline == scope.deadline
        if limit == math.inf:
            assert deadline == math.inf
        else:
            assert now + limit * (1 - SLACK) - 1e-9 <= deadline <= now + limit


def test_quick_steps_leave_the_deadline_where_it_is() -> None:
    """Moving it would take a sixth of a turn."""
    scope = trio.CancelScope()
    first = allow(scope, 60.0, lambda: 5.0)
    assert allow(scope, 60.0, lambda: 5.01) == first
    assert allow(scope, 60.0, lambda: 5.059) == first
    assert allow(scope, 60.0, lambda: 5.07) == 65.07
    assert allow(scope, 1.0, lambda: 5.08) == 6.08


def test_an_agent_without_limits_has_no_deadline() -> None:
    """It has no scope for its steps either."""
    assert allow(None, 60.0) == math.inf
