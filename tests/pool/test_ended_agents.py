"""What a pool keeps of agents that have ended: the same answers, whoever asks, and no more memory.

Of most agents only the outcome is kept. A handle that somebody holds and one that the pool makes
anew, for ``pool[id]``, tell the same of the agent.
"""

from __future__ import annotations

import gc

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentGoneError,
    AgentHandle,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Capability,
    PoolError,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool._pool.record import AgentRecord
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest, OverloadedError
from agentpool.testing import assert_quiescent
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, job, manifest, query_of, results_of, tool_call

PARENT = manifest("parent", capabilities=(Capability.spawn(2),))

KINDS = ("done", "late", "bad", "spawn", "stop")
"""What becomes of an agent: it answers, answers late, fails, has children, or is stopped."""


async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Do what the query says."""
    query = query_of(request)
    await trio.sleep({"late": 9, "stop": 60}.get(query, 1))
    if query == "bad":
        raise OverloadedError("broken", retryable=False)
    if query == "spawn" and not results_of(request):
        return calling(tool_call("have_children"))
    return query


@tool
async def have_children(context: ToolContext) -> str:
    """Run a child, and spawn two more from the pool, of which one goes on."""
    pool, held = OPEN[-1]
    own = job("late")
    stays = SpawnConfig(own.manifest, "late", outlives_parent=True)
    held += [await pool.spawn(own), await pool.spawn(stays)]
    return (await context.agent.run_child("a child")).text


OPEN: list[tuple[AgentPool, list[AgentHandle]]] = []
"""The pool that the tool spawns from, and the handles that are held."""


def config_of(kind: str) -> SpawnConfig:
    """Make an agent of a kind."""
    if kind == "spawn":
        return SpawnConfig(PARENT, kind)
    return job(kind, deadline_seconds=5 if kind == "stop" else None)


def records() -> int:
    """Return how many records there are."""
    gc.collect()
    return sum(type(one) is AgentRecord for one in gc.get_objects())


def told(handle: AgentHandle) -> tuple[object, ...]:
    """Return what a handle tells without that anything counts as seen."""
    return (
        handle.agent_id, handle.name, handle.parent_id, handle.depth, handle.status,
        handle.has_ended, handle.waits_for, repr(handle), hash(handle),
    )  # fmt: skip


async def check_same(pool: AgentPool, held: AgentHandle) -> AgentOutcome:
    """Check that the pool tells the same of an ended agent as a handle that was held."""
    made = pool[held.agent_id]
    assert (made == held, held == made, made != held) == (True, True, False)
    assert {made: 1}[held] == 1
    assert told(made) == told(held)
    outcome = held.outcome
    assert outcome is not None
    assert made.outcome is outcome
    assert await made.wait() is outcome
    made.cancel("too late")
    made.interrupt()
    assert pool[held.agent_id].outcome is outcome
    for one in (made, held):
        with pytest.raises(AgentGoneError):
            one.send_nowait("too late")
    with made.stream() as pieces:
        assert "".join([piece async for piece in pieces]) == outcome.text
    return outcome


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    keep=st.sampled_from([None, 0, 2, 100]),
    room=st.tuples(st.integers(1, 4), st.sampled_from([0, 1, 100])),
    ends_at=st.sampled_from([0, 1.5, 4, None]),
    beside=st.tuples(st.sampled_from([0, 1, 3, 20]), st.integers(0, 3)),
)
def test_who_asks_by_number_is_told_what_a_handle_tells(
    kinds: list[str],
    keep: int | None,
    room: tuple[int, int],
    ends_at: float | None,
    beside: tuple[float, int],
) -> None:
    """However the agents end, beside joins, one of which is cancelled, and an abort."""
    (slots, queued), (cancelled_at, reads) = room, beside
    joined: list[dict[int, AgentOutcome]] = []
    read: list[AgentOutcome] = []

    async def join(pool: AgentPool, limit: float) -> None:
        with trio.move_on_after(limit):
            joined.append(await pool.join_all(children=True))

    async def read_some(pool: AgentPool) -> None:
        taken = [await pool.join_next() for _ in range(reads)]
        read.extend(one for one in taken if one is not None)

    async def fan_out(pool: AgentPool, held: list[AgentHandle]) -> list[AgentHandle]:
        handles = await pool.fan_out(map(config_of, kinds))
        held += handles
        return handles

    async def main() -> None:
        async with open_pool(
            LiveDriver(answer), max_concurrent=slots, max_queued=queued, keep_outcomes=keep,
            tools=ToolRegistry([have_children]),
        ) as pool:  # fmt: skip
            held: list[AgentHandle] = []
            OPEN.append((pool, held))
            own = [one.agent_id for one in await fan_out(pool, held)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(join, pool, cancelled_at)
                nursery.start_soon(join, pool, 1000)
                nursery.start_soon(read_some, pool)
                if ends_at is not None:
                    await trio.sleep(ends_at)
                    pool.abort_all("enough")
            everybody = joined[-1]
            assert list(everybody) == sorted(everybody)
            assert len(own) == len(kinds)
            # Whoever was read before the joins began may be forgotten by then.
            forgotten = {one.agent_id for one in read} if keep is not None else set[int]()
            assert set(own) <= set(everybody) | forgotten
            assert own == sorted(own)
            assert len({one.agent_id for one in read}) == len(read)
            later = await pool.join_all(children=True)  # those that were spawned after the first
            for handle in held:
                outcome = everybody.get(handle.agent_id) or later.get(handle.agent_id)
                assert handle.outcome is outcome or (keep is not None and outcome is None)
                if keep is None:
                    assert await check_same(pool, handle) is outcome
            assert all(everybody.get(one.agent_id, one) is one for one in read)
            assert_quiescent(pool)
            if keep is None:
                held[0].forget()
                with pytest.raises(UsageError, match="no longer kept"):
                    pool[held[0].agent_id]
                assert held[0].outcome is everybody[held[0].agent_id]

    trio.run(main, clock=MockClock(autojump_threshold=0))
    OPEN.clear()


async def test_of_an_ended_agent_only_the_outcome_is_left(autojump_clock: MockClock) -> None:
    """Also while a call joins it. Records took as much memory as outcomes."""
    async with open_pool(LiveDriver(answer), max_concurrent=4) as pool:
        before = records()
        await pool.fan_out(map(config_of, ["done", "stop", "bad", "late"]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.join_all)
            await trio.sleep(6)
            assert records() - before == 2  # of the one that runs, and of the one that failed
        assert records() - before == 1
        assert [pool[one].status for one in range(1, 5)] == [
            AgentStatus.COMPLETED, AgentStatus.STOPPED, AgentStatus.FAILED, AgentStatus.COMPLETED,
        ]  # fmt: skip


async def test_a_fan_out_that_waits_for_room_keeps_no_records(autojump_clock: MockClock) -> None:
    """Of agents that ended before its last one was accepted; beside another one like it."""
    texts: list[str | None] = []

    async def fan_out(pool: AgentPool, count: int) -> None:
        handles = await pool.fan_out(map(job, map(str, range(count))))
        texts.extend(one.outcome and one.outcome.text for one in handles)

    async with open_pool(LiveDriver(answer), max_concurrent=1, max_queued=0) as pool:
        before = records()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fan_out, pool, 4)
            nursery.start_soon(fan_out, pool, 4)
            await trio.sleep(5.5)
            # The last one of each fan-out that goes on, of which one runs. Five have ended.
            assert 1 <= records() - before <= 2
    assert sorted(texts, key=str) == ["0", "0", "1", "1", "2", "2", None, None]


@pytest.mark.parametrize("keep", [0, None])
async def test_a_handle_has_what_was_forgotten_before_it_was_made(
    keep: int | None, autojump_clock: MockClock
) -> None:
    """A fan-out waits for room while others take the outcomes, and forget the agents."""
    read: list[str] = []

    async with open_pool(
        LiveDriver(answer), max_concurrent=1, max_queued=0, keep_outcomes=keep
    ) as pool:

        async def take() -> None:
            await trio.sleep(0.5)
            async for outcome in pool.as_completed():
                read.append(outcome.text)
                if keep is None:
                    pool[outcome.agent_id].forget()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            handles = await pool.fan_out(map(job, "abcd"))
        assert read == list("abcd")
        assert [one.outcome and one.outcome.text for one in handles] == list("abcd")
        with pytest.raises(UsageError, match="no longer kept"):
            pool[1]


async def test_a_failure_is_unseen_until_its_own_outcome_is_taken(
    autojump_clock: MockClock,
) -> None:
    """To ask for its status, or to take the outcomes of others, is not to look at it."""

    async def look_at_the_other() -> None:
        async with open_pool(LiveDriver(answer)) as pool:
            await pool.fan_out(map(config_of, ["bad", "done"]))
            assert (await pool[2].wait()).text == "done"
            await trio.sleep(5)
            assert pool[1].status is AgentStatus.FAILED

    with pytest.raises(PoolError) as caught:
        await look_at_the_other()
    assert list(caught.value.by_agent) == [1]
    async with open_pool(LiveDriver(answer)) as pool:
        await pool.spawn(job("bad"))
        await trio.sleep(5)
        assert pool[1].outcome is not None


@given(
    naps=st.lists(st.sampled_from(["1", "2", "5", "bad"]), min_size=1, max_size=6),
    mapped=st.lists(st.sampled_from(["1", "3"]), max_size=3),
    slots=st.integers(1, 3),
    cancelled=st.lists(st.integers(1, 6), max_size=2),
    looks=st.lists(st.sampled_from([0.5, 1, 1.5]), min_size=1, max_size=6),
)
def test_who_lives_can_be_written_to_and_nobody_else(
    naps: list[str], mapped: list[str], slots: int, cancelled: list[int], looks: list[float]
) -> None:
    """Queued, running and those of a map, at any moment."""
    seen: list[str] = []

    def look(pool: AgentPool, ids: range) -> None:
        living = [0, *(one for one in ids if not pool[one].has_ended)]
        assert list(pool.router.live_ids()) == living
        assert pool.router.agent_count == len(living) - 1
        for one in ids:
            try:
                pool.router.send_nowait(one, "are you there?")
                seen.append("accepted")
                assert one in living
            except AgentGoneError:
                assert one not in living

    async def read(pool: AgentPool) -> None:
        async with pool.map(manifest(), mapped) as outcomes:
            async for _ in outcomes:
                pass

    async def main() -> None:
        async with open_pool(LiveDriver(nap), max_concurrent=slots, inbox_capacity=50) as pool:
            handles = await pool.fan_out(map(job, naps))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, pool)
                await wait_all_tasks_blocked()
                for number in cancelled:
                    if number <= len(handles):
                        handles[number - 1].cancel()
                for pause in looks:
                    look(pool, range(1, pool.statistics().spawned + 1))
                    await trio.sleep(pause)
            await pool.join_all()
            look(pool, range(1, pool.statistics().spawned + 1))
            dead = pool.router.dead_letter_count
            assert dead <= len(seen) == pool.router.message_count

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def nap(request: CompletionRequest, _: OnDelta) -> str:
    """Sleep as many seconds as the query says, or fail."""
    query = query_of(request)
    if query == "bad":
        raise OverloadedError("broken", retryable=False)
    await trio.sleep(float(query))
    return query
