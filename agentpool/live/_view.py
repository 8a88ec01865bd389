"""The contents of the page, kept up to date by the pool's events."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, final

import attrs
import msgspec

from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    BudgetNear,
    BudgetReached,
    CompletionReceived,
    Event,
    EventsMissed,
    FellBack,
    GateChanged,
    MessageDropped,
    RequestFailed,
    RequestRetried,
    RequestStarted,
    TextDelta,
    ToolFinished,
    WindowCut,
)
from agentpool._messages import AgentId
from agentpool._one_line import MAX_NAME_CHARS, one_line
from agentpool._outcome import AgentStatus
from agentpool.live._approvals import PendingCall
from agentpool.observe._bill import Bill
from agentpool.observe._codec import unicode_text
from agentpool.observe._intervals import Life, Reason

SHOWN_RUNNING: Final = 100
"""The most running agents that are shown. Of any further agents, only the number is shown."""

SHOWN_ENDED: Final = 40
"""How many of the agents that ended last are shown."""

SHOWN_NEWS: Final = 40
"""How many of the last problems are shown."""

MAX_SHOWN_TEXT: Final = 300
"""The most characters of one text."""

_REASONS: Final = list(Reason)


@final
class _Row(msgspec.Struct, eq=False):
    """One agent."""

    agent_id: AgentId
    name: str
    parent_id: AgentId
    life: Life
    query: str = ""
    model: str = ""
    status: str = "queued"
    ended_at: float | None = None
    turns: int = 0
    bill: Bill = msgspec.field(default_factory=Bill)
    words: str = ""


@final
@attrs.define(eq=False)
class View:
    """Everything that the page shows."""

    changes: int = attrs.field(init=False, default=0)
    """The number of events so far. As long as this number stays the same, so does the view."""
    _running: dict[AgentId, _Row] = attrs.field(init=False, factory=dict[AgentId, _Row])
    _ended: deque[_Row] = attrs.field(init=False, factory=lambda: deque[_Row](maxlen=SHOWN_ENDED))
    _counts: Counter[str] = attrs.field(init=False, factory=Counter[str])
    _news: deque[list[object]] = attrs.field(
        init=False, factory=lambda: deque[list[object]](maxlen=SHOWN_NEWS)
    )
    _bill: Bill = attrs.field(init=False, factory=Bill)

    def take(self, event: Event) -> None:
        """Process *event*."""
        self.changes += 1
        kind = type(event)
        if kind in _NEWS and (news := _news_of(event)) is not None:
            level, text = news
            name = unicode_text(event.agent_name)
            self._news.append([event.at_seconds, level, event.agent_id, name, _cut(text)])
        if isinstance(event, AgentSpawned):
            row = _Row(
                event.agent_id, event.agent_name, event.parent_id, Life(event.at_seconds),
                query=_cut(event.query), model=event.model,
            )  # fmt: skip
            self._running[event.agent_id] = row
        row_of = self._running.get(event.agent_id)
        if row_of is None:
            return  # it began before anybody looked, or belongs to no agent
        row_of.life.take(event)
        if kind in _UPDATES:
            self._update(row_of, event)

    def _update(self, row: _Row, event: Event) -> None:
        match event:
            case AgentStarted():
                row.status = "running"
            case RequestStarted():
                row.turns = max(row.turns, event.turn)
                row.model = event.model or row.model
                row.words = ""
                self._count(row, event)
            case TextDelta():
                row.words = (row.words + event.text)[-MAX_SHOWN_TEXT:]
            case CompletionReceived():
                row.model = event.model or row.model
                self._count(row, event)
            case RequestFailed():
                self._count(row, event)
            case _:
                assert isinstance(event, AgentFinished)  # noqa: S101  # as _UPDATES
                outcome = event.outcome
                row.status, row.ended_at = outcome.status.value, event.at_seconds
                row.words = _cut(outcome.text)
                if outcome.error is not None:
                    row.words = _cut(f"{type(outcome.error).__name__}: {outcome.error}")
                self._counts[row.status] += 1
                self._ended.append(self._running.pop(event.agent_id))

    def _count(self, row: _Row, event: RequestStarted | RequestFailed | CompletionReceived) -> None:
        row.bill.take(event)
        self._bill.take(event)

    def shown(self) -> dict[str, object]:
        """Return the contents as data."""
        running = list(self._running.values())
        # Those with a slot first: who waits in a long queue is counted.
        running.sort(key=lambda row: row.status == "queued")
        return {
            "reasons": [reason.value for reason in _REASONS],
            "agents": [_row(row) for row in running[:SHOWN_RUNNING]],
            "more": max(0, len(running) - SHOWN_RUNNING),
            "ended": [_row(row) for row in reversed(self._ended)],
            "counts": dict(self._counts),
            "news": list(reversed(self._news)),
            "tokens": self._bill.tokens_words(),
            "cost": self._bill.cost_usd,
            "unknown": self._bill.cost_notes(),
            "unknown_tokens": self._bill.tokens_notes(),
        }


_NEWS: Final = frozenset(
    {
        AgentFinished,
        AgentWarned,
        BudgetNear,
        BudgetReached,
        EventsMissed,
        FellBack,
        GateChanged,
        MessageDropped,
        RequestRetried,
        ToolFinished,
        WindowCut,
    }
)
"""Events that may be news. Most events are not, and checking each event in full would take most of
the time."""

_UPDATES: Final = frozenset(
    {AgentStarted, AgentFinished, CompletionReceived, RequestFailed, RequestStarted, TextDelta}
)
"""Events that change more of an agent's row than its times."""


