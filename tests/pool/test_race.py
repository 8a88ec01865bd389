"""Races: the first to complete wins."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentCancelledError, AgentStatus, PoolError, UsageError, open_pool
from agentpool.observe import AgentFinished
from tests.support.fakes import Recorder, hanging_driver, jobs, of_type, sleepy_driver


async def test_the_first_to_complete_wins_and_the_losers_have_ended(
    autojump_clock: MockClock,
) -> None:
    """A loser that goes on costs money for nothing."""
    recorder = Recorder()
    async with open_pool(sleepy_driver(), observers=[recorder]) as pool:
        winner = await pool.race(jobs("sleep 5 say slow", "sleep 1 say fast", "hang"))
        assert winner.text == "fast"
        assert trio.current_time() == pytest.approx(1, abs=1e-3)
        assert pool.active_count == 0
    ended = {event.agent_id: event.outcome for event in of_type(recorder.events, AgentFinished)}
    assert [ended[n].status for n in (1, 2, 3)] == [
        AgentStatus.CANCELLED,
        AgentStatus.COMPLETED,
        AgentStatus.CANCELLED,
    ]
    assert isinstance(ended[1].error, AgentCancelledError)
    assert ended[1].error.reason == "lost the race"


async def test_a_failure_does_not_win(autojump_clock: MockClock) -> None:
    """The first to *complete* wins, however early another one failed."""
    async with open_pool(sleepy_driver()) as pool:
        assert (await pool.race(jobs("raise boom", "sleep 9 say good"))).text == "good"


async def test_a_race_without_a_winner_raises_what_everybody_ended_with() -> None:
    """Nothing is swallowed, and the pool's exit has nothing left to raise."""
    async with open_pool(sleepy_driver()) as pool:
        with pytest.raises(PoolError, match="none of the 2") as caught:
            await pool.race(jobs("raise one", "raise two"))
    assert {str(error) for error in caught.value.by_agent.values()} == {"one", "two"}


async def test_a_cancelled_race_leaves_nobody_running() -> None:
    """Cancelled from outside, it cancels and awaits everybody."""
    async with open_pool(hanging_driver(), max_concurrent=1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.race, jobs("a", "b", "c"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert pool.active_count == pool.queued_count == 0


async def test_a_race_of_nobody_is_refused() -> None:
    """There would be no winner, ever."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match="at least one"):
            await pool.race([])


async def test_a_race_is_not_let_past_the_queue(autojump_clock: MockClock) -> None:
    """Racers wait for room like everybody, and who finds none before the end is not started."""
    async with open_pool(sleepy_driver(), max_concurrent=2, max_queued=0) as pool:
        winner = await pool.race(jobs("sleep 9", "sleep 1 say fast", "say late", "say later"))
        assert winner.text == "fast"
        assert pool.statistics().spawned < 4
        assert pool.active_count == pool.queued_count == 0


async def test_a_race_in_a_pool_of_one_goes_through_everybody(autojump_clock: MockClock) -> None:
    """Room comes when a racer fails."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=0) as pool:
        assert (await pool.race(jobs("raise a", "raise b", "say c"))).text == "c"
