"""Delivers messages between the agents of one pool, and tracks each of them.

Rules:

1. Only the router writes the sender and the number of a message.
2. An accepted message is received once, or becomes a dead letter with a reason.
3. Messages from one sender to one recipient arrive in the order they were sent.
4. An inbox costs nothing until the first message for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._checks import expect_message
from agentpool._errors import AgentGoneError, InboxFullError, UnknownAgentError, UsageError
from agentpool._messages import NOBODY, OWNER_ID, AgentId, AgentMessage, DeadLetter
from agentpool._messaging.inbox import Inbox
from agentpool._messaging.question import Question
from agentpool._numbers import quoted
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.pace import Pace
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitBook
from agentpool._surrogates import without_halves

if TYPE_CHECKING:
    from agentpool._messaging.roll import Roll
    from agentpool._messaging.stored_messages import KeptPost

MAX_DEAD_LETTERS = 10_000
"""Dead letters that are kept. Older ones are only counted."""


Watch = Callable[[AgentMessage, str | None], None]
"""Called with every accepted message, and again, with a reason, when it becomes a dead letter."""


class Hub(Protocol):
    """Passes events on to its listeners."""

    listening: bool
    """Whether it has any."""


@unbroken
@final
class PostOffice(Live):
    """Delivers the messages of one pool."""

    inbox_capacity: int
    """Messages that one inbox holds."""
    _watch: Watch
    hub: Hub
    """Without listeners, ``_watch`` is not called."""
    roll: Roll
    """The agents of the pool."""
    has_owner: bool = True
    """Whether the owner can receive messages."""
    _inboxes: dict[AgentId, Inbox] = msgspec.field(default_factory=dict[AgentId, Inbox])
    """The inboxes of those to whom anybody wrote, or who waited for a message."""
    _highest_id: AgentId = OWNER_ID
    _last_message_id: int = 0
    _questions: dict[int, Question] = msgspec.field(default_factory=dict[int, Question])
    _dead: deque[DeadLetter] = msgspec.field(
        default_factory=lambda: deque[DeadLetter](maxlen=MAX_DEAD_LETTERS)
    )
    _dead_count: int = 0
    _owner: Owner | None = None
    _pace: Pace = msgspec.field(default_factory=Pace)
    _book: WaitBook = msgspec.field(default_factory=WaitBook)
    _kept: KeptPost | None = None
    """Messages of earlier processes. ``None``: the pool has no journal."""

    def open(self, owner: Owner, pace: Pace) -> None:
        """Register *owner*, the task that opened the pool, so that its waits are seen."""
        self._owner, self._pace, self._book = owner, pace, owner.keeper.book

    def keep(self, kept: KeptPost) -> None:
        """Record messages in *kept* from now on, and deliver the earlier ones."""
        self._kept = kept
        kept.begin(self._deliver, self._book)
        self._last_message_id, self._highest_id = kept.last_id, kept.highest_id
        for agent_id in (OWNER_ID, *kept.absent):
            self._restore(agent_id)
        self.give_up(NOBODY)

    def _restore(self, agent_id: AgentId) -> None:
        if self._kept is not None and (pending := self._kept.take_pending(agent_id)):
            self._open_inbox(agent_id).restore(pending)

    def _deliver(self, reply: AgentMessage) -> None:
        self._open_inbox(reply.recipient).restore([reply])

    @property
    def agent_count(self) -> int:
        """Agents that can receive messages now, without the owner."""
        return sum(1 for _ in self.roll)

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Messages that were accepted and will never be received, oldest first."""
        return tuple(self._dead)

    @property
    def dead_letter_count(self) -> int:
        """The number of all dead letters so far."""
        return self._dead_count

    @property
    def message_count(self) -> int:
        """The number of messages accepted so far."""
        return self._last_message_id

    def live_ids(self) -> tuple[AgentId, ...]:
        """The ids that can receive messages now, the owner's first."""
        return (*((OWNER_ID,) if self.has_owner else ()), *self.roll)

    def _is_known(self, agent_id: AgentId) -> bool:
        """Return whether a message for *agent_id* would be received, or wait for it."""
        if agent_id == OWNER_ID:
            return self.has_owner
        return agent_id in self.roll or (self._kept is not None and agent_id in self._kept.absent)

    def register(self, agent_id: AgentId) -> None:
        """Record that an agent was spawned."""
        if self._kept is not None:
            self._kept.find_again(agent_id)  # its inbox is there, with what was sent meanwhile
        self._highest_id = max(self._highest_id, agent_id)

    @property
    def has_post(self) -> bool:
        """Whether there is an inbox or a question. If not, no end concerns the router."""
        return bool(self._inboxes or self._questions) or self._kept is not None

    def unregister(self, agent_id: AgentId, *, reason: str = "") -> None:
        """Close the inbox of *agent_id*. Its unread messages become dead letters.

        Args:
            agent_id: The agent whose inbox to close.
            reason: The reason in the dead letters. Empty: that the agent ended first.
        """
        if agent_id == OWNER_ID:
            self.has_owner = False
        inbox = self._inboxes.pop(agent_id, None)
        if inbox is None and self._kept is None and not self._questions:
            return  # as with most agents: nobody wrote to it
        unread = [] if inbox is None else list(inbox.close())
        if self._kept is not None:
            self._kept.ended.add(agent_id)
            unread += self._kept.take_replies(agent_id)
        for message in unread:
            self._bury(message, reason or f"agent {agent_id} ended first")
        for question in self._questions.values():
            if question.answerer == agent_id:
                question.end()
        self.give_up(agent_id)

    def give_up(self, parent_id: AgentId) -> None:
        """Close the inboxes of agents of earlier processes that *parent_id* no longer spawns."""
        if self._kept is not None and self._kept.absent:
            for agent_id in self._kept.give_up(parent_id, self._is_known):
                self.unregister(agent_id, reason=f"agent {agent_id} was not spawned again")

    async def send(
        self,
        sender: AgentId,
        recipient: AgentId,
        content: str,
        reply_to: int | None = None,
        question: Question | None = None,
    ) -> AgentMessage:
        """Deliver *content*, which may ask a *question*; wait without a slot for room in the inbox.

        Raises:
            UnknownAgentError: If there never was such an agent. Nothing was sent.
            AgentGoneError: If it has ended, or ends during the wait. Nothing was sent.
            UsageError: If sender and recipient are the same. Nothing was sent.

        Cancellation:
            If cancelled, the message was not sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            message = self.send_nowait(sender, recipient, content, reply_to, question)
        except InboxFullError:
            inbox = self._open_inbox(recipient)
            async with parked(Wait.room_of(recipient), inbox.turns, self._owner):
                await inbox.wait_turn()
                inbox.take_turn()
                try:
                    message = self.send_nowait(
                        sender, recipient, content, reply_to, question, has_turn=True
                    )
                finally:
                    # The next one's turn, even if this one has put nothing in.
                    inbox.wake_senders()
        else:
            if self._pace.is_due():
                await trio.lowlevel.cancel_shielded_checkpoint()
        return message

    async def ask(self, sender: AgentId, recipient: AgentId, content: str) -> AgentMessage:
        """Send a question and wait for its reply, without a slot.

        Raises:
            AgentGoneError: If the other side has ended, or ends before it replies.
            UnknownAgentError: If there never was such an agent. Nothing was sent.
            UsageError: If sender and recipient are the same. Nothing was sent.

        Cancellation:
            The question may have been sent; a reply that comes later goes to the inbox.
        """
        question = Question(asker=sender, answerer=recipient)
        try:
            message = await self.send(sender, recipient, content, None, question)
            if not question.over:
                # Whoever is asked may answer in its next step, and to wait costs more. Shielded:
                # an answer that comes meanwhile is not lost to a cancellation.
                await trio.lowlevel.cancel_shielded_checkpoint()
            if not question.over:
                lot = Lot()
                async with parked(Wait.answer_of(recipient), lot, self._owner):
                    if not question.over:
                        question.lot = lot
                        await lot.park()
        finally:
            self._questions.pop(question.message_id, None)
        if question.answer is None:
            raise AgentGoneError(
                f"agent {recipient} ended before it answered message {message.message_id}",
                recipient=recipient,
            )
        return question.answer

    def send_nowait(
        self,
        sender: AgentId,
        recipient: AgentId,
        content: str,
        reply_to: int | None = None,
        question: Question | None = None,
        *,
        has_turn: bool = False,
    ) -> AgentMessage:
        """Number *content* and deliver it now, in one step without a checkpoint, or raise.

        With *has_turn*, the sender has waited for a place, and took its turn.

        Raises:
            InboxFullError: If there is no room. Nothing was sent.
            UnknownAgentError: If there never was such an agent. Nothing was sent.
            AgentGoneError: If it has ended. Nothing was sent.
            UsageError: If sender and recipient are the same. Nothing was sent.
        """
        if type(content) is not str or not (reply_to is None or type(reply_to) is int):
            content = expect_message(content, reply_to)
        if sender == recipient:
            raise UsageError(f"agent {sender} cannot send to itself; keep the text in a variable")
        text = content if content.isascii() else without_halves(content)
        kept, key = self._kept, ""
        if kept is not None:
            key = kept.key_of_next(sender)
            is_question = question is not None
            known = kept.known(sender, recipient, reply_to, text, is_question=is_question)
            if known is not None:
                self._send_again(kept, known, question)
                return known
        # As _open_inbox(), without its call: nearly every recipient has an inbox.
        inbox = self._inboxes.get(recipient) if type(recipient) is int else None
        if inbox is None:
            inbox = self._open_inbox(recipient)
        number = self._last_message_id + 1
        message = AgentMessage(sender, recipient, text, number, reply_to)
        if (reply_to is None or not self._answers(message)) and (
            kept is None or not kept.hold(message)
        ):
            inbox.send_nowait(message, has_turn=has_turn)
        self._last_message_id = number
        if question is not None:
            question.message_id = number
            self._questions[number] = question
        if kept is not None:
            kept.accepted(key, message, is_question=question is not None)
        if self.hub.listening:
            self._watch(message, None)
        return message

    def _send_again(self, kept: KeptPost, known: AgentMessage, question: Question | None) -> None:
        """Note that a message of an earlier process was sent again.

        If it asks a *question*, answer it with the reply from before, or let it wait for one.
        """
        if question is None:
            kept.sent_again(known)
            return
        question.message_id = known.message_id
        question.answer = kept.take_reply(known)
        if question.answer is not None or not self._is_known(question.answerer):
            question.end()
        else:
            self._questions[known.message_id] = question

    async def broadcast(self, sender: AgentId, content: str) -> tuple[AgentMessage, ...]:
        """Deliver *content* to every live agent but the sender, waiting for room.

        An agent that ends before its turn is left out. Returns the messages that were accepted.

        Cancellation:
            Messages sent before stay sent; the others were not sent.
        """
        content = expect_message(content)
        sent: list[AgentMessage] = []
        for recipient in self.live_ids():
            if recipient in {sender, OWNER_ID}:
                continue
            try:
                sent.append(await self.send(sender, recipient, content))
            except AgentGoneError:
                continue
        await trio.lowlevel.checkpoint()
        return tuple(sent)

    def receive_many(self, agent_id: AgentId) -> Awaitable[tuple[AgentMessage, ...]]:
        """Take all waiting messages for *agent_id*. If there are none, wait for one.

        Returns:
            An awaitable, to be awaited immediately.

        Cancellation:
            If cancelled, nothing was taken.
        """
        return self._open_inbox(agent_id).receive_many(self._owner, self._pace)

    def receive_many_nowait(self, agent_id: AgentId) -> tuple[AgentMessage, ...]:
        """Take all waiting messages for *agent_id*, which lives, if there are any."""
        inbox = self._inboxes.get(agent_id)
        return () if inbox is None else inbox.receive_many_nowait()

    def _open_inbox(self, agent_id: AgentId) -> Inbox:
        # True and 1.0 are keys that find agent 1, and no ids.
        inbox = self._inboxes.get(agent_id) if type(agent_id) is int else None
        if inbox is None:
            if type(agent_id) is not int or not self._is_known(agent_id):
                raise self._nobody(agent_id)
            inbox = self._inboxes[agent_id] = Inbox(agent_id, self.inbox_capacity, book=self._book)
        return inbox

    def _nobody(self, agent_id: AgentId) -> UnknownAgentError | AgentGoneError:
        if type(agent_id) is int and 0 <= agent_id <= self._highest_id:
            return AgentGoneError(
                f"agent {agent_id} has ended; its outcome tells how", recipient=agent_id
            )
        how = "" if type(agent_id) is int else "; agents are known by number: handle.agent_id"
        return UnknownAgentError(
            f"there is no agent {quoted(agent_id)} in this pool; "
            f"the last one is {self._highest_id}{how}",
            recipient=agent_id,
        )

    def _answers(self, message: AgentMessage) -> bool:
        """Pass *message* to the question that it answers. Return whether one was waiting."""
        question = self._questions.get(message.reply_to) if message.reply_to else None
        if (
            question is None
            or not question.is_open
            or (question.asker, question.answerer) != (message.recipient, message.sender)
        ):
            return False
        question.answer = message
        question.end()
        return True

    def _bury(self, message: AgentMessage, reason: str) -> None:
        self._dead.append(DeadLetter(message, reason))
        self._dead_count += 1
        if self.hub.listening:
            self._watch(message, reason)
