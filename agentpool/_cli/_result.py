"""The result of one agent of a command, or of an input without an agent."""

from __future__ import annotations

from typing import Final, final

import attrs
import msgspec

from agentpool import AgentOutcome, AgentStatus

WAITING: Final = "waiting"
"""The status word for an agent that waits for an approval that is given later."""


@final
@attrs.frozen(kw_only=True)
class Result:
    """The result of one agent, or of an input without one."""

    name: str
    """The manifest's name."""
    label: str
    """The heading of the result."""
    source: str | None = None
    """The path of the input. ``None``: it did not come from a file."""
    outcome: AgentOutcome | None = None
    """The agent's outcome. ``None``: there was no agent."""
    error: Exception | None = None
    """The reason why there was no agent. ``None``: there was an agent, or an interruption came
    first."""
    is_typed: bool = False
    """Whether the answer had to be an object of a schema."""
    is_waiting: bool = False
    """Whether the agent waits for an approval that is given later, and then goes on."""
    is_from_journal: bool = False
    """Whether the answer is one of an earlier run, and nothing was asked for it in this one."""

    @property
    def status(self) -> AgentStatus:
        """How the agent ended."""
        if self.outcome is not None:
            return self.outcome.status
        return AgentStatus.CANCELLED if self.error is None else AgentStatus.FAILED

    @property
    def text(self) -> str:
        """The answer, or the part that arrived. With a schema: only the JSON object."""
        if self.is_typed and (self.outcome is None or self.outcome.value is None):
            return ""
        return self.said

    @property
    def said(self) -> str:
        """The answer, or the text that takes its place, with or without a schema."""
        if self.outcome is None:
            return ""
        if self.outcome.value is None:
            return self.outcome.text
        return msgspec.json.encode(self.outcome.value).decode()

    @property
    def word(self) -> str:
        """How the agent ended, in a word."""
        return WAITING if self.is_waiting else self.status.value

    @property
    def fault(self) -> Exception | None:
        """What went wrong."""
        return self.error if self.outcome is None else self.outcome.error
