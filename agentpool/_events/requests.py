"""Events of requests to a model, by an agent or one of its tools."""

from __future__ import annotations

from typing import final

import msgspec

from agentpool._events.base import EventBase
from agentpool._messages import NO_USAGE, AgentId, ChatMessage, FinishReason, Usage


@final
class MessagesAdded(EventBase, frozen=True, gc=False):
    """The conversation has grown. Sent before the request that contains the new messages."""

    place: int
    """The place of the first of these messages in the conversation, from 0."""
    messages: tuple[ChatMessage, ...]
    """The new messages, oldest first."""
    after: AgentId = 0
    """In a file: the agent whose conversation this one continues. That agent's first messages come
    before the messages of this event. 0: there is no such agent."""
    shared: int = 0
    """How many first messages of that agent these are."""


@final
class LostRequest(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The charge for a request that was sent and not answered completely. Not an event itself."""

    usage: Usage = NO_USAGE
    """Tokens that its agent counts: as the provider measured them, or an estimate of the text
    that had come."""
    cost_usd: float | None = 0.0
    """US dollars that its agent counts. ``None``: unknown."""
    is_measured: bool = True
    """Whether ``usage`` is exact. It is exactly zero if the provider refused the request. A
    ``usage`` that is not exact is an estimate of the text that had come."""
    charged_tokens: int | None = None
    """Estimated tokens that a budget was charged instead of ``usage``. ``None``: it was charged
    the known usage, or no budget pays."""
    charged_usd: float | None = None
    """Estimated US dollars that a budget was charged. ``None``: it was charged the known cost, or
    there is no price, or no budget pays."""


@final
class RequestStarted(EventBase, frozen=True, gc=False):
    """An attempt to ask a model begins. Its ``sequence`` is the number of the request."""

    turn: int
    """The turn that it belongs to."""
    attempt: int
    """Which attempt, from 1."""
    model: str
    """The model that is asked. Empty: the driver's own."""
    by_tool: bool
    """Whether a tool asks, on behalf of the agent."""
    sent: tuple[tuple[int, int], ...]
    """The messages of the conversation that are sent, as places ``(start, stop)``; ``stop`` is not
    sent. Empty if a tool asks."""
    budget: str = ""
    """The budget that pays. Empty: no budget pays."""
    reserved_tokens: int | None = None
    """Tokens reserved in it for this attempt. ``None``: none were reserved."""
    reserved_usd: float | None = None
    """US dollars reserved in it. ``None``: none were reserved, or there is no price."""


@final
class RequestFirstPiece(EventBase, frozen=True, gc=False):
    """The first piece of an answer arrived."""

    request_id: int
    """The ``sequence`` of its ``RequestStarted``."""
    seconds: float
    """Seconds from that event to this one."""


@final
class TextDelta(EventBase, frozen=True, gc=False):
    """A piece of the answer arrived."""

    text: str
    """The piece."""


@final
class ThoughtDelta(EventBase, frozen=True, gc=False):
    """A piece of the model's thoughts arrived. It is not part of the answer."""

    text: str
    """The piece."""


@final
class CompletionReceived(EventBase, frozen=True, gc=False):
    """The model answered."""

    finish_reason: FinishReason
    """Why it stopped writing."""
    usage: Usage | None
    """Tokens of this answer. ``None``: the provider did not say."""
    duration_seconds: float
    """From the request to the end of the answer, including retries."""
    request_id: int = 0
    """The ``sequence`` of its ``RequestStarted``. 0: it was not watched from its start."""
    turn: int = 0
    """The turn that it belongs to."""
    attempt: int = 1
    """Which attempt was answered, from 1."""
    model: str | None = None
    """The model that answered. ``None``: neither the provider nor the manifest named it."""
    cost_usd: float | None = None
    """US dollars. ``None``: there is no price."""
    first_piece_seconds: float | None = None
    """From the start of this attempt to its first piece. ``None``: it came as a whole."""
    by_tool: bool = False
    """Whether a tool asked, on behalf of the agent."""
    node: str = ""
    """The node of a cluster that was asked. Empty: no node was asked."""
    charged_tokens: int | None = None
    """Estimated tokens that a budget was charged, since ``usage`` is unknown. ``None``: it was
    charged the known usage, or no budget pays."""
    charged_usd: float | None = None
    """Estimated US dollars that a budget was charged, since ``cost_usd`` is unknown. ``None``: it
    was charged the known cost, or nothing."""
    lost: tuple[LostRequest, ...] = ()
    """The drivers that were asked before the one that answered, in the same attempt."""
    attempt_seconds: float | None = None
    """The duration of the answered attempt alone, without earlier attempts and waits. ``None``:
    its start was not seen."""


@final
class RequestFailed(EventBase, frozen=True, gc=False):
    """An attempt ended without a complete answer."""

    request_id: int
    """The ``sequence`` of its ``RequestStarted``."""
    attempt: int
    """Which attempt, from 1."""
    error_type: str
    """The type of the error; ``Cancelled`` if the request was given up."""
    error: str
    """The error's text."""
    by_tool: bool
    """Whether a tool asked."""
    node: str = ""
    """The node of a cluster that was asked. Empty: no node was asked."""
    lost: tuple[LostRequest, ...] | None = None
    """The charge for each driver that was asked. Empty: no request had been sent. ``None``:
    unknown, because the trace is of an earlier version."""


@final
class RequestRetried(EventBase, frozen=True, gc=False):
    """A request failed and is tried again."""

    attempt: int
    """Which attempt failed, from 1."""
    delay_seconds: float
    """How long the agent waits before the next one."""
    error: str
    """The error of the attempt."""


@final
class FellBack(EventBase, frozen=True, gc=False):
    """One of several drivers failed, and the next one is asked."""

    driver: int
    """Which one failed, from 1."""
    next_driver: int
    """Which one is asked."""
    error_type: str
    """The type of the error. Empty: the driver was skipped, since it had failed too often."""
    error: str
    """The error's text."""
    model: str = ""
    """The model of the one that failed. Empty: it is not known."""
    next_model: str = ""
    """The model of the one that is asked. Empty: it is not known."""

    def words(self) -> str:
        """Return which driver took over from which, and why, for people."""
        why = (
            f"{self.error_type}: {self.error}"
            if self.error_type
            else "it was skipped, since it had failed too often"
        )
        model = self.model or f"driver {self.driver}"
        return f"from {model} to {self.next_model or f'driver {self.next_driver}'}: {why}"


@final
class GateChanged(EventBase, frozen=True, gc=False):
    """A provider's refusal closed a gate or lowered its limit."""

    gate: str
    """The gate's name."""
    limit: int
    """Requests that may be in flight from now on."""
    in_flight: int
    """Requests that are in flight now."""
    waiting: int
    """Requests that wait."""
    closed_seconds: float
    """How long it stays closed. 0.0: it is open."""
