"""What outlives a run of trio: a gate that is made once and used in several runs."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agentpool.drivers import RequestGate


def far_clock(start: float) -> MockClock:
    """Return a clock that begins at *start*, as that of each real run begins anywhere."""
    clock = MockClock(autojump_threshold=0)
    clock.jump(start)
    return clock


def seconds_at(gate: RequestGate, requests: int, clock: MockClock) -> float:
    """Return how long *requests* one after the other took in a run of their own."""

    async def use() -> float:
        begun = trio.current_time()
        for _ in range(requests):
            async with gate.request():
                pass
        return trio.current_time() - begun

    return trio.run(use, clock=clock)


def test_a_gate_does_not_wait_for_the_clock_of_an_earlier_run() -> None:
    """Its clock was hours ahead, and the gate let no one in until then."""
    gate = RequestGate(requests_per_minute=60)
    assert seconds_at(gate, 1, far_clock(1_000_000)) == 0
    assert seconds_at(gate, 1, far_clock(5)) <= 1


def test_the_minute_of_a_gate_goes_on_in_the_next_run() -> None:
    """A clock that is ahead would have it forget what has just been sent."""
    gate = RequestGate(requests_per_minute=2)
    assert seconds_at(gate, 2, far_clock(5)) <= 60
    assert 25 <= seconds_at(gate, 2, far_clock(1_000_000)) <= 90


def test_statistics_of_a_gate_need_no_run() -> None:
    """They raised trio's error in a thread, and after the end."""
    gate = RequestGate(requests_per_minute=60)
    assert gate.statistics().requests_last_minute == 0
    seconds_at(gate, 1, far_clock(5))
    now = gate.statistics()
    assert (now.answered, now.requests_last_minute, now.in_flight) == (1, 1, 0)
