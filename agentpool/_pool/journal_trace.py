"""Converts a pool in a journal into a trace.

Rules:

1. A journal has no times: its records are in order, and everything happens at second 0.
2. If an agent has ended, its conversation is the one in its outcome. Otherwise it consists of the
   query, the answers and the results of calls.
3. A request is stored when it begins, before budgets are asked. One that has a result without an
   answer, and was not lost, was refused by a budget: it was never made, and is not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from agentpool._agent.request_events import lost_request
from agentpool._approval import Changed, Denied
from agentpool._base import Live
from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    AgentStarted,
    ApprovalAsked,
    ApprovalGiven,
    CompletionReceived,
    Event,
    MessagesAdded,
    MessageSent,
    RequestFailed,
    RequestStarted,
    ToolFinished,
)
from agentpool._journal_records import JournalRecord, RecordKind, begins_call, read_body
from agentpool._messages import (
    OWNER_ID,
    AgentId,
    AgentMessage,
    AssistantMessage,
    ChatMessage,
    Completion,
    ToolCall,
    UserMessage,
)
from agentpool._pool.past import Past, PastAgent, decode, last_runs
from agentpool._recorded_results import Answered, Called, Summed
from agentpool._served_call import Loss
from agentpool.journal._questions import decision_in
from agentpool.observe._trace import Trace, TraceHeader

NOT_KEPT: Final = "kept without its error"
"""The text in place of the error of a failed request, which a journal does not store."""

_ANSWERED: Final = b'{"completion"'
_SUMMED: Final = b'["'
"""How the results of requests begin: of a turn, and of a summary."""

_UNANSWERED: Final = b'{"completion":null'
"""How the result of a turn without an answer begins."""


def trace_of_journal(pool: str, records: Sequence[JournalRecord]) -> Trace:
    """Return the trace of a pool, made from its records in a journal.

    Args:
        pool: The pool's name.
        records: What ``journal.read(pool)`` returned; at least one.

    Raises:
        UsageError: If there are no records.
        JournalError: If one of them cannot be read.
    """
    expect_arguments(trace_of_journal, locals())
    if not records:
        raise UsageError("records must not be empty; give what journal.read(pool) returned")
    past = Past.read(records)
    kept = last_runs(records[1:])
    telling = _Telling(past, _unmade(kept))
    for place, record in enumerate(kept):
        telling.tell(place, record)
    header = TraceHeader(run_id=past.run_id, pool=pool, opened_at=0.0, max_concurrent=0)
    return Trace(header=header, events=tuple(telling.events))


@final
class _Telling(Live):
    """Converts records into events."""

    past: Past
    unmade: frozenset[int]
    """The places of the records of requests that were never made."""
    events: list[Event] = []  # noqa: RUF012  # each has its own
    calls: dict[AgentId, tuple[ToolCall, ...]] = {}  # noqa: RUF012  # the same
    """The calls in each agent's last answer."""
    turns: dict[AgentId, int] = {}  # noqa: RUF012  # the same
    said: dict[AgentId, int] = {}  # noqa: RUF012  # the same
    """The number of messages in each agent's conversation so far."""

    def tell(self, place: int, record: JournalRecord) -> None:
        """Add the events of *record*, which is at *place* among all."""
        if record.kind is RecordKind.SENT:
            message = decode(record.body, AgentMessage)
            self.events.append(MessageSent(*self._stamp(message.sender), message))
            return
        agent = self.past.agents.get(record.agent_id)
        if agent is None:
            return  # where a session goes on, which is no event
        if record.kind is RecordKind.ACCEPTED:
            self._spawned(agent)
        elif record.kind is RecordKind.STARTED:
            self._started(record, is_made=place not in self.unmade)
        elif record.kind is RecordKind.LOST:
            lost = lost_request(read_body(record.body, Loss), None, is_paid=False)
            stamp = self._stamp(record.agent_id)
            failed = RequestFailed(*stamp, 0, 1, "", NOT_KEPT, by_tool=False, lost=(lost,))
            self.events.append(failed)
        elif record.kind is RecordKind.RESULT:
            self._result(agent, record)
        elif record.kind is RecordKind.ASKED:
            call = decode(record.body, ToolCall)
            self.events.append(ApprovalAsked(*self._stamp(record.agent_id), call))
        elif record.kind is RecordKind.ANSWERED:
            self._answered(record)
        elif record.kind is RecordKind.ENDED and agent.outcome is not None:
            # As a pool tells them: first what the agent was given, then what came of it.
            given, messages = len(agent.config.history) + 1, agent.outcome.messages
            self._say(agent, *messages[:given])
            self._say(agent, *messages[given:])
            self.events.append(AgentFinished(*self._stamp(record.agent_id), agent.outcome))

    def _stamp(self, agent_id: AgentId) -> tuple[int, float, AgentId, str]:
        agent = self.past.agents.get(agent_id)
        name = "" if agent is None else agent.config.agent_name
        return len(self.events) + 1, 0.0, agent_id, name

    def _say(self, agent: PastAgent, *messages: ChatMessage) -> None:
        place = self.said.get(agent.agent_id, 0)
        self.said[agent.agent_id] = place + len(messages)
        self.events.append(MessagesAdded(*self._stamp(agent.agent_id), place, messages))

    def _spawned(self, agent: PastAgent) -> None:
        config, model = agent.config, agent.config.manifest.model
        self.events.append(
            AgentSpawned(
                *self._stamp(agent.agent_id),
                agent.parent_id or OWNER_ID,
                query=config.query,
                manifest=config.manifest.name,
                model=model.remote_model or str(model.model_path or ""),
                system_prompt=model.system_prompt,
                grants=tuple(grant.kind.value for grant in config.manifest.capabilities),
                group=config.group,
                deadline_seconds=config.deadline_seconds,
            )
        )
        if agent.outcome is None:
            self._say(agent, *config.history, UserMessage(config.query, config.attachments))

    def _started(self, record: JournalRecord, *, is_made: bool) -> None:
        if record.agent_id not in self.turns:
            self.turns[record.agent_id] = 0
            self.events.append(AgentStarted(*self._stamp(record.agent_id)))
        if is_made and not begins_call(record):  # a call is told when it has ended
            turn = self.turns[record.agent_id] + 1
            stamp = self._stamp(record.agent_id)
            self.events.append(RequestStarted(*stamp, turn, 1, "", False, ()))  # noqa: FBT003  # as others make it

    def _result(self, agent: PastAgent, record: JournalRecord) -> None:
        if record.digest:
            self._called(agent, record)
        elif record.body.startswith(_ANSWERED):
            found = read_body(record.body, Answered).completion
            if found is not None:
                self.turns[agent.agent_id] = self.turns.get(agent.agent_id, 0) + 1
                self._completed(agent, found)
                self.calls[agent.agent_id] = found.tool_calls
                if agent.outcome is None:
                    said = AssistantMessage(found.text, found.tool_calls, found.parts)
                    self._say(agent, said)
        elif record.body.startswith(_SUMMED):
            summary = read_body(record.body, Summed).completion
            if summary is not None:
                self._completed(agent, summary)

    def _completed(self, agent: PastAgent, answer: Completion) -> None:
        turn = self.turns.get(agent.agent_id, 0)
        self.events.append(
            CompletionReceived(
                *self._stamp(agent.agent_id), answer.finish_reason, answer.usage, 0.0,
                turn=turn, model=answer.model, cost_usd=answer.cost_usd,
            )
        )  # fmt: skip

    def _called(self, agent: PastAgent, record: JournalRecord) -> None:
        called = read_body(record.body, Called)
        result = called.result
        asked = ToolCall(result.call_id, result.name, "{}")
        for part, call in enumerate(self.calls.get(agent.agent_id, ())):
            asked = call if part == record.part else asked
        if agent.outcome is None:
            self._say(agent, result)
        stamp, turn = self._stamp(agent.agent_id), self.turns.get(agent.agent_id, 0)
        call = called.changed or asked
        self.events.append(ToolFinished(*stamp, call, result.content, result.is_error, turn))

    def _answered(self, record: JournalRecord) -> None:
        decision = decision_in(record.body)
        calls = self.calls.get(record.agent_id, ())
        call = calls[record.part] if record.part < len(calls) else ToolCall("", "", "{}")
        reason = decision.reason if isinstance(decision, Denied) else ""
        if isinstance(decision, Changed):
            call = ToolCall(call.call_id, call.name, decision.arguments)
        stamp = self._stamp(record.agent_id)
        is_denied = isinstance(decision, Denied)
        self.events.append(ApprovalGiven(*stamp, call, not is_denied, reason, decision.by))


def _unmade(records: Sequence[JournalRecord]) -> frozenset[int]:
    """Return the places in *records* of the beginnings of requests that were never made."""
    found: set[int] = set()
    under_way: dict[AgentId, int] = {}
    for place, record in enumerate(records):
        if record.kind is RecordKind.STARTED and not begins_call(record):
            under_way[record.agent_id] = place
        elif record.kind is RecordKind.LOST:
            under_way.pop(record.agent_id, None)
        elif record.kind is RecordKind.RESULT and not record.digest:
            begun = under_way.pop(record.agent_id, None)
            if begun is not None and _is_refusal(record.body):
                found.add(begun)
    return frozenset(found)


def _is_refusal(body: bytes) -> bool:
    """Return whether *body* is the result of a request that has no answer."""
    if body.startswith(_SUMMED):
        summed = read_body(body, Summed)
        return summed.completion is None and bool(summed.failure)
    return body.startswith(_UNANSWERED)
