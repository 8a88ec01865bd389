"""Observers that use the pool in their callback: no decision is disturbed, no order broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import final

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agentpool import (
    AgentPool,
    AgentPoolError,
    AgentStatus,
    PoolClosedError,
    PoolError,
    PoolFullError,
    open_pool,
)
from agentpool.abc import Event, Observer, OnDelta
from agentpool.drivers import CompletionRequest
from agentpool.observe import AgentFinished, AgentSpawned, AgentStarted
from agentpool.testing import assert_quiescent, explore, simulate
from tests.support.fakes import LiveDriver, Recorder, job, jobs, manifest, of_type, query_of

pytestmark = pytest.mark.usefixtures("slots_handed_on")

Act = Callable[[AgentPool, Event], None]


@final
@attrs.define(eq=False)
class Actor(Observer):
    """Acts on the pool at every event, and checks the pool's limits meanwhile."""

    act: Act
    pool: AgentPool | None = None
    max_queued: int = 10_000
    broken: list[str] = attrs.field(factory=list)

    def on_event(self, event: Event) -> None:
        """Act."""
        assert self.pool is not None
        self.act(self.pool, event)
        if self.pool.queued_count > self.max_queued:
            self.broken.append(f"{self.pool.queued_count} wait at {type(event).__name__}")


async def sleepy(request: CompletionRequest, _: OnDelta) -> str:
    """Sleep as many seconds as the query says."""
    await trio.sleep(float(query_of(request)))
    return "done"


def spawns(pool: AgentPool, event: Event) -> None:
    """Spawn one more whenever an agent of the first ones is spawned."""
    if isinstance(event, AgentSpawned) and event.agent_id < 4:
        with suppress(PoolFullError, PoolClosedError):
            pool.spawn_nowait(job("1"))


def closes(pool: AgentPool, event: Event) -> None:
    """Close the pool when the first agent is spawned."""
    if isinstance(event, AgentSpawned):
        pool.close()


def cancels_next(pool: AgentPool, event: Event) -> None:
    """End the next agent when one has ended."""
    if isinstance(event, AgentFinished):
        with suppress(AgentPoolError):
            pool[event.agent_id + 1].cancel("the one before has ended")


def aborts(pool: AgentPool, event: Event) -> None:
    """End all of them when one has started."""
    if isinstance(event, AgentStarted):
        pool.abort_all("one has started")


def resizes(pool: AgentPool, event: Event) -> None:
    """Change the number of slots at every end."""
    if isinstance(event, AgentFinished):
        pool.max_concurrent = 1 + event.agent_id % 3


ACTS = (spawns, closes, cancels_next, aborts, resizes)


async def test_a_batch_leaves_no_more_waiting_than_may_wait() -> None:
    """Room was asked for once, and observers were told in between."""
    actor = Actor(spawns, max_queued=2)
    async with open_pool(
        LiveDriver(sleepy), max_concurrent=1, max_queued=2, observers=[actor]
    ) as pool:
        actor.pool = pool
        handles = pool.fan_out_nowait(jobs("1", "1", "1"))
        assert [handle.agent_id for handle in handles] == [1, 2, 3]
        assert pool.queued_count == 2
        pool.abort_all("enough")
        await pool.join_all()
    assert not actor.broken


async def test_a_batch_is_accepted_as_a_whole() -> None:
    """An observer closed the pool inside of it: half was started, and its handles were lost."""
    actor = Actor(closes)
    async with open_pool(LiveDriver(sleepy), observers=[actor]) as pool:
        actor.pool = pool
        handles = pool.fan_out_nowait(jobs("0", "0", "0"))
        assert len(handles) == 3
        with pytest.raises(PoolClosedError):
            pool.spawn_nowait(job("0"))
        assert len(await pool.join_all()) == 3


async def _ends_in_order() -> None:
    recorder, actor = Recorder(), Actor(cancels_next)
    async with open_pool(LiveDriver(sleepy), max_concurrent=1, observers=[actor, recorder]) as pool:
        actor.pool = pool
        await pool.fan_out(jobs("1", "5", "9", "9", "9"))
        given_out = [outcome.agent_id async for outcome in pool.as_completed()]
    assert given_out == [1, 2, 3, 4, 5]
    assert given_out == [one.agent_id for one in of_type(recorder.events, AgentFinished)]


def test_outcomes_come_in_the_order_of_the_ends() -> None:
    """Observers were told before the fan-in, so whom they ended came first."""
    explore(_ends_in_order, schedules=30)


