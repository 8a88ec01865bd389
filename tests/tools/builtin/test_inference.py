"""The tool that asks a model one question."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agentpool import (
    AgentStatus,
    Capability,
    CapabilityKind,
    SpawnConfig,
    StopReason,
    Usage,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, OnDelta
from agentpool.drivers import FallbackDriver, NetworkError, ScriptedDriver, say
from agentpool.testing import check_tool
from agentpool.tools import ToolRegistry, inference_tools
from tests.support.fakes import (
    LiveDriver,
    calling,
    hanging_driver,
    manifest,
    results_of,
    tool_call,
)

GRANT = (Capability(CapabilityKind.INFERENCE),)


def asking(*more: str | Completion) -> ScriptedDriver:
    """Return an agent that asks once, and is then done."""
    return ScriptedDriver(
        [calling(tool_call("inference", prompt="why?"), usage=Usage(1, 1)), *more]
    )


async def test_what_a_question_takes_is_the_agents_expense() -> None:
    """As the agent's own, without a history; its tokens count for who asked."""
    helper, agent = ScriptedDriver([say("because", usage=Usage(100, 20))]), asking("done")
    async with open_pool(agent, tools=ToolRegistry(inference_tools(helper))) as pool:
        config = SpawnConfig(manifest(capabilities=GRANT, max_tokens=99), "hi")
        outcome = await (await pool.spawn(config)).wait()
    (request,) = helper.requests
    assert (request.temperature, request.max_tokens, request.tools) == (None, 99, ())
    assert results_of(agent.requests[1])[0].content == "because"
    assert outcome.usage.total_tokens >= 122


async def test_a_question_that_breaks_the_budget_ends_the_run() -> None:
    """As an answer of its own would."""
    helper = ScriptedDriver([say("because", usage=Usage(1000, 20))])
    async with open_pool(asking("done"), tools=ToolRegistry(inference_tools(helper))) as pool:
        config = SpawnConfig(manifest(capabilities=GRANT, max_tokens_budget=500), "hi")
        outcome = await (await pool.spawn(config)).wait()
    assert (outcome.status, outcome.stop_reason) == (AgentStatus.STOPPED, StopReason.TOKEN_BUDGET)


async def test_a_model_that_hangs_is_an_error_after_300_seconds(
    autojump_clock: MockClock,
) -> None:
    """The agent goes on, and is told."""
    agent = asking("done")
    async with open_pool(agent, tools=ToolRegistry(inference_tools(hanging_driver()))) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(capabilities=GRANT), "hi"))).wait()
    assert trio.current_time() == 300
    assert outcome.text == "done"
    assert "timed out after 300 seconds" in results_of(agent.requests[1])[0].content


async def test_an_empty_answer_is_an_error() -> None:
    """In the original's words."""
    agent = asking("done")
    helper = ScriptedDriver([Completion(text=" ")])
    async with open_pool(agent, tools=ToolRegistry(inference_tools(helper))) as pool:
        await (await pool.spawn(SpawnConfig(manifest(capabilities=GRANT), "hi"))).wait()
    result = results_of(agent.requests[1])[0]
    assert (result.is_error, result.content) == (
        True,
        "the model gave an empty answer; ask it in other words",
    )


async def test_what_a_failed_try_took_is_counted_as_the_tools_request() -> None:
    """The first model was asked: what that took is unknown, and so not zero."""

    async def breaks(_: CompletionRequest, __: OnDelta) -> Completion:
        await trio.lowlevel.checkpoint()
        raise NetworkError("the line is dead")

    helper = FallbackDriver(LiveDriver(breaks), ScriptedDriver([say("because", usage=Usage(9, 9))]))
    agent = asking(say("done", usage=Usage(1, 1)))
    async with open_pool(agent, tools=ToolRegistry(inference_tools(helper))) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(capabilities=GRANT), "hi"))).wait()
    assert results_of(agent.requests[1])[0].content == "because"
    assert outcome.unmeasured_requests == 1


async def test_the_tool_keeps_its_contract() -> None:
    """A good call, bad ones, and a cancelled one."""
    helper = ScriptedDriver(["x"] * 3)
    await check_tool(lambda: inference_tools(helper)[0], arguments='{"prompt": "why?"}')
