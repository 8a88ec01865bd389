"""Tool calls that a model asked for and that never ran.

A refused call starts no tool, so no tool event reports it. The result of the call is in the
conversation like any other result, and says why the call was refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, final

import msgspec

from agentpool._base import Record
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
"""The beginning of a call's result if the agent ended before the call could run."""


@final
class RefusedCall(msgspec.Struct, frozen=True):
    """A call that was refused: not granted, unknown, not approved, or made too often."""

    agent_id: AgentId
    """The agent of the call."""
    name: str
    """The name that the model asked for, which may not be the name of any tool."""
    turn: int
    """The turn of the call."""
    content: str
    """The reason that the model got."""
    was_asked: bool
    """Whether a person was asked and did not approve."""
    at_seconds: float = 0.0
    """When the agent went on without the call, in seconds since the pool opened."""


@final
class Refusals(Record, gc=False):
    """The calls of one agent that are open since the agent last got results."""

    has_query: bool = False
    """Whether the agent's history and query have come. Refusals in the history happened in earlier
    runs."""
    begun: set[str] = set()  # noqa: RUF012  # each has its own
    """The ids of calls whose tool began."""
    denied: set[str] = set()  # noqa: RUF012  # each has its own
    """The ids of calls that were not approved."""

    def take(self, event: Event, turns: int, known: int) -> list[RefusedCall]:
        """Return the calls that *event* shows as refused.

        Args:
            event: The agent's next event.
            turns: How many turns the agent has begun.
            known: How many messages of the agent's conversation have come.
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
        """Yield the calls that have a result in *messages* but whose tool never began."""
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
