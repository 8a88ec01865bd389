"""Who runs next: groups and their weights, children, who comes back, and lent slots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentManifest,
    AgentPool,
    AgentStatus,
    Capability,
    PoolFullError,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool._spawn import child_of
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    Event,
    Observer,
    OnDelta,
    ToolContext,
)
from agentpool.drivers import FunctionDriver, GatedDriver, RequestGate
from agentpool.observe import AgentFinished, AgentQueued, AgentResumed, AgentSpawned, AgentStarted
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    Recorder,
    calling,
    hanging_driver,
    job,
    jobs,
    manifest,
    of_type,
    query_of,
    results_of,
    sleepy_driver,
    tool_call,
    turns_of,
)

WORKER = manifest()


def members(
    group: str, count: int, *, weight: int = 1, priority: int = 0, query: str = "say done"
) -> list[SpawnConfig]:
    """Return agents of one group, named after it."""
    return [
        SpawnConfig(
            WORKER, query, name=group, group=group, weight=weight, priority=priority
        )
    ] * count  # fmt: skip


async def order_of(configs: Iterable[SpawnConfig], slots: int = 1) -> list[str]:
    """Return the names of agents in the order in which they start, all queued before."""
    recorder = Recorder()
    async with open_pool(
        FunctionDriver(lambda _: "done"),
        max_concurrent=slots,
        max_queued=20_000,
        observers=[recorder],
    ) as pool:
        pool.fan_out_nowait(configs)
        await pool.join_all()
    return [event.agent_name for event in of_type(recorder.events, AgentStarted)]


# --- groups


async def test_without_groups_the_first_come_is_the_first_served() -> None:
    """Who does not ask for anything else gets what everybody expects."""
    names = [str(number) for number in range(50)]
    assert await order_of(jobs(*names)) == names


async def test_groups_take_turns_by_their_weights() -> None:
    """A thousand of one group do not keep ten of another behind them."""
    started = await order_of([*members("many", 100, weight=3), *members("few", 3)])
    places = [place for place, name in enumerate(started) if name == "few"]
    # The first agent took the free slot before there was anybody to share with.
    assert places == [4, 8, 12]


async def test_a_priority_is_for_ones_own_group() -> None:
    """Whoever calls himself urgent goes before his own people and no others."""
    configs = [
        *members("a", 4),
        *members("b", 2),
        *members("a", 1, priority=1, query="say urgent"),
    ]
    assert "".join(await order_of(configs)) == "aababaa"


async def test_ten_thousand_do_not_starve_ten() -> None:
    """The bound: the n-th of a group of weight 1 waits for at most 3 n of the other's 3."""
    recorder = Recorder()
    async with open_pool(
        sleepy_driver(), max_concurrent=1, max_queued=20_000, observers=[recorder]
    ) as pool:
        pool.fan_out_nowait(members("crowd", 10_000, weight=3))
        for handle in pool.fan_out_nowait(members("few", 10)):
            await handle.wait()
        pool.abort_all()
    started = [event.agent_name for event in of_type(recorder.events, AgentStarted)]
    places = [place for place, name in enumerate(started) if name == "few"]
    assert len(places) == 10
    for nth, place in enumerate(places, 1):
        # One more: the agent that took the slot before anybody queued.
        assert place - (nth - 1) <= 3 * nth + 1


