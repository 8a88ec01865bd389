"""The name of a call that prevents it from being done twice."""

from __future__ import annotations

from typing import Final

from agentpool.abc import ToolContext

KEY_IN_META: Final = "agentpool/idempotency-key"
"""Where an MCP server finds it."""


def key_for_others(context: ToolContext) -> str:
    """Return the name of a call for other programs. Empty: the pool has no journal.

    Only with one it is of no other call: another process would repeat the names of this one,
    and be given the results of its calls.
    """
    return "" if context.fence is None else context.idempotency_key
