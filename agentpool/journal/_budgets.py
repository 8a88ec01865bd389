"""What budgets have used, in the table of a journal: see ``BudgetStore``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentpool._budget.account import Amounts
from agentpool._budget.store import (
    NOTHING,
    Correction,
    Limits,
    Period,
    StoredUse,
    lacking_kind,
    period_at,
)
from agentpool._database import Row, Transaction

MIGRATION: Final = """\
CREATE TABLE budgets (
    name TEXT NOT NULL,
    period TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    picodollars INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    PRIMARY KEY (name, period)
);

"""

_USED: Final = (
    "SELECT tokens, picodollars, requests, tool_calls FROM budgets WHERE name = ? AND period = ?"
)


def spend(  # noqa: PLR0917  # in the order of BudgetStore.spend()
    transaction: Transaction,
    now: float,
    name: str,
    per: Period,
    limits: Limits,
    wanted: Amounts,
    corrections: Sequence[Correction],
) -> StoredUse:
    """Do what ``BudgetStore.spend`` says, at the time *now*."""
    ((latest,),) = transaction.rows(
        "SELECT MAX(period) FROM budgets WHERE name = ? AND period LIKE ?", name, f"{per} %"
    )
    period = period_at(per, now, "" if latest is None else str(latest))
    for one in corrections:
        _add(transaction, name, one.period or period, one.amounts)
    used = _amounts(transaction.rows(_USED, name, period))
    lacking = lacking_kind(limits, used, wanted)
    if lacking is None and any(wanted):
        _add(transaction, name, period, wanted)
        used = _amounts(transaction.rows(_USED, name, period))
    return StoredUse(period, used, lacking)


def _add(transaction: Transaction, name: str, period: str, amounts: Amounts) -> None:
    transaction.change(
        "INSERT INTO budgets VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name, period) DO UPDATE SET "
        "tokens = tokens + excluded.tokens, picodollars = picodollars + excluded.picodollars, "
        "requests = requests + excluded.requests, tool_calls = tool_calls + excluded.tool_calls",
        name, period, *amounts,
    )  # fmt: skip


def _amounts(rows: Sequence[Row]) -> Amounts:
    if not rows:
        return NOTHING
    tokens, picos, requests, tool_calls = (int(value or 0) for value in rows[0])
    return tokens, picos, requests, tool_calls
