"""Agents that come too late: after a pool has closed, a map is over or a parent has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    PoolClosedError,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import AgentContext, OnDelta
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.testing import assert_quiescent, explore
from agentpool.tools import ApprovalRequest, Approved, ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, job, manifest, query_of, results_of, tool_call
from tests.support.inner_cancel import Scenario, cancel_inner_everywhere

PARENT = manifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2)))


def one_call(request: CompletionRequest) -> Completion | str:
    """Call the tool that the query names, then say what came of it."""
    results = results_of(request)
    if results:
        return results[0].content
    query = query_of(request)
    return calling(tool_call(query)) if query.startswith("call_") else query


async def one_call_slowly(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Do the same, and take a second for each answer."""
    await trio.sleep(1)
    return one_call(request)


# --- D16


@tool
async def call_too_late(context: ToolContext) -> str:
    """Ask for a child when there is no time left."""
    try:
        with trio.CancelScope(deadline=trio.current_time() - 1) as scope:
            await context.agent.run_child("a child")
    except UsageError as error:
        return f"blamed: {error}"
    return f"cancelled: {scope.cancelled_caught}"


async def test_a_child_without_time_is_cancelled_and_no_ones_fault(
    autojump_clock: MockClock,
) -> None:
    """It said that the caller had given a deadline of -inf seconds."""
    async with open_pool(FunctionDriver(one_call), tools=ToolRegistry([call_too_late])) as pool:
        handle = await pool.spawn(SpawnConfig(PARENT, "call_too_late"))
        assert (await handle.wait()).text == "cancelled: True"
        assert pool.statistics().spawned == 1


async def _runs_a_child_in_a_scope(scope: trio.CancelScope) -> None:
    """Let a tool cancel its own call of a child, and go on."""

    @tool
    async def call_child(context: ToolContext) -> str:
        """Run a child, perhaps in vain."""
        with scope:
            return (await context.agent.run_child("a child")).text
        return "given up"

    driver = LiveDriver(one_call_slowly)
    async with open_pool(driver, tools=ToolRegistry([call_child]), max_concurrent=1) as pool:
        handle = await pool.spawn(SpawnConfig(PARENT, "call_child"))
        outcome = await handle.wait()
        assert outcome.text in {"a child", "given up"}
        assert_quiescent(pool)


def test_a_parent_that_gives_up_its_child_goes_on() -> None:
    """At every step, under several schedules."""
    assert cancel_inner_everywhere(_runs_a_child_in_a_scope) > 50


# --- D11


async def test_a_map_of_a_closed_pool_is_refused() -> None:
    """It was trio's own RuntimeError."""
    async with open_pool(FunctionDriver(one_call)) as pool:
        pass
    with pytest.raises(PoolClosedError, match="has closed"):
        async with pool.map(manifest(), ["q"]):
            pass  # pragma: no cover  # refused


async def kept_context(pool: AgentPool, kept: list[AgentContext]) -> AgentContext:
    """Return the context of an agent that has ended."""
    handle = await pool.spawn(SpawnConfig(PARENT, "call_keep"))
    await handle.wait()
    return kept[0]


@pytest.mark.parametrize("closed", [False, True])
async def test_an_agent_that_has_ended_has_no_children(*, closed: bool) -> None:
    """Its child stood in the books and ran for ever, on paper."""
    kept: list[AgentContext] = []

    @tool
    async def call_keep(context: ToolContext) -> str:
        """Keep the context."""
        await trio.lowlevel.checkpoint()
        kept.append(context.agent)
        return "kept"

    async with open_pool(FunctionDriver(one_call), tools=ToolRegistry([call_keep])) as pool:
        context = await kept_context(pool, kept)
        if not closed:
            with pytest.raises(UsageError, match=r"agent 1 .*has ended.* no more children"):
                await context.run_child("too late")
    if closed:
        with pytest.raises(PoolClosedError):
            await context.run_child("too late")
    assert pool.active_count == pool.queued_count == 0
    assert pool.statistics().spawned == 1
    assert_quiescent(pool)


# --- D14


@tool
async def call_late_child(context: ToolContext) -> str:
    """Wait, then ask for a child."""
    await trio.sleep(2)
    return (await context.agent.run_child("a child")).text


