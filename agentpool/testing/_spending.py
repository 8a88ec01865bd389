"""Hypothesis strategies for budgets, and for the limits of runs."""

from __future__ import annotations

from agentpool._budget.budget import Budget
from agentpool._budget.statistics import BudgetMeter, BudgetStatistics
from agentpool._manifest.usage_limits import UsageLimits
from agentpool.testing._hypothesis import Strategy, st


def _or_none(limits: Strategy[int]) -> Strategy[int | None]:
    return st.none() | limits


def budgets(parent: Budget | None = None) -> Strategy[Budget]:
    """Draw unspent budgets, small ones as often as large ones.

    Args:
        parent: The budget of which the drawn budgets are a part. Its limits may be smaller than
            theirs.
    """
    small = st.integers(min_value=1, max_value=10)
    return st.builds(
        Budget,
        tokens=_or_none(st.integers(min_value=1, max_value=10_000)),
        cost_usd=st.none() | st.floats(min_value=1e-6, max_value=100.0),
        requests=_or_none(small),
        tool_calls=_or_none(small),
        parent=st.just(parent),
        name=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        allow_unpriced=st.booleans(),
    )


def usage_limits() -> Strategy[UsageLimits]:
    """Draw limits for a run, some of them narrower than the manifest's."""
    counts = _or_none(st.integers(min_value=1, max_value=100))
    return st.builds(
        UsageLimits,
        request_limit=counts,
        tool_calls_limit=counts,
        total_tokens_limit=_or_none(st.integers(min_value=1, max_value=100_000)),
        cost_limit_usd=st.none() | st.floats(min_value=1e-6, max_value=100.0),
    )


def budget_statistics() -> Strategy[BudgetStatistics]:
    """Draw snapshots of budgets, spent or not."""
    amounts = st.integers(min_value=0, max_value=10_000)
    meters = st.builds(BudgetMeter, limit=_or_none(amounts), committed=amounts, reserved=amounts)
    return st.builds(
        BudgetStatistics,
        name=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        tokens=meters,
        cost=meters,
        requests=meters,
        tool_calls=meters,
        unmeasured=amounts,
        unpriced=amounts,
        refused=amounts,
    )
