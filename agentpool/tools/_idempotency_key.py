"""The key of a call, which prevents other programs from doing it twice."""

from __future__ import annotations

from typing import Final

from agentpool.abc import ToolContext

KEY_IN_META: Final = "agentpool/idempotency-key"
"""Where an MCP server finds the key."""


def key_for_others(context: ToolContext) -> str:
    """Return the key of a call for other programs. Empty: the pool has no journal.

    A key is unique only with a journal: without one, another process would use the same keys, and
    get the results of this one's calls.
    """
    return "" if context.fence is None else context.idempotency_key
