"""The time of each step of a run: what ends it, and what it leaves to the next."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentOutcome, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    Fragment,
    Memory,
    MemoryHit,
    MemoryQuery,
    OnDelta,
    ToolContext,
)
from agentpool.drivers import NetworkError, ScriptedDriver, ToolMessage
from agentpool.observe import ToolFinished
from agentpool.testing import cancel_everywhere
from agentpool.tools import ApprovalRequest, Approved, Decision, ToolRegistry, tool
from tests.support.fakes import (
    WITH_MEMORY,
    FakeTool,
    LiveDriver,
    Recorder,
    calling,
    manifest,
    of_type,
    results_of,
    tool_call,
    turns_of,
)

REQUEST_SECONDS = 5.0
TOOL_SECONDS = 20.0


async def run_one(
    driver: Driver,
    *tools: FakeTool,
    recorder: Recorder | None = None,
    tool_seconds: float | None = TOOL_SECONDS,
) -> AgentOutcome:
    """Return what becomes of one agent with a limit on each step."""
    wanted = manifest(request_seconds=REQUEST_SECONDS, tool_seconds=tool_seconds)
    observers = [recorder] if recorder else []
    async with open_pool(driver, tools=ToolRegistry(tools), observers=observers) as pool:
        return await (await pool.spawn(SpawnConfig(wanted, "hello"))).wait()


def sleeping(seconds: float, name: str = "nap") -> FakeTool:
    """Return a tool that takes so long."""

    async def sleep(_: str, __: ToolContext) -> str:
        await trio.sleep(seconds)
        return "slept"

    return FakeTool(name, sleep)


async def test_a_tool_without_a_limit_is_not_ended_by_what_a_request_left(
    autojump_clock: MockClock,
) -> None:
    """One clock serves them all, and each step sets it."""
    driver = ScriptedDriver([calling(tool_call("nap")), "done"])
    outcome = await run_one(driver, sleeping(1000), tool_seconds=None)
    assert (outcome.text, trio.current_time()) == ("done", 1000)


async def test_side_by_side_tools_are_not_ended_by_what_a_request_left(
    autojump_clock: MockClock,
) -> None:
    """Each of them has a time of its own; the agent's clock stands still."""
    calls = calling(tool_call("nap"), tool_call("doze"))
    driver = ScriptedDriver([calls, "done"])
    outcome = await run_one(driver, sleeping(10), sleeping(1000, "doze"))
    assert (outcome.text, trio.current_time()) == ("done", TOOL_SECONDS)
    slept, late = results_of(driver.requests[1])
    assert slept == ToolMessage("id-nap", "nap", "slept")
    text = "tool 'doze' timed out after 20 seconds; it may or may not have been done"
    assert (late.is_error, late.content) == (True, text)


async def test_an_approval_is_not_ended_by_what_a_request_left(
    autojump_clock: MockClock,
) -> None:
    """People are slower than models; they have a limit of their own."""

    async def approve(_: ApprovalRequest) -> Decision:
        await trio.sleep(1000)
        return Approved()

    @tool(needs_approval=True)
    async def nap() -> None:
        """Sleep for nearly as long as a tool may."""
        await trio.sleep(TOOL_SECONDS - 1)

    driver = ScriptedDriver([calling(tool_call("nap")), "done"])
    wanted = manifest(request_seconds=REQUEST_SECONDS, tool_seconds=TOOL_SECONDS)
    async with open_pool(driver, tools=ToolRegistry([nap]), approve=approve) as pool:
        outcome = await (await pool.spawn(SpawnConfig(wanted, "hello"))).wait()
    assert (outcome.text, trio.current_time()) == ("done", 1000 + TOOL_SECONDS - 1)


async def test_a_memory_is_not_ended_by_what_a_request_left(autojump_clock: MockClock) -> None:
    """It is asked before the first request and after the last one, without a limit."""

    class SlowMemory(Memory):
        async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:  # noqa: ARG002
            await trio.sleep(1000)
            return ()

        async def remember(self, fragment: Fragment) -> str:  # noqa: ARG002
            await trio.sleep(1000)
            return "1"

        async def forget(self, fragment_id: str) -> bool:  # noqa: ARG002
            raise AssertionError("unreachable")  # pragma: no cover

    wanted = manifest(capabilities=WITH_MEMORY, request_seconds=REQUEST_SECONDS)
    async with open_pool(ScriptedDriver(["hi"]), memory=SlowMemory()) as pool:
        outcome = await (await pool.spawn(SpawnConfig(wanted, "hello"))).wait()
    assert (outcome.text, trio.current_time()) == ("hi", 2000)


