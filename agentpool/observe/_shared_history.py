"""Finds messages that the conversations of two agents share, so that they are written once.

Each turn of a session is a new agent, which gets the whole conversation so far.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Final, final

import msgspec

from agentpool._base import Record
from agentpool._events import MessagesAdded
from agentpool._messages import AgentId, ChatMessage

_KEPT_AT_MOST: Final = 256
"""How many conversations are remembered. They belong to the sessions that were active last."""


@final
class SharedHistory(Record):
    """The last conversations in a trace."""

    _kept: dict[int, tuple[AgentId, tuple[ChatMessage, ...]]] = msgspec.field(
        default_factory=dict[int, tuple[AgentId, tuple[ChatMessage, ...]]]
    )
    """The conversations by the ``id()`` of their first message. That message stays alive as long as
    its conversation is kept here."""

    def keep(self, agent_id: AgentId, messages: tuple[ChatMessage, ...]) -> None:
        """Remember the whole conversation of an agent that has ended."""
        if not messages:
            return
        first = id(messages[0])
        self._kept.pop(first, None)
        self._kept[first] = agent_id, messages
        if len(self._kept) > _KEPT_AT_MOST:
            del self._kept[next(iter(self._kept))]

    def shortened(self, event: MessagesAdded) -> MessagesAdded:
        """Return *event* without the messages with which another agent's conversation begins."""
        found = self._kept.get(id(event.messages[0])) if event.messages else None
        if found is None or event.place:
            return event
        agent_id, known = found
        pairs = zip(known, event.messages, strict=False)
        count = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))
        rest = event.messages[count:]
        return msgspec.structs.replace(event, messages=rest, after=agent_id, shared=count)
