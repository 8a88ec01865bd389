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
@attrs.define(eq=False)
class Inbox:
    """Where the messages of one agent wait."""

    owner_id: AgentId
    capacity: int
    """Messages that may wait. One more makes its sender wait."""
    _send: trio.MemorySendChannel[AgentMessage] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[AgentMessage] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Open the channel."""
        self._send, self._receive = trio.open_memory_channel[AgentMessage](self.capacity)

    @property
    def waiting(self) -> int:
        """Messages that wait to be received."""
        return self._receive.statistics().current_buffer_used

    async def send(self, message: AgentMessage) -> None:
        """Put *message* in, waiting for room without a slot.

        Raises:
            AgentGoneError: If the agent ended meanwhile. Nothing was sent.

        Cancellation:
            If cancelled, the message was not sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(message)
        except InboxFullError:
            async with parked(Wait.room_of(self.owner_id)):
                try:
                    await self._send.send(message)
                except trio.BrokenResourceError:
                    raise self._gone() from None
        else:
            # It is sent: from here on a cancellation must not say otherwise.
            await trio.lowlevel.cancel_shielded_checkpoint()

    def send_nowait(self, message: AgentMessage) -> None:
        """Put *message* in now.

        Raises:
            InboxFullError: If there is no room. Nothing was sent.
            AgentGoneError: If the agent has ended. Nothing was sent.
        """
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            raise InboxFullError(
                f"the inbox of agent {self.owner_id} is full ({self.capacity} messages); "
                "wait with send(), or raise inbox_capacity",
                recipient=self.owner_id,
            ) from None
        except trio.BrokenResourceError:
            raise self._gone() from None

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take everything that is here, waiting without a slot until something is.

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
            first = await self._receive.receive()
        return (first, *self.receive_many_nowait())

    def receive_many_nowait(self) -> tuple[AgentMessage, ...]:
        """Take everything that is here, perhaps nothing."""
        taken: list[AgentMessage] = []
        while True:
            try:
                taken.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return tuple(taken)

    def close(self) -> tuple[AgentMessage, ...]:
        """Take no more, fail whoever waits to send, and return what nobody received."""
        left = self.receive_many_nowait()
        self._receive.close()
        self._send.close()
        return left

    def _gone(self) -> AgentGoneError:
        return AgentGoneError(f"agent {self.owner_id} has ended", recipient=self.owner_id)
