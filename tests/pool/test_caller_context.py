"""An agent begins with the context variables of the call that spawned it, whenever it begins."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import product

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import AgentPool, AgentStatus, Capability, RestartPolicy, SpawnConfig, open_pool
from agentpool.abc import Completion, CompletionRequest, OnDelta
from agentpool.observe import Event, Observer, PoolInfo, PoolStatistics
from agentpool.testing import explore
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    calling,
    hanging_driver,
    job,
    manifest,
    query_of,
    results_of,
    tool_call,
)

pytestmark = pytest.mark.usefixtures("slots_handed_on")

PARENT = manifest(capabilities=(Capability.spawn(2),))

tenant: ContextVar[object] = ContextVar("tenant", default="nobody")


async def say_and_spoil(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Say whose context the agent has, and leave something in it."""
    seen = tenant.get()
    tenant.set(f"what {query_of(request)} left")
    await trio.lowlevel.checkpoint()
    return str(seen)


Spawn = Callable[[AgentPool, list[SpawnConfig]], Awaitable[object]]


async def spawn_each(pool: AgentPool, configs: list[SpawnConfig]) -> None:
    """Spawn them one by one."""
    for config in configs:
        await pool.spawn(config)


async def spawn_nowait(pool: AgentPool, configs: list[SpawnConfig]) -> None:  # noqa: ASYNC124  # called like its neighbours
    """Do so without waiting."""
    for config in configs:
        pool.spawn_nowait(config)


async def fan_out_nowait(pool: AgentPool, configs: list[SpawnConfig]) -> None:  # noqa: ASYNC124  # the same
    """Spawn all of them now."""
    pool.fan_out_nowait(configs)


async def supervise(pool: AgentPool, configs: list[SpawnConfig]) -> None:
    """Supervise them."""
    await pool.supervise(configs)


async def take_map(pool: AgentPool, configs: list[SpawnConfig]) -> None:
    """Take the outcomes of a map."""
    async with pool.map(configs[0].manifest, [config.query for config in configs]) as outcomes:
        async for _ in outcomes:
            pass


WAITING: list[Spawn] = [spawn_each, AgentPool.fan_out, supervise, take_map]
AT_ONCE: list[Spawn] = [fan_out_nowait, spawn_nowait]


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(
    ("spawn", "max_queued"),
    [*product(WAITING, (0, 1, 100)), *product(AT_ONCE, (100,))],
)
def test_no_agent_begins_with_what_another_one_left(
    spawn: Spawn, slots: int, max_queued: int
) -> None:
    """Tools and drivers may set what they like: the next agent in the slot does not see it."""

    async def scenario() -> None:
        seen: list[object] = []

        async def look_and_spoil(request: CompletionRequest, on_delta: OnDelta) -> str:
            seen.append(tenant.get())
            return str(await say_and_spoil(request, on_delta))

        driver = LiveDriver(look_and_spoil)
        async with open_pool(driver, max_concurrent=slots, max_queued=max_queued) as pool:
            tenant.set("the owner's")
            await spawn(pool, [job(f"job {number}") for number in range(7)])
            tenant.set("later")
            await pool.join_all(children=True)
        assert seen == ["the owner's"] * 7

    explore(scenario, schedules=5)


def test_owners_with_contexts_of_their_own_share_a_pool() -> None:
    """As in a server, where each request has its own: whoever waits in the queue gets its own."""

    async def scenario() -> None:
        async with open_pool(LiveDriver(say_and_spoil), max_concurrent=2, max_queued=6) as pool:

            async def serve(number: int) -> None:
                tenant.set(f"tenant {number}")
                handles = await pool.fan_out([job(), job()])
                handles.append(await pool.spawn(job()))
                tenant.set("later")
                handles.append(await pool.spawn(job()))
                said = [(await handle.wait()).text for handle in handles]
                assert said == [f"tenant {number}"] * 3 + ["later"]

            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(serve, number)

    explore(scenario, schedules=20)


async def test_a_restarted_agent_has_its_callers_context() -> None:
    """It is started again by the call that supervises, and not by the one that failed."""
    seen: list[object] = []

    async def fail_twice(_: CompletionRequest, __: OnDelta) -> str:
        seen.append(tenant.get())
        tenant.set("what a failure left")
        await trio.lowlevel.checkpoint()
        if len(seen) < 3:
            raise ValueError(len(seen))
        return "good"

    tenant.set("the owner's")
    async with open_pool(LiveDriver(fail_twice), max_concurrent=1) as pool:
        policy = RestartPolicy()
        (outcome,) = await pool.supervise([job()], policy)
        assert outcome.status is AgentStatus.COMPLETED
    assert seen == ["the owner's"] * 3


async def test_children_have_the_context_of_the_tool_that_spawned_them() -> None:
    """Also those that wait in the queue while others end."""

    @tool(timeout_seconds=math.inf)
    async def ask_others(context: ToolContext) -> str:
        """Ask two."""
        tenant.set(f"the tool's of {context.agent.agent_id}")
        said: list[str] = []

        async def ask(query: str) -> None:
            said.append((await context.agent.run_child(query)).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "child 1")
            nursery.start_soon(ask, "child 2")
        return ", ".join(said)

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion | str:
        if query_of(request).startswith("child"):
            return await say_and_spoil(request, on_delta)
        await trio.lowlevel.checkpoint()
        results = results_of(request)
        return results[0].content if results else calling(tool_call("ask_others"))

    async with open_pool(
        LiveDriver(answer), max_concurrent=1, tools=ToolRegistry([ask_others])
    ) as pool:
        await pool.fan_out([SpawnConfig(PARENT, "parent")] * 3)
        outcomes = await pool.join_all()
    for agent_id in (1, 2, 3):
        mine = f"the tool's of {agent_id}"
        assert outcomes[agent_id].text == f"{mine}, {mine}"


