"""The text for the model when a tool fails.

The model gets the type and the text of the error, but not the traceback: file names and lines help
the tool's author, not the model, and would show it this machine's layout. The traceback is kept in
the result, for the log and for observers.
"""

from __future__ import annotations

from typing import Final, cast

from agentpool._errors import (
    DeadlockError,
    LimitExceededError,
    ToolError,
    leaves,
    traceback_text,
)
from agentpool.abc import ToolResult

MAX_FAILURE_CHARS = 2_000
"""The most characters of a failure: about 500 tokens. Some errors quote their whole input, and a
model needs only the start of it."""


DEADLOCK: Final = DeadlockError.__name__
"""The name of the error's type for a call whose wait could never end."""


def failed_result(name: str, error: Exception) -> ToolResult:
    """Make the result of a call of tool *name* that raised *error*.

    The text of a ``ToolError`` was written for the model and is passed on unchanged. For a group,
    every error in it is described. A deadlock and a spent budget are described without a traceback:
    they are not the tool's fault, so the line where they came does not help the tool's author.
    """
    if isinstance(error, ToolError):
        return ToolResult(str(error), is_error=True)
    parts = cast("list[Exception]", leaves(error))
    text = clip(f"tool {name!r} failed: {'; '.join(map(_tell, parts))}", MAX_FAILURE_CHARS)
    if all(isinstance(leaf, ToolError) for leaf in parts):
        return ToolResult(text, is_error=True)
    kind = type(error).__name__
    if all(isinstance(leaf, ToolError | DeadlockError) for leaf in parts):
        return ToolResult(text, is_error=True, error_type=DEADLOCK)
    if all(isinstance(leaf, ToolError | LimitExceededError) for leaf in parts):
        return ToolResult(text, is_error=True, error_type=kind)
    return ToolResult(text, is_error=True, error_type=kind, traceback=traceback_text(error))


def clip(text: str, limit: int) -> str:
    """Return *text*, cut to *limit* characters with a note of how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit} more characters]"


def _tell(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, ToolError):
        return str(error)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an error that cannot be printed is still an error
        return kind
    return f"{kind}: {text}" if text else kind
