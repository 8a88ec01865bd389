"""Agents that are ended before they began: many at a time, in any room of the pool.

With an observer, each of them is ended by itself, since it is told of each. So a pool without one
must come to the same.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentCancelledError,
    AgentGoneError,
    AgentHandle,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Capability,
    PoolClosedError,
    PoolError,
    SpawnConfig,
    open_pool,
)
from agentpool._pool.record import AgentRecord
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.testing import assert_quiescent
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    Recorder,
    calling,
    job,
    manifest,
    query_of,
    results_of,
    tool_call,
)
from tests.support.inner_cancel import cancel_inner_everywhere

WAYS = ("a fan-out", "a map", "a race", "a question", "a wait", "a cancel")
"""What puts agents into the queue, or waits for one there."""


async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Answer after three seconds; a parent has children first."""
    if query_of(request) == "parent" and not results_of(request):
        return calling(tool_call("have_children"))
    await trio.sleep(3)
    return query_of(request)


OPEN: list[AgentPool] = []


@tool
async def have_children(context: ToolContext) -> str:
    """Have one child of each kind."""
    await OPEN[-1].spawn(job("a child"))
    return (await context.agent.run_child("another child")).text


def told(one: AgentOutcome | None) -> tuple[object, ...]:
    """Return what must not depend on who watches."""
    assert one is not None
    times = None if one.started_at is None else round(one.started_at, 3)
    return one.agent_id, one.status, one.text, str(one.error), times, round(one.finished_at, 3)


async def do(pool: AgentPool, way: str) -> object:
    """Put agents into the queue in one of the ways, and wait for what comes of it."""
    if way == "a fan-out":
        handles = await pool.fan_out(map(job, "abc"))
        joined = await pool.join_all(children=True)
        return [told(joined[one.agent_id]) for one in handles]
    if way == "a map":
        async with pool.map(manifest(), ["x"]) as outcomes:
            return sorted([told(one) async for one in outcomes], key=str)
    if way == "a race":
        return told(await pool.race(map(job, ["r", "s"])))
    handle = await pool.spawn(job("asked"))
    if way == "a question":
        await pool.router.send(handle.agent_id, "a message that nobody reads")
        return (await handle.ask("are you there?")).content
    if way == "a cancel":
        handle.cancel("not needed")
        handle.cancel("again")
    return told(await handle.wait())


async def scene(
    ways: Sequence[str], slots: int, ends: str, *, parent: bool, watched: bool
) -> list[object]:
    """Fill the queue in these ways, end all that is queued, and return what everybody saw."""
    seen: list[object] = []
    observers = [Recorder()] if watched else []

    async def run(pool: AgentPool, way: str, place: int) -> None:
        try:
            seen.append((place, await do(pool, way)))
        except (AgentGoneError, PoolClosedError, PoolError) as error:
            seen.append((place, type(error).__name__))

    async def read(pool: AgentPool) -> None:
        await pool.join_next()  # which may leave nothing to a join, or the other way round
        seen.append("read")

    async with open_pool(
        LiveDriver(answer), max_concurrent=slots, observers=observers,
        tools=ToolRegistry([have_children]),
    ) as pool:  # fmt: skip
        OPEN.append(pool)
        # Who runs has all slots. A parent gives its own one back, and its children come first.
        config = SpawnConfig(manifest("parent", capabilities=(Capability.spawn(2),)), "parent")
        pool.fan_out_nowait([config if parent else job("runs"), *map(job, ["runs"] * (slots - 1))])
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for place, way in enumerate(ways):
                nursery.start_soon(run, pool, way, place)
                await wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(read, pool)
            await trio.sleep(1)
            if ends == "a shutdown":
                seen.append(await pool.shutdown(grace_seconds=1))
            else:
                pool.abort_all("enough")
        everybody = await pool.join_all(children=True)
        seen.append([told(one) for one in everybody.values()])
        seen.append(sorted(one.message.content for one in pool.router.dead_letters))
    assert pool.queued_count == pool.active_count == 0
    assert_quiescent(pool)
    return sorted(seen, key=str)


@given(
    ways=st.lists(st.sampled_from(WAYS), min_size=1, max_size=5),
    slots=st.integers(1, 3),
    ends=st.tuples(st.sampled_from(["an abort", "a shutdown"]), st.booleans()),
)
def test_what_is_queued_ends_the_same_whether_somebody_watches_or_not(
    ways: list[str], slots: int, ends: tuple[str, bool]
) -> None:
    """Every call that waits comes back, and each agent has its one outcome."""
    both: list[list[object]] = []

    async def main(*, watched: bool) -> None:
        with trio.fail_after(100):
            both.append(await scene(ways, slots, ends[0], parent=ends[1], watched=watched))

    for watched in (True, False):
        trio.run(partial(main, watched=watched), clock=MockClock(autojump_threshold=0))
    assert both[0] == both[1]
    OPEN.clear()


