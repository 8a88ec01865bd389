"""What happens in a pool, as values in one total order.

Every event carries its place in the order, the time and the agent. Lifecycle events
(spawned, started, finished) are never dropped on the way to a reader; all others may be,
and the reader is told how many were.
"""

from __future__ import annotations

import enum
from typing import TypeAlias, final

import attrs

from agentpool._messages import AgentId, AgentMessage, FinishReason, ToolCall, Usage
from agentpool._outcome import AgentOutcome


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


@attrs.frozen
class _Event:
    sequence: int
    """1, 2, 3, … across the pool: the order in which things happened."""
    at_seconds: float
    """Seconds since the pool opened."""
    agent_id: AgentId
    """Whom it concerns. 0: the pool itself."""
    agent_name: str
    """That agent's name. Empty for the pool itself."""


@final
@attrs.frozen
class AgentSpawned(_Event):
    """A spawn was accepted. Lifecycle."""

    parent_id: AgentId
    """Who spawned it. 0: the owner."""


@final
@attrs.frozen
class AgentStarted(_Event):
    """The agent got its first slot. Lifecycle."""


@final
@attrs.frozen
class AgentFinished(_Event):
    """The agent ended. Lifecycle, and its last event."""

    outcome: AgentOutcome
    """What became of it."""


@final
@attrs.frozen
class AgentParked(_Event):
    """The agent gave its slot back while it waits."""

    waits_for: str
    """What it waits for, in words: ``agent 3 (critic)``, ``a message``, …"""


@final
@attrs.frozen
class AgentResumed(_Event):
    """The agent took a slot again."""


@final
@attrs.frozen
class PhaseChanged(_Event):
    """The agent went on to another phase."""

    phase: Phase
    """The phase that begins."""
    tool_name: str = ""
    """In ``ACT``: the tool. Empty otherwise."""


@final
@attrs.frozen
class TextDelta(_Event):
    """The model wrote a piece of its answer."""

    text: str
    """The piece."""


@final
@attrs.frozen
class CompletionReceived(_Event):
    """The model answered."""

    finish_reason: FinishReason
    """Why it stopped writing."""
    usage: Usage | None
    """Tokens of this answer. ``None``: the provider did not say."""
    duration_seconds: float
    """From the request to the end of the answer, retries included."""


@final
@attrs.frozen
class RequestRetried(_Event):
    """A request failed and is tried again."""

    attempt: int
    """Which attempt failed, from 1."""
    delay_seconds: float
    """How long the agent waits before the next one."""
    error: str
    """What the attempt failed with."""


@final
@attrs.frozen
class ToolStarted(_Event):
    """A tool call begins."""

    call: ToolCall
    """The call."""


@final
@attrs.frozen
class ToolFinished(_Event):
    """A tool call ended."""

    call: ToolCall
    """The call."""
    content: str
    """Its result, or the text of its error."""
    is_error: bool
    """Whether it failed."""


@final
@attrs.frozen
class AgentWarned(_Event):
    """Something is near a limit, or was tolerated."""

    text: str
    """What."""


@final
@attrs.frozen
class MessageSent(_Event):
    """A message was accepted. The agent of the event is the sender."""

    message: AgentMessage
    """The message."""


@final
@attrs.frozen
class MessageDropped(_Event):
    """An accepted message became a dead letter. The agent of the event is the recipient."""

    message: AgentMessage
    """The message."""
    reason: str
    """Why nobody will read it."""


@final
@attrs.frozen
class EventsMissed(_Event):
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
    | ToolStarted
    | ToolFinished
    | AgentWarned
    | MessageSent
    | MessageDropped
    | EventsMissed
)
"""Anything that can happen in a pool."""

LIFECYCLE = (AgentSpawned, AgentStarted, AgentFinished)
"""The events that no reader misses."""