@settings(max_examples=20)
@given(
    weights=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    crowd=st.integers(50, 300),
    few=st.integers(1, 10),
    slots=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_a_group_with_work_waits_no_longer_than_its_bound(
    weights: tuple[int, int], crowd: int, few: int, slots: int, seed: int
) -> None:
    """``ceil(n / w) * (W - w)`` others before its n-th, whatever the schedule."""
    own, other = weights
    configs = [*members("crowd", crowd, weight=other), *members("few", few, weight=own)]
    started = simulate(order_of, configs, slots, seed=seed)
    places = [place for place, name in enumerate(started) if name == "few"]
    assert len(places) == few
    for nth, place in enumerate(places, 1):
        others = place - (nth - 1)
        # Those that took the free slots before anybody queued come on top.
        assert others <= math.ceil(nth / own) * other + slots


@pytest.mark.parametrize("weight", [0, -1, 1.5])
def test_a_weight_is_a_whole_number(weight: float) -> None:
    """A group that has no part of the slots would wait for ever."""
    with pytest.raises(UsageError, match=f"weight must be a whole number >= 1, got {weight}"):
        SpawnConfig(WORKER, "hello", weight=weight)  # type: ignore[arg-type]  # that is the test


def test_a_child_is_of_its_parents_group() -> None:
    """Or a group would get more by having children."""
    parent = SpawnConfig(
        manifest(capabilities=(Capability.spawn(2),)),
        "parent",
        group="batch",
        weight=2,
        priority=-1,
    )
    child = child_of(parent, "help", name="child", used_tokens=0, seconds_left=math.inf)
    assert (child.group, child.weight, child.priority) == ("batch", 2, -1)


# --- children


async def test_children_of_agents_come_before_newcomers(autojump_clock: MockClock) -> None:
    """What has begun is ended before something else begins; both kinds are queued."""
    recorder = Recorder()
    queued: list[int] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "parent" and not turns_of(request):
            return calling(tool_call("spawn"))
        await trio.sleep(1)
        return "done"

    async def spawn(_: str, __: ToolContext) -> str:
        first, second = await pool.fan_out(jobs("child", "child"))
        queued.append(pool.queued_count)
        await first.wait()
        await second.wait()
        return "both"

    tools = ToolRegistry([FakeTool("spawn", spawn)])
    async with open_pool(
        LiveDriver(answer), tools=tools, max_concurrent=1, observers=[recorder]
    ) as pool:
        await pool.fan_out(jobs("parent", *["newcomer"] * 5))
        await pool.join_all()
    assert queued == [2 + 5]
    started = [event.agent_name for event in of_type(recorder.events, AgentStarted)]
    assert started[:3] == ["parent", "child", "child"]


# --- ending early


async def test_a_cancelled_newcomer_takes_no_turn_of_its_group() -> None:
    """Its place is free at once, and the others go on in their order."""
    async with open_pool(hanging_driver(), max_concurrent=1, max_queued=4) as pool:
        await pool.spawn(job("first"))
        waiting = pool.fan_out_nowait([*members("a", 2), *members("b", 2)])
        with pytest.raises(PoolFullError):
            pool.spawn_nowait(job("late"))
        waiting[0].cancel()
        assert pool.queued_count == 3
        late = pool.spawn_nowait(job("late"))
        pool[1].cancel()
        await wait_all_tasks_blocked()
        assert waiting[1].status is AgentStatus.RUNNING
        assert late.status is AgentStatus.QUEUED
        pool.abort_all()
        assert pool.queued_count == 0


async def test_all_who_queue_are_aborted_in_the_order_of_their_coming() -> None:
    """Groups decide who starts, and not what the log of an abort looks like."""
    recorder = Recorder()
    async with open_pool(hanging_driver(), max_concurrent=1, observers=[recorder]) as pool:
        pool.fan_out_nowait([job(), *members("a", 2), *members("b", 2), *members("a", 1)])
        pool.abort_all()
    ended = [event.agent_id for event in of_type(recorder.events, AgentFinished)]
    assert ended == [2, 3, 4, 5, 6, 1]


@attrs.define(eq=False)
class Meddler(Observer):
    """Uses the pool at each event of one kind, while it is told of it."""

    _kind: type[Event]
    _meddle: Callable[[int], object]

    def on_event(self, event: Event) -> None:
        """Use it."""
        if isinstance(event, self._kind):
            self._meddle(event.agent_id)


def abort(pool: AgentPool) -> None:
    """Cancel all of them."""
    pool.abort_all()


def grow(pool: AgentPool) -> None:
    """Make room for all of them."""
    pool.max_concurrent = 4


def spawn(pool: AgentPool) -> None:
    """Take the place that the end of one has left, once."""
    if pool.statistics().spawned == 3:
        pool.spawn_nowait(job("say more"))


def cancel_all(pool: AgentPool) -> None:
    """Cancel each of them."""
    for agent_id in range(1, pool.statistics().spawned + 1):
        pool[agent_id].cancel()


@pytest.mark.parametrize("meddle", [abort, grow, spawn, cancel_all])
async def test_g2_who_is_told_of_the_end_of_a_newcomer_may_use_the_pool(
    meddle: Callable[[AgentPool], None], autojump_clock: MockClock
) -> None:
    """It has left the queue by then. It could be started, and that ended the whole pool."""
    watcher = Meddler(AgentFinished, lambda _: meddle(pool))
    async with open_pool(
        sleepy_driver(), max_concurrent=1, max_queued=2, observers=[watcher]
    ) as pool:
        _, gone, _ = pool.fan_out_nowait(jobs("sleep 1", "gone", "sleep 1"))
        gone.cancel()
        assert gone.status is AgentStatus.CANCELLED
        outcomes = await pool.join_all()
        assert {outcome.status for outcome in outcomes.values()} <= {
            AgentStatus.COMPLETED,
            AgentStatus.CANCELLED,
        }
        statistics = pool.statistics()
    assert (statistics.queued, statistics.observer_failures) == (0, 0)


@pytest.mark.parametrize("meddle", [abort, cancel_all])
async def test_g2_who_is_told_of_one_of_many_ends_may_ask_for_the_others(
    meddle: Callable[[AgentPool], None],
) -> None:
    """They have left the queue as well, and are about to be ended."""
    watcher = Meddler(AgentFinished, lambda _: meddle(pool))
    async with open_pool(hanging_driver(), max_concurrent=1, observers=[watcher]) as pool:
        pool.fan_out_nowait(jobs("a", "b", "c", "d"))
        pool.abort_all()
        assert pool.queued_count == 0
        outcomes = await pool.join_all()
        late = pool.fan_out_nowait(jobs("e", "f"))
        assert pool.queued_count == 1
        assert [handle.status for handle in late] == [AgentStatus.RUNNING, AgentStatus.QUEUED]
        pool.abort_all()
    assert {outcome.status for outcome in outcomes.values()} == {AgentStatus.CANCELLED}


@pytest.mark.parametrize("ahead", [0, 1])
async def test_g2_who_is_told_of_a_newcomer_may_cancel_it(
    ahead: int, autojump_clock: MockClock
) -> None:
    """It has a slot or is in the queue by then; its model is not asked."""

    def cancel(agent_id: int) -> None:
        if pool[agent_id].name == "no":
            pool[agent_id].cancel()

    watcher = Meddler(AgentSpawned, cancel)
    driver = sleepy_driver()
    async with open_pool(driver, max_concurrent=1, observers=[watcher]) as pool:
        pool.fan_out_nowait(jobs(*["sleep 1"] * ahead, "no", "say done"))
        outcomes = await pool.join_all()
        assert pool.statistics().observer_failures == 0
    assert [outcome.status for outcome in outcomes.values()][ahead:] == [
        AgentStatus.CANCELLED,
        AgentStatus.COMPLETED,
    ]
    assert outcomes[ahead + 1].started_at == (None if ahead else 0)
    assert driver.calls == ahead + 1


# --- room


async def test_whoever_finds_the_queue_full_waits_in_order(autojump_clock: MockClock) -> None:
    """The place in the queue that one leaves is the next one's."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=1) as pool:
        handles = await pool.fan_out(jobs(*["sleep 1"] * 4))
        assert (trio.current_time(), pool.queued_count) == (2, 1)
        ends = [(await handle.wait()).finished_at for handle in handles]
    assert ends == [1, 2, 3, 4]


async def test_who_finds_the_last_place_in_the_queue_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    """Nor does whoever finds the last slot where nobody may queue."""
    for slots, queue in ((1, 1), (2, 0)):
        async with open_pool(sleepy_driver(), max_concurrent=slots, max_queued=queue) as pool:
            begun_at = trio.current_time()
            await pool.fan_out(jobs("sleep 1", "sleep 1"))
            assert trio.current_time() == begun_at


async def test_new_slots_are_given_out_at_once(autojump_clock: MockClock) -> None:
    """To those who queue, and their places to those who wait for one."""
    async with open_pool(sleepy_driver(), max_concurrent=1, max_queued=1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.fan_out, jobs(*["sleep 1"] * 3))
            await wait_all_tasks_blocked()
            assert (pool.active_count, pool.queued_count) == (1, 1)
            pool.max_concurrent = 2
            await wait_all_tasks_blocked()
            assert (pool.active_count, pool.queued_count) == (2, 1)
        await pool.join_all()
        assert trio.current_time() == 2


async def test_who_is_cancelled_on_its_way_back_leaves_the_slot_to_the_next() -> None:
    """It does not want it any more."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "hear":
            return calling(tool_call("hear"))
        return await trio.sleep_forever()

    async def hear(_: str, context: ToolContext) -> str:
        await context.agent.receive_many()
        raise AssertionError("it had no slot")  # pragma: no cover

    recorder = Recorder()
    tools = ToolRegistry([FakeTool("hear", hear)])
    async with open_pool(
        LiveDriver(answer), tools=tools, max_concurrent=1, observers=[recorder]
    ) as pool:
        hearing, busy, late = await pool.fan_out(jobs("hear", "busy", "late"))
        await wait_all_tasks_blocked()
        assert busy.status is AgentStatus.RUNNING
        await hearing.send("come back")
        await wait_all_tasks_blocked()
        hearing.cancel()
        await wait_all_tasks_blocked()
        busy.cancel()
        await wait_all_tasks_blocked()
        assert late.status is AgentStatus.RUNNING
        assert not of_type(recorder.events, AgentResumed)
        pool.abort_all()


# --- lent slots


async def test_a_lent_slot_is_no_room_for_a_newcomer(autojump_clock: MockClock) -> None:
    """A pool that refuses at capacity counts who waits at a gate."""
    driver = GatedDriver(sleepy_driver(), RequestGate(requests_per_minute=1))
    async with open_pool(driver, max_concurrent=2, max_queued=0) as pool:
        await pool.fan_out(jobs("say a", "say b"))
        await trio.sleep(1)
        statistics = pool.statistics()
        assert (statistics.running, statistics.parked, statistics.at_gate) == (0, 1, 1)
        pool.spawn_nowait(job("sleep 100"))
        await wait_all_tasks_blocked()
        with pytest.raises(PoolFullError):
            pool.spawn_nowait(job("say d"))
        await trio.sleep(60)
        assert pool.statistics().at_gate == 1
        pool.abort_all()
        assert pool.statistics().at_gate in {0, 1}
        await pool.join_all()
        assert pool.statistics().at_gate == 0


async def test_an_agent_cancelled_at_a_gate_frees_its_slot_for_newcomers(
    autojump_clock: MockClock,
) -> None:
    """The loan ends with whoever it was for."""
    driver = GatedDriver(sleepy_driver(), RequestGate(requests_per_minute=1))
    async with open_pool(driver, max_concurrent=1) as pool:
        first, second, third = await pool.fan_out(jobs("say a", "say b", "say c"))
        await trio.sleep(1)
        statuses: Sequence[AgentStatus] = [handle.status for handle in (first, second, third)]
        assert statuses == [AgentStatus.COMPLETED, AgentStatus.PARKED, AgentStatus.QUEUED]
        second.cancel()
        await wait_all_tasks_blocked()
        assert third.status is AgentStatus.PARKED
        assert (await third.wait()).finished_at == 60


async def test_a_slot_that_was_lent_goes_back_before_a_newcomer_starts(
    autojump_clock: MockClock,
) -> None:
    """One who came back has the slot of one at a gate; the next that is free is not anybody's."""

    async def listen(_: str, context: ToolContext) -> str:
        await context.agent.receive_many()
        await trio.sleep(100)
        return "heard"

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "listen" and not turns_of(request):
            return calling(tool_call("listen"))
        if query_of(request) == "work":
            await trio.sleep(10)
        return "done"

    open_driver, gate = LiveDriver(answer), RequestGate(requests_per_minute=1)
    gated = GatedDriver(open_driver, gate)

    def driver_of(wanted: AgentManifest) -> Driver:
        return gated if wanted.name == "gated" else open_driver

    def one(name: str, query: str) -> SpawnConfig:
        return SpawnConfig(manifest(name), query)

    tools = ToolRegistry([FakeTool("listen", listen)])
    async with open_pool(driver_of, tools=tools, max_concurrent=2) as pool:
        await (await pool.spawn(one("gated", "first through the gate"))).wait()
        listener, worker = await pool.fan_out([one("free", "listen"), one("free", "work")])
        await wait_all_tasks_blocked()
        late = await pool.spawn(one("gated", "at the gate"))
        newcomer = await pool.spawn(one("free", "new"))
        await wait_all_tasks_blocked()
        assert pool.statistics().at_gate == 1
        listener.send_nowait("go on")
        await worker.wait()
        await wait_all_tasks_blocked()
        statuses: Sequence[AgentStatus] = [one.status for one in (listener, late, newcomer)]
        assert statuses == [AgentStatus.RUNNING, AgentStatus.PARKED, AgentStatus.QUEUED]
        assert (await late.wait()).status is AgentStatus.COMPLETED
        assert (await newcomer.wait()).status is AgentStatus.COMPLETED


async def test_g3_an_agent_of_whose_calls_one_works_has_its_slot_and_lends_none(
    autojump_clock: MockClock,
) -> None:
    """A call with two tasks at a gate, one of which is let in, said it twice: 1 of 2 was lost."""
    gate = RequestGate(requests_per_minute=1)

    async def pass_through() -> None:
        async with gate.request():
            pass

    async def wait_twice(_: str, __: ToolContext) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_through)
            nursery.start_soon(pass_through)
        return "through"

    async def work(_: str, __: ToolContext) -> str:
        await trio.sleep(200)
        return "worked"

    def answer(request: CompletionRequest) -> Completion | str:
        return "done" if turns_of(request) else calling(tool_call("twice"), tool_call("work"))

    tools = ToolRegistry([FakeTool("twice", wait_twice), FakeTool("work", work)])
    async with open_pool(FunctionDriver(answer), tools=tools, max_concurrent=2) as pool:
        await pass_through()
        await pool.spawn(job("both"))
        await trio.sleep(100)
        statistics = pool.statistics()
        assert (statistics.running, statistics.at_gate) == (1, 0)
        newcomer = pool.spawn_nowait(job("new"))
        assert newcomer.status is AgentStatus.RUNNING
        pool.abort_all()


async def test_whoever_comes_back_to_a_full_pool_is_told_as_queued_again(
    autojump_clock: MockClock,
) -> None:
    """With how many come before it; it goes on before those that are new."""
    seen = Recorder()

    @tool
    async def away(context: ToolContext) -> str:
        """Wait elsewhere, the second agent for longer."""
        async with context.agent.without_slot("a webhook"):
            await trio.sleep(context.agent.agent_id)
        return "back"

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "leave" and not results_of(request):
            return calling(tool_call("away"))
        await trio.sleep(10)
        return "done"

    async with open_pool(
        LiveDriver(answer), tools=ToolRegistry([away]), max_concurrent=1, observers=[seen]
    ) as pool:
        await pool.fan_out(jobs("leave", "leave", "stay", "new"))
        await pool.join_all()
    again = [event for event in seen.events if isinstance(event, AgentQueued) and event.again]
    assert [(event.agent_id, event.at_seconds, event.ahead) for event in again] == [
        (1, 1.0, 0),
        (2, 2.0, 1),
    ]
    ends = [event.agent_id for event in seen.events if isinstance(event, AgentFinished)]
    assert ends == [3, 1, 2, 4]
