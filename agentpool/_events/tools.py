"""Events of a tool call: it is approved, begins and ends."""

from __future__ import annotations

from typing import final

from agentpool._events.base import EventBase
from agentpool._messages import ToolCall


@final
class ToolStarted(EventBase, frozen=True, gc=False):
    """A tool call begins."""

    call: ToolCall
    """The call."""
    turn: int = 0
    """The turn that it belongs to."""


@final
class ToolFinished(EventBase, frozen=True, gc=False):
    """A tool call ended."""

    call: ToolCall
    """The call."""
    content: str
    """The tool's result, or the text of its error."""
    is_error: bool
    """Whether it failed."""
    turn: int = 0
    """The turn that it belongs to."""
    duration_seconds: float | None = None
    """How long it ran. ``None``: it was not watched from its start."""
    error_type: str = ""
    """The type of the error that it raised. Empty: it raised none."""
    traceback: str = ""
    """The traceback, for people; the model does not see it. Empty: there is none."""


@final
class ApprovalAsked(EventBase, frozen=True, gc=False):
    """A tool call waits for approval."""

    call: ToolCall
    """The call."""


@final
class ApprovalGiven(EventBase, frozen=True, gc=False):
    """A call that needs approval got a decision, or its time ran out.

    If the time for a decision runs out, the call is refused.
    """

    call: ToolCall
    """The call, with the arguments that it runs with."""
    approved: bool
    """Whether it runs."""
    reason: str
    """Why it does not run. Empty: no reason was given, or it runs."""
    decided_by: str = ""
    """Who decided, according to the approver. Empty: not stated."""
    waited_seconds: float = 0.0
    """How long the agent waited for the decision."""
