"""The tool call that the current task serves, in a pool with a journal."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, final

import msgspec

from agentpool._base import Live
from agentpool._messages import AgentMessage, Usage


@final
class Loss(msgspec.Struct, frozen=True, gc=False):
    """The usage of a request that was sent and not answered."""

    tokens: int
    """Tokens that a budget is charged."""
    cost_usd: float | None
    """US dollars that a budget is charged. ``None``: unknown."""
    written: int | None = None
    """The run's estimate for the text that had come. ``None``: the request was refused, or its
    process ended, so the run counts nothing."""
    price: float | None = None
    """US dollars for the run. ``None``: unknown."""
    was_cut: bool = False
    """Whether the request was cancelled. Its run can make the same request again only in a
    different process."""
    usage: Usage | None = None
    """Tokens, as the provider measured them. ``None``: unknown."""
    is_repeated: bool = False
    """Whether its process had ended, and the request was made again."""
    is_unsent: bool = False
    """Whether the request never left, so that it does not count."""
    is_reserved: bool = False
    """Whether these are the amounts that were reserved, because what was used is unknown."""


UNSENT: Final = Loss(0, 0.0, is_unsent=True)
"""The usage of a request that never left."""


@final
class Charge(msgspec.Struct, frozen=True, gc=False):
    """The usage of a child, or of a model that a tool asked."""

    usage: Usage | None
    """Tokens. ``None``: unknown."""
    cost_usd: float | None
    """US dollars. ``None``: unknown."""
    requests: int
    """Requests to a model. 0: a child made the requests, which are in its own records."""
    unmeasured: int = 0
    """Requests of a child whose usage is unknown."""
    reserved: Loss | None = None
    """What budgets are charged for what is unknown. ``None``: everything is known."""


@final
class ServedCall(Live):
    """One tool call, and the work done for it so far."""

    part: int
    """Its place among the calls of its answer."""
    key: str
    """Its idempotency key."""
    digest: str
    """Short hash of what is called with what."""
    charges: list[Charge] = []  # noqa: RUF012  # each has its own
    """What was charged to the agent for it."""
    losses: list[Loss] = []  # noqa: RUF012  # each has its own
    """The requests that it made and that broke off."""
    taken: list[int] = []  # noqa: RUF012  # each has its own
    """The numbers of the messages that it took from its agent's inbox."""
    asked: int = 0
    """Requests to models that it made so far."""
    children: int = 0
    """Agents that it spawned so far."""
    messages: int = 0
    """Messages that it sent so far."""

    def child_key(self, ahead: int = 0) -> str:
        """Return the key of the next agent that the call spawns, after skipping *ahead* keys."""
        return f"{self.key}/{self.children + ahead + 1}"

    def own_key(self, key: str) -> str:
        """Return the full key of an agent that the call spawns under *key*."""
        return f"{self.key}/:{key}"


current_call: ContextVar[ServedCall | None] = ContextVar("current_call", default=None)


def note_taken(*messages: AgentMessage) -> None:
    """Record that the current tool call has received *messages*."""
    call = current_call.get()
    if call is not None:
        call.taken.extend(message.message_id for message in messages)
