"""Approvals that outlive the process: questions, and answers given later.

Rules:

1. A question is written before it is asked. If the process ends before the question is answered,
   the question stays open: the next process asks again, unless the journal has an answer by then.
2. An answer belongs to one question, which is about one call of one agent at one place of its run.
   The answer does not hold for a different call at the same place.
3. To record an answer, a process needs the pool's lease. While a pool runs, its own process holds
   the lease, so no other process can answer, and the pool asks its approver.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias, final

import msgspec
import trio

from agentpool._approval import Approved, Changed, Decision, Denied
from agentpool._checks import expect_arguments
from agentpool._errors import JournalError, UsageError
from agentpool._journal_records import JournalRecord, RecordKind
from agentpool._messages import AgentId, ToolCall
from agentpool.abc import Journal

Spot: TypeAlias = tuple[AgentId, int, int]
"""Agent, place and part of a call."""


@final
class _Said(msgspec.Struct, frozen=True, array_like=True):
    """The body of an answer."""

    kind: str
    text: str = ""
    by: str = ""


@final
class OpenQuestion(msgspec.Struct, frozen=True):
    """A tool call that waits for approval, as stored in a journal."""

    question_id: str
    """The question's name in its pool: agent, place and part, joined by dots."""
    agent_id: AgentId
    """The agent that wants to call."""
    call: ToolCall
    """The call, as the model wrote it."""
    digest: str
    """The digest of the call. An answer is valid only for a call with this digest."""


def open_questions(records: Iterable[JournalRecord]) -> tuple[OpenQuestion, ...]:
    """Return the unanswered questions in the records of one pool.

    Raises:
        JournalError: If a question cannot be read.
    """
    expect_arguments(open_questions, locals())
    asked: dict[Spot, JournalRecord] = {}
    spots: dict[AgentId, list[Spot]] = {}
    for record in records:
        spot = (record.agent_id, record.place, record.part)
        if record.kind is RecordKind.ASKED:
            asked[spot] = record
            spots.setdefault(record.agent_id, []).append(spot)
        elif record.kind is RecordKind.ENDED:
            for one in spots.pop(record.agent_id, ()):
                asked.pop(one, None)
        elif record.kind in _SETTLES:
            asked.pop(spot, None)
    return tuple(
        OpenQuestion(".".join(map(str, spot)), spot[0], _call_of(record), record.digest)
        for spot, record in asked.items()
    )


async def answer_question(
    journal: Journal, pool: str, question_id: str, decision: Decision
) -> OpenQuestion:
    """Answer an open question of a pool that no process runs, and return the question.

    Args:
        journal: The journal that has the pool.
        pool: The pool's name in the journal.
        question_id: Which question.
        decision: The answer.

    Raises:
        UsageError: If there is no such open question.
        RunBusyError: If a process runs the pool.
        JournalError: If the journal cannot be read or written.

    Cancellation:
        The question may have been answered.
    """
    expect_arguments(answer_question, locals())
    lease = await journal.claim(pool)
    try:
        found = {one.question_id: one for one in open_questions(await journal.read(pool))}
        if question_id not in found:
            raise UsageError(
                f"pool {pool!r} has no open question {question_id!r}; it has {sorted(found)}"
            )
        question = found[question_id]
        agent_id, place, part = map(int, question_id.split("."))
        record = JournalRecord(
            agent_id, RecordKind.ANSWERED, place, part, question.digest, said_of(decision)
        )
        await journal.append(lease, [record])
        return question
    finally:
        with trio.CancelScope(shield=True):
            await journal.release(lease)


def said_of(decision: Decision) -> bytes:
    """Return the body of the record of *decision*."""
    if isinstance(decision, Denied):
        said = _Said("denied", decision.reason, decision.by)
    elif isinstance(decision, Changed):
        said = _Said("changed", decision.arguments, decision.by)
    else:
        said = _Said("approved", by=decision.by)
    return msgspec.json.encode(said)


def decision_in(body: bytes) -> Decision:
    """Return the decision that ``said_of`` wrote.

    Raises:
        JournalError: If the body is something else.
    """
    try:
        said = msgspec.json.decode(body, type=_Said)
    except msgspec.MsgspecError as error:
        raise JournalError(f"the journal has an answer that cannot be read: {error}") from error
    if said.kind == "denied":
        return Denied(said.text, said.by)
    return Changed(said.text, said.by) if said.kind == "changed" else Approved(said.by)


_SETTLES: Final = frozenset({RecordKind.ANSWERED, RecordKind.STARTED, RecordKind.RESULT})


def _call_of(record: JournalRecord) -> ToolCall:
    try:
        return msgspec.json.decode(record.body, type=ToolCall)
    except msgspec.MsgspecError as error:
        raise JournalError(f"the journal has a question that cannot be read: {error}") from error