async def test_a_pool_that_was_closed_takes_no_children_either(
    autojump_clock: MockClock,
) -> None:
    """It said that no new agents are taken, and children were."""
    tools = ToolRegistry([call_late_child])
    async with open_pool(FunctionDriver(one_call), tools=tools) as pool:
        handle = await pool.spawn(SpawnConfig(PARENT, "call_late_child"))
        await trio.sleep(1)
        pool.close()
        outcome = await handle.wait()
    assert "the pool has closed" in outcome.text
    assert pool.statistics().spawned == 1


async def test_a_shutdown_takes_no_children(autojump_clock: MockClock) -> None:
    """They were not even asked to stop."""
    tools = ToolRegistry([call_late_child])
    async with open_pool(FunctionDriver(one_call), tools=tools) as pool:
        await pool.spawn(SpawnConfig(PARENT, "call_late_child"))
        await trio.sleep(1)
        await pool.shutdown(grace_seconds=60)
        assert pool.statistics().spawned == 1


async def test_leaving_the_block_still_lets_agents_have_children(
    autojump_clock: MockClock,
) -> None:
    """Leaving waits for the whole family, so what has begun can be ended."""
    tools = ToolRegistry([call_late_child])
    async with open_pool(FunctionDriver(one_call), tools=tools) as pool:
        handle = await pool.spawn(SpawnConfig(PARENT, "call_late_child"))
    assert handle.outcome is not None
    assert handle.outcome.text == "a child"


async def test_whoever_waits_for_room_hears_that_the_pool_has_closed(
    autojump_clock: MockClock,
) -> None:
    """At once, and not when there would have been room."""
    told: list[float] = []
    async with (
        open_pool(LiveDriver(one_call_slowly), max_concurrent=1, max_queued=0) as pool,
        trio.open_nursery() as nursery,
    ):
        await pool.spawn(job("first"))

        async def spawn_second() -> None:
            with pytest.raises(PoolClosedError):
                await pool.spawn(job("second"))
            told.append(trio.current_time())

        nursery.start_soon(spawn_second)
        await wait_all_tasks_blocked()
        pool.close()
    assert told == [0.0]


# --- D6


async def _owner_leaves_a_map(scope: trio.CancelScope) -> None:
    """Let the owner leave its map while a query of it waits for a place in the queue."""
    async with open_pool(LiveDriver(one_call_slowly), max_concurrent=1, max_queued=0) as pool:
        await pool.spawn(job("in the way"))
        with scope:
            async with pool.map(manifest(), [f"q{n}" for n in range(3)]) as outcomes:
                async for _outcome in outcomes:
                    pass
        left_at, spawned = trio.current_time(), pool.statistics().spawned
        await trio.lowlevel.checkpoint()
        assert pool.statistics().spawned == spawned
        if scope.cancelled_caught:
            assert trio.current_time() == left_at
            # Only the one in the way is left, and it had a second.
            await pool.join_all()
            assert trio.current_time() <= max(1, left_at)


async def _agent_leaves_a_map(scope: trio.CancelScope) -> None:
    """Let the only agent leave its map at any moment, in a pool of one without a queue."""
    left: list[int] = []
    async with open_pool(
        LiveDriver(one_call_slowly), max_concurrent=1, max_queued=0, tools=lambda _: tools
    ) as pool:

        @tool
        async def call_map(_: ToolContext) -> str:
            """Open a map, and leave it."""
            with scope:
                async with pool.map(manifest(), [f"q{n}" for n in range(3)]) as outcomes:
                    async for _outcome in outcomes:
                        pass
            left.append(pool.statistics().spawned)
            return "left"

        tools = ToolRegistry([call_map])
        handle = await pool.spawn(SpawnConfig(PARENT, "call_map"))
        with trio.fail_after(60):
            assert (await handle.wait()).text == "left"
        assert left == [pool.statistics().spawned]


@pytest.mark.parametrize("scenario", [_owner_leaves_a_map, _agent_leaves_a_map])
def test_a_map_that_was_left_starts_no_agent_any_more(scenario: Scenario) -> None:
    """Left at every step."""
    assert cancel_inner_everywhere(scenario, schedules=6) > 50