def _row(row: _Row) -> list[object]:
    reason, detail = row.life.now
    strip: list[float] = []
    for one in row.life.latest:
        strip += (round(one.begin_seconds, 3), _REASONS.index(one.reason))
    return [
        row.agent_id,
        unicode_text(row.name),
        row.parent_id,
        row.status,
        reason.value,
        unicode_text(detail),
        round(row.life.since, 3),
        row.ended_at,
        row.turns,
        row.bill.tokens_words(),
        row.bill.cost_usd,
        unicode_text(row.model),
        row.query,
        unicode_text(row.words),
        strip,
    ]


def _cut(text: str) -> str:
    more = len(text) - MAX_SHOWN_TEXT
    return unicode_text(text if more <= 0 else f"{text[:MAX_SHOWN_TEXT]}… [{more:,} more]")


def _news_of(event: Event) -> tuple[str, str] | None:  # noqa: C901, PLR0911, PLR0912  # one for each kind
    """Return how bad *event* is, and a description. ``None``: *event* is nothing bad."""
    match event:
        case AgentFinished(outcome=outcome) if outcome.status is AgentStatus.FAILED:
            return "bad", f"failed: {type(outcome.error).__name__}: {outcome.error}"
        case AgentFinished(outcome=outcome) if outcome.status is not AgentStatus.COMPLETED:
            reason = outcome.stop_reason
            why = str(outcome.error or "") if reason is None else reason.value
            # The name stands before it.
            named = f"agent {event.agent_id} ({event.agent_name}) was {outcome.status.value} "
            return "odd", f"{outcome.status.value}: {why.removeprefix(named)}"
        case ToolFinished(is_error=True):
            return "odd", f"tool {event.call.name} failed: {event.content}"
        case AgentWarned():
            return "odd", event.text
        case RequestRetried():
            return "odd", f"asks again in {event.delay_seconds:.1f} s: {event.error}"
        case FellBack():
            kind = event.error_type or "skipped"
            return "odd", f"driver {event.driver} failed ({kind}); asks driver {event.next_driver}"
        case BudgetNear():
            return "note", f"budget {event.budget}: {event.used:g} of {event.limit:g}"
        case BudgetReached():
            return "bad", f"budget {event.budget} is spent: {event.used:g} of {event.limit:g}"
        case GateChanged():
            return "odd", f"gate {event.gate} lets {event.limit} through"
        case WindowCut() if event.failure:
            return "odd", event.words()
        case MessageDropped():
            return "odd", f"dead letter: {event.reason}"
        case EventsMissed():
            return "note", f"{event.count:,} events are not shown: there were too many"
        case _:
            return None


def shown_call(call: PendingCall) -> list[object]:
    """Return a call that waits for a decision, as data."""
    request = call.request
    return [
        call.number,
        request.agent_id,
        one_line(request.agent_name, MAX_NAME_CHARS),
        request.parent_id,
        one_line(request.call.name, MAX_NAME_CHARS),
        unicode_text(request.call.arguments),
        # What is below the edge of a box is not seen, nor what no font shows.
        one_line(request.call.arguments),
    ]
