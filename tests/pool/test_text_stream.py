"""``handle.stream()``: one agent's text as it arrives."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    AgentHandle,
    AgentPool,
    AgentStatus,
    DeadlockError,
    PoolError,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import AgentContext, Completion, CompletionRequest, OnDelta, ToolContext
from agentpool.drivers import FunctionDriver, ScriptedDriver
from agentpool.testing import cancel_everywhere, explore
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    calling,
    echo_tool,
    hanging_driver,
    job,
    manifest,
    query_of,
    tool_call,
)


async def pieces_of(handle: AgentHandle) -> list[str]:
    """Return what is streamed from now on."""
    with handle.stream() as pieces:
        return [piece async for piece in pieces]


async def dictate(_: CompletionRequest, on_delta: OnDelta) -> str:
    """Say three words, one at a time."""
    for word in ("one ", "two ", "three"):
        on_delta(word)
        await wait_all_tasks_blocked()
    return "one two three"


async def test_pieces_come_as_they_arrive() -> None:
    """Each at its time, and the stream ends with the agent."""
    async with open_pool(LiveDriver(dictate)) as pool:
        handle = await pool.spawn(job())
        assert await pieces_of(handle) == ["one ", "two ", "three"]
        assert handle.status is AgentStatus.COMPLETED


async def test_whoever_looks_seldom_misses_nothing() -> None:
    """What has arrived meanwhile is one piece; what is here can be read after the end."""
    async with open_pool(LiveDriver(dictate)) as pool:
        handle = pool.spawn_nowait(job())
        stream = handle.stream()
        assert repr(stream) == "<TextStream of agent 1 (hello)>"
        await handle.wait()
        assert [piece async for piece in stream] == ["one two three"]


async def test_it_begins_with_what_has_arrived() -> None:
    """Opened in the middle of an answer, it has the whole of it."""
    second = trio.Event()

    async def answer(_: CompletionRequest, on_delta: OnDelta) -> str:
        on_delta("Hello")
        await second.wait()
        on_delta(" world")
        return "Hello world"

    async with open_pool(LiveDriver(answer)) as pool:
        handle = await pool.spawn(job())
        await wait_all_tasks_blocked()
        with handle.stream() as pieces:
            assert await anext(pieces) == "Hello"
            second.set()
            assert await anext(pieces) == " world"
            with pytest.raises(StopAsyncIteration):
                await anext(pieces)


async def test_answers_that_come_whole_are_streamed_as_well() -> None:
    """Of each turn, in order, though the driver does not stream; tools' own requests are not."""

    async def ask_aside(_: str, context: ToolContext) -> str:
        aside = FunctionDriver(lambda _: "aside")
        return (await context.agent.complete(aside, CompletionRequest([]))).text

    async def answer(request: CompletionRequest, _: OnDelta) -> str | Completion:  # noqa: ASYNC124  # a driver is async
        if len(request.messages) == 1:
            return calling(tool_call("aside"), text="First I ask.")
        return "Then I know."

    tools = ToolRegistry([FakeTool("aside", ask_aside)])
    async with open_pool(LiveDriver(answer), tools=tools) as pool:
        handle = pool.spawn_nowait(job())
        assert "".join(await pieces_of(handle)) == "First I ask.Then I know."


async def test_an_agent_that_has_ended_has_its_text() -> None:
    """In one piece. One that never started has none."""
    async with open_pool(ScriptedDriver(["Done."]), max_concurrent=1) as pool:
        handle, queued = await pool.fan_out([job(), job()])
        queued.cancel("too late")
        await handle.wait()
        assert await pieces_of(handle) == ["Done."]
        assert await pieces_of(queued) == []


async def test_streaming_is_no_look_at_the_outcome() -> None:
    """A failure still comes out of the pool."""
    streamed: list[list[str]] = []

    async def fail() -> None:
        async with open_pool(ScriptedDriver([ValueError("broken"), ValueError("too")])) as pool:
            handles = await pool.fan_out([job(), job()])
            streamed.extend([await pieces_of(handle) for handle in handles])

    with pytest.raises(PoolError) as raised:
        await fail()
    assert len(raised.value.exceptions) == len(streamed) == 2
    assert not any(streamed)


async def test_a_closed_stream_ends() -> None:
    """The agent goes on, and is not watched any more."""
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job())
        with handle.stream() as pieces:
            pass
        assert [piece async for piece in pieces] == []
        assert handle.status is AgentStatus.RUNNING
        handle.cancel("enough")


async def test_an_agent_streams_another_without_a_slot() -> None:
    """In a pool of one it would wait for ever otherwise; its own text it cannot wait for."""
    texts: list[str] = []

    def build(_: AgentContext) -> ToolRegistry:
        async def follow(_: str, __: ToolContext) -> str:
            child = pool.spawn_nowait(job("child"))
            texts.extend(await pieces_of(child))
            with pytest.raises(UsageError, match="cannot wait for itself"):
                pool[1].stream()
            return "ok"

        return ToolRegistry([FakeTool("follow", follow)])

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> str | Completion:
        if query_of(request) == "child":
            return await dictate(request, on_delta)
        return calling(tool_call("follow")) if len(request.messages) == 1 else "Done."

    async with open_pool(LiveDriver(answer), tools=build, max_concurrent=1) as pool:
        outcome = await (await pool.spawn(job("parent"))).wait()
        await pool[2].wait()
    assert (outcome.text, "".join(texts)) == ("Done.", "one two three")


async def test_two_who_stream_each_other_are_deadlocked() -> None:
    """Neither can end before the other: it is said at once, and names both."""
    errors: list[DeadlockError] = []

    def build(context: AgentContext) -> ToolRegistry:
        async def follow(_: str, __: ToolContext) -> str:
            try:
                await pieces_of(pool[3 - context.agent_id])
            except DeadlockError as error:
                errors.append(error)
            return "ok"

        return ToolRegistry([FakeTool("follow", follow)])

    async def answer(request: CompletionRequest, _: OnDelta) -> str | Completion:  # noqa: ASYNC124  # a driver is async
        return calling(tool_call("follow")) if len(request.messages) == 1 else "Done."

    patient = SpawnConfig(manifest(tool_seconds=None), "go")
    async with open_pool(LiveDriver(answer), tools=build) as pool:
        outcomes = [await one.wait() for one in await pool.fan_out([patient, patient])]
    assert [outcome.text for outcome in outcomes] == ["Done.", "Done."]
    assert [error.agent_ids for error in errors] == [(1, 2)]


async def follow_one(pool: AgentPool) -> str:
    """Stream an agent beside another."""
    handle = await pool.spawn(SpawnConfig(job().manifest, "hello", name="streamed"))
    await pool.spawn(job())
    return "".join(await pieces_of(handle))


async def scenario() -> None:
    """Stream an agent, whatever the order."""
    driver = ScriptedDriver([calling(tool_call("echo"), text="So. "), "one two", "three"], pieces=2)
    async with open_pool(driver, tools=ToolRegistry([echo_tool()]), max_concurrent=1) as pool:
        text = await follow_one(pool)
        outcome = await pool[1].wait()
        assert outcome.text
        assert text.endswith(outcome.text)


def test_every_order_streams_the_whole_text() -> None:
    """Nothing is lost, and nothing told twice."""
    explore(scenario, schedules=50)


def test_a_stream_that_is_cancelled_anywhere_leaks_nothing() -> None:
    """Neither a slot nor a watcher."""
    cancel_everywhere(scenario)