async def _leaves_as_there_is_room() -> None:
    """Let the owner leave its map in the tick in which a place in the queue gets free."""
    async with open_pool(LiveDriver(one_call_slowly), max_concurrent=1, max_queued=0) as pool:
        first = await pool.spawn(job("in the way"))
        async with pool.map(manifest(), ["q0", "q1"]):
            await first.wait()
        assert trio.current_time() == 1
        if pool.statistics().spawned > 1:
            # It was let in before the map was left, and cancelled then.
            assert pool.active_count == 0


async def _aborts_beside_a_map() -> None:
    """Abort everybody while the query of an agent's map waits for a place in the queue."""
    async with open_pool(
        LiveDriver(one_call_slowly), max_concurrent=1, max_queued=1, tools=lambda _: tools
    ) as pool:

        @tool
        async def call_map(_: ToolContext) -> str:
            """Open a map, and hold the slot meanwhile."""
            await trio.sleep(1)
            async with pool.map(manifest(), ["q0", "q1"]):
                await trio.sleep(5)
            return "left"

        tools = ToolRegistry([call_map])
        handle = await pool.spawn(SpawnConfig(PARENT, "call_map"))
        await pool.spawn(job("in the queue"))
        await trio.sleep(4)
        pool.abort_all("enough")
        with trio.fail_after(60):
            assert (await handle.wait()).status is AgentStatus.CANCELLED
        assert trio.current_time() == 4


@pytest.mark.parametrize("scenario", [_leaves_as_there_is_room, _aborts_beside_a_map])
def test_a_query_whose_place_comes_too_late_is_no_agent(
    scenario: Callable[[], Awaitable[None]],
) -> None:
    """It was accepted after the others had been cancelled: its parent waited for ever."""
    explore(scenario, schedules=40, late_clock=False)  # what is looked at is a time


async def _gives_up_as_there_is_room() -> None:
    """Let the first of two who wait for room be cancelled in the tick in which it comes."""
    accepted: list[str] = []
    async with open_pool(LiveDriver(one_call_slowly), max_concurrent=1, max_queued=0) as pool:
        scope = trio.CancelScope()

        async def spawn_first() -> None:
            with scope:
                await pool.spawn(job("given up"))
                accepted.append("given up")

        async def spawn_second() -> None:
            await pool.spawn(job("second"))
            accepted.append("second")

        first = await pool.spawn(job("first"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn_first)
            await trio.sleep(0.1)
            nursery.start_soon(spawn_second)
            await trio.sleep(0.1)
            first.cancel("makes room")
            await first.wait()
            scope.cancel()
            await trio.sleep(0.1)
            # One of them was let in, and nobody waits beside a pool that is empty.
            assert len(accepted) == 1


def test_a_place_that_came_too_late_goes_to_the_next() -> None:
    """Or the second would wait until something else ended."""
    # A clock that is late would let the first one end before it is cancelled.
    explore(_gives_up_as_there_is_room, schedules=40, late_clock=False)


# --- D15


async def interrupted(_: ApprovalRequest) -> Approved:
    """Have Ctrl-C pressed while it asks."""
    await trio.sleep(1)
    raise KeyboardInterrupt


async def interrupted_in_a_task(request: ApprovalRequest) -> Approved:
    """Have it pressed in one of two tasks."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(interrupted, request)
    raise AssertionError


@pytest.mark.parametrize("approver", [interrupted, interrupted_in_a_task])
async def test_what_ends_the_program_waits_for_no_slot(
    approver: Callable[[ApprovalRequest], Awaitable[Approved]], autojump_clock: MockClock
) -> None:
    """Ctrl-C at the approver's prompt waited while other agents worked, or for ever."""

    @tool(needs_approval=True)
    async def call_dear() -> str:  # noqa: ASYNC124  # a tool is async
        """Do something dear."""
        return "done"  # pragma: no cover  # nobody allows it

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if query_of(request) == "work":
            with trio.CancelScope(shield=True):
                await trio.sleep(100)
        return one_call(request)

    tools = ToolRegistry([call_dear])
    with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012  # the block is what raises
        async with open_pool(
            LiveDriver(answer), tools=tools, max_concurrent=1, approve=approver
        ) as pool:
            asking = await pool.spawn(job("call_dear"))
            await trio.sleep(0.5)
            await pool.spawn(job("work"))
    assert "KeyboardInterrupt" in repr(caught.value)
    assert asking.outcome is not None
    assert asking.outcome.finished_at == pytest.approx(1)
    assert trio.current_time() == pytest.approx(100.5)
