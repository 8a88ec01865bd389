"""Events about what agents share: budgets, messages, slots, and missed events."""

from __future__ import annotations

from typing import final

from agentpool._events.base import EventBase
from agentpool._messages import AgentMessage
from agentpool._outcome import StopReason


@final
class BudgetNear(EventBase, frozen=True, gc=False):
    """Four fifths of a limit are used. Sent once for each limit of a budget.

    The agent of the event is the one whose request was counted last.
    """

    budget: str
    """The budget's name."""
    kind: StopReason
    """Which of its limits, named by the ``StopReason`` that it gives."""
    used: float
    """How much of it was used, in its own unit."""
    limit: float
    """How much is allowed, in the same unit."""


@final
class BudgetReached(EventBase, frozen=True, gc=False):
    """A limit is reached, or leaves too little for a request. Sent once for each limit.

    The agent of the event is the one whose request was counted, or refused.
    """

    budget: str
    """The budget's name."""
    kind: StopReason
    """Which limit, named by the ``StopReason`` that it gives."""
    used: float
    """How much of it was used, in its own unit."""
    limit: float
    """How much is allowed, in the same unit."""


@final
class MessageSent(EventBase, frozen=True, gc=False):
    """A message was accepted. The event's agent is the sender."""

    message: AgentMessage
    """The message."""


@final
class MessageDropped(EventBase, frozen=True, gc=False):
    """An accepted message became a dead letter. The event's agent is the recipient."""

    message: AgentMessage
    """The message."""
    reason: str
    """Why it will never be read."""


@final
class SlotsChanged(EventBase, frozen=True, gc=False):
    """The number of slots of the pool was changed."""

    max_concurrent: float
    """Slots from now on."""


@final
class EventsMissed(EventBase, frozen=True, gc=False):
    """A slow reader missed events. This event takes their place."""

    count: int
    """How many events were left out just before this one."""
