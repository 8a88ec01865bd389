"""Limits of one run, under the names that other frameworks use."""

from __future__ import annotations

from typing import final

import attrs

from agentpool._base import Value
from agentpool._budget.account import cost_limit, count_limit
from agentpool._checks import expect_arguments
from agentpool._manifest.parts import ResourceQuota


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class UsageLimits(Value):
    """Limits of one run, which narrow those of its manifest.

    The guard checks them: usage is counted after each answer, for one run including its tools and
    children. A ``Budget``, in contrast, is shared by many agents, and a part of it is reserved
    before each request.
    """

    request_limit: int | None = None
    """Model requests, retries not counted. ``None``: as the manifest says. The same holds for the
    limits below."""
    tool_calls_limit: int | None = None
    """Tool calls that the model asks for, refused ones included."""
    total_tokens_limit: int | None = None
    """Tokens in plus tokens out, over all requests."""
    cost_limit_usd: float | None = None
    """US dollars."""

    def __attrs_post_init__(self) -> None:
        """Refuse limits that are not positive numbers."""
        count_limit("request_limit", self.request_limit)
        count_limit("tool_calls_limit", self.tool_calls_limit)
        count_limit("total_tokens_limit", self.total_tokens_limit)
        cost_limit("cost_limit_usd", self.cost_limit_usd)

    def narrow(self, quota: ResourceQuota) -> ResourceQuota:
        """Return *quota*, narrowed by these limits."""
        expect_arguments(UsageLimits.narrow, locals())
        tokens, own_tokens = quota.max_tokens_budget, self.total_tokens_limit
        if tokens is None or (own_tokens is not None and own_tokens < tokens):
            tokens = own_tokens
        # In a quota, 0 dollars is no limit.
        cost_usd, own_cost_usd = quota.max_cost_usd, self.cost_limit_usd
        if own_cost_usd is not None and not 0 < cost_usd <= own_cost_usd:
            cost_usd = own_cost_usd
        return attrs.evolve(
            quota,
            max_iterations=_less(quota.max_iterations, self.request_limit),
            max_tool_calls=_less(quota.max_tool_calls, self.tool_calls_limit),
            max_tokens_budget=tokens,
            max_cost_usd=cost_usd,
        )


def _less(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)
