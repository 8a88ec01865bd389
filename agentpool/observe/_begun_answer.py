"""Collects a model's answer whose end is not in the trace."""

from __future__ import annotations

from typing import final

from agentpool._base import Record
from agentpool._events import (
    AgentFinished,
    CompletionReceived,
    Event,
    RequestStarted,
    TextDelta,
    ThoughtDelta,
)
from agentpool._messages import AssistantMessage


@final
class BegunAnswer(Record):
    """The part of an agent's last answer that had arrived. Empty: no part, or all of it."""

    _texts: list[str] = []  # noqa: RUF012  # each has its own
    _thoughts: list[str] = []  # noqa: RUF012  # each has its own

    @property
    def text(self) -> str:
        """The text that had come."""
        return "".join(self._texts)

    @property
    def thoughts(self) -> str:
        """The thoughts that had come."""
        return "".join(self._thoughts)

    def take(self, event: Event) -> None:
        """Handle *event*."""
        match event:
            case TextDelta():
                self._texts.append(event.text)
            case ThoughtDelta():
                self._thoughts.append(event.text)
            case RequestStarted(by_tool=False) | CompletionReceived(by_tool=False):
                self._texts.clear()
                self._thoughts.clear()
            case AgentFinished(outcome=outcome) if outcome.messages:
                last = outcome.messages[-1]
                # An agent that was ended has in its conversation what had come.
                if isinstance(last, AssistantMessage) and self.text.strip() in last.text:
                    self._texts.clear()
            case _:
                pass
