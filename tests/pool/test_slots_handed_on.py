"""Where many agents run, those that end in one step hand their slots on in the next step."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    PoolFullError,
    PoolStatistics,
    SpawnConfig,
    open_pool,
)
from agentpool._pool import admission
from agentpool._pool.admission import MANY
from agentpool.abc import Completion, CompletionRequest, Observer, OnDelta
from agentpool.observe import AgentFinished, AgentStarted, Event
from agentpool.testing import assert_quiescent, cancel_everywhere, explore, operation, simulate
from agentpool.tools import ToolContext, ToolRegistry
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    calling,
    job,
    jobs,
    manifest,
    query_of,
    results_of,
    tool_call,
)

SLOTS = MANY + 4

HEARER = manifest(capabilities=(Capability(CapabilityKind.MESSAGE),))

Act = Callable[[AgentPool], object]


@attrs.define(eq=False)
class Between(Observer):
    """Acts once, after a number of agents have ended and before others get their slots."""

    ends: int
    act: Act = lambda _: None
    pool: AgentPool | None = None
    acted: object = None
    started: list[str] = attrs.field(factory=list[str])
    told: list[str] = attrs.field(factory=list[str])
    seen: list[PoolStatistics] = attrs.field(factory=list[PoolStatistics])

    def on_event(self, event: Event) -> None:
        """Look, and act when it is time."""
        assert self.pool is not None
        self.seen.append(self.pool.statistics())
        if isinstance(event, AgentStarted):
            self.started.append(event.agent_name)
            self.told.append("start")
        elif isinstance(event, AgentFinished):
            self.told.append("end")
            self.ends -= 1
            if not self.ends:
                self.acted = self.act(self.pool)


async def hear(_: str, context: ToolContext) -> str:
    """Wait for messages."""
    return str(await context.agent.receive_many())


async def write(_: str, context: ToolContext) -> str:
    """Write to the first agent."""
    await context.agent.send(1, "hello")
    return "written"


TOOLS = ToolRegistry([FakeTool("hear", hear), FakeTool("write", write)])


def model_behind(door: trio.Event) -> LiveDriver:
    """Return a model that calls the tool of the query's name, if there is one.

    It answers "first" when the *door* opens, and a number that many steps later.
    """

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        query = query_of(request)
        if query in TOOLS.names and not results_of(request):
            return calling(tool_call(query, "1"))
        if query == "first" or query.isdecimal():
            await door.wait()
            for _step in range(int(query) if query.isdecimal() else 0):
                await trio.lowlevel.checkpoint()
        return query

    return LiveDriver(answer)


@attrs.define
class Crowd:
    """A pool whose agents called "first" all end in the same step."""

    pool: AgentPool
    door: trio.Event


@asynccontextmanager
async def crowd(
    between: Between, *, slots: int = SLOTS, max_queued: int = 1000, first: int | None = None
) -> AsyncGenerator[Crowd]:
    """Open a pool, in whose slots agents wait at a door."""
    door = trio.Event()
    async with open_pool(
        model_behind(door),
        max_concurrent=slots,
        max_queued=max_queued,
        observers=[between],
        tools=TOOLS,
    ) as pool:
        between.pool = pool
        await pool.fan_out(named("first", slots if first is None else first))
        await wait_all_tasks_blocked()
        yield Crowd(pool, door)


def named(query: str, count: int) -> list[SpawnConfig]:
    """Return agents that are called as their query, with a number."""
    return [SpawnConfig(manifest(), query, name=f"{query} {n}") for n in range(count)]


async def test_those_in_the_queue_begin_in_a_row_and_in_order() -> None:
    """After all that end in the same step."""
    between = Between(SLOTS)
    async with crowd(between) as here:
        here.pool.fan_out_nowait(named("next", 5))
        here.door.set()
        await here.pool.join_all()
        assert_quiescent(here.pool)
    assert between.told == [*["start"] * SLOTS, *["end"] * SLOTS, *["start"] * 5, *["end"] * 5]
    assert between.started[SLOTS:] == [f"next {n}" for n in range(5)]


async def _one_by_one() -> None:
    between = Between(MANY - 1)
    async with crowd(between, slots=MANY - 1) as here:
        here.pool.fan_out_nowait(named("next", MANY - 1))
        here.door.set()
        await here.pool.join_all()
    count = MANY - 1
    assert between.told == [*["start"] * count, *["end", "start"] * count, *["end"] * count]


def test_in_a_small_pool_each_begins_as_one_ends() -> None:
    """A task that hands slots on would take longer than it saves."""
    explore(_one_by_one, schedules=5, orders="rounds")


async def _nobody_overtakes() -> None:
    between = Between(SLOTS, lambda pool: pool.fan_out_nowait(named("late", 2)))
    async with crowd(between) as here:
        here.pool.fan_out_nowait(named("next", 5))
        here.door.set()
        await here.pool.join_all()
    assert between.started[SLOTS:] == [*(f"next {n}" for n in range(5)), "late 0", "late 1"]


def test_no_newcomer_overtakes_those_in_the_queue() -> None:
    """Who is spawned before the slots are handed on comes after whoever waits."""
    explore(_nobody_overtakes, schedules=10, orders="rounds")


@pytest.mark.parametrize("queued", [1, 5, SLOTS, SLOTS + 5])
async def test_there_is_room_for_what_the_free_slots_and_the_queue_hold(queued: int) -> None:
    """Neither more nor less, although the free slots are for others."""
    refused = list[PoolFullError]()

    def fill(pool: AgentPool) -> None:
        assert pool.queued_count == queued
        try:
            pool.fan_out_nowait(jobs(*["late"] * (SLOTS + 1)))
        except PoolFullError as error:
            refused.append(error)
        pool.fan_out_nowait(jobs(*["late"] * SLOTS))
        with pytest.raises(PoolFullError):
            pool.spawn_nowait(job("late"))
        most.append(pool.queued_count)

    most = list[int]()
    between = Between(SLOTS, fill)
    async with crowd(between, max_queued=queued) as here:
        here.pool.fan_out_nowait(named("next", queued))
        here.door.set()
        await here.pool.join_all()
        outcomes = await here.pool.join_all()  # those that were spawned meanwhile, too
        assert here.pool.statistics().observer_failures == 0
    assert len(refused) == 1
    assert most == [queued]
    assert len(outcomes) == SLOTS + queued + SLOTS


@pytest.mark.parametrize("slots", [1, MANY, SLOTS, SLOTS + 3])
async def test_the_bound_holds_if_the_pool_is_resized_meanwhile(slots: int) -> None:
    """Fewer or more slots than have become free."""
    between = Between(SLOTS, lambda pool: setattr(pool, "max_concurrent", slots))
    async with crowd(between) as here:
        here.pool.fan_out_nowait(named("next", 2 * SLOTS))
        here.door.set()
        await here.pool.join_all()
    running = [one.running for one in between.seen[-2 * SLOTS :]]
    assert max(running) <= slots
    assert all(one.parked == 0 for one in between.seen)


@pytest.mark.parametrize("what", ["abort", "close", "shut down"])
async def test_no_agent_is_lost_if_the_pool_ends_meanwhile(what: str) -> None:
    """Those in the queue are cancelled without a start, or begin if the pool only closes."""

    def end(pool: AgentPool) -> None:
        if what == "abort":
            pool.abort_all("enough")
        else:
            pool.close()

    between = Between(SLOTS, end)
    async with crowd(between) as here:
        handles = here.pool.fan_out_nowait(named("next", 5))
        here.door.set()
        if what == "shut down":
            await here.pool.shutdown(grace_seconds=1)
        outcomes = await here.pool.join_all()
        assert_quiescent(here.pool)
    ended = [outcomes[one.agent_id].status for one in handles]
    starts = len(between.started) - SLOTS
    if what == "close":
        assert (ended, starts) == ([AgentStatus.COMPLETED] * 5, 5)
    else:
        assert (ended, starts) == ([AgentStatus.CANCELLED] * 5, 0)


async def _cancelled_outside() -> None:
    with trio.CancelScope() as scope:
        between = Between(SLOTS, lambda _: scope.cancel())
        async with crowd(between) as here:
            handles = here.pool.fan_out_nowait(named("next", 5))
            here.door.set()
            await trio.sleep_forever()
    assert len(between.started) == SLOTS
    assert [one.status for one in handles] == [AgentStatus.CANCELLED] * 5


def test_after_a_cancellation_meanwhile_no_agent_begins() -> None:
    """The scope around the pool is cancelled after the slots have become free."""
    explore(_cancelled_outside, schedules=10, orders="rounds")


async def _deadlock() -> None:
    between = Between(MANY, lambda pool: pool[MANY + 2].cancel("it is not needed"))
    async with crowd(between, slots=MANY, first=MANY - 1) as here:
        hearer = await here.pool.spawn(SpawnConfig(HEARER, "hear", name="hearer"))
        await wait_all_tasks_blocked()
        await here.pool.fan_out(named("first", 1))
        here.pool.fan_out_nowait(named("next", 1))
        await wait_all_tasks_blocked()
        here.door.set()
        outcome = (await here.pool.join_all())[hearer.agent_id]
    assert "DeadlockError" in str(outcome.messages)
    assert len(between.started) == MANY + 1


def test_who_waits_for_a_message_hears_that_the_last_one_in_the_queue_was_cancelled() -> None:
    """All others have ended, and the one in the queue was the last that could have written."""
    explore(_deadlock, schedules=10, orders="rounds")


@attrs.define(eq=False)
class Crowds(Observer):
    """Spawns an agent at each of the first two ends, and wakes the agent that listens."""

    pool: AgentPool | None = None
    ends: int = 0
    most_queued: int = 0

    def on_event(self, event: Event) -> None:
        """Act, and look at the queue."""
        assert self.pool is not None
        if isinstance(event, AgentFinished) and self.ends < 2:
            self.ends += 1
            if self.ends == 1:
                self.pool[1].send_nowait("go on")
            with suppress(PoolFullError):
                self.pool.spawn_nowait(job("late"))
        self.most_queued = max(self.most_queued, self.pool.queued_count)


async def _comes_back() -> None:
    """Let an agent come back while slots are handed on, one of which was given to a newcomer."""
    door, crowds = trio.Event(), Crowds()
    async with open_pool(
        model_behind(door), max_concurrent=2, max_queued=1, observers=[crowds], tools=TOOLS
    ) as pool:
        crowds.pool = pool
        await pool.spawn(SpawnConfig(HEARER, "hear"))
        await wait_all_tasks_blocked()
        pool.fan_out_nowait(jobs("0", "1", "next"))
        await wait_all_tasks_blocked()
        door.set()
        await pool.join_all()
        await pool.join_all()
        assert_quiescent(pool)
    assert crowds.most_queued == 1


def test_the_queue_holds_no_more_if_an_agent_comes_back_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot that is free then is for that agent, and no room for a new one."""
    monkeypatch.setattr(admission, "MANY", 2)
    explore(_comes_back, schedules=100)