async def _same_order(act: Act) -> None:
    """Let an observer act; the one before it, the one after it and a reader see the same."""
    before, after, actor = Recorder(), Recorder(), Actor(act)
    read: list[Event] = []
    async with open_pool(
        LiveDriver(sleepy), max_concurrent=2, observers=[before, actor, after]
    ) as pool:
        actor.pool = pool
        events = pool.events()

        async def keep_reading() -> None:
            read.extend([event async for event in events])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_reading)
            with suppress(PoolClosedError):
                await pool.fan_out(jobs("1", "2", "3", "4"))
            await pool.join_all()
            assert_quiescent(pool)
            events.close()
    numbers = [event.sequence for event in before.events]
    assert numbers == sorted(numbers)
    assert after.events == before.events
    assert read == before.events


@pytest.mark.parametrize("act", ACTS)
def test_everyone_sees_events_in_the_order_in_which_they_happened(act: Act) -> None:
    """Later observers and readers heard what followed before what came first."""
    explore(partial(_same_order, act), schedules=10)


@given(
    acts=st.lists(st.sampled_from(ACTS), min_size=1, max_size=3),
    queries=st.lists(st.sampled_from("0123"), min_size=1, max_size=6),
    slots=st.integers(1, 3),
    max_queued=st.integers(0, 4),
    seed=st.integers(0, 100),
)
def test_observers_that_act_break_no_promise(
    acts: list[Act], queries: list[str], slots: int, max_queued: int, seed: int
) -> None:
    """Bounds, one outcome for each accepted spawn, all or nothing, and one order."""

    async def scenario() -> None:
        recorder = Recorder()
        actors = [Actor(act, max_queued=max_queued) for act in acts]
        async with open_pool(
            LiveDriver(sleepy),
            max_concurrent=slots,
            max_queued=max_queued,
            observers=[*actors, recorder],
        ) as pool:
            for actor in actors:
                actor.pool = pool
            with suppress(PoolFullError, PoolClosedError):
                assert len(pool.fan_out_nowait(map(job, queries))) == len(queries)
            with suppress(PoolClosedError):
                await pool.fan_out(map(job, queries))
            outcomes = await pool.join_all()
        assert not [text for actor in actors for text in actor.broken]
        numbers = [event.sequence for event in recorder.events]
        assert numbers == sorted(numbers)
        ended = [one.agent_id for one in of_type(recorder.events, AgentFinished)]
        assert len(ended) == len(set(ended))
        assert set(outcomes) <= set(ended)
        assert all(one.status is not AgentStatus.FAILED for one in outcomes.values())

    simulate(scenario, seed=seed)


def ends_itself(pool: AgentPool, event: Event) -> None:
    """End an agent when it hears of its spawn, before whoever started it has its handle."""
    if isinstance(event, AgentSpawned) and event.agent_id > 1:
        pool[event.agent_id].cancel("not this one")


def ends_everybody(pool: AgentPool, event: Event) -> None:
    """End all agents when it hears of the last."""
    if isinstance(event, AgentSpawned) and event.agent_id == 4:
        pool.abort_all("enough")


async def supervised(pool: AgentPool) -> list[object]:
    """Supervise three agents."""
    return [one.status for one in await pool.supervise(jobs("1", "2", "3"))]


async def raced(pool: AgentPool) -> list[object]:
    """Let three agents race."""
    with pytest.raises(PoolError) as caught:
        await pool.race(jobs("1", "2", "3"))
    return [type(one).__name__ for one in caught.value.exceptions]


async def mapped(pool: AgentPool, *, ordered: bool, retries: int = 0) -> list[object]:
    """Map three queries."""
    queries = ["1", "2", "3"]
    async with pool.map(manifest(), queries, ordered=ordered, retries=retries) as outcomes:
        return [one.status async for one in outcomes]


@pytest.mark.parametrize("act", [ends_itself, ends_everybody])
@pytest.mark.parametrize(
    "start",
    [
        supervised,
        raced,
        partial(mapped, ordered=True),
        partial(mapped, ordered=False),
        partial(mapped, ordered=True, retries=2),
    ],
)
def test_an_agent_may_be_cancelled_while_its_spawn_is_told(
    act: Act, start: Callable[[AgentPool], Awaitable[list[object]]]
) -> None:
    """Those that wait for a slot end at once, before a supervision, race or map has them."""

    async def scenario() -> None:
        actor = Actor(act)
        with trio.fail_after(1000):
            async with open_pool(LiveDriver(sleepy), observers=[actor], max_concurrent=1) as pool:
                actor.pool = pool
                await pool.spawn(job("10"))
                found = await start(pool)
                assert len(found) == 3
                assert found[-1] in {AgentStatus.CANCELLED, "AgentCancelledError"}
                assert pool.statistics().observer_failures == 0
                pool.abort_all("the end")
        assert_quiescent(pool)

    explore(scenario, schedules=10)
