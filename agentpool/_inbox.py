"""One agent's inbox: a bounded memory channel, made when the first message comes."""

from __future__ import annotations

from typing import final

import attrs
import trio

from agentpool._errors import AgentGoneError, InboxFullError
from agentpool._messages import AgentId, AgentMessage
from agentpool._slot import parked
from agentpool._waits import Wait


@final
@attrs.define(eq=False, repr=False)
class Inbox:
    """Where the messages of one agent wait."""

    owner_id: AgentId
    capacity: int
    """Messages that may wait. One more makes its sender wait."""
    _send: trio.MemorySendChannel[AgentMessage] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[AgentMessage] = attrs.field(init=False)
    _turns: trio.lowlevel.ParkingLot = attrs.field(init=False, factory=trio.lowlevel.ParkingLot)
    """Senders that wait. Not the channel's own queue of them: that takes a message in while
    its sender is elsewhere, and nobody can tell at that moment that it was sent."""
    _promised: int = attrs.field(init=False, default=0)
    """Places that are kept for senders who waited and have not taken their next step."""
    _closed: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Open the channel."""
        self._send, self._receive = trio.open_memory_channel[AgentMessage](self.capacity)

    @property
    def waiting(self) -> int:
        """Messages that wait to be received."""
        return self._receive.statistics().current_buffer_used

    async def wait_turn(self) -> None:
        """Wait until a place is kept for the caller, who then puts a message in at once.

        Raises:
            AgentGoneError: If the agent has ended.

        Cancellation:
            No place is kept.
        """
        await self._turns.park()
        if self._closed:
            raise self._gone()

    def take_turn(self) -> None:
        """Take the place that was kept, to put something in at once, or to leave it."""
        self._promised -= 1

    def send_nowait(self, message: AgentMessage) -> None:
        """Put *message* in now.

        Raises:
            InboxFullError: If there is no room. Nothing was sent.
            AgentGoneError: If the agent has ended. Nothing was sent.
        """
        if self._closed:
            raise self._gone()
        if self.waiting + self._promised >= self.capacity:
            raise InboxFullError(
                f"the inbox of agent {self.owner_id} is full ({self.capacity} messages); "
                "wait with send(), or raise inbox_capacity",
                recipient=self.owner_id,
            )
        self._send.send_nowait(message)

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take everything that is here, waiting without a slot until something is.

        Raises:
            AgentGoneError: If the inbox was closed: nothing will come.

        Cancellation:
            If cancelled, nothing was taken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        taken = self.receive_many_nowait()
        if taken:
            # Taken messages must not be lost to a cancellation.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return taken
        async with parked(Wait.message()):
            try:
                first = await self._receive.receive()
            except trio.ClosedResourceError:
                raise self._gone() from None
        # It was handed over by its sender, and never took a place.
        return (first, *self.receive_many_nowait())

    def receive_many_nowait(self) -> tuple[AgentMessage, ...]:
        """Take everything that is here, perhaps nothing."""
        taken: list[AgentMessage] = []
        while True:
            try:
                taken.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.ClosedResourceError):
                break
        # Who waits comes before who comes later: the places that are free now are theirs.
        self._promised += len(self._turns.unpark(count=len(taken)))
        return tuple(taken)

    def close(self) -> tuple[AgentMessage, ...]:
        """Take no more, fail whoever waits for a turn, and return what nobody received."""
        self._closed = True
        left = self.receive_many_nowait()
        self._receive.close()
        self._turns.unpark_all()
        return left

    def _gone(self) -> AgentGoneError:
        who = f"agent {self.owner_id} has ended" if self.owner_id else "the pool has closed"
        return AgentGoneError(f"{who}; its inbox is closed", recipient=self.owner_id)
