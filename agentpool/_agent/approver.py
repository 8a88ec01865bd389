"""How a tool call gets approval before it runs.

Rules:

1. A call that needs approval does not run without it. The call is refused if there is no approver,
   or if the approver fails or does not answer in time.
2. The agent waits without a slot. The time of the tool itself begins afterwards.
3. If an approver fails, that is an error of the call, which the model and observers get. Its author
   gets the traceback in the log.
"""

from __future__ import annotations

import inspect
import logging
from typing import Final

import msgspec
import trio

from agentpool._agent.agent import Agent
from agentpool._approval import ApprovalRequest, Approved, Approver, Changed, Decision, Denied
from agentpool._errors import UsageError
from agentpool._events import ApprovalAsked, ApprovalGiven
from agentpool._manifest.capability import asks_first
from agentpool._messages import ToolCall
from agentpool._one_line import one_line, visible_lines
from agentpool._scheduling.ctrl_c import interruptible
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool.abc import Tool
from agentpool.tools._failure import failed_result

_log: Final = logging.getLogger("agentpool")

NOBODY = (
    "this tool needs approval, and there is no one here to ask; go on without it, "
    "and say in your answer what you would have needed it for"
)


def must_ask(agent: Agent, tool: Tool) -> bool:
    """Return whether a call of *tool* needs approval."""
    if tool.needs_approval:
        return True
    required = tool.capability
    return required is not None and asks_first(agent.config.manifest.capabilities, required)


async def ask_first(
    agent: Agent, tool: Tool, call: ToolCall, part: int, *, may_have_run: bool
) -> ToolCall | Denied:
    """Return the approved call, or the reason why the call may not run.

    Args:
        agent: The agent that calls.
        tool: The tool that is called.
        call: The call, as the model wrote it.
        part: Its place among the calls of its answer.
        may_have_run: Whether the call had begun when an earlier process ended.

    Raises:
        JournalError: If the question cannot be stored.

    Cancellation:
        The question is withdrawn, and the call has not run. A decision that was already made is
        stored and reported, even if the agent is cancelled while it waits for its slot.
    """
    hub = agent.hub
    asked_at = hub.seconds()
    hub.tell(ApprovalAsked, agent.agent_id, agent.name, call)
    journal, approve = agent.journal, agent.home.approve
    decision = None if journal is None else await journal.ask(part, call, again=may_have_run)
    if decision is None and approve is not None:
        request = ApprovalRequest(
            agent.agent_id, agent.name, call, tool.capability, agent.context.parent_id,
            may_have_run,
        )  # fmt: skip
        async with parked(Wait.other("an approval", WaitReason.APPROVAL)):
            decision = await _decision_on(agent, approve, request)
            # Kept and told before the agent has its slot again, which may take long.
            if journal is not None:
                journal.keep_answer(part, call, decision, again=may_have_run)
            return _told(agent, call, decision, asked_at)
    return _told(agent, call, decision or Denied(NOBODY), asked_at)  # noqa: ASYNC910  # nobody was asked


def _told(agent: Agent, call: ToolCall, decision: Decision, asked_at: float) -> ToolCall | Denied:
    """Publish *decision*. Return the call to run, or the refusal."""
    if isinstance(decision, Changed):
        call = msgspec.structs.replace(call, arguments=decision.arguments)
    denied = decision if isinstance(decision, Denied) else None
    reason = "" if denied is None else denied.reason
    waited_seconds = agent.hub.seconds() - asked_at
    given = (call, denied is None, reason, decision.by, waited_seconds)
    agent.hub.tell(ApprovalGiven, agent.agent_id, agent.name, *given)
    return call if denied is None else denied


async def _decision_on(agent: Agent, approve: Approver, request: ApprovalRequest) -> Decision:  # noqa: ASYNC910  # one that is not async has no checkpoint
    try:
        return await _ask(agent, approve, request)
    except Exception as error:  # noqa: BLE001  # foreign code: told to the model
        name = request.call.name
        failed = failed_result(name, error)
        if failed.traceback:
            text = "the approver broke when asked about %r of agent %d (%s); it was refused\n%s"
            where = visible_lines(failed.traceback)
            _log.warning(text, name, agent.agent_id, one_line(agent.name), where)
        told = failed.content.removeprefix(f"tool {name!r} failed: ")
        return Denied(f"asking for approval failed: {told}")  # noqa: ASYNC910  # see above


@interruptible
async def _ask(agent: Agent, approve: Approver, request: ApprovalRequest) -> Decision:  # noqa: ASYNC910  # see above
    seconds = agent.config.manifest.resources.approval_seconds
    said: object = None
    with trio.CancelScope() as scope:  # noqa: ASYNC912  # one that is not async does not wait
        if seconds is not None:
            scope.deadline = trio.current_time() + seconds
        said = approve(request)
        if inspect.isawaitable(said):
            said = await said
    if scope.cancelled_caught:
        return Denied(f"no answer within {seconds:g} seconds")  # noqa: ASYNC910  # waited for
    # Foreign code, and type checkers are optional.
    if not isinstance(said, Approved | Denied | Changed):
        raise UsageError(f"approve must return Approved, Denied or Changed, got {said!r}")
    return said  # noqa: ASYNC910  # see above
