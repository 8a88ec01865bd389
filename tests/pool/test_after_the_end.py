"""What an agent has left behind does nothing in its name, or in the owner's, after its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentPool,
    AgentStatus,
    Budget,
    Capability,
    CapabilityKind,
    PrivacyTier,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, UserMessage
from agentpool.observe import AgentFinished, Event, Observer
from agentpool.testing import EventLog, explore
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import calling, manifest, results_of, tool_call

TEAM = (Capability(CapabilityKind.MESSAGE), Capability.spawn(3))
STRICT = manifest(capabilities=TEAM)
LAX = AgentManifest(name="lax", capabilities=(), privacy=PrivacyTier.STANDARD)

Act = Callable[[AgentPool, ToolContext], Awaitable[object]]


async def _complete(_: AgentPool, context: ToolContext) -> object:
    request = CompletionRequest([UserMessage("q")], max_tokens=5)
    return await context.agent.complete(FunctionDriver(lambda _: "paid"), request)


async def _spawn_lax(pool: AgentPool, _: ToolContext) -> object:
    return await pool.spawn(SpawnConfig(LAX, "a secret"))


async def _reserve(_: AgentPool, context: ToolContext) -> object:  # noqa: ASYNC124  # a stand-in for one that waits
    return context.agent.budget


async def _map_lax(pool: AgentPool, _: ToolContext) -> object:
    async with pool.map(LAX, ["a secret"]) as outcomes:
        return [outcome async for outcome in outcomes]


ACTS: dict[str, Act] = {
    "send": lambda _, context: context.agent.send(0, "ghost"),
    "ask": lambda _, context: context.agent.ask(2, "ghost"),
    "complete": _complete,
    "budget": _reserve,
    "run_child": lambda _, context: context.agent.run_child("ghost"),
    "send as the owner": lambda pool, _: pool.router.send(2, "ghost"),
    "ask as the owner": lambda pool, _: pool[2].ask("ghost"),
    "broadcast": lambda pool, _: pool.broadcast("ghost"),
    "receive as the owner": lambda pool, _: pool.receive_many(),
    "spawn": _spawn_lax,
    "map": _map_lax,
    "race": lambda pool, _: pool.race([SpawnConfig(LAX, "a secret")]),
    "supervise": lambda pool, _: pool.supervise([SpawnConfig(LAX, "a secret")]),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_task_that_an_ended_agent_left_behind_is_refused(act: str) -> None:
    """It wrote as the owner, spent from the budget, and had children of a laxer tier."""

    async def scenario() -> None:
        log, budget = EventLog(), Budget(requests=9)
        told: list[str] = []

        async def later(context: ToolContext) -> None:
            await trio.sleep(5)
            with pytest.raises(UsageError, match="has ended") as caught:
                await ACTS[act](pool, context)
            told.append(str(caught.value))

        async with trio.open_nursery() as nursery:

            @tool
            async def leave(context: ToolContext) -> str:  # noqa: ASYNC124  # a stand-in for one that waits
                """Leave a task behind."""
                nursery.start_soon(later, context)
                return "left"

            async def answer(request: CompletionRequest) -> Completion | str:
                if request.messages[0].text == "stay":  # type: ignore[union-attr]  # it has text
                    await trio.sleep(20)
                    return "stayed"
                return "done" if results_of(request) else calling(tool_call("leave"))

            async with open_pool(
                FunctionDriver(answer), tools=ToolRegistry([leave]), observers=[log], budget=budget
            ) as pool:
                await pool.fan_out([SpawnConfig(STRICT, "go"), SpawnConfig(STRICT, "stay")])
                outcomes = await pool.join_all(children=True)
        assert len(told) == 1
        assert list(outcomes) == [1, 2]
        assert budget.statistics().requests.committed == 3
        assert not pool.router.message_count
        log.check()

    explore(scenario, schedules=2)


SPAWNS: dict[str, Act] = {
    "spawn": _spawn_lax,
    "fan_out": lambda pool, _: pool.fan_out([SpawnConfig(LAX, "a secret")]),
    "map": _map_lax,
    "race": ACTS["race"],
    "supervise": ACTS["supervise"],
}


@pytest.mark.parametrize("act", SPAWNS)
def test_a_task_that_waits_for_room_spawns_nothing_once_its_agent_has_ended(act: str) -> None:
    """What it spawned came in as the owner's, although it had been checked as the agent's."""

    async def scenario() -> None:
        log = EventLog()
        told: list[str] = []

        async def soon(context: ToolContext) -> None:
            with pytest.raises(UsageError, match="has ended") as caught:
                await SPAWNS[act](pool, context)
            told.append(str(caught.value))

        async with trio.open_nursery() as nursery:

            @tool
            async def leave(context: ToolContext) -> str:
                """Leave a task behind that waits for room."""
                nursery.start_soon(soon, context)
                await trio.sleep(5)
                return "left"

            async def answer(request: CompletionRequest) -> Completion | str:
                if request.messages[0].text == "stay":  # type: ignore[union-attr]  # it has text
                    await trio.sleep(20)
                    return "stayed"
                return "done" if results_of(request) else calling(tool_call("leave"))

            async with open_pool(
                FunctionDriver(answer), tools=ToolRegistry([leave]), observers=[log],
                max_concurrent=2, max_queued=0,
            ) as pool:  # fmt: skip
                go = manifest(capabilities=TEAM, privacy=PrivacyTier.STANDARD)
                await pool.fan_out([SpawnConfig(go, "go"), SpawnConfig(go, "stay")])
                outcomes = await pool.join_all(children=True)
        assert len(told) == 1
        assert list(outcomes) == [1, 2]
        log.check()

    explore(scenario, schedules=2)


class _Successor(Observer):
    """Spawns once when it hears of an end, in the task of the agent that has ended."""

    pool: AgentPool

    def __init__(self) -> None:
        self.is_done = False

    def on_event(self, event: Event) -> None:
        """Spawn."""
        if isinstance(event, AgentFinished) and not self.is_done:
            self.is_done = True
            self.pool.spawn_nowait(SpawnConfig(manifest(), "next"))
            self.pool.abort_all("by whoever ended")


async def test_who_hears_of_an_end_acts_for_the_owner() -> None:
    """It is called in the task of the agent that has ended, which has left nothing behind."""
    successor = _Successor()
    async with open_pool(FunctionDriver(lambda _: "x"), observers=[successor]) as pool:
        successor.pool = pool
        await pool.spawn(SpawnConfig(manifest(), "first"))
        outcomes = await pool.join_all()
        last = await pool[2].wait()
    assert outcomes[1].status is AgentStatus.COMPLETED
    assert last.status is AgentStatus.CANCELLED
    assert last.cost_usd is None or last.cost_usd == 0


# --- the bound for cleaning up


@pytest.mark.parametrize("cleanup", [0, 3])
def test_g10_after_an_abort_the_pool_waits_for_cleanup_alone(cleanup: int) -> None:
    """Its own part of an abort takes no time; what drivers and tools shield takes theirs."""

    async def shielded() -> None:
        try:
            await trio.sleep(1000)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(cleanup)

    @tool
    async def work() -> str:
        """Work, and clean up."""
        await shielded()
        return "worked"  # pragma: no cover  # it is aborted

    @tool
    async def nap() -> str:
        """Work, with nothing to clean up."""
        await trio.sleep(1000)
        return "slept"  # pragma: no cover  # it is aborted

    @tool(capability=Capability.spawn(1))
    async def delegate(context: ToolContext) -> str:
        """Run a child."""
        return (await context.agent.run_child("tools")).text

    async def answer(request: CompletionRequest) -> Completion | str:
        match request.messages[0].text:  # type: ignore[union-attr]  # it has text
            case "driver":
                await shielded()
            case "child":
                return calling(tool_call("delegate"))
            case _:
                return calling(tool_call("work", "a"), tool_call("nap", "b"))
        return "answered"  # pragma: no cover  # it is aborted

    async def scenario() -> None:
        tools = ToolRegistry([work, nap, delegate])
        async with open_pool(FunctionDriver(answer), tools=tools, max_concurrent=3) as pool:
            queries = ("driver", "tools", "child", "queued", "queued")
            await pool.fan_out([SpawnConfig(STRICT, query) for query in queries])
            await trio.sleep(10)
            pool.abort_all("enough")
            outcomes = await pool.join_all(children=True)
            assert trio.current_time() == pytest.approx(10 + cleanup, abs=0.01)
        assert {one.status for one in outcomes.values()} == {AgentStatus.CANCELLED}
        for outcome in outcomes.values():
            calls = sum(len(getattr(one, "tool_calls", ())) for one in outcome.messages)
            assert calls == sum(hasattr(one, "is_error") for one in outcome.messages)

    explore(scenario, schedules=6, late_clock=False)
