"""The records of a journal: one for each thing that must not be done twice.

A journal holds the *results* of what a run asked for, never its conversation: the loop,
given the same results, asks for the same things again. So the size of a journal grows with the
number of turns, not with its square.

Every record belongs to one agent and one place of its run. Places count what the loop asked
for: 0 for its first effect, 1 for its second. Records of one agent are read in the order in
which they were written.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from functools import cache
from typing import Final, TypeVar, cast, final

import msgspec

from agentpool._errors import AgentPoolError, JournalError
from agentpool._messages import AgentId

T = TypeVar("T")

_UNREADABLE: Final = (msgspec.MsgspecError, AgentPoolError, ValueError, TypeError, RecursionError)

BEFORE_THE_RUN = -1
"""The place of records about the agent as a whole."""


class RecordKind(enum.Enum):
    """The kind of a record."""

    ACCEPTED = "accepted"
    """The agent was accepted. The body is what it is to do."""
    STARTED = "started"
    """A request was sent, or a tool call began. Without a result it may or may not have been
    done. The body is the key of the call, or what a budget has reserved for the request."""
    RESULT = "result"
    """A request or call ended. The body is its result."""
    LOST = "lost"
    """A request that was sent got no answer. The body is its usage."""
    SENT = "sent"
    """A message was accepted by the router. The body is the message; the part is 1 if its
    sender waits for the answer."""
    TAKEN = "taken"
    """Messages were taken from an inbox later than at the beginning of a turn. The body is their
    ids."""
    ASKED = "asked"
    """An approval was asked for. The body is the call."""
    ANSWERED = "answered"
    """An approval was given or denied. The body says which."""
    ENDED = "ended"
    """The agent has ended. The body is its outcome, without the messages that its history already
    has. The part is the number of messages that are left out."""
    HEAD = "head"
    """A session continues after this agent's turn; later turns no longer count. 0: the session
    continues from its beginning."""
    ASIDE = "aside"
    """A tool asks a model. The body is what that may use, or has used, until its call has a
    result. The digest numbers the requests of a call."""
    SPENT = "spent"
    """What the agent had spent according to records that were pruned. The body is the totals."""


@final
class JournalRecord(msgspec.Struct, frozen=True, gc=False):
    """One event in a pool, as a journal stores it."""

    agent_id: AgentId
    """The agent of the run. 0 is the pool's owner, for messages that the owner sent."""
    kind: RecordKind
    """The kind of the record."""
    place: int = BEFORE_THE_RUN
    """Which effect of the run. -1: the run as a whole."""
    part: int = 0
    """Which call of the effect, for tool calls that run side by side."""
    digest: str = ""
    """Short hash of what was asked for, so that a changed program is noticed. Empty: no hash."""
    body: bytes = b""
    """JSON. What it says depends on the kind."""


def begins_call(record: JournalRecord) -> bool:
    """Return whether a ``STARTED`` record is of a call, whose body is its key, or of a request."""
    return bool(record.body) and not record.body.startswith(b"{")


@final
class Lease(msgspec.Struct, frozen=True):
    """The right to write the records of one pool, until another process takes over."""

    pool: str
    """The pool's name in the journal."""
    fence: int
    """Rises with every owner. A record with an older fence is refused."""
    seconds: float
    """How long the lease lasts after the last write. An owner that stalls for longer loses it."""


@final
class LeaseHolder(msgspec.Struct, frozen=True):
    """The process that owns the records of a pool."""

    host: str
    """The machine's name."""
    pid: int
    """The process on that machine."""
    started: str
    """When that process started, as its system reports it, since process ids are used again.
    Empty: unknown."""
    opening: int = 0
    """Which opening of the journal in that process. 0: unknown, since an earlier version wrote
    this."""


@final
class PoolSummary(msgspec.Struct, frozen=True):
    """One pool of a journal, in numbers."""

    pool: str
    """Its name."""
    created_at: float
    """When its first record was written, in seconds since 1970."""
    agents: int
    """Agents that were accepted."""
    ended: int
    """Agents that have an outcome."""
    bytes: int
    """The size of its records in the file."""
    owner: LeaseHolder | None
    """Who writes it now. ``None``: it is not being written."""
    ahead_seconds: float = 0.0
    """How far its last write is ahead of this machine's clock, because the clock was set back or
    another machine wrote. 0: it is not ahead."""

    @property
    def is_open(self) -> bool:
        """Whether some of its agents have no outcome yet."""
        return self.ended < self.agents


@cache
def _decoder_of(kind: Hashable) -> msgspec.json.Decoder[object]:
    # Made for the first body: to make them all is a tenth of ``import agentpool``.
    return msgspec.json.Decoder(cast("type[object]", kind))


def read_body(body: bytes, kind: type[T]) -> T:
    """Parse the body of a record.

    Args:
        body: JSON.
        kind: The type of what it holds.

    Raises:
        JournalError: If the body is not of that type: the file was damaged, or made to harm.
    """
    try:
        return cast("T", _decoder_of(cast("Hashable", kind)).decode(body))
    except _UNREADABLE as error:
        raise JournalError(
            f"the journal has a record that cannot be read: {error}; restore the file from a copy"
        ) from error
