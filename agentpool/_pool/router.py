"""The public view of a pool's messages.

The sender of a message is the caller. No method takes the sender as an argument.
"""

from __future__ import annotations

from typing import final

import msgspec

from agentpool._amounts import counted
from agentpool._base import Shown, Unique
from agentpool._messages import AgentId, AgentMessage, DeadLetter
from agentpool._messaging.post_office import PostOffice
from agentpool._needs_trio import check_trio
from agentpool._pool.caller import PoolVoice
from agentpool._scheduling.ctrl_c import unbroken


@unbroken
@final
class MessageRouter(Unique, Shown, msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Delivers messages between the agents of one pool, and counts them.

    >>> import trio
    >>> from agentpool import AgentManifest, SpawnConfig, open_pool
    >>> from agentpool.drivers import FunctionDriver
    >>> async def answer(request):
    ...     await trio.sleep(0.01)
    ...     return request.messages[-1].text
    >>> async def main() -> None:
    ...     async with open_pool(FunctionDriver(answer)) as pool:
    ...         handle = await pool.spawn(SpawnConfig(AgentManifest(), "Wait for orders"))
    ...         message = pool.router.send_nowait(handle.agent_id, "Look at a.py first")
    ...         print(message.sender, message.recipient, pool.router)
    >>> trio.run(main)
    0 1 <MessageRouter of 1 agent: 1 message, 0 dead letters>
    """

    _post: PostOffice
    _voice: PoolVoice

    def __repr__(self) -> str:
        """Return the number of agents, messages and dead letters."""
        return (
            f"<MessageRouter of {counted(self.agent_count, 'agent')}: "
            f"{counted(self.message_count, 'message')}, "
            f"{counted(self.dead_letter_count, 'dead letter')}>"
        )

    @property
    def inbox_capacity(self) -> int:
        """The number of messages that one inbox holds."""
        return self._post.inbox_capacity

    @property
    def agent_count(self) -> int:
        """Agents that can receive messages now, without the owner."""
        return self._post.agent_count

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Messages that were accepted and will never be received, oldest first."""
        return self._post.dead_letters

    @property
    def dead_letter_count(self) -> int:
        """The number of all dead letters so far."""
        return self._post.dead_letter_count

    @property
    def message_count(self) -> int:
        """The number of messages accepted so far."""
        return self._post.message_count

    def live_ids(self) -> tuple[AgentId, ...]:
        """Return the ids that can receive messages now, the owner's first."""
        return self._post.live_ids()

    async def send(
        self, recipient: AgentId, content: str, *, reply_to: int | None = None
    ) -> AgentMessage:
        """Send *content* to an agent, waiting while its inbox is full.

        Raises:
            UnknownAgentError: If there never was such an agent. Nothing was sent.
            AgentGoneError: If it has ended, or ends during the wait. Nothing was sent.
            UsageError: If sender and recipient are the same. Nothing was sent.

        Cancellation:
            If cancelled, the message was not sent.
        """
        return await self._post.send(self._voice.agent_id(), recipient, content, reply_to)

    def send_nowait(
        self, recipient: AgentId, content: str, *, reply_to: int | None = None
    ) -> AgentMessage:
        """Send *content* to an agent now, or raise.

        Raises:
            InboxFullError: If there is no room. Nothing was sent.
            UnknownAgentError: If there never was such an agent. Nothing was sent.
            AgentGoneError: If it has ended. Nothing was sent.
            UsageError: If sender and recipient are the same. Nothing was sent.
        """
        try:
            return self._post.send_nowait(self._voice.agent_id(), recipient, content, reply_to)
        except RuntimeError:  # of trio, outside of a task
            check_trio("router.send_nowait")
            raise

    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Send a question and wait for the message that replies to it.

        Raises:
            UnknownAgentError: If there never was such an agent. Nothing was sent.
            AgentGoneError: If it has ended, or ends before it replies.
            UsageError: If sender and recipient are the same. Nothing was sent.

        Cancellation:
            The question may have been sent; a late reply goes to the inbox.
        """
        return await self._post.ask(self._voice.agent_id(), recipient, content)
