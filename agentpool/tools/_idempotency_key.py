"""The key of a call, by which another program recognizes that the call is repeated."""

from __future__ import annotations

from typing import Final

from agentpool.abc import ToolContext

KEY_IN_META: Final = "agentpool/idempotency-key"
"""Where an MCP server finds the key."""


def key_for_others(context: ToolContext) -> str:
    """Return the key of a call for other programs. Empty: the pool has no journal.

    Keys are unique only with a journal. Without a journal, another process would use the same keys,
    and would get the results of this process's calls.
    """
    return "" if context.fence is None else context.idempotency_key