async def test_each_end_of_a_queued_agent_wakes_one_reader(autojump_clock: MockClock) -> None:
    """Not more: the others wait for those that go on, in the order in which they came."""
    got: list[tuple[int, int, float]] = []

    async def read(pool: AgentPool, place: int) -> None:
        outcome = await pool.join_next()
        assert outcome is not None
        got.append((place, outcome.agent_id, trio.current_time()))

    async with open_pool(LiveDriver(answer), max_concurrent=2) as pool:
        handles = await pool.fan_out(map(job, "abcd"))
        async with trio.open_nursery() as nursery:
            for place in range(4):
                nursery.start_soon(read, pool, place)
                await wait_all_tasks_blocked()
            await trio.sleep(1)
            handles[2].cancel()
            await wait_all_tasks_blocked()
            assert got == [(0, 3, 1)]
    # Those that are woken in one step run in any order.
    places, ended, times = zip(*got[1:3], strict=True)
    assert (set(places), set(ended), times) == ({1, 2}, {1, 2}, (3, 3))
    assert got[3:] == [(3, 4, 6)]


async def _gives_up(scope: trio.CancelScope) -> None:
    """Cancel one of several waits anywhere, while all that is queued is ended."""
    handles: list[AgentHandle] = []
    async with open_pool(LiveDriver(answer), max_concurrent=1) as pool:
        handles += await pool.fan_out(map(job, "abcd"))
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with scope:
                    await pool.join_next()
                    await handles[2].wait()
                    await pool.join_all()

            nursery.start_soon(wait)
            nursery.start_soon(pool.join_all)
            await trio.sleep(1)
            pool.abort_all("enough")
        everybody = await pool.join_all()
        assert [one.status for one in everybody.values()] == [AgentStatus.CANCELLED] * 4
        errors = [one.error for one in everybody.values()]
        assert all(isinstance(one, AgentCancelledError) for one in errors)
        assert all("enough" in str(one) for one in errors)
        assert await pool.join_next() is None
    assert_quiescent(pool)


def test_a_wait_may_be_given_up_while_all_that_is_queued_ends() -> None:
    """At each step: the others are woken."""
    assert cancel_inner_everywhere(_gives_up, schedules=3) > 20


async def test_a_parent_that_goes_on_forgets_its_children_that_never_began(
    autojump_clock: MockClock,
) -> None:
    """One that lives long may have had very many."""
    seen: list[int] = []

    @tool
    async def have_and_cancel(context: ToolContext) -> str:
        """Have children that never begin, and look how many of them are left."""
        before = _records()
        for _ in range(20):
            handle = await pool.spawn(job("a child"))
            handle.cancel("not needed")
            handle.forget()
            del handle
        seen.append(_records() - before)
        return "done"

    def ask(request: CompletionRequest) -> Completion | str:
        return "done" if results_of(request) else calling(tool_call("have_and_cancel"))

    async with open_pool(
        FunctionDriver(ask), max_concurrent=1, tools=ToolRegistry([have_and_cancel])
    ) as pool:
        parent = manifest("parent", capabilities=(Capability.spawn(1),))
        assert (await (await pool.spawn(SpawnConfig(parent, "parent"))).wait()).text == "done"
    assert seen == [0]


def _records() -> int:
    gc.collect()
    return sum(type(one) is AgentRecord for one in gc.get_objects())


async def test_a_racer_that_never_began_may_have_been_the_only_way_out(
    autojump_clock: MockClock,
) -> None:
    """Its end closes a circle: the parent waits for the race, whose other agent asks the parent."""
    ends: list[float] = []

    @tool
    async def race_two(context: ToolContext) -> str:
        """Race one that asks the caller with one that stays in the queue."""
        asker = SpawnConfig(manifest("asker"), "asker")
        try:
            return (await pool.race([asker, job("never begins")])).text
        finally:
            ends.append(trio.current_time())

    @tool
    async def ask_parent(context: ToolContext) -> str:
        """Ask the agent that started the race."""
        pool.max_concurrent = 1  # which somebody else has
        return (await pool.router.ask(2, "may I?")).content

    async def ask(request: CompletionRequest, _: OnDelta) -> Completion | str:
        query = query_of(request)
        if query == "runs":
            await trio.sleep(1000)
        tools = {"parent": "race_two", "asker": "ask_parent"}
        if query in tools and not results_of(request):
            return calling(tool_call(tools[query]))
        return query

    async with open_pool(
        LiveDriver(ask), max_concurrent=2, tools=ToolRegistry([race_two, ask_parent])
    ) as pool:
        await pool.spawn(job("runs"))
        parent = manifest("parent", capabilities=(Capability.spawn(1),))
        await pool.spawn(SpawnConfig(parent, "parent"))
        await trio.sleep(1)
        assert [pool[one].status.value for one in (1, 2, 3, 4)] == [
            "running", "parked", "parked", "queued",
        ]  # fmt: skip
        pool[4].cancel("not needed")
        await trio.sleep(1)
        pool.max_concurrent = 2
        await trio.sleep(1)
        assert ends
        assert ends[0] < 5
        pool.abort_all("enough")
