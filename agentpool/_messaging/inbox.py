"""The inbox of one agent: bounded, and made when its first message arrives."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import AgentGoneError, InboxFullError
from agentpool._messages import AgentId, AgentMessage
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.pace import Pace
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitBook


def _no_messages() -> deque[AgentMessage]:
    return deque()


def _number_of(message: AgentMessage) -> int:
    return message.message_id


@final
class Inbox(Live):
    """The waiting messages of one agent.

    This is not a memory channel, which would accept the message of a waiting sender before the
    sender runs again. If the sender were cancelled at that point, it could not learn that its
    message was sent.
    """

    owner_id: AgentId
    capacity: int
    """Messages that may wait. One more makes its sender wait."""
    turns: Lot = msgspec.field(default_factory=Lot)
    """Senders that wait for room."""
    book: WaitBook = msgspec.field(default_factory=WaitBook)
    """Counts the readers that were woken and have not run yet."""
    _messages: deque[AgentMessage] = msgspec.field(default_factory=_no_messages)
    _readers: Lot = msgspec.field(default_factory=Lot)
    """The readers that wait for a message."""
    _promised: int = 0
    """Places that are kept for senders who were woken and have not run yet."""
    _handed: int = 0
    """Messages for readers that were woken. These do not count as waiting."""
    _closed: bool = False

    @property
    def waiting(self) -> int:
        """Messages that wait to be received."""
        return len(self._messages)

    def restore(self, messages: Iterable[AgentMessage]) -> None:
        """Add messages that were accepted earlier, in their order, even if the inbox is full."""
        for message in messages:
            insort(self._messages, message, key=_number_of)
        if self._readers:
            self._handed += self._readers.unpark(1)
            self.book.woken += 1

    async def wait_turn(self) -> None:  # noqa: ASYNC910  # its caller has a checkpoint
        """Wait for a place, or keep one that is free. Put the message in immediately afterwards.

        Raises:
            AgentGoneError: If the agent has ended.

        Cancellation:
            No place is kept.
        """
        if not (self._closed or self._promised or self.turns.sleepers) and self._has_place:
            self._promised += 1
        elif not self._closed:
            await self.turns.park()
        if self._closed:
            raise self._gone()

    def take_turn(self) -> None:
        """Use the kept place. Put a message in immediately, then call ``wake_senders``."""
        self._promised -= 1

    def wake_senders(self) -> None:
        """Keep the next free place for the sender that has waited longest.

        Senders are woken one at a time, and each wakes the next one when its message is in: several
        woken together would run in any order.
        """
        if self.turns and not self._promised and self._has_place:
            self._promised += self.turns.unpark(1)

    @property
    def _has_place(self) -> bool:
        return len(self._messages) - self._handed < self.capacity

    def send_nowait(self, message: AgentMessage, *, has_turn: bool = False) -> None:
        """Put *message* into the inbox now.

        Args:
            message: The message.
            has_turn: Whether its sender has waited for a place, and took its turn.

        Raises:
            InboxFullError: If there is no room, or others wait for it. Nothing was sent.
            AgentGoneError: If the agent has ended. Nothing was sent.
        """
        if self._closed:
            raise self._gone()
        messages = self._messages
        if not has_turn and (
            len(messages) - self._handed >= self.capacity or self._promised or self.turns.sleepers
        ):
            raise InboxFullError(
                f"the inbox of agent {self.owner_id} is full ({self.capacity} messages); "
                "wait with send(), or increase inbox_capacity",
                recipient=self.owner_id,
            )
        messages.append(message)
        if self._readers.sleepers:
            self._handed += self._readers.unpark(1)
            self.book.woken += 1

    async def receive_many(
        self, pool_owner: Owner | None = None, pace: Pace | None = None
    ) -> tuple[AgentMessage, ...]:
        """Take all waiting messages. If there are none, wait for one without a slot.

        Args:
            pool_owner: The owner of the pool. ``None``: the inbox belongs to no pool.
            pace: Decides when to yield even though there are messages. ``None``: always yield.

        Raises:
            AgentGoneError: If the inbox was closed, so that no message can arrive.
            DeadlockError: If no agent is left that could send anything.

        Cancellation:
            If cancelled, nothing was taken.
        """
        messages = self._messages
        if messages:
            await trio.lowlevel.checkpoint_if_cancelled()
            taken = self.receive_many_nowait()
            if pace is None or pace.is_due():
                # Taken messages must not be lost to a cancellation.
                await trio.lowlevel.cancel_shielded_checkpoint()
            return taken
        # Whoever was just written to may answer in its next step, and to wait costs more. In one
        # tick tasks run in any order: an answer that the first look misses is there at the second.
        await trio.lowlevel.checkpoint()
        if not messages:
            await trio.lowlevel.checkpoint()
        while not messages:  # another task of the agent may have been quicker
            if self._closed:
                raise self._gone()
            async with parked(Wait.message(), self._readers, pool_owner):
                if not (messages or self._closed):
                    await self._readers.park()
                    self.book.woken -= 1
        return self.receive_many_nowait()

    def receive_many_nowait(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages, if there are any."""
        taken = tuple(self._messages)
        if taken:
            self._messages.clear()
            self._handed = 0
            # Also when all that was taken was handed to readers and took no place.
            self.wake_senders()
        return taken

    def close(self) -> tuple[AgentMessage, ...]:
        """Close the inbox, raise an error in all waiting calls, and return the unread messages."""
        self._closed = True
        left = self.receive_many_nowait()
        self.book.woken += len(self._readers)
        self._readers.unpark_all()
        self.turns.unpark_all()
        return left

    def _gone(self) -> AgentGoneError:
        who = f"agent {self.owner_id} has ended" if self.owner_id else "the pool has closed"
        return AgentGoneError(f"{who}; its inbox is closed", recipient=self.owner_id)
