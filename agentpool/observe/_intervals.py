"""Finds out where an agent's time went: each second of its life gets one reason.

Rules:

1. The intervals of an agent begin with its spawn and end with its outcome, or with the last event
   of the trace. Each interval begins where the previous one ended.
2. When several things happen at the same time, the first one in this list is the reason: the agent
   is queued; the agent is parked; a model writes; a model was asked; a tool runs; the agent's own
   code runs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, final

import msgspec

from agentpool._base import Record
from agentpool._checks import expect_arguments
from agentpool._events import (
    AgentFinished,
    AgentParked,
    AgentQueued,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    CompletionReceived,
    Event,
    RequestFailed,
    RequestFirstPiece,
    RequestStarted,
    ToolFinished,
    ToolStarted,
)
from agentpool._messages import AgentId
from agentpool._scheduling.waits import WaitReason


class Reason(enum.Enum):
    """What an agent was doing or waiting for."""

    QUEUED = "queued"
    """It waits for a slot."""
    PARKED = "parked"
    """It waits for agents, for a message, or for something in its own code."""
    GATE = "gate"
    """It waits for a gate that lets no more requests through."""
    BUDGET = "budget"
    """It waits because other agents have reserved the rest of a budget."""
    RETRY = "retry"
    """It waits before it repeats a failed request."""
    APPROVAL = "approval"
    """It waits for a decision on whether a tool call may run."""
    MODEL = "model"
    """A model was asked and has not answered yet."""
    ANSWER = "answer"
    """A model writes."""
    TOOL = "tool"
    """A tool runs."""
    OWN = "own"
    """Its own code runs: during set-up, or between two steps."""


_WAITS: Final = {
    WaitReason.GATE: Reason.GATE,
    WaitReason.BUDGET: Reason.BUDGET,
    WaitReason.RETRY: Reason.RETRY,
    WaitReason.APPROVAL: Reason.APPROVAL,
}


NAMED_CALLS: Final = 20
"""How many tools are named when several run at the same time."""

SHOWN_INTERVALS: Final = 40
"""The most intervals kept of an agent that is watched live."""


@final
class Interval(msgspec.Struct, frozen=True, gc=False):
    """A part of an agent's life with one reason."""

    begin_seconds: float
    """Since the pool opened."""
    end_seconds: float
    """Since the pool opened."""
    reason: Reason
    """What the agent did or waited for."""
    detail: str = ""
    """What the agent waited for, or which tools ran."""
    target_id: AgentId | None = None
    """The agent for which it waited. ``None``: no particular agent."""


def intervals_of(events: Iterable[Event]) -> dict[AgentId, tuple[Interval, ...]]:
    """Return the intervals of each agent whose spawn is among *events*."""
    expect_arguments(intervals_of, locals())
    lives: dict[AgentId, Life] = {}
    at_seconds = 0.0
    for event in events:
        at_seconds = max(at_seconds, event.at_seconds)
        if isinstance(event, AgentSpawned):
            lives[event.agent_id] = Life(event.at_seconds)
        elif event.agent_id in lives:
            lives[event.agent_id].take(event)
    return {agent_id: life.done(at_seconds) for agent_id, life in lives.items()}


@final
class Life(Record):
    """The intervals of one agent so far."""

    since: float
    """When the current interval began."""
    ended: bool = False
    _intervals: list[Interval] = []  # noqa: RUF012  # each has its own
    _queued: bool = True
    _parked: AgentParked | None = None
    _requests: dict[int, bool] = {}  # noqa: RUF012  # each has its own
    """The requests under way, and whether an answer has begun to arrive."""
    _answers: int = 0
    """How many answers are arriving."""
    _tools: dict[str, str] = {}  # noqa: RUF012  # each has its own
    """The calls that are running, and their tools."""

    def take(self, event: Event) -> None:
        """Handle *event*."""
        if self.ended or type(event) not in _CHANGES:
            return
        before = self._now()
        if self._ends_with(event) or self._now() != before:
            self._close(event.at_seconds, before)

    def done(self, at_seconds: float) -> tuple[Interval, ...]:
        """Return the intervals. The last one ends now if the agent has not ended."""
        if not self.ended:
            self._close(at_seconds, self._now())
        return tuple(self._intervals)

    def going_on(self, at_seconds: float) -> Interval:
        """Return the current interval as if it ended at *at_seconds*."""
        return Interval(self.since, at_seconds, *self._now())

    @property
    def now(self) -> tuple[Reason, str]:
        """Why the agent has not ended yet: what it waits for or runs."""
        return self._now()[:2]

    @property
    def latest(self) -> list[Interval]:
        """The agent's last intervals, without the current one."""
        return self._intervals[-SHOWN_INTERVALS:]

    def _ends_with(self, event: Event) -> bool:
        """Handle *event*. Return whether the agent ends with it."""
        match event:
            case AgentQueued():
                self._queued = True
            case AgentStarted() | AgentResumed():
                self._queued, self._parked = False, None
            case AgentParked():
                self._queued, self._parked = False, event
            case RequestStarted():
                self._answers -= self._requests.get(event.sequence, False)
                self._requests[event.sequence] = False
            case RequestFirstPiece():
                self._answers += not self._requests.get(event.request_id, False)
                self._requests[event.request_id] = True
            case CompletionReceived() | RequestFailed():
                self._answers -= self._requests.pop(event.request_id, False)
            case ToolStarted():
                self._tools[event.call.call_id] = event.call.name
            case ToolFinished():
                self._tools.pop(event.call.call_id, None)
            case _:  # the last of those that change something
                self.ended = True
        return self.ended

    def _now(self) -> tuple[Reason, str, AgentId | None]:
        """Return the current reason and its subject."""
        if self._queued:
            return Reason.QUEUED, "", None
        if self._parked is not None:
            parked = self._parked
            reason = _WAITS.get(parked.reason, Reason.PARKED)
            return reason, parked.waits_for, parked.target_id
        if self._requests:
            return Reason.ANSWER if self._answers else Reason.MODEL, "", None
        if self._tools:
            # Of many their number: a text of all of them, for each of them, is a bomb.
            few = len(self._tools) <= NAMED_CALLS
            return (
                Reason.TOOL,
                (", ".join(self._tools.values()) if few else f"{len(self._tools):,} calls"),
                None,
            )
        return Reason.OWN, "", None

    def _close(self, at_seconds: float, what: tuple[Reason, str, AgentId | None]) -> None:
        if at_seconds > self.since:
            self._intervals.append(Interval(self.since, at_seconds, *what))
            self.since = at_seconds


_CHANGES: Final = frozenset(
    {
        AgentQueued,
        AgentStarted,
        AgentResumed,
        AgentParked,
        RequestStarted,
        RequestFirstPiece,
        CompletionReceived,
        RequestFailed,
        ToolStarted,
        ToolFinished,
        AgentFinished,
    }
)
