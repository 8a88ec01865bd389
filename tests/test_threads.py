"""Sync tools in threads, when nobody waits for them any more."""

from __future__ import annotations

import threading
from typing import final

import trio

from agentpool import AgentStatus, SpawnConfig, open_pool
from agentpool._messages import ToolDefinition
from agentpool.abc import Tool, ToolContext, ToolResult
from agentpool.drivers import FunctionDriver, call, say
from agentpool.tools import ToolRegistry, tool
from tests.fakes import manifest, results_of


async def test_g01_a_thread_that_could_not_be_stopped_is_named_in_the_outcome() -> None:
    """It is the one thing that may outlive a pool, so nobody may have to guess it."""
    began, end = threading.Event(), threading.Event()

    @tool(in_thread=True, on_cancel="abandon")
    def grind() -> str:
        """Work in a way that nothing can interrupt."""
        began.set()
        end.wait(10)
        return "done"

    async with open_pool(
        FunctionDriver(lambda _: call("grind")), tools=ToolRegistry([grind])
    ) as pool:
        handle = await pool.spawn(SpawnConfig(manifest(), "go"))
        await trio.to_thread.run_sync(began.wait)
        handle.cancel("enough")
        outcome = await handle.wait()
    end.set()
    assert outcome.status is AgentStatus.CANCELLED
    (left,) = outcome.left_behind
    assert left.startswith("grind (")


async def test_a_thread_that_is_waited_for_is_not_left_behind() -> None:
    """The default: the cancellation takes as long as the thread does."""
    began, end = threading.Event(), threading.Event()

    @tool(in_thread=True)
    def grind() -> str:
        """Work in a way that nothing can interrupt."""
        began.set()
        end.wait(10)
        return "done"

    async with open_pool(
        FunctionDriver(lambda request: say("ok") if results_of(request) else call("grind")),
        tools=ToolRegistry([grind]),
    ) as pool:
        handle = await pool.spawn(SpawnConfig(manifest(), "go"))
        await trio.to_thread.run_sync(began.wait)
        handle.cancel("enough")
        end.set()
        outcome = await handle.wait()
    assert outcome.left_behind == ()


async def test_g02_a_tool_that_cannot_say_what_it_left_costs_no_outcome() -> None:
    """It is asked at the very end, when nobody else could make the outcome."""

    @final
    class Confused(Tool):
        """Runs well, and raises when it is asked what still runs."""

        @property
        def definition(self) -> ToolDefinition:
            """It takes nothing."""
            return ToolDefinition("confused", "Do it.", {"type": "object", "properties": {}})

        @property
        def left_behind(self) -> tuple[ToolContext, ...]:
            """Raise."""
            raise RuntimeError("no idea")

        async def run(self, arguments: str, context: ToolContext) -> ToolResult:  # noqa: ARG002  # takes nothing
            """Do nothing."""
            await trio.lowlevel.checkpoint()
            return ToolResult("done")

    driver = FunctionDriver(lambda asked: say("ok") if results_of(asked) else call("confused"))
    async with open_pool(driver, tools=ToolRegistry([Confused()])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "go"))).wait()
        assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "ok")
        assert pool.statistics().warnings == 1
