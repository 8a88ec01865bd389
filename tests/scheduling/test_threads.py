"""Sync tools in threads, when nobody waits for them any more."""

from __future__ import annotations

import threading
from typing import final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import AgentStatus, SpawnConfig, open_pool
from agentpool.abc import (
    Completion,
    CompletionRequest,
    OnDelta,
    Tool,
    ToolContext,
    ToolDefinition,
    ToolResult,
)
from agentpool.drivers import FunctionDriver, call, calls, say
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import Gauge, LiveDriver, jobs, manifest, query_of, results_of


async def test_a_thread_that_could_not_be_stopped_is_named_in_the_outcome() -> None:
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


async def test_threads_that_run_side_by_side_end_as_others_do() -> None:
    """Each of several calls of an answer has a strand of its own."""

    @tool(in_thread=True, on_cancel="abandon")
    def double(number: int) -> int:
        """Double a number.

        Args:
            number: Which.
        """
        return 2 * number

    def answer(request: CompletionRequest) -> Completion:
        if results := results_of(request):
            return say(" ".join(one.content for one in results))
        return calls(call("double", number=1), call("double", number=2))

    async with open_pool(FunctionDriver(answer), tools=ToolRegistry([double])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "go"))).wait()
    assert outcome.status is AgentStatus.COMPLETED
    assert "2" in outcome.text
    assert "4" in outcome.text


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


async def test_a_tool_that_cannot_say_what_it_left_costs_no_outcome() -> None:
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


@final
class Listeners:
    """A tool that waits for messages from its threads, *count* of them, and a model that calls it.

    Its threads begin to wait when ``go_on`` is set, and ``waiting`` is set when all do.
    """

    def __init__(self, count: int, model_seconds: float) -> None:
        """Make them; the model takes *model_seconds* for each answer but the calls."""
        self.gauge, self.go_on, self.waiting = Gauge(), threading.Event(), trio.Event()
        self.count, self.model_seconds, self.begun = count, model_seconds, 0

        @tool(in_thread=True, on_cancel="abandon")
        def listen(context: ToolContext) -> str:
            """Work for a while, and then wait for a message that does not come."""
            self.go_on.wait(10)
            trio.from_thread.run(self.hear, context)
            raise AssertionError("unreachable")  # pragma: no cover

        self.tools = ToolRegistry([listen])

    async def hear(self, context: ToolContext) -> None:
        """Wait for a message."""
        self.begun += 1
        if self.begun == self.count:
            self.waiting.set()
        await context.agent.receive_many()

    async def answer(self, request: CompletionRequest, _: OnDelta) -> Completion | str:
        """Answer as the model does."""
        if query_of(request) == "listen" and not results_of(request):
            return calls(*[call("listen")] * self.count)
        with self.gauge.work(query_of(request)):
            await trio.sleep(self.model_seconds)
        return "done"


@pytest.mark.parametrize("count", [1, 2])
async def test_a_call_from_a_thread_that_was_left_behind_takes_and_keeps_no_slot(
    count: int, mock_clock: MockClock
) -> None:
    """Its agent went on without a slot, and when it had ended, the call took one for ever."""
    told = Listeners(count, model_seconds=1)
    told.go_on.set()
    async with open_pool(LiveDriver(told.answer), max_concurrent=1, tools=told.tools) as pool:
        listening = pool.spawn_nowait(SpawnConfig(manifest(tool_seconds=20.0), "listen"))
        await told.waiting.wait()
        others = pool.fan_out_nowait(jobs("one", "two"))
        await wait_all_tasks_blocked()
        mock_clock.jump(20)
        await wait_all_tasks_blocked()
        while not listening.outcome:
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        while not all(handle.outcome for handle in others):
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert told.gauge.peak == 1
        assert pool.statistics().running == 0
    assert listening.outcome.text == "done"
    assert len(listening.outcome.left_behind) == count


@pytest.mark.parametrize("count", [1, 2])
async def test_a_thread_that_was_left_behind_gives_away_no_slot_when_it_calls_again(
    count: int, mock_clock: MockClock
) -> None:
    """Its agent asks the model by then, and another agent began beside it."""
    told = Listeners(count, model_seconds=10)
    async with open_pool(LiveDriver(told.answer), max_concurrent=1, tools=told.tools) as pool:
        listening = pool.spawn_nowait(SpawnConfig(manifest(tool_seconds=20.0), "listen"))
        (other,) = pool.fan_out_nowait(jobs("one"))
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(20)
        await wait_all_tasks_blocked()
        told.go_on.set()
        await told.waiting.wait()
        await wait_all_tasks_blocked()
        assert pool.statistics().running == 1
        for _ in range(20):
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert told.gauge.peak == 1
        assert [one.outcome and one.outcome.text for one in (listening, other)] == ["done"] * 2


async def test_a_thread_that_a_late_request_left_behind_takes_no_slot(
    mock_clock: MockClock,
) -> None:
    """Its agent has failed; the slot would be lost to the pool."""

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        if query_of(request) == "work":
            await trio.sleep(50)
            return "done"
        await trio.to_thread.run_sync(trio.from_thread.run, pool[2].wait, abandon_on_cancel=True)
        raise AssertionError("unreachable")  # pragma: no cover

    async with open_pool(LiveDriver(answer), max_concurrent=1) as pool:
        late = pool.spawn_nowait(SpawnConfig(manifest(request_seconds=5.0), "wait"))
        working = pool.spawn_nowait(SpawnConfig(manifest(), "work"))
        while working.status is AgentStatus.QUEUED:  # noqa: ASYNC110  # a status has none
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        assert (await late.wait()).status is AgentStatus.FAILED
        mock_clock.jump(50)
        await working.wait()
        await wait_all_tasks_blocked()
        assert pool.statistics().running == 0
