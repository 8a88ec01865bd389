"""Running the tool calls of one answer: side by side, each with its result in its place.

Each call is a branch of the agent's slot. A time limit stands where one is set and nowhere
else: a cancel scope costs a quarter of a turn.
"""

from __future__ import annotations

import math

import trio

from agentpool._agent import Agent
from agentpool._errors import UsageError
from agentpool._events import Phase, ToolFinished, ToolStarted
from agentpool._guard import Stop
from agentpool._messages import ToolCall, ToolMessage
from agentpool._run import RunTools, refused
from agentpool._slot import Branch, current_branch
from agentpool.abc import ToolContext, ToolResult
from agentpool.tools._failure import failed_result


async def run_calls(agent: Agent, effect: RunTools) -> None:
    """Run the calls of *effect* that have no result yet.

    Cancellation:
        Results of calls that have ended are in their places; nothing goes on.
    """
    wanted = [index for index, result in enumerate(effect.results) if result is None]
    if len(wanted) == 1:
        # Most answers have one call; a nursery would cost as much as the rest of it.
        await _run_call(agent, effect, wanted[0])
        return

    async def run(index: int, branch: Branch) -> None:
        current_branch.set(branch)
        try:
            await _run_call(agent, effect, index)
        finally:
            agent.slot.branch_ended(branch)

    branches = agent.slot.fork(len(wanted))
    async with trio.open_nursery() as nursery:
        for index, branch in zip(wanted, branches, strict=True):
            nursery.start_soon(run, index, branch)


async def _run_call(agent: Agent, effect: RunTools, index: int) -> None:
    call = effect.calls[index]
    hub = agent.hub
    if agent.purse is not None and (error := agent.purse.take_tool_call()) is not None:
        assert agent.run is not None  # noqa: S101  # only a run has calls
        agent.run.exhausted = Stop.of_error(error)
        effect.results[index] = refused(call, f"not run: {error}")
        return  # noqa: ASYNC910  # a call that is not allowed waits for nothing
    if hub.listening:
        agent.phase(Phase.ACT, call.name)
        hub.publish(ToolStarted(*hub.stamp(agent.agent_id, agent.name), call))
    agent.tools_run += 1
    result = await _call(agent, call)
    # Written before anybody is told, so that a cancellation finds it in its place.
    effect.results[index] = result
    if hub.listening:
        stamp = hub.stamp(agent.agent_id, agent.name)
        hub.publish(ToolFinished(*stamp, call, result.content, result.is_error))


async def _call(agent: Agent, call: ToolCall) -> ToolMessage:
    tool = agent.registry.get(call.name)
    # The loop has refused calls of unknown tools already.
    assert tool is not None  # noqa: S101
    context = ToolContext(agent.context, call.call_id)
    seconds = tool.timeout_seconds
    if seconds is None:
        seconds = agent.config.manifest.resources.tool_seconds
    result: ToolResult | None = None
    try:
        if seconds is None or seconds == math.inf:
            result = await tool.run(call.arguments, context)
        else:
            with trio.move_on_after(seconds) as scope:
                result = await tool.run(call.arguments, context)
            if scope.cancelled_caught:
                text = f"tool {call.name!r} timed out after {seconds:g} seconds"
                return ToolMessage(call.call_id, call.name, text, is_error=True)
    except Exception as error:  # noqa: BLE001  # a tool's failure is told to the model
        result = failed_result(call.name, error)
    if not isinstance(result, ToolResult):
        got = UsageError(f"a tool must return a ToolResult, got {result!r}")
        result = failed_result(call.name, got)
    return ToolMessage(call.call_id, call.name, result.content, result.is_error)  # noqa: ASYNC910  # a tool without one is its own fault
