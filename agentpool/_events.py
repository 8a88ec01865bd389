"""What happens in a pool, as values in one total order.

Every event carries its place in the order, the time and the agent. Lifecycle events
(spawned, started, finished) are never dropped on the way to a reader; all others may be,
and the reader is told how many were.
"""

from __future__ import annotations

import enum
from typing import TypeAlias, final

import msgspec

from agentpool._messages import AgentId, AgentMessage, FinishReason, ToolCall, Usage
from agentpool._outcome import AgentOutcome, StopReason


class Phase(enum.Enum):
    """What an agent is doing."""

    PERCEIVE = "perceive"
    """It looks at what it knows and what it was told."""
    REASON = "reason"
    """It waits for the model."""
    ACT = "act"
    """It runs tools."""
    DONE = "done"
    """It has its answer."""


class _Event(msgspec.Struct, frozen=True):
    sequence: int
    """1, 2, 3, … across the pool: the order in which things happened."""
    at_seconds: float
    """Seconds since the pool opened."""
    agent_id: AgentId
    """Whom it concerns. 0: the pool itself."""
    agent_name: str
    """That agent's name. Empty for the pool itself."""


@final
class AgentSpawned(_Event, frozen=True, gc=False):
    """A spawn was accepted. Lifecycle."""

    parent_id: AgentId
    """Who spawned it. 0: the owner."""


@final
class AgentStarted(_Event, frozen=True, gc=False):
    """The agent got its first slot. Lifecycle."""


@final
class AgentFinished(_Event, frozen=True):
    """The agent ended. Lifecycle, and its last event."""

    outcome: AgentOutcome
    """What became of it."""


@final
class AgentParked(_Event, frozen=True, gc=False):
    """The agent gave its slot back while it waits."""

    waits_for: str
    """What it waits for, in words: ``agent 3 (critic)``, ``a message``, …"""


@final
class AgentResumed(_Event, frozen=True, gc=False):
    """The agent took a slot again."""


@final
class PhaseChanged(_Event, frozen=True, gc=False):
    """The agent went on to another phase."""

    phase: Phase
    """The phase that begins."""
    tool_name: str = ""
    """In ``ACT``: the tool. Empty otherwise."""


@final
class TextDelta(_Event, frozen=True, gc=False):
    """The model wrote a piece of its answer."""

    text: str
    """The piece."""


@final
class CompletionReceived(_Event, frozen=True, gc=False):
    """The model answered."""

    finish_reason: FinishReason
    """Why it stopped writing."""
    usage: Usage | None
    """Tokens of this answer. ``None``: the provider did not say."""
    duration_seconds: float
    """From the request to the end of the answer, retries included."""


@final
class RequestRetried(_Event, frozen=True, gc=False):
    """A request failed and is tried again."""

    attempt: int
    """Which attempt failed, from 1."""
    delay_seconds: float
    """How long the agent waits before the next one."""
    error: str
    """What the attempt failed with."""


@final
class ToolStarted(_Event, frozen=True, gc=False):
    """A tool call begins."""

    call: ToolCall
    """The call."""


@final
class ToolFinished(_Event, frozen=True, gc=False):
    """A tool call ended."""

    call: ToolCall
    """The call."""
    content: str
    """Its result, or the text of its error."""
    is_error: bool
    """Whether it failed."""


@final
class ApprovalAsked(_Event, frozen=True, gc=False):
    """A tool call waits for somebody's word."""

    call: ToolCall
    """The call."""


@final
class ApprovalGiven(_Event, frozen=True, gc=False):
    """Somebody said whether a tool call may run, or nobody did in time."""

    call: ToolCall
    """The call, with the arguments that it runs with."""
    approved: bool
    """Whether it runs."""
    reason: str
    """Why it does not run. Empty: no reason was given, or it runs."""


@final
class AgentWarned(_Event, frozen=True, gc=False):
    """Something is near a limit, or was tolerated."""

    text: str
    """What."""


@final
class BudgetNear(_Event, frozen=True, gc=False):
    """Four fifths of a limit are used. Told once for each limit of a budget.

    The agent of the event is the one whose request was counted last.
    """

    budget: str
    """The budget's name."""
    kind: StopReason
    """Which of its limits, by what it would stop an agent with."""
    used: float
    """How much of it was used, in its own unit."""
    limit: float
    """How much is allowed, in the same unit."""


@final
class BudgetReached(_Event, frozen=True, gc=False):
    """A limit is reached, or leaves too little for somebody. Told once for each limit.

    The agent of the event is the one whose request was counted, or refused.
    """

    budget: str
    """The budget's name."""
    kind: StopReason
    """Which of its limits, by what it stops agents with."""
    used: float
    """How much of it was used, in its own unit."""
    limit: float
    """How much is allowed, in the same unit."""


@final
class MessageSent(_Event, frozen=True, gc=False):
    """A message was accepted. The agent of the event is the sender."""

    message: AgentMessage
    """The message."""


@final
class MessageDropped(_Event, frozen=True, gc=False):
    """An accepted message became a dead letter. The agent of the event is the recipient."""

    message: AgentMessage
    """The message."""
    reason: str
    """Why nobody will read it."""


@final
class EventsMissed(_Event, frozen=True, gc=False):
    """A reader was too slow: it stands where events are missing."""

    count: int
    """How many events were left out just before this one."""


Event: TypeAlias = (
    AgentSpawned
    | AgentStarted
    | AgentFinished
    | AgentParked
    | AgentResumed
    | PhaseChanged
    | TextDelta
    | CompletionReceived
    | RequestRetried
    | ApprovalAsked
    | ApprovalGiven
    | ToolStarted
    | ToolFinished
    | AgentWarned
    | BudgetNear
    | BudgetReached
    | MessageSent
    | MessageDropped
    | EventsMissed
)
"""Anything that can happen in a pool."""

LIFECYCLE = (AgentSpawned, AgentStarted, AgentFinished)
"""The events that no reader misses."""
