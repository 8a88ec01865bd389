"""Agents that one call accepts, one after the other, while they start, end and are forgotten."""

from __future__ import annotations

import gc
from contextlib import suppress
from functools import partial
from typing import final

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool import (
    AgentHandle,
    AgentOutcome,
    AgentPool,
    Capability,
    PoolFullError,
    SpawnConfig,
    open_pool,
)
from agentpool._pool.numbered import Numbered
from agentpool.abc import Event, Observer, OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.journal import InMemoryJournal
from agentpool.observe import AgentFinished
from agentpool.testing import assert_quiescent
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, job, manifest, query_of, results_of, tool_call
from tests.support.inner_cancel import cancel_inner_everywhere


async def echo(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Say the query after a second, or at once; one that says ``parent`` spawns three."""
    query = query_of(request)
    if query == "parent" and not results_of(request):
        return calling(tool_call("spawn_three"))
    if not query.startswith("quick"):
        await trio.sleep(1)
    return query


def texts_of(handles: list[AgentHandle]) -> list[str | None]:
    """Return what the agents answered."""
    return [one.outcome and one.outcome.text for one in handles]


@final
@attrs.define(eq=False)
class Forgets(Observer):
    """Takes each outcome when it is told of the end, so that a pool that keeps none forgets it."""

    pool: AgentPool | None = None
    explicitly: bool = False

    def on_event(self, event: Event) -> None:
        """Take it."""
        if self.pool is not None and isinstance(event, AgentFinished):
            handle = self.pool[event.agent_id]
            assert handle.outcome is event.outcome
            if self.explicitly:
                handle.forget()


async def read(pool: AgentPool, *, forgets: bool) -> None:
    """Take outcomes as they come, until cancelled."""
    while True:
        outcome = await pool.join_next()
        if outcome is None:
            await trio.sleep(0.25)
        elif forgets:
            pool[outcome.agent_id].forget()


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    room=st.tuples(st.integers(1, 4), st.sampled_from([0, 1, 100])),
    keep=st.sampled_from([None, 0, 1]),
    reader=st.sampled_from(["an observer", "an observer that forgets", "a task"]),
    ends=st.tuples(st.sampled_from(["", "quick"]), st.sampled_from([None, 0.5, 1.5, 3])),
)
def test_each_handle_has_its_own_outcome_whatever_was_forgotten(
    counts: list[int],
    room: tuple[int, int],
    keep: int | None,
    reader: str,
    ends: tuple[str, float | None],
) -> None:
    """Several calls at a time, beside a reader, which may be an observer, and an abort."""
    how, ends_at = ends
    made: list[tuple[list[str], list[AgentHandle]]] = []

    async def fan_out(pool: AgentPool, name: int, count: int) -> None:
        queries = [f"{how} {name} {number}" for number in range(count)]
        made.append((queries, await pool.fan_out(map(job, queries))))

    async def main() -> None:
        explicitly = keep is None and reader != "an observer"
        observers = [] if reader == "a task" else [Forgets(explicitly=explicitly)]
        async with open_pool(
            LiveDriver(echo), max_concurrent=room[0], max_queued=room[1], keep_outcomes=keep,
            observers=observers,
        ) as pool, trio.open_nursery() as nursery:  # fmt: skip
            for one in observers:
                one.pool = pool
            nursery.start_soon(partial(read, pool, forgets=explicitly and not observers))
            async with trio.open_nursery() as calls:
                for name, count in enumerate(counts):
                    calls.start_soon(fan_out, pool, name, count)
                if ends_at is not None:
                    await trio.sleep(ends_at)
                    pool.abort_all("enough")
            await pool.join_all()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert_quiescent(pool)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(made) == len(counts)
    everybody = [one.agent_id for _, handles in made for one in handles]
    assert len(set(everybody)) == len(everybody) == sum(counts)
    for queries, handles in made:
        assert [one.agent_id for one in handles] == sorted(one.agent_id for one in handles)
        assert all(
            text == query or (ends_at is not None and not text)
            for text, query in zip(texts_of(handles), queries, strict=True)
        )


@pytest.mark.parametrize("keep", [0, None])
async def test_an_agent_that_takes_its_slot_again_may_accept_who_has_ended_and_is_forgotten(
    keep: int | None, autojump_clock: MockClock
) -> None:
    """In a pool of one slot, its child is let in, runs and ends before the parent goes on."""
    texts: list[str | None] = []
    opened: list[AgentPool] = []

    @tool
    async def spawn_three(context: ToolContext) -> str:
        """Spawn them."""
        texts.extend(texts_of(await opened[0].fan_out(map(job, ["quick a", "quick b", "c"]))))
        return "done"

    watcher = Forgets(explicitly=keep is None)
    async with open_pool(
        LiveDriver(echo), max_concurrent=1, max_queued=0, keep_outcomes=keep,
        tools=ToolRegistry([spawn_three]), observers=[watcher],
    ) as pool:  # fmt: skip
        opened.append(pool)
        watcher.pool = pool
        parent = manifest("parent", capabilities=(Capability.spawn(1),))
        assert (await (await pool.spawn(SpawnConfig(parent, "parent"))).wait()).text == "parent"
        await trio.sleep(2)
    assert texts[:2] == ["quick a", "quick b"]
    assert len(texts) == 3


def outcomes() -> int:
    """Return how many outcomes there are."""
    gc.collect()
    return sum(type(one) is AgentOutcome for one in gc.get_objects())


async def test_a_call_that_goes_on_keeps_nothing_of_the_agents_of_others(
    autojump_clock: MockClock,
) -> None:
    """While it waits for room, others come and go, and a pool that forgets has forgotten them."""

    async def come_and_go(pool: AgentPool) -> None:
        for number in range(50):
            assert (await (await pool.spawn(job(f"quick {number}"))).wait()).text

    async with open_pool(
        LiveDriver(echo), max_concurrent=1, max_queued=0, keep_outcomes=0
    ) as pool, trio.open_nursery() as nursery:  # fmt: skip
        before = outcomes()
        nursery.start_soon(pool.fan_out, [job(str(number)) for number in range(10)])
        nursery.start_soon(come_and_go, pool)
        await trio.sleep(7.5)
        assert pool.statistics().spawned > 15
        # Of the call's own agents nobody has taken an outcome, so each of them is kept.
        assert outcomes() - before <= 10


@pytest.mark.parametrize("keep", [0, None])
def test_in_a_resumed_pool_the_handles_come_in_the_order_of_the_configs(keep: int | None) -> None:
    """Also if an earlier process gave the numbers in another order, and all are forgotten."""
    journal = InMemoryJournal()

    def keyed(key: str) -> SpawnConfig:
        return SpawnConfig(manifest(), f"text {key}", key=key)

    async def first() -> None:
        async with open_pool(
            LiveDriver(echo), journal=journal, name="kept", resume=True, max_concurrent=3
        ) as pool:
            await pool.fan_out(map(keyed, "abc"))
            await trio.sleep(0.5)
            pool.abort_all("stop")

    async def second() -> None:
        async with open_pool(
            LiveDriver(echo), journal=journal, name="kept", resume=True, keep_outcomes=keep,
            max_concurrent=1, max_queued=0,
        ) as pool, trio.open_nursery() as nursery:  # fmt: skip
            nursery.start_soon(partial(read, pool, forgets=keep is None))
            handles = await pool.fan_out(map(keyed, "dcxab"))
            assert texts_of(handles)[:4] == ["text d", "text c", "text x", "text a"]
            ids = [one.agent_id for one in handles]
            assert [ids[1], ids[3], ids[4]] == [3, 1, 2]
            nursery.cancel_scope.cancel()

    for main in (first, second):
        trio.run(main, clock=MockClock(autojump_threshold=0))


async def _gives_up_a_fan_out(scope: trio.CancelScope) -> None:
    """Cancel one call anywhere, beside another one: what it had accepted is there."""
    handles: list[AgentHandle] = []
    async with open_pool(LiveDriver(echo), max_concurrent=1, max_queued=1) as pool:

        async def other() -> None:
            handles.extend(await pool.fan_out(map(job, ["x", "quick y", "z"])))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with scope:
                await pool.fan_out(map(job, ["a", "quick b", "c"]))
        everybody = await pool.join_all()
        assert texts_of(handles) == ["x", "quick y", "z"]
        own = [one.text for number, one in everybody.items() if pool[number] not in handles]
        assert own == ["a", "quick b", "c"][: len(own)]
        assert len(everybody) == pool.statistics().spawned == 3 + len(own)
    assert_quiescent(pool)


def test_a_fan_out_that_is_given_up_leaves_what_it_accepted() -> None:
    """At each step, beside another call."""
    assert cancel_inner_everywhere(_gives_up_a_fan_out, schedules=2) > 20


@final
@attrs.define(eq=False)
class Running(trio.abc.Clock):
    """A clock that goes on by a millisecond whenever somebody looks at it."""

    now: float = 0.0

    def start_clock(self) -> None:
        """Start."""

    def current_time(self) -> float:
        """Tell the time."""
        self.now += 0.001
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Never sleep."""
        self.now = max(self.now, min(deadline, self.now + 1))
        return 0


@pytest.mark.parametrize(("slots", "queued"), [(2, 0), (2, 1000), (1000, 0)])
def test_an_agent_starts_after_it_was_asked_for_and_before_it_ends(slots: int, queued: int) -> None:
    """Those that one step accepts start together; who is spawned between two steps, does not."""
    asked: dict[int, float] = {}

    async def spawn_beside(pool: AgentPool) -> None:
        while pool.statistics().spawned < 100:
            at = trio.current_time()
            with suppress(PoolFullError):
                asked[pool.spawn_nowait(job("quick")).agent_id] = at
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        opened = trio.current_time()
        async with open_pool(LiveDriver(echo), max_concurrent=slots, max_queued=queued) as pool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn_beside, pool)
                await pool.fan_out(map(job, ["quick"] * 100))
            last = trio.current_time()
            late = await pool.spawn(job("quick"))
            everybody = await pool.join_all()
        for number, at in {**asked, late.agent_id: last}.items():
            started = everybody[number].started_at
            assert started is not None
            assert started + pool_opened(opened) >= at
        for one in everybody.values():
            assert one.started_at is not None
            assert one.started_at < one.finished_at
        assert len(asked) > 3

    def pool_opened(before: float) -> float:
        return before + 0.01  # a few looks at the clock later

    trio.run(main, clock=Running())


@given(
    st.lists(st.tuples(st.sampled_from(["add", "drop", "get"]), st.integers(1, 300)), max_size=100)
)
def test_values_by_number_are_those_of_a_dict(calls: list[tuple[str, int]]) -> None:
    """The values, their order by number, and how many they are."""
    known: dict[int, str] = {}
    numbered: Numbered[str] = Numbered()
    for call, number in calls:
        if call == "drop":
            numbered.drop(number)
            known.pop(number, None)
        elif call == "add" and number not in known:
            numbered.add(number, f"value {number}")
            known[number] = f"value {number}"
        assert numbered.get(number) == known.get(number)
        assert len(numbered) == len(known)
        assert list(numbered) == [known[one] for one in sorted(known)]


def test_what_is_dropped_takes_no_memory() -> None:
    """A pool that lives long has numbers without end."""
    numbered: Numbered[int] = Numbered()
    for number in range(10_000):
        numbered.add(number, number)
        numbered.drop(number - 10)
    (pages,) = [one for one in gc.get_referents(numbered) if isinstance(one, dict)]
    assert len(pages) <= 2
