"""Stores messages so that none is accepted twice after a restart.

Rules:

1. A message has a key: that of the tool call that sends it, and which of the call's messages
   it is. A call that is resumed sends under the same keys.
2. A message with a known key is not sent again: whoever sends it has the old one. The owner has
   no calls, and may do things in another order: what it sends is the first old message to the
   same agent, in answer to the same message, that it has not sent again yet.
3. What was accepted and not received waits for its recipient again, in the old order. The
   owner begins anew, so everything that was ever sent to the owner waits.
4. A call without a result has received nothing: what it took waits for it again.
5. What answers a message of a call without a result waits for that call to ask again. If it
   only sends again, or has its result without asking, the answer goes to the inbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import final

import attrs

from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._served_call import current_call


@final
@attrs.define(eq=False)
class KeptPost:
    """The messages of a pool's earlier processes, and the keys of new ones."""

    _note: Callable[[AgentMessage, str], None]
    """Has an accepted message kept under its key."""
    _sent: dict[str, AgentMessage] = attrs.field(factory=dict[str, AgentMessage])
    _pending: dict[AgentId, list[AgentMessage]] = attrs.field(
        factory=dict[AgentId, list[AgentMessage]]
    )
    _replies: dict[int, AgentMessage] = attrs.field(factory=dict[int, AgentMessage])
    """By the question: what a call that asks again is given."""
    _unanswered: dict[int, str] = attrs.field(factory=dict[int, str])
    """Messages of calls that may ask again, and have not yet, with the keys of the calls."""
    deliver: Callable[[AgentMessage], None] = attrs.field(init=False)
    """Puts an answer that no question waits for into the inbox."""
    ended: set[AgentId] = attrs.field(factory=set[AgentId])
    """Agents that have ended in this process."""
    last_id: int = 0
    """The number of the last message."""
    _outside: int = 0
    """Messages of no call so far, in all processes."""
    _again: dict[tuple[AgentId, AgentId, int | None], deque[AgentMessage]] = attrs.field(
        factory=dict[tuple[AgentId, AgentId, int | None], deque[AgentMessage]]
    )
    """Messages of no call that this process has not sent again, by what they are."""

    def recover(
        self,
        sent: Iterable[tuple[str, AgentMessage]],
        received: Collection[int],
        settled: Collection[str],
    ) -> None:
        """Load the messages of earlier processes.

        Args:
            sent: Every accepted message with its key, in the order of their numbers.
            received: The numbers of those that agents have received.
            settled: The keys of the calls that have a result.
        """
        asked: dict[int, str] = {}
        for key, message in sent:
            self._sent[key] = message
            if key == f"{message.sender}+{self._outside + 1}":
                self._outside += 1
                self._again.setdefault(_what_of(message), deque()).append(message)
            self.last_id = message.message_id
            asked[message.message_id] = call = key.rpartition("+")[0]
            if message.sender != OWNER_ID and call not in settled:
                self._unanswered[message.message_id] = call
            if message.recipient != OWNER_ID and message.message_id in received:
                continue
            question = asked.get(message.reply_to or 0, "")
            if question and question not in settled:
                self._replies[message.reply_to or 0] = message
            else:
                self._pending.setdefault(message.recipient, []).append(message)

    def key_of_next(self, sender: AgentId) -> str:
        """Return the key of the next message."""
        call = current_call.get()
        if call is not None and sender != OWNER_ID:
            return f"{call.key}+{call.messages + 1}"
        return f"{sender}+{self._outside + 1}"

    def known(
        self, key: str, sender: AgentId, recipient: AgentId, reply_to: int | None
    ) -> AgentMessage | None:
        """Return the same message as accepted earlier. ``None``: it was not."""
        call = current_call.get()
        if call is None or sender == OWNER_ID:
            old = self._again.get((sender, recipient, reply_to))
            return old.popleft() if old else None
        message = self._sent.get(key)
        if message is not None:
            call.messages += 1
        return message

    def accepted(self, key: str, message: AgentMessage) -> None:
        """Record a message that was just accepted."""
        self._count(message.sender)
        self._note(message, key)

    def _count(self, sender: AgentId) -> None:
        call = current_call.get()
        if call is not None and sender != OWNER_ID:
            call.messages += 1
        else:
            self._outside += 1

    def take_pending(self, recipient: AgentId) -> list[AgentMessage]:
        """Return the earlier messages that wait for *recipient*, oldest first."""
        return self._pending.pop(recipient, [])

    def hold(self, message: AgentMessage) -> bool:
        """Keep *message* if it answers a question that a resumed call has not asked again yet."""
        is_early = message.reply_to in self._unanswered
        if is_early and message.reply_to is not None:
            self._replies[message.reply_to] = message
        return is_early

    def take_reply(self, question_id: int) -> AgentMessage | None:
        """Return the stored answer to a question that is asked again. ``None``: none came."""
        self._unanswered.pop(question_id, None)
        return self._replies.pop(question_id, None)

    def sent_again(self, message_id: int) -> None:
        """Record that a known message was sent again, not as a question."""
        reply = self.take_reply(message_id)
        if reply is not None:
            self.deliver(reply)

    def settle(self, call_key: str) -> None:
        """Record that a call has its result and asks no more questions."""
        numbers = [number for number, key in self._unanswered.items() if key == call_key]
        for number in numbers:
            self.sent_again(number)


def _what_of(message: AgentMessage) -> tuple[AgentId, AgentId, int | None]:
    return message.sender, message.recipient, message.reply_to
