"""A user's tool that waits for something outside of the pool gives its slot to others."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agentpool import SpawnConfig, ToolMessage, open_pool
from agentpool.abc import Completion, CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver
from agentpool.observe import AgentParked
from agentpool.testing import cancel_everywhere
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import (
    Gauge,
    Recorder,
    calling,
    manifest,
    of_type,
    query_of,
    results_of,
    tool_call,
)


@tool
async def wait_outside(context: ToolContext, seconds: float) -> str:
    """Wait for a webhook."""
    async with context.agent.without_slot("a webhook"):
        await trio.sleep(seconds)
    return f"arrived at {trio.current_time():g}"


@tool
async def give_up(context: ToolContext) -> str:
    """Wait for at most a second."""
    with trio.move_on_after(1):
        async with context.agent.without_slot("a webhook"):
            await trio.sleep_forever()
    return f"gave up at {trio.current_time():g}"


def driver(gauge: Gauge) -> FunctionDriver:
    """Return a model that works for two seconds, or calls what it is asked to call."""

    async def answer(request: CompletionRequest) -> Completion | str:
        if results := results_of(request):
            return results[0].content
        name, _, seconds = query_of(request).partition(" ")
        if name == "work":
            with gauge.work(name):
                await trio.sleep(2)
            return f"worked until {trio.current_time():g}"
        return calling(tool_call(name, **({"seconds": float(seconds)} if seconds else {})))

    return FunctionDriver(answer)


async def test_others_run_while_a_tool_waits_outside(autojump_clock: MockClock) -> None:
    """In a pool of one: it would be a pool that stands still for ten seconds."""
    recorder, gauge = Recorder(), Gauge()
    tools = ToolRegistry([wait_outside, give_up])
    async with open_pool(
        driver(gauge), max_concurrent=1, tools=tools, observers=[recorder]
    ) as pool:
        start = trio.current_time()
        queries = ("wait_outside 10", "work", "work")
        await pool.fan_out(SpawnConfig(manifest(), query) for query in queries)
        outcomes = await pool.join_all()
    assert [outcome.text.split()[-1] for outcome in outcomes.values()] == [
        f"{start + seconds:g}" for seconds in (10, 2, 4)
    ]
    assert gauge.peak == 1
    (parked,) = of_type(recorder.events, AgentParked)
    assert (parked.agent_id, parked.waits_for) == (1, "a webhook")


async def test_a_time_limit_ends_the_wait_and_the_slot_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    """The agent goes on when the one that runs in its place gives the slot back."""
    async with open_pool(driver(Gauge()), max_concurrent=1, tools=ToolRegistry([give_up])) as pool:
        start = trio.current_time()
        await pool.fan_out(SpawnConfig(manifest(), query) for query in ("give_up", "work"))
        outcomes = await pool.join_all()
    assert outcomes[1].text == f"gave up at {start + 2:g}"


async def test_what_is_waited_for_is_a_text(autojump_clock: MockClock) -> None:
    """It is shown to those who watch."""

    @tool
    async def wrong(context: ToolContext) -> str:
        """Wait for nothing that has a name."""
        async with context.agent.without_slot(None):  # type: ignore[arg-type]
            return ""

    async with open_pool(driver(Gauge()), tools=ToolRegistry([wrong])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "wrong"))).wait()
    (result,) = (message for message in outcome.messages if isinstance(message, ToolMessage))
    assert result.is_error
    assert "what must be a str, got None" in result.content


def test_a_cancelled_wait_leaves_no_slot_behind() -> None:
    """At every point at which it may be cancelled, beside one that runs in its place."""

    async def scenario() -> None:
        async with open_pool(
            driver(Gauge()), max_concurrent=1, tools=ToolRegistry([wait_outside])
        ) as pool:
            queries = ("wait_outside 3", "work")
            await pool.fan_out(SpawnConfig(manifest(), query) for query in queries)
            await pool.join_all()

    report = cancel_everywhere(scenario)
    assert report.points > 10
