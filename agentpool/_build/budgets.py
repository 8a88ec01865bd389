"""The budgets that manifests ask for, which outlive their pool."""

from __future__ import annotations

from collections.abc import Sequence

from agentpool._budget.budget import Budget
from agentpool._budget.store import BudgetStore
from agentpool._errors import UsageError
from agentpool._manifest.budget import BudgetConfig
from agentpool._manifest.manifest import AgentManifest


def build_budget(
    manifests: Sequence[AgentManifest], whole: Budget | None, store: BudgetStore | None
) -> Budget | None:
    """Build the budget that all agents of a pool share. ``None``: there is no limit.

    Args:
        manifests: The manifests of the agents. A budget in one of them limits all agents.
        whole: A further budget, in which all that is spent counts as well.
        store: What keeps the spent amounts.

    Raises:
        UsageError: If a manifest asks for a budget and there is no store, or if two manifests ask
            for different budgets of the same name.
    """
    wanted = dict[str, tuple[BudgetConfig, str]]()
    for manifest in manifests:
        config = manifest.budget
        if config is None:
            continue
        known, whose = wanted.setdefault(config.name, (config, manifest.name))
        if known != config:
            raise UsageError(
                f"manifests {whose!r} and {manifest.name!r} have budgets with the same name, "
                f"{config.name!r}, but different limits; use the same limits, or different names"
            )
    for name, (config, whose) in wanted.items():
        if store is None:
            raise UsageError(
                f"manifest {whose!r} has a [budget] per {config.per}, but no store to keep what "
                "is spent; open a journal, and give PoolPlan(budget_store=journal)"
            )
        whole = Budget(
            tokens=config.tokens, cost_usd=config.cost_usd, requests=config.requests,
            tool_calls=config.tool_calls, name=name, per=config.per, store=store, parent=whole,
        )  # fmt: skip
    return whole
