"""Checks whether a pool is at rest, and whether a closed pool has kept its guarantees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentpool._checks import expect_arguments
from agentpool._messages import OWNER_ID, AssistantMessage, ChatMessage, ToolMessage
from agentpool._outcome import ENDED, AgentOutcome, AgentStatus
from agentpool._pool.admission import HANDING_ON
from agentpool._pool.nursery import AgentNursery
from agentpool._pool.pool import AgentPool
from agentpool._pool.record import AgentRecord
from agentpool.testing._simulation.findings import LeakError

_PASSING_TASKS = frozenset({"deadlock watch", HANDING_ON})
"""Tasks of a pool that end by themselves within two steps, without waiting for another task."""


def agents_of(pool: AgentPool) -> AgentNursery:
    """Return the nursery inside *pool*. No other function of the kit uses the pool's internals."""
    return pool._agents  # pyright: ignore[reportPrivateUsage]  # the kit checks what is private


def assert_quiescent(pool: AgentPool) -> None:
    """Check that every agent of *pool* has ended and left nothing behind.

    Call it inside the pool's block after ``join_all()``, or after the block. Inside the block, the
    task that writes the pool's journal may still run.

    Raises:
        LeakError: If anything is left. The error lists everything.
    """
    expect_arguments(assert_quiescent, locals())
    leaks = tuple(pool_leaks(agents_of(pool), (), closed=False))
    if leaks:
        raise LeakError(f"pool {pool.name!r} is not at rest", leaks)


def pool_leaks(
    agents: AgentNursery, handles: Iterable[AgentRecord], *, closed: bool
) -> Iterator[str]:
    """Yield everything that a pool wrongly holds or lacks after all of its agents have ended.

    Args:
        agents: The pool.
        handles: Agents that the pool started but may no longer keep, such as those of a map.
        closed: Whether the pool's block has ended.
    """
    known = {one.agent_id: one for one in (*handles, *agents.fan_in.everybody())}
    for agent_id, handle in sorted(known.items()):
        outcome = handle.ended_with  # as ``outcome``, but nobody has seen it then
        if outcome is None:
            yield f"agent {agent_id} ({handle.name}) has no outcome: it is {handle.status.value}"
        else:
            yield from outcome_faults(outcome, agent_id)
    yield from _slot_leaks(agents)
    yield from _mail_leaks(agents, closed=closed)
    passing = _PASSING_TASKS | ({"journal"} if agents.journal and not closed else set[str]())
    tasks = sorted(t.name for t in agents.nursery.child_tasks if t.name not in passing)
    yield from (f"task {name!r} is in the pool's nursery" for name in tasks)


def outcome_faults(outcome: AgentOutcome, agent_id: int) -> Iterator[str]:
    """Yield faults in the outcome of the agent *agent_id*."""
    who = f"agent {agent_id} ({outcome.name})"
    if outcome.agent_id != agent_id:
        yield f"{who} has the outcome of agent {outcome.agent_id}"
    if outcome.status not in ENDED:
        yield f"{who} has ended, but its outcome says {outcome.status.value}"
    if (outcome.error is None) != (outcome.status is AgentStatus.COMPLETED):
        yield f"{who} is {outcome.status.value} with the error {outcome.error!r}"
    if outcome.started_at is not None and outcome.finished_at < outcome.started_at:
        yield f"{who} finished at {outcome.finished_at:g}, started at {outcome.started_at:g}"
    yield from (f"the history of {who}: {fault}" for fault in history_faults(outcome.messages))


def history_faults(messages: Iterable[ChatMessage]) -> Iterator[str]:
    """Yield tool calls without exactly one result, and results without a call."""
    waiting: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.call_id in waiting:
                waiting.remove(message.call_id)
            else:
                yield f"there is a result for call {message.call_id!r}, which was never made"
            continue
        yield from (f"tool call {call_id!r} has no result" for call_id in waiting)
        waiting = []
        if isinstance(message, AssistantMessage):
            waiting = [call.call_id for call in message.tool_calls]
    yield from (f"tool call {call_id!r} has no result" for call_id in waiting)


def _slot_leaks(agents: AgentNursery) -> Iterator[str]:
    admission = agents.admission
    for handle in agents.running.values():
        yield f"agent {handle.agent_id} ({handle.name}) is {handle.status.value}"
    if admission.queued_count:
        yield f"{admission.queued_count} agents are in the queue"
    if admission.running_count:
        yield f"{admission.running_count} slots are borrowed"
    if admission.lent_count:
        yield f"{admission.lent_count} slots are lent for agents at a gate"
    wanted = [slot.agent_id for slot in admission._returning if slot.wanted]  # pyright: ignore[reportPrivateUsage]  # see agents_of
    yield from (f"agent {agent_id} waits for a slot" for agent_id in wanted)
    if agents.fan_in.active:
        yield f"{len(agents.fan_in.active)} agents count as active"
    if agents.fan_in._joins:  # pyright: ignore[reportPrivateUsage]  # see agents_of
        yield "a task still waits in join_all()"


def _mail_leaks(agents: AgentNursery, *, closed: bool) -> Iterator[str]:
    router = agents.router
    allowed = set[int]() if closed else {OWNER_ID}
    for agent_id in router.live_ids():
        if agent_id not in allowed:
            who = "the owner" if agent_id == OWNER_ID else f"agent {agent_id}"
            yield f"{who} is registered with the router"
    for number, question in router._questions.items():  # pyright: ignore[reportPrivateUsage]  # see agents_of
        yield f"agent {question.asker} waits for agent {question.answerer} to answer {number}"
    if router.dead_letter_count > router.message_count:
        yield f"{router.dead_letter_count} dead letters of {router.message_count} messages"
