"""Joining beside other joins, spawns and cancellations: one call among others."""

from __future__ import annotations

from collections import Counter

import trio
from trio.testing import MockClock

from agentpool import open_pool
from agentpool.abc import OnDelta
from agentpool.drivers import CompletionRequest
from tests.support.fakes import LiveDriver, job, jobs, query_of
from tests.support.inner_cancel import cancel_inner_everywhere


async def sleepy(request: CompletionRequest, _: OnDelta) -> str:
    """Sleep as many seconds as the query says."""
    await trio.sleep(float(query_of(request)))
    return "done"


async def test_each_end_wakes_one_who_waits_for_the_next(autojump_clock: MockClock) -> None:
    """Without that, ``join_next`` returned when the last agent of all had ended."""
    ends: list[tuple[int, float]] = []
    async with open_pool(LiveDriver(sleepy)) as pool:
        await pool.fan_out(jobs("1", "2", "30"))

        async def join_one() -> None:
            outcome = await pool.join_next()
            assert outcome is not None
            ends.append((outcome.agent_id, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(join_one)
    assert ends == [(1, 1), (2, 2), (3, 30)]


async def test_a_join_of_nobody_lets_others_go_on(autojump_clock: MockClock) -> None:
    """Whoever asks again and again stands in nobody's way."""
    steps: list[int] = []

    async def count() -> None:
        for number in range(3):
            steps.append(number)
            await trio.lowlevel.checkpoint()

    async with open_pool(LiveDriver(sleepy)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(5):
            assert await pool.join_all() == {}
        assert steps == [0, 1, 2]


async def test_who_waits_when_none_is_left_is_told_so(autojump_clock: MockClock) -> None:
    """More wait than agents run: all of them come back when the last one has ended."""
    given_out: list[int | None] = []
    async with open_pool(LiveDriver(sleepy)) as pool:
        await pool.fan_out(jobs("1", "2"))

        async def join_one() -> None:
            outcome = await pool.join_next()
            given_out.append(None if outcome is None else outcome.agent_id)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(join_one)
        assert trio.current_time() == 2
    assert Counter(given_out) == {1: 1, 2: 1, None: 3}


async def _joins_beside_a_spawn(scope: trio.CancelScope) -> None:
    """Let somebody spawn while the owner joins all, and cancel the spawn anywhere."""
    async with open_pool(LiveDriver(sleepy), max_concurrent=1, max_queued=1) as pool:
        await pool.fan_out(jobs("1", "2"))

        async def spawn_more() -> None:
            with scope:
                await pool.spawn(job("1"))
                await pool.spawn(job("1"))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn_more)
                assert set(await pool.join_all()) >= {1, 2}
            spawned = pool.statistics().spawned
            assert len(await pool.join_all()) == spawned


def test_a_join_beside_a_spawn_ends() -> None:
    """Whoever is spawned while one joins is the next join's."""
    assert cancel_inner_everywhere(_joins_beside_a_spawn, schedules=2) > 20


async def test_an_agent_may_end_while_a_join_begins(autojump_clock: MockClock) -> None:
    """It would be waited for without end if the join looked at it before, and listened after."""
    for steps in range(10):
        async with open_pool(LiveDriver(sleepy)) as pool:
            await pool.fan_out(jobs("0", "0"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            with trio.fail_after(60):
                assert set(await pool.join_all()) == {1, 2}


async def _gives_up_a_join(scope: trio.CancelScope) -> None:
    """Give up reading outcomes anywhere, and read on: none is lost, none comes twice."""
    seen: list[int] = []
    async with open_pool(LiveDriver(sleepy)) as pool:
        await pool.fan_out(jobs("1", "1", "2"))
        with scope:
            async for outcome in pool.as_completed():
                seen.append(outcome.agent_id)  # noqa: PERF401  # kept when the scope is cancelled
        seen.extend([outcome.agent_id async for outcome in pool.as_completed()])
    assert sorted(seen) == [1, 2, 3]


def test_an_outcome_is_given_out_once_wherever_a_join_is_given_up() -> None:
    """A cancelled reader leaves its outcome to the next one."""
    assert cancel_inner_everywhere(_gives_up_a_join, schedules=3) > 20
