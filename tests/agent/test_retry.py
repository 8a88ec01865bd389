"""When a failed request is tried again."""

import math
import pickle

import pytest

from agentpool import UsageError
from agentpool._agent.retry_policy import RetryPolicy

SCHEDULE = RetryPolicy()


@pytest.mark.parametrize(("attempt", "longest"), [(1, 1.0), (2, 2.0), (3, 4.0)])
def test_delays_double_and_chance_moves_them_in_their_upper_half(
    attempt: int, longest: float
) -> None:
    """Agents that failed together must not come back together."""
    assert SCHEDULE.next_delay_seconds(attempt, 0.0, None, 0.0) == longest / 2
    assert SCHEDULE.next_delay_seconds(attempt, 0.0, None, 0.5) == longest * 0.75


@pytest.mark.parametrize("attempt", [4, 5, 1000])
def test_the_last_attempt_is_the_last(attempt: int) -> None:
    """Four attempts in all, as in the original."""
    assert SCHEDULE.next_delay_seconds(attempt, 0.0, None, 0.0) is None


def test_a_delay_does_not_grow_past_its_cap() -> None:
    """However many attempts there are: a float would overflow at the thousandth."""
    patient = RetryPolicy(max_attempts=10_000, max_total_seconds=1e9)
    assert patient.next_delay_seconds(9_999, 0.0, None, 0.0) == 30.0


def test_retry_after_is_a_floor() -> None:
    """The provider knows when it will have room; sooner is only refused again."""
    assert SCHEDULE.next_delay_seconds(1, 0.0, 20.0, 0.0) == 20.0
    assert SCHEDULE.next_delay_seconds(3, 0.0, 0.5, 0.0) == 2.0
    assert SCHEDULE.next_delay_seconds(1, 0.0, 90.0, 0.0) == 90.0


def test_clients_with_the_same_retry_after_do_not_come_back_together() -> None:
    """The floor is the same for all of them, so chance is added above it."""
    delays = {SCHEDULE.next_delay_seconds(1, 0.0, 20.0, j / 10) for j in range(10)}
    assert len(delays) == 10
    assert all(delay is not None and 20.0 <= delay < 21.0 for delay in delays)


def test_waiting_has_an_end() -> None:
    """A wait over the total is not begun: the error is the answer."""
    assert SCHEDULE.next_delay_seconds(1, 119.5, None, 0.0) == 0.5
    assert SCHEDULE.next_delay_seconds(1, 119.6, None, 0.0) is None
    assert SCHEDULE.next_delay_seconds(1, 0.0, 121.0, 0.0) is None
    assert SCHEDULE.next_delay_seconds(1, 0.0, math.inf, 0.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_seconds": -1.0},
        {"base_seconds": math.nan},
        {"max_delay_seconds": math.inf},
        {"max_total_seconds": -0.1},
    ],
)
def test_a_schedule_without_meaning_is_refused(wrong: dict[str, float]) -> None:
    """The message names the field, the value and what is allowed."""
    (name,) = wrong
    with pytest.raises(UsageError, match=f"{name} must be finite and >= 0, got"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # floats, all of them


def test_a_schedule_has_at_least_one_attempt() -> None:
    """Zero attempts would be no request at all."""
    with pytest.raises(UsageError, match="max_attempts must be >= 1, got 0"):
        RetryPolicy(max_attempts=0)


def test_a_schedule_survives_pickle() -> None:
    """It belongs to agents that may run elsewhere."""
    assert pickle.loads(pickle.dumps(SCHEDULE)) == SCHEDULE


def test_one_attempt_is_a_policy_and_none_is_not() -> None:
    """1 means no retry; 0 would mean that nobody is ever asked."""
    once = RetryPolicy(max_attempts=1)
    assert once.next_delay_seconds(1, 0.0, None, 0.0) is None
    with pytest.raises(UsageError, match="max_attempts must be >= 1, got 0; 1 means no retry"):
        RetryPolicy(max_attempts=0)
