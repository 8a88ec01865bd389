"""Writes records and budget spending in one step: see ``JointJournal``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, final

from agentpool._base import Live
from agentpool._budget.account import Amounts
from agentpool._budget.period import Period
from agentpool._budget.store import BudgetStore, Correction, Limits, Spending, StoredUse
from agentpool._journal_records import JournalRecord, Lease
from agentpool.abc import Journal

Spendings: TypeAlias = tuple[int, Sequence[Spending]]
"""The place of a record among those that are written, and the budget changes that are written with
this record."""


@final
class Together(Live):
    """The budget changes to write in one step with a record."""

    spendings: Sequence[Spending]
    """The changes. Either all are made, or none."""
    on_written: Callable[[Sequence[StoredUse] | None], object]
    """Called with the store's answer to each change, or with ``None`` if nothing was written."""


class JointJournal(Journal, BudgetStore):
    """A journal that is also a store of budgets, and writes records and spending in one step."""

    __slots__ = ()

    @abstractmethod
    async def append_and_spend(
        self, lease: Lease, records: Sequence[JournalRecord], together: Sequence[Spendings]
    ) -> Sequence[Sequence[StoredUse]]:
        """Store *records* as ``append`` does, and spend; all or nothing.

        A record whose spendings are not all granted is left out, and nothing is spent for it.

        Args:
            lease: The right to write.
            records: What to store.
            together: The spending that belongs to some of the records, in the order of the records.

        Raises:
            LeaseLostError: If another process has claimed the pool since. Nothing was kept.
            JournalError: If the journal cannot be written. Nothing was kept.

        Cancellation:
            Either everything was written or nothing.
        """

    async def spend(
        self,
        name: str,
        per: Period,
        limits: Limits,
        wanted: Amounts,
        corrections: Sequence[Correction],
    ) -> StoredUse:
        """Apply *corrections*, then take *wanted* if the *limits* allow it; all in one step.

        Raises:
            JournalError: If it cannot be written. Nothing has changed.
        """
        (found,) = await self.spend_together((Spending(name, per, limits, wanted, corrections),))
        return found

    @abstractmethod
    async def spend_together(self, spendings: Sequence[Spending]) -> Sequence[StoredUse]:
        """Spend from several budgets in one step: all take what they want, or none does.

        Raises:
            JournalError: If it cannot be written. Nothing has changed.
        """


def kept_of(
    records: Sequence[JournalRecord],
    together: Sequence[Spendings],
    found: Sequence[Sequence[StoredUse]],
) -> list[JournalRecord]:
    """Return the *records* without those whose spending was refused."""
    left_out = {
        place
        for (place, _), uses in zip(together, found, strict=True)
        if any(use.lacking is not None for use in uses)
    }
    return [record for place, record in enumerate(records) if place not in left_out]