async def test_a_late_call_leaves_the_next_one_its_whole_time(autojump_clock: MockClock) -> None:
    """A clock that has ended a step is of no more use: each step after it has a new one."""
    nap = calling(tool_call("nap"))
    driver = ScriptedDriver([nap, calling(tool_call("doze")), nap, "done"])
    outcome = await run_one(driver, sleeping(1000), sleeping(TOOL_SECONDS - 1, "doze"))
    assert outcome.text == "done"
    assert [result.is_error for result in results_of(driver.requests[3])] == [True, False, True]
    assert trio.current_time() == 3 * TOOL_SECONDS - 1


async def test_a_step_that_ended_when_its_time_was_over_costs_the_next_nothing(
    autojump_clock: MockClock,
) -> None:
    """The answer came with the last tick: it counts, and so does what follows it."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        with trio.CancelScope(shield=True):
            await trio.sleep(REQUEST_SECONDS)
        return "done" if turns_of(request) else calling(tool_call("nap"))

    outcome = await run_one(LiveDriver(answer), sleeping(TOOL_SECONDS - 1))
    assert (outcome.text, outcome.error) == ("done", None)
    assert trio.current_time() == 2 * REQUEST_SECONDS + TOOL_SECONDS - 1


async def break_late(_: str, __: ToolContext) -> str:
    """Hang, and break when that is ended."""

    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("half written")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clean_up_badly)
        await trio.sleep_forever()
    raise AssertionError("unreachable")  # pragma: no cover


@pytest.mark.parametrize("count", [1, 2])
async def test_what_else_went_wrong_in_a_late_call_is_told_to_the_model(
    count: int, autojump_clock: MockClock
) -> None:
    """A tool that breaks while it is ended has failed, and the run goes on."""
    recorder = Recorder()
    calls = calling(*(tool_call("write", f"call-{number}") for number in range(count)))
    driver = ScriptedDriver([calls, "done"])
    outcome = await run_one(driver, FakeTool("write", break_late), recorder=recorder)
    assert (outcome.text, trio.current_time()) == ("done", TOOL_SECONDS)
    results = results_of(driver.requests[1])
    assert [result.is_error for result in results] == [True] * count
    assert all("half written" in result.content for result in results)
    assert len(of_type(recorder.events, ToolFinished)) == count


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("run_seconds", [None, 5.0])
async def test_g10_what_breaks_as_the_agent_is_ended_does_not_say_how_it_ended(
    run_seconds: float | None, count: int, autojump_clock: MockClock
) -> None:
    """A tool's failure is told; who cancelled the agent, or how long it took, is the outcome."""
    calls = calling(*(tool_call("write", f"call-{number}") for number in range(count)))
    recorder = Recorder()
    async with open_pool(
        ScriptedDriver([calls]),
        tools=ToolRegistry([FakeTool("write", break_late)]),
        observers=[recorder],
    ) as pool:
        handle = await pool.spawn(SpawnConfig(manifest(run_seconds=run_seconds), "go"))
        await trio.sleep(6)
        handle.cancel("enough")
        outcome = await handle.wait()
    expected = AgentStatus.CANCELLED if run_seconds is None else AgentStatus.STOPPED
    assert outcome.status is expected
    results = [message for message in outcome.messages if isinstance(message, ToolMessage)]
    assert len(results) == len(of_type(recorder.events, ToolFinished)) == count
    assert all("half written" in result.content for result in results)


async def test_what_else_went_wrong_in_a_late_request_ends_the_run(
    autojump_clock: MockClock,
) -> None:
    """A driver's own fault says more than the limit that it met."""

    async def break_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("broken frame")

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_late)
            await trio.sleep_forever()
        raise AssertionError("unreachable")  # pragma: no cover

    outcome = await run_one(LiveDriver(answer))
    assert "broken frame" in str(getattr(outcome.error, "exceptions", ()))
    assert (outcome.status, trio.current_time()) == (AgentStatus.FAILED, REQUEST_SECONDS)


async def test_a_late_request_is_a_failure_and_no_cancellation(
    autojump_clock: MockClock,
) -> None:
    """Whoever reads the outcome sees which limit it was."""

    async def hang(_: CompletionRequest, __: OnDelta) -> str:
        await trio.sleep_forever()
        raise AssertionError("unreachable")  # pragma: no cover

    outcome = await run_one(LiveDriver(hang))
    assert isinstance(outcome.error, NetworkError)
    assert (outcome.status, trio.current_time()) == (AgentStatus.FAILED, REQUEST_SECONDS)


def test_an_agent_that_is_late_can_be_cancelled_at_every_point() -> None:
    """Between the end of one clock and the start of the next nothing is lost."""

    async def scenario() -> None:
        calls = calling(tool_call("nap", "one"), tool_call("nap", "two"))
        driver = ScriptedDriver([calling(tool_call("nap")), calls, "done"])
        outcome = await run_one(driver, sleeping(1000))
        assert outcome.text == "done"

    for target in ("scenario", "agent"):
        assert cancel_everywhere(scenario, target=target, may_raise=(AssertionError,)).points > 5
