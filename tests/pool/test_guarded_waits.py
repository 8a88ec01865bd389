"""What a manifest allows its tools is a guard, and hides no circle of waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from agentpool import (
    AgentGoneError,
    AgentPool,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.testing import explore
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import calling, manifest, query_of, results_of, tool_call

TEAM = (Capability(CapabilityKind.MESSAGE), Capability.spawn(3))

Way = Callable[[AgentPool, ToolContext, str], Awaitable[object]]


async def _ask(_: AgentPool, context: ToolContext, to: str) -> object:
    return await context.agent.ask(int(to), "?")


async def _listen(_: AgentPool, context: ToolContext, to: str) -> object:
    return await context.agent.receive_many()


async def _wait(pool: AgentPool, _: ToolContext, to: str) -> object:
    return await pool[int(to)].wait()


async def _in_tasks(pool: AgentPool, context: ToolContext, to: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask, pool, context, to)
        nursery.start_soon(_wait, pool, context, to)


WAYS: dict[str, Way] = {"ask": _ask, "listen": _listen, "wait": _wait, "in tasks": _in_tasks}


async def _circle(way: Way, *, calls: int, limit: float | None, told_at: float) -> None:
    """Let two agents wait for each other in tools of their own."""

    @tool(timeout_seconds=limit)
    async def go(context: ToolContext, to: str) -> str:
        """Wait."""
        await way(pool, context, to)
        return "went on"  # pragma: no cover  # no wait of these ends well

    def answer(request: CompletionRequest) -> Completion | str:
        results = results_of(request)
        if results:
            return "; ".join(result.content for result in results)
        return calling(*(tool_call("go", f"c{n}", to=query_of(request)) for n in range(calls)))

    tools = ToolRegistry([go])
    async with open_pool(FunctionDriver(answer), tools=tools) as pool:
        pool.fan_out_nowait([SpawnConfig(manifest(capabilities=TEAM), to) for to in ("2", "1")])
        outcomes = await pool.join_all()
    assert trio.current_time() == pytest.approx(told_at, abs=0.01)
    told = " ".join(outcome.text for outcome in outcomes.values())
    assert ("DeadlockError" in told) == (told_at == 0), told


@pytest.mark.parametrize("calls", [1, 2], ids=["alone", "beside another"])
@pytest.mark.parametrize("way", WAYS)
def test_the_default_limit_of_tools_hides_no_deadlock(way: str, calls: int) -> None:
    """A circle of two was told after two minutes, as two tools that took too long."""
    explore(partial(_circle, WAYS[way], calls=calls, limit=None, told_at=0), schedules=4)


def test_a_limit_that_a_tool_has_itself_is_a_deadline() -> None:
    """Whoever wrote it has said how long it waits, and what comes then."""
    explore(partial(_circle, _ask, calls=1, limit=30, told_at=30), schedules=4)


def test_a_limit_within_a_tool_is_a_deadline() -> None:
    """It goes on when its own limit has come, long before that of the manifest."""

    async def ask(pool: AgentPool, context: ToolContext, to: str) -> None:
        with trio.move_on_after(20):
            await _ask(pool, context, to)
        raise AgentGoneError("gave up", recipient=int(to))

    explore(partial(_circle, ask, calls=1, limit=None, told_at=20), schedules=4)


async def _family(run_seconds: float | None, told_at: float) -> None:
    """Let a child in a tool ask its parent, which waits for it."""

    @tool
    async def go(context: ToolContext) -> str:
        """Run a child, or ask the parent."""
        if context.agent.parent_id == 0:
            return (await context.agent.run_child("help")).text
        return (await context.agent.ask(1, "?")).content

    def answer(request: CompletionRequest) -> Completion | str:
        results = results_of(request)
        return results[0].content if results else calling(tool_call("go"))

    one = manifest(capabilities=TEAM, run_seconds=run_seconds)
    async with open_pool(FunctionDriver(answer), tools=ToolRegistry([go])) as pool:
        await pool.spawn(SpawnConfig(one, "go"))
        outcome = await pool[1].wait()
    assert trio.current_time() == pytest.approx(told_at, abs=0.01)
    assert ("DeadlockError" in outcome.text) == (told_at == 0), outcome


def test_the_childs_share_of_the_default_limit_hides_no_deadlock() -> None:
    """A child has what its parent's tool has left, and no deadline of its own."""
    explore(partial(_family, None, 0), schedules=4)


def test_a_run_with_a_deadline_is_no_deadlock() -> None:
    """Its manifest says when it ends, and so its children do."""
    explore(partial(_family, 60.0, 60), schedules=2)
