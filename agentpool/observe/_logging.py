"""An observer that writes events to a logger."""

from __future__ import annotations

import logging
from typing import Final, final

import agentpool._events as events
from agentpool._checks import expect_arguments
from agentpool._one_line import one_line
from agentpool._outcome import AgentStatus
from agentpool.abc import Observer

_LEVELS: Final[dict[type[object], int]] = {
    events.AgentWarned: logging.WARNING,
    events.BudgetNear: logging.WARNING,
    events.BudgetReached: logging.WARNING,
    events.EventsMissed: logging.WARNING,
    events.FellBack: logging.WARNING,
    events.GateChanged: logging.WARNING,
    events.MessageDropped: logging.WARNING,
    events.RequestRetried: logging.WARNING,
    events.AgentSpawned: logging.INFO,
    events.AgentStarted: logging.INFO,
    events.ApprovalAsked: logging.INFO,
    events.ApprovalGiven: logging.INFO,
    events.SlotsChanged: logging.INFO,
    events.AgentParked: logging.DEBUG,
    events.AgentQueued: logging.DEBUG,
    events.CompletionReceived: logging.DEBUG,
    events.MessageSent: logging.DEBUG,
    events.RequestFailed: logging.DEBUG,
    events.ToolFinished: logging.DEBUG,
    events.ToolStarted: logging.DEBUG,
}
"""The log level of each kind of event. Kinds that are missing here are not logged."""

_ENDS: Final = {
    AgentStatus.COMPLETED: logging.INFO,
    AgentStatus.STOPPED: logging.WARNING,
    AgentStatus.CANCELLED: logging.WARNING,
}
"""The log level of each kind of end. Kinds that are missing here are failures."""


@final
class LoggingObserver(Observer):
    """Writes a log line for each important event.

    Failures are logged as errors; early ends and tolerated problems as warnings; spawns, starts and
    ends as information; requests, tool calls and waits for debugging. No line contains a message or
    an answer. Each record has the event as ``agentpool_event``.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """Make an observer that writes to *logger*.

        Args:
            logger: The logger. ``None``: the one named ``agentpool.events``.
        """
        expect_arguments(LoggingObserver.__init__, locals())
        self._logger = logger or logging.getLogger("agentpool.events")

    def on_event(self, event: events.Event) -> None:
        """Write a line if the event's kind is logged and its level is enabled."""
        if isinstance(event, events.AgentFinished):
            level = _ENDS.get(event.outcome.status, logging.ERROR)
        else:
            level = _LEVELS.get(type(event), logging.NOTSET)
        if level and self._logger.isEnabledFor(level):
            who = f"agent {event.agent_id} ({event.agent_name})" if event.agent_id else "the pool"
            extra = {"agentpool_event": event}
            # A name may be of a file or a user, and a line break in it would forge a line.
            self._logger.log(level, "%s", one_line(f"{who} {_words(event)}"), extra=extra)


def _words(event: events.Event) -> str:  # noqa: PLR0911  # one for each kind
    """Return the event in words, without any text of messages or answers."""
    match event:
        case events.AgentFinished(outcome=outcome):
            why = "" if outcome.error is None else f": {type(outcome.error).__name__}"
            reason = "" if outcome.stop_reason is None else f" ({outcome.stop_reason.value})"
            return f"{outcome.status.value}{reason}{why}"
        case events.AgentParked():
            return f"waits for {event.waits_for}"
        case events.AgentWarned():
            return f"is warned: {event.text}"
        case events.BudgetNear() | events.BudgetReached():
            used = f"{event.used:,.6g} of {event.limit:,.6g}"
            return f"brings budget {event.budget!r} to {used} ({event.kind.value})"
        case events.CompletionReceived():
            tokens = "?" if event.usage is None else f"{event.usage.total_tokens:,}"
            where = f" from node {event.node}" if event.node else ""
            return f"got an answer{where} after {event.duration_seconds:.2f} s, {tokens} tokens"
        case events.ToolStarted():
            return f"calls {event.call.name}"
        case events.ToolFinished():
            failed = (
                f" failed: {event.error_type or 'it said no'}" if event.is_error else " returned"
            )
            return f"{event.call.name}{failed}"
        case _:
            return _rest(event)


def _rest(event: events.Event) -> str:  # noqa: C901, PLR0911  # one for each kind
    match event:
        case events.RequestFailed():
            return f"got no answer: {event.error_type}"
        case events.RequestRetried():
            return f"asks again in {event.delay_seconds:.2f} s"
        case events.FellBack():
            return f"falls back from driver {event.driver} to {event.next_driver}"
        case events.GateChanged():
            return f"met gate {event.gate!r}, closed for {event.closed_seconds:.1f} s"
        case events.SlotsChanged():
            return f"has {event.max_concurrent:g} slots"
        case events.EventsMissed():
            return f"lost {event.count:,} events on the way here"
        case events.MessageSent() | events.MessageDropped():
            lost = (
                "" if isinstance(event, events.MessageSent) else f", which is lost: {event.reason}"
            )
            return f"message {event.message.message_id} to agent {event.message.recipient}{lost}"
        case events.ApprovalGiven():
            return f"may {'' if event.approved else 'not '}call {event.call.name}"
        case events.ApprovalAsked():
            return f"needs approval for {event.call.name}"
        case events.AgentQueued():
            return f"waits for a slot, {event.ahead} ahead"
        case _:
            return "is spawned" if isinstance(event, events.AgentSpawned) else "starts"
