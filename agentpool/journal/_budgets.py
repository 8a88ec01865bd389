"""The table of a journal that stores what budgets have used: see ``BudgetStore``."""

from __future__ import annotations

from typing import Final, final

import attrs

from agentpool._budget.account import Amounts
from agentpool._budget.period import Period
from agentpool._budget.store import NOTHING, UseTable
from agentpool._database.transaction import Transaction

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


@final
@attrs.frozen
class BudgetTable(UseTable):
    """The table of budgets, within a transaction."""

    _transaction: Transaction

    def latest(self, name: str, per: Period) -> str:
        """Return the last known period of the budget. Empty: the budget is new."""
        ((latest,),) = self._transaction.rows(
            "SELECT MAX(period) FROM budgets WHERE name = ? AND period LIKE ?", name, f"{per} %"
        )
        return "" if latest is None else str(latest)

    def used(self, name: str, period: str) -> Amounts:
        """Return what is used and reserved."""
        rows = self._transaction.rows(_USED, name, period)
        if not rows:
            return NOTHING
        tokens, picos, requests, tool_calls = (int(value or 0) for value in rows[0])
        return tokens, picos, requests, tool_calls

    def add(self, name: str, period: str, amounts: Amounts) -> None:
        """Add to what is used."""
        self._transaction.change(
            "INSERT INTO budgets VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name, period) DO UPDATE "
            "SET tokens = tokens + excluded.tokens, "
            "picodollars = picodollars + excluded.picodollars, "
            "requests = requests + excluded.requests, "
            "tool_calls = tool_calls + excluded.tool_calls",
            name, period, *amounts,
        )  # fmt: skip
