"""Stores messages so that none is accepted twice after a restart.

Rules:

1. A message has a key: the key of the tool call that sends it, and its number among the messages of
   that call.
2. A message that was sent before is not sent again: the sender gets the old one. It is the first
   of the same call that was not sent again yet, with the same text, to the same agent, in answer to
   the same message. The owner has no calls: all of its messages count as of one. A call that runs
   again, and the owner, may do things in a different order, or say something else.
3. A message that was accepted and not received waits for its recipient again, in the old order. The
   owner begins anew, so every message that was ever sent to the owner waits.
4. A call without a result has received nothing: the messages that it took wait for it again.
5. An agent that is not spawned again yet can be sent messages as before. If it is never spawned
   again, these become dead letters when its parent ends, or when the owner leaves the pool's block;
   and as soon as the pool is open if nobody can spawn it again, since its parent ended without it.
6. An answer to a message of a call without a result waits until that call asks again, and an answer
   to a question of the owner until the owner asks again. If the call only sends the message again,
   or ends without asking, the answer goes to the inbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias, final

import attrs

from agentpool._base import Live
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._scheduling.waits import Wait, WaitBook
from agentpool._served_call import current_call

Sent: TypeAlias = tuple[str, AgentMessage, bool]
"""An accepted message with its key, and whether it is known to be a question."""

_What: TypeAlias = tuple[str, AgentId, AgentId, int | None, str, bool]
"""The key of the call (empty: outside of any), sender, recipient, what it answers, the text, and
whether it is a question."""


@final
class Absent(Live):
    """An unfinished agent of an earlier process that is not spawned again yet."""

    name: str
    parent_id: AgentId
    """``NOBODY``: it can never be spawned again."""
    above: AgentId
    """The nearest unfinished agent above it, or the owner. Once that has ended, it cannot come."""
    wait: Wait
    """The wait for its parent, or for the nearest unfinished agent above an ended parent."""


@final
@attrs.define(eq=False)
class KeptPost:
    """The messages of a pool's earlier processes, and the keys of new ones."""

    _note: Callable[[AgentMessage, str, bool], None]
    """Stores an accepted message under its key, and whether it is a question."""
    _pending: dict[AgentId, list[AgentMessage]] = attrs.field(
        factory=dict[AgentId, list[AgentMessage]]
    )
    _replies: dict[AgentId, dict[int, AgentMessage]] = attrs.field(
        factory=dict[AgentId, dict[int, AgentMessage]]
    )
    """The answers for askers that ask again, by asker and question."""
    _unanswered: dict[int, AgentMessage] = attrs.field(factory=dict[int, AgentMessage])
    """Questions of the owner, and messages of calls, that may be asked again and have not been."""
    _of_call: dict[str, list[AgentMessage]] = attrs.field(factory=dict[str, list[AgentMessage]])
    """The messages of each call without a result, by its key."""
    deliver: Callable[[AgentMessage], None] = attrs.field(init=False)
    """Puts an answer into the inbox if no question waits for the answer."""
    _book: WaitBook = attrs.field(init=False)
    """Where the waits of absent agents are counted."""
    ended: set[AgentId] = attrs.field(factory=set[AgentId])
    """Agents that have ended in this process."""
    absent: dict[AgentId, Absent] = attrs.field(factory=dict[AgentId, Absent])
    """Unfinished agents that are not spawned again yet, in their order."""
    highest_id: AgentId = OWNER_ID
    """The last agent of earlier processes."""
    last_id: int = 0
    """The number of the last message."""
    _outside: int = 0
    """How many messages were sent outside of any call so far, in all processes."""
    _again: dict[_What, deque[AgentMessage]] = attrs.field(
        factory=dict["_What", deque[AgentMessage]]
    )
    """Messages that this process has not sent again, by what makes them equal."""

    def recover(
        self,
        sent: Iterable[Sent],
        received: Collection[int],
        settled: Collection[str],
    ) -> None:
        """Load the messages of earlier processes.

        Args:
            sent: Every accepted message, in the order of their numbers.
            received: The numbers of the messages that agents have received.
            settled: The keys of the calls that have a result.
        """
        open_ones: dict[int, AgentMessage] = {}
        for key, message, is_question in sent:
            call = key.rpartition("+")[0]
            is_outside = key == f"{message.sender}+{self._outside + 1}"
            self._outside += is_outside
            self.last_id = number = message.message_id
            if is_outside or call not in settled:
                what = _what_of("" if is_outside else call, message, is_question)
                self._again.setdefault(what, deque()).append(message)
            if call not in settled:
                open_ones[number] = message
                if message.sender != OWNER_ID:
                    self._of_call.setdefault(call, []).append(message)
                if is_question or message.sender != OWNER_ID:
                    self._unanswered[number] = message
            if message.recipient != OWNER_ID and number in received:
                continue
            if not self._hold_back(message, open_ones):
                self._pending.setdefault(message.recipient, []).append(message)

    def key_of_next(self, sender: AgentId) -> str:
        """Return the key of the next message."""
        call = current_call.get()
        if call is not None and sender != OWNER_ID:
            return f"{call.key}+{len(self._of_call.get(call.key, ())) + call.messages + 1}"
        return f"{sender}+{self._outside + 1}"

    def known(
        self,
        sender: AgentId,
        recipient: AgentId,
        reply_to: int | None,
        text: str,
        *,
        is_question: bool,
    ) -> AgentMessage | None:
        """Return the same message, if it was accepted earlier. ``None``: it is new."""
        call = current_call.get()
        key = "" if call is None or sender == OWNER_ID else call.key
        old = self._again.get((key, sender, recipient, reply_to, text, is_question))
        return old.popleft() if old else None

    def accepted(self, key: str, message: AgentMessage, *, is_question: bool) -> None:
        """Record a message that was just accepted."""
        self._count(message.sender)
        self._note(message, key, is_question)

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
        """Keep *message* if it answers an earlier question that has not been asked again yet."""
        return self._hold_back(message, self._unanswered)

    def _hold_back(self, message: AgentMessage, questions: Mapping[int, AgentMessage]) -> bool:
        question = questions.get(message.reply_to or 0)
        if question is None or question.sender != message.recipient:
            return False
        held = self._replies.setdefault(message.recipient, {})
        if question.recipient != message.sender or question.message_id in held:
            return False  # it is no answer, or a second one
        held[question.message_id] = message
        return True

    def begin(self, deliver: Callable[[AgentMessage], None], book: WaitBook) -> None:
        """Deliver unclaimed answers by *deliver*, and count absent agents' waits in *book*."""
        self.deliver, self._book = deliver, book
        for one in self.absent.values():
            book.add(one.wait, has_deadline=False)

    def find_again(self, agent_id: AgentId) -> bool:
        """Mark an agent as no longer absent. Return whether it was absent."""
        one = self.absent.pop(agent_id, None)
        if one is not None:
            self._book.remove(one.wait, has_deadline=False)
        return one is not None

    def give_up(self, parent_id: AgentId, is_known: Callable[[AgentId], bool]) -> list[AgentId]:
        """Remove the absent agents that *parent_id* no longer spawns, and return them.

        Args:
            parent_id: An agent that has ended; or the owner, when it leaves the pool's block; or
                ``NOBODY``.
            is_known: Returns whether an agent lives, or is absent. When the owner ends, the
                children of all other agents count as well.
        """
        is_over = parent_id == OWNER_ID
        lost = [
            agent_id
            for agent_id, one in self.absent.items()
            if parent_id in {one.parent_id, one.above} or (is_over and not is_known(one.parent_id))
        ]
        for agent_id in lost:
            self.find_again(agent_id)
        return lost

    def take_reply(self, question: AgentMessage) -> AgentMessage | None:
        """Return the stored answer to a *question* that is asked again. ``None``: there is none."""
        self._unanswered.pop(question.message_id, None)
        return self._replies.get(question.sender, {}).pop(question.message_id, None)

    def take_replies(self, asker: AgentId) -> list[AgentMessage]:
        """Return the stored answers to questions that *asker* has not asked again."""
        return list(self._replies.pop(asker, {}).values())

    def sent_again(self, message: AgentMessage) -> None:
        """Record that a known message was sent again, not as a question."""
        reply = self.take_reply(message)
        if reply is not None:
            self.deliver(reply)

    def settle(self, call_key: str) -> None:
        """Record that a call has its result and asks no more questions."""
        for message in self._of_call.pop(call_key, ()):
            self.sent_again(message)


def _what_of(call: str, message: AgentMessage, is_question: bool) -> _What:  # noqa: FBT001  # a part of it
    to = message.recipient
    return call, message.sender, to, message.reply_to, message.content, is_question