class Odd:
    """Something that must not be compared: it takes its time, or has no answer."""

    def __eq__(self, other: object) -> bool:
        """Refuse to be compared."""
        raise ValueError("ambiguous")

    __hash__ = object.__hash__


async def test_values_are_told_apart_without_comparing_them() -> None:
    """Equal lists of two callers are two lists, and an array has no truth."""
    seen: list[object] = []

    async def look(_: CompletionRequest, __: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        seen.append(tenant.get())
        return "good"

    values: list[object] = [[], [], Odd(), Odd(), [], "x", "x"]
    async with open_pool(LiveDriver(look), max_concurrent=1) as pool:
        for value in values:
            tenant.set(value)
            await pool.spawn(job())
        await pool.join_all()
    assert list(map(id, seen)) == list(map(id, values))


async def test_a_pool_that_goes_on_keeps_nobodys_context() -> None:
    """What a caller had is freed once its agents have begun, and no more wait."""

    class Request:
        pass

    gone = list[weakref.ref[Request]]()
    async with open_pool(LiveDriver(say_and_spoil), max_concurrent=1) as pool:

        async def serve() -> None:
            request = Request()
            tenant.set(request)
            gone.append(weakref.ref(request))
            await pool.fan_out([job()] * 3)
            await pool.spawn(job())

        async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # a task has a context
            nursery.start_soon(serve)
        await pool.join_all()
        gc.collect()
        assert gone[0]() is None


@pytest.mark.parametrize("gap", range(8))
async def test_a_value_is_not_kept_by_who_runs_long(gap: int) -> None:
    """The queue is empty as soon as the last one has begun, though its slot is handed on."""

    class Request:
        pass

    gone = list[weakref.ref[Request]]()
    end = trio.Event()

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        if query_of(request) == "long":
            await end.wait()
        return "good"

    async with open_pool(LiveDriver(answer), max_concurrent=1) as pool:

        async def serve() -> None:
            request = Request()
            tenant.set(request)
            gone.append(weakref.ref(request))
            await pool.spawn(job())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(serve)
            for _ in range(gap):
                await trio.lowlevel.checkpoint()
        pool.spawn_nowait(job("long"))
        await wait_all_tasks_blocked()
        gc.collect()
        assert [one() for one in gone] == [None, None]
        end.set()


@pytest.mark.parametrize("how", ["cancelled", "aborted"])
async def test_a_value_is_not_kept_by_who_never_began(how: str) -> None:
    """Nor by a pool whose queue was emptied."""

    class Request:
        pass

    gone = list[weakref.ref[Request]]()
    async with open_pool(hanging_driver(), max_concurrent=1) as pool:
        first = await pool.spawn(job())

        async def serve() -> None:
            request = Request()
            tenant.set(request)
            gone.append(weakref.ref(request))
            handle = await pool.spawn(job())
            if how == "cancelled":
                handle.cancel("enough")

        async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # a task has a context
            nursery.start_soon(serve)
        if how == "aborted":
            pool.abort_all("enough")
        gc.collect()
        assert gone[0]() is None
        first.cancel("enough")


async def test_observers_do_not_see_what_others_set_nor_what_they_set_before() -> None:
    """Each reads the variables of the task in which the event happens."""
    first, second = Setting(), Setting()
    tenant.set("the owner's")
    async with open_pool(LiveDriver(say_and_spoil), observers=[first, second]) as pool:
        assert tenant.get() == "the owner's"
        await pool.fan_out([job("a"), job("b")])
    wanted = {"the owner's", "what a left", "what b left"}
    assert set(first.seen) == set(second.seen) == wanted
    assert tenant.get() == "the owner's"


class Setting(Observer):
    """Reads the variable whenever it is told of something, and sets it."""

    def __init__(self) -> None:
        """It has seen nothing yet."""
        self.seen = list[object]()

    def on_open(self, _: PoolInfo) -> None:
        """Leave something."""
        tenant.set("an observer's at the beginning")

    def on_event(self, event: Event) -> None:
        """Leave something."""
        self.seen.append(tenant.get())
        tenant.set(f"an observer's at {type(event).__name__} of {event.agent_id}")

    def on_close(self, _: PoolStatistics) -> None:
        """Leave something."""
        tenant.set("an observer's at the end")


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("spawn", [*WAITING, *AT_ONCE])
def test_what_an_observer_sets_is_seen_by_nobody_else(spawn: Spawn, slots: int) -> None:
    """It is told in the tasks of others, whose variables it may read."""

    async def scenario() -> None:
        async def look(_: CompletionRequest, __: OnDelta) -> str:
            await trio.lowlevel.checkpoint()
            seen.append(tenant.get())
            return "good"

        seen, observer = list[object](), Setting()
        tenant.set("the owner's")
        async with open_pool(LiveDriver(look), max_concurrent=slots, observers=[observer]) as pool:
            await spawn(pool, [job(f"job {number}") for number in range(5)])
            await pool.join_all()
            assert tenant.get() == "the owner's"
        assert seen == ["the owner's"] * 5
        assert "the owner's" in observer.seen

    explore(scenario, schedules=3)
