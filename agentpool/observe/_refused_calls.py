"""Tool calls that a model asked for and that never ran.

A call that is refused begins no tool, so no event of a tool tells of it. Its result stands in
the conversation like any other, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, final

import msgspec

from agentpool._base import Live
from agentpool._events import (
    AgentFinished,
    ApprovalGiven,
    Event,
    MessagesAdded,
    ToolFinished,
    ToolStarted,
)
from agentpool._messages import AgentId, AssistantMessage, ChatMessage, ToolMessage
from agentpool._outcome import AgentStatus

_NOT_RUN: Final = "not run: "
"""What results begin with of calls that their agent's end came before."""


@final
class RefusedCall(msgspec.Struct, frozen=True):
    """A call that was refused: not granted, unknown, not approved, or made too often."""

    agent_id: AgentId
    """The agent of the call."""
    name: str
    """The tool that was asked for; there need not be one of that name."""
    turn: int
    """The turn that it belongs to."""
    content: str
    """Why, as the model was told."""
    was_asked: bool
    """Whether approval was asked for, and not given."""
    at_seconds: float = 0.0
    """When the agent went on without it, since the pool opened."""


@final
class Refusals(Live, gc=False):
    """The open calls of one agent since it last got results."""

    has_query: bool = False
    """Whether its history and its query have come: what stands there was refused before."""
    begun: set[str] = set()  # noqa: RUF012  # each has its own
    """The ids of calls whose tool began."""
    denied: set[str] = set()  # noqa: RUF012  # each has its own
    """The ids of calls that were not approved."""

    def take(self, event: Event, turns: int, known: int) -> list[RefusedCall]:
        """Return the calls that *event* shows as refused.

        Args:
            event: The next one of the agent.
            turns: The turns that it has begun.
            known: How many messages of its conversation have come.
        """
        match event:
            case ToolStarted() | ToolFinished():
                self.begun.add(event.call.call_id)
            case ApprovalGiven(approved=False):
                self.denied.add(event.call.call_id)
            case MessagesAdded() if not self.has_query:
                self.has_query = True
            case MessagesAdded():
                return list(self._refused(event, event.messages, turns))
            case AgentFinished(outcome=outcome) if self.has_query:
                found = self._refused(event, outcome.messages[known:], turns)
                has_completed = outcome.status is AgentStatus.COMPLETED
                return [
                    one
                    for one in found
                    if has_completed or one.was_asked or not one.content.startswith(_NOT_RUN)
                ]
            case _:
                pass
        return []

    def _refused(
        self, event: Event, messages: Sequence[ChatMessage], turns: int
    ) -> Iterator[RefusedCall]:
        """Yield the calls with results in *messages* whose tools never began."""
        turn = turns - sum(isinstance(one, AssistantMessage) for one in messages)
        for one in messages:
            turn += isinstance(one, AssistantMessage)
            if isinstance(one, ToolMessage) and one.is_error and one.call_id not in self.begun:
                was_asked = one.call_id in self.denied
                yield RefusedCall(
                    event.agent_id, one.name, turn, one.content, was_asked, event.at_seconds
                )
        self.begun.clear()
        self.denied.clear()
