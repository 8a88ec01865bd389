"""One event of a trace in one line."""

from __future__ import annotations

from typing import Final, cast

from agentpool import observe
from agentpool._amounts import counted
from agentpool._cli._who import who_is
from agentpool.tools import printable

SHOWN_CHARACTERS: Final = 60
"""The most characters shown of a text in an event."""


def event_line(event: observe.Event) -> str:
    """Return *event* in one line."""
    return f"{event.at_seconds:9.3f} s  {who_is(event)}: {printable(_words(event))}"


def _words(event: observe.Event) -> str:  # noqa: C901, PLR0911, PLR0912  # one for each kind
    match event:
        case observe.AgentSpawned():
            return f"spawned by {event.parent_id or 'the owner'}: {_short(event.query)}"
        case observe.AgentQueued():
            again = " again" if event.again else ""
            return f"waits for a slot{again}, {event.ahead:,} ahead of it"
        case observe.AgentStarted():
            return "begins"
        case observe.AgentFinished():
            error = event.outcome.error
            return event.outcome.status.value + ("" if error is None else f": {error}")
        case observe.AgentParked():
            return f"waits for {event.waits_for}"
        case observe.AgentResumed():
            return "goes on"
        case observe.PhaseChanged():
            tool = f" {event.tool_name}" if event.tool_name else ""
            turn = f"turn {event.turn}: " if event.turn else ""
            return f"{turn}{event.phase.value}{tool}"
        case observe.MessagesAdded():
            added = counted(len(event.messages) + event.shared, "message")
            return f"its conversation has {added} more, from place {event.place:,} on"
        case observe.AgentWarned():
            return f"warning: {event.text}"
        case observe.ApprovalAsked():
            return f"wants to call {event.call.name} {_short(event.call.arguments)}"
        case observe.ApprovalGiven():
            by = f" by {event.decided_by}" if event.decided_by else ""
            why = f": {event.reason}" if event.reason else ""
            return f"{event.call.name} {'approved' if event.approved else 'refused'}{by}{why}"
        case observe.ToolStarted():
            return f"calls {event.call.name} {_short(event.call.arguments)}"
        case observe.ToolFinished():
            took = event.duration_seconds
            after = "" if took is None else f" after {took:.2f} s"
            if event.is_error:
                return f"{event.call.name} failed{after}: {_short(event.content)}"
            return f"{event.call.name} returned{after}, {len(event.content):,} characters"
        case observe.WindowCut():
            summary = f": {_short(event.summary)}" if event.summary else ""
            return event.words() + summary
        case _:
            return _request_words(event)


def _request_words(event: observe.Event) -> str:  # noqa: PLR0911  # one for each kind
    match event:
        case observe.RequestStarted():
            model = f" {event.model}" if event.model else ""
            for_whom = ", beside its conversation" if event.by_tool else ""
            attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
            return f"turn {event.turn}: asks its model{model}{for_whom}{attempt}"
        case observe.RequestFirstPiece():
            return f"the first piece came after {event.seconds:.2f} s"
        case observe.TextDelta():
            return f"writes {event.text!r}"
        case observe.ThoughtDelta():
            return f"thinks {event.text!r}"
        case observe.CompletionReceived():
            tokens = "?" if event.usage is None else f"{event.usage.total_tokens:,}"
            return f"answered after {event.duration_seconds:.2f} s, {tokens} tokens"
        case observe.RequestFailed():
            return f"request failed: {event.error_type}: {event.error}"
        case observe.RequestRetried():
            return f"asks again in {event.delay_seconds:.2f} s: {event.error}"
        case observe.FellBack():
            return f"fell back {event.words()}"
        case _:
            return _pool_words(event)


def _pool_words(event: observe.Event) -> str:  # one for each kind
    match event:
        case observe.GateChanged():
            until = f"closed for {event.closed_seconds:.1f} s, then " * bool(event.closed_seconds)
            return f"gate {event.gate}: {until}{event.limit:,} at once; {event.waiting:,} wait"
        case observe.SlotsChanged():
            return f"{event.max_concurrent:g} slots from now on"
        case observe.BudgetNear() | observe.BudgetReached():
            how = "spent" if isinstance(event, observe.BudgetReached) else "nearly spent"
            used = f"{event.kind.value}, {event.used:,.6g} of {event.limit:,.6g}"
            return f"budget {event.budget} is {how}: {used}"
        case observe.MessageSent():
            to = event.message.recipient or "the owner"
            return f"sends message {event.message.message_id} to {to}: " + _short(
                event.message.content
            )
        case observe.MessageDropped():
            return f"message {event.message.message_id} is a dead letter: {event.reason}"
        case _:  # the only kind that is left; a test has one of every kind
            missed = cast("observe.EventsMissed", event)
            return f"{counted(missed.count, 'event')} left out here"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
