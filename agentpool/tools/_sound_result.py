"""Checks what tools return."""

from __future__ import annotations

from agentpool._checks import expect_whole
from agentpool._errors import UsageError
from agentpool.abc import ToolResult


def expect_result(result: object) -> None:
    """Raise unless a tool's *result* is one, with fields of their types. The tool may be a user's.

    Raises:
        UsageError: If it is not.
    """
    if not isinstance(result, ToolResult):
        raise UsageError(f"a tool must return a ToolResult, got {result!r}")
    is_text_alone = (
        type(result.content) is str
        and result.is_error is False
        and result.error_type == result.traceback == ""
        and result.attachments == ()
    )
    if not is_text_alone:
        expect_whole(result)
