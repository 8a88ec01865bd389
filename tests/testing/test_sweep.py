"""cancel_everywhere: what leaks at one point out of many is found, with its number."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio

from agentpool import AgentGoneError, AgentStatus, PoolError, UsageError
from agentpool.testing import (
    CancelPointError,
    LeakError,
    assert_quiescent,
    cancel_everywhere,
)
from agentpool.testing._simulation.token import Target
from tests.support.broken_pools import CarelessPool, SlotPool, short_work, start_orphan
from tests.support.scenarios import crew, member

Scenario = Callable[[], Awaitable[None]]


def test_a_leaked_slot_is_found() -> None:
    """A slot that comes back on the one way that was thought of."""
    slots = trio.Semaphore(1)

    async def scenario() -> None:
        nonlocal slots
        slots = trio.Semaphore(1)
        await SlotPool(slots).run(short_work)

    def check() -> None:
        assert slots.value == 1, "a slot is gone"

    with pytest.raises(CancelPointError, match="a slot is gone") as caught:
        cancel_everywhere(scenario, check=check)
    found = caught.value
    assert "in run" in str(found)
    assert f"cancel_everywhere(scenario, seed=0, points=[{found.point}])" in str(found)
    with pytest.raises(CancelPointError, match="a slot is gone"):
        cancel_everywhere(scenario, check=check, points=[found.point])
    # At the point before it, the slot was not taken yet.
    assert cancel_everywhere(scenario, check=check, points=[found.point - 1]).points == 1


def test_a_lost_outcome_is_found() -> None:
    """Between the end of the work and the line that writes it down there is an await."""
    pool = CarelessPool(trio.Semaphore(1))

    async def scenario() -> None:
        nonlocal pool
        pool = CarelessPool(trio.Semaphore(1))
        await pool.run(short_work)

    def check() -> None:
        assert len(pool.outcomes) == pool.started, "an outcome is lost"

    with pytest.raises(CancelPointError, match="an outcome is lost") as caught:
        cancel_everywhere(scenario, check=check)
    assert "in run" in str(caught.value)


def test_an_orphan_after_a_cancellation_is_found() -> None:
    """It is awaited when all goes well, and forgotten when it does not."""

    async def scenario() -> None:
        done = trio.Event()

        async def work() -> str:
            text = await short_work()
            done.set()
            return text

        start_orphan(work)
        await done.wait()

    with pytest.raises(CancelPointError) as caught:
        cancel_everywhere(scenario)
    assert isinstance(caught.value.__cause__, LeakError)
    assert "task orphan" in str(caught.value)


def test_an_error_on_the_way_out_is_found_unless_it_is_allowed() -> None:
    """Who is cancelled ends as asked; what else it may raise is said."""

    async def scenario() -> None:
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            raise ValueError("cleanup") from None  # noqa: ASYNC104  # the fault that is planted

    with pytest.raises(CancelPointError, match="ValueError: cleanup"):
        cancel_everywhere(scenario)
    report = cancel_everywhere(scenario, may_raise=(ValueError,))
    assert (report.points, report.steps) == (2, 2)


def test_what_may_be_raised_does_not_hide_what_is_left() -> None:
    """An error that is allowed ends the scenario, not the check."""

    async def scenario() -> None:
        start_orphan(short_work)
        try:
            await trio.sleep(2)
        except trio.Cancelled:
            raise ValueError("cleanup") from None  # noqa: ASYNC104  # the fault that is planted

    with pytest.raises(CancelPointError, match="task orphan"):
        cancel_everywhere(scenario, may_raise=(ValueError,))


def test_an_error_without_cancellation_is_not_ours() -> None:
    """First of all the scenario must work."""

    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cancel_everywhere(broken)


def test_a_scenario_that_changes_from_run_to_run_is_refused() -> None:
    """A point that is another one each time shows nothing again."""
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        for _ in range(5 if runs == 1 else 2):
            await trio.lowlevel.checkpoint()

    with pytest.raises(UsageError, match="scenario had no point 4"):
        cancel_everywhere(scenario)


def test_a_scenario_that_fails_before_its_point_fails_as_itself() -> None:
    """A failure that has nothing to do with the cancellation is not blamed on it."""
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            raise ValueError("fourth time")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    with pytest.raises(ValueError, match="fourth time"):
        cancel_everywhere(scenario, points=[2, 2, 3])


async def team() -> None:
    """Let agents ask, answer, remember, stream and have children."""
    async with crew(max_concurrent=1, pieces=2) as pool:
        handles = await pool.fan_out(
            [
                member("asker ask=2 note=1"),
                member("listener answer reply"),
                member("parent spawn=child.nap both"),
            ]
        )
        with contextlib.suppress(AgentGoneError):
            await handles[1].send("hello")
        await pool.join_all()
        assert_quiescent(pool)


@pytest.mark.parametrize(
    ("target", "least"),
    # The steps of the owner and of the pool's own tasks are not points of the last one.
    [("scenario", 40), ("agents", 40), ("agent", 35)],
)
def test_a_pool_leaks_at_no_point(target: Target, least: int) -> None:
    """G16: tools, memory, streaming and messages, cancelled before every single step."""
    report = cancel_everywhere(team, target=target)
    assert report.points == report.steps > least
    assert report.pools >= report.points - 5  # the first points come before the pool
    assert report.agents > report.pools


def test_an_agent_is_cancelled_at_its_own_steps_alone() -> None:
    """Every step of an agent is a point of target="agent", and its cancel tells who."""
    seen: list[AgentStatus] = []

    async def scenario() -> None:
        async with crew() as pool:
            handle = await pool.spawn(member("sleeper nap=1"))
            await trio.sleep(5)
            outcome = await handle.wait()
        seen.append(outcome.status)
        if outcome.status is AgentStatus.CANCELLED:
            assert "cancel_everywhere: point" in str(outcome.error)

    report = cancel_everywhere(scenario, target="agent")
    assert seen == [AgentStatus.COMPLETED, *[AgentStatus.CANCELLED] * report.points]


def test_the_agent_of_the_right_pool_is_cancelled() -> None:
    """Two pools have an agent 1 each."""

    async def scenario() -> None:
        async with crew() as outer:
            await outer.spawn(member("outer nap=3"))
            async with crew() as inner:
                await inner.spawn(member("inner nap=1"))
                await inner.join_all()
            await outer.join_all()

    report = cancel_everywhere(scenario, target="agent")
    assert report.pools == 2 * report.points


def test_a_failure_is_told_with_its_target() -> None:
    """The line that shows it again is whole."""

    async def scenario() -> None:
        async with crew() as pool:
            outcome = await (await pool.spawn(member("sleeper nap=1"))).wait()
        outcome.unwrap()

    with pytest.raises(CancelPointError, match=r"scenario, target='agents', seed=4, points"):
        cancel_everywhere(scenario, target="agents", seed=4)


def test_a_pool_that_fails_on_its_own_may_say_so() -> None:
    """An agent that failed before the cancellation is the pool's own error, and allowed."""

    async def scenario() -> None:
        async with crew() as pool:
            await pool.spawn(member("failing fail"))
            await trio.sleep(1)
            await pool.join_all()

    assert cancel_everywhere(scenario, may_raise=(PoolError,)).points > 5


@pytest.mark.parametrize("target", ["agent", "agents"])
def test_a_sweep_of_agents_needs_one(target: Target) -> None:
    """A sweep that cancels nothing would be green whatever the scenario does."""

    async def no_agent() -> None:
        await trio.sleep(1)

    with pytest.raises(UsageError, match="no_agent starts no agent, so nothing would be cancelled"):
        cancel_everywhere(no_agent, target=target)


def test_a_sweep_of_no_points_is_refused() -> None:
    """An empty list, such as of a filter that let nothing through, proves nothing."""
    with pytest.raises(UsageError, match="points is empty, so nothing would be cancelled"):
        cancel_everywhere(team, points=[])


async def test_it_is_called_from_outside_of_trio() -> None:
    """As simulate is."""
    await trio.lowlevel.checkpoint()
    with pytest.raises(UsageError, match="without async"):
        cancel_everywhere(short_work)