async def _written_to() -> None:
    door = trio.Event()
    async with open_pool(model_behind(door), max_concurrent=2, tools=TOOLS) as pool:
        hearer = await pool.spawn(SpawnConfig(HEARER, "hear"))
        await wait_all_tasks_blocked()
        pool.fan_out_nowait([*jobs("0", "0"), SpawnConfig(HEARER, "write")])
        await wait_all_tasks_blocked()
        door.set()
        await pool.join_all()
        assert "hello" in str((await hearer.wait()).messages)


def test_who_waits_for_a_message_is_told_of_no_deadlock_before_the_writer_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writer is in the queue while no agent runs."""
    monkeypatch.setattr(admission, "MANY", 2)
    explore(_written_to, schedules=100)


def _nothing(_: AgentPool) -> None:
    """Do nothing."""


def _spawn(pool: AgentPool) -> None:
    pool.fan_out_nowait(named("late", 2))


def _withdraw(pool: AgentPool) -> None:
    for record in tuple(pool[n] for n in range(SLOTS + 1, SLOTS + 3)):
        record.cancel("not this one")


def _shrink(pool: AgentPool) -> None:
    pool.max_concurrent = 2


def _grow(pool: AgentPool) -> None:
    pool.max_concurrent = SLOTS + 7


def _abort(pool: AgentPool) -> None:
    pool.abort_all("enough")


ACTS = (_nothing, _spawn, _withdraw, _shrink, _grow, _abort)


@given(
    acts=st.lists(
        st.sampled_from([_nothing, _spawn, _withdraw, _shrink, _grow, _abort]), max_size=4
    ),
    ends=st.integers(1, SLOTS),
    queued=st.integers(2, SLOTS + 5),
    seed=st.integers(0, 100),
)
def test_whatever_happens_meanwhile_breaks_no_promise(
    acts: list[Act], ends: int, queued: int, seed: int
) -> None:
    """Each agent has one outcome, the bound holds, those in the queue keep their order."""

    def act(pool: AgentPool) -> None:
        for one in acts:
            one(pool)

    async def scenario() -> None:
        between = Between(ends, act)
        async with crowd(between) as here:
            here.pool.fan_out_nowait(named("next", queued))
            here.door.set()
            await here.pool.join_all()
            outcomes = await here.pool.join_all()
            assert_quiescent(here.pool)
            statistics = here.pool.statistics()
        assert not statistics.observer_failures
        assert len(outcomes) == statistics.spawned
        assert all(one.running <= SLOTS + 7 * (_grow in acts) for one in between.seen)
        assert all(one.parked == 0 for one in between.seen)
        order = [name for name in between.started if name.startswith("next")]
        assert order == sorted(order, key=lambda name: int(name.split()[1]))
        begun = [one for one in outcomes.values() if one.status is AgentStatus.COMPLETED]
        assert len(begun) <= len(between.started)
        if _abort not in acts:
            withdrawn = 2 * (_withdraw in acts)
            assert len(outcomes) - len(begun) <= withdrawn

    simulate(scenario, seed=seed)


async def _given_up() -> None:
    between = Between(0)
    async with crowd(between, slots=3, max_queued=2) as here:
        here.pool.fan_out_nowait(named("next", 2))
        given_up = list[bool]()

        async def spawn() -> None:
            with operation() as scope:
                await here.pool.spawn(SpawnConfig(manifest(), "late", name="late"))
            given_up.append(scope.cancelled_caught)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(spawn)
            await wait_all_tasks_blocked()
            here.door.set()
        outcomes = await here.pool.join_all()
        assert_quiescent(here.pool)
    assert len(outcomes) == 3 + 2 + given_up.count(False)
    assert all(one.status is not AgentStatus.FAILED for one in outcomes.values())


@pytest.mark.parametrize("target", ["scope", "scenario", "agents"])
def test_a_spawn_that_waits_for_room_may_be_cancelled_at_any_point(
    target: Literal["scope", "scenario", "agents"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that gives up takes nobody's place with it, whoever hands slots on meanwhile."""
    monkeypatch.setattr(admission, "MANY", 2)
    assert cancel_everywhere(_given_up, target=target, schedules=3).points > 20
