"""A journal in memory, for tests and simulated crashes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import attrs
import trio

from agentpool._amounts import counted
from agentpool._base import Unique
from agentpool._budget.account import Amounts
from agentpool._budget.period import Period
from agentpool._budget.store import (
    NOTHING,
    Spending,
    StoredUse,
    UseTable,
    minus,
    spend_all,
)
from agentpool._checks import expect_arguments
from agentpool._errors import LeaseLostError
from agentpool._journal_records import JournalRecord, Lease, PoolSummary, RecordKind
from agentpool.journal._joint import JointJournal, Spendings, kept_of


@final
@attrs.define(eq=False, repr=False)
class InMemoryJournal(Unique, JointJournal):
    """Keeps records for as long as the object lives.

    >>> import trio
    >>> from agentpool.journal import InMemoryJournal, JournalRecord, RecordKind
    >>> async def main():
    ...     journal = InMemoryJournal()
    ...     lease = await journal.claim("nightly")
    ...     await journal.append(lease, [JournalRecord(1, RecordKind.ACCEPTED)])
    ...     return len(await journal.read("nightly"))
    >>> trio.run(main)
    1
    """

    _pools: dict[str, list[JournalRecord]] = attrs.field(
        init=False, factory=dict[str, list[JournalRecord]]
    )
    _fences: dict[str, int] = attrs.field(init=False, factory=dict[str, int])
    _used: dict[tuple[str, str], Amounts] = attrs.field(
        init=False, factory=dict[tuple[str, str], Amounts]
    )
    """What budgets have used, by their names and periods."""

    def _repr_words(self) -> str:
        return f"of {counted(len(self._pools), 'pool')}"

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:  # see below
        """Take over the records of *pool* from any earlier holder.

        The lease never ends, and *lease_seconds* is ignored, since no other process can use the
        pool.
        """
        expect_arguments(InMemoryJournal.claim, locals())
        await trio.lowlevel.checkpoint()
        fence = self._fences[pool] = self._fences.get(pool, 0) + 1
        return Lease(pool, fence, math.inf)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Store *records*, all or none.

        Raises:
            LeaseLostError: If another process has claimed the pool since.
        """
        await trio.lowlevel.checkpoint()
        self._expect_owner(lease)
        self._pools.setdefault(lease.pool, []).extend(records)

    async def read(self, pool: str) -> tuple[JournalRecord, ...]:
        """Return all records of *pool*, oldest first."""
        expect_arguments(InMemoryJournal.read, locals())
        await trio.lowlevel.checkpoint()
        return tuple(self._pools.get(pool, ()))

    async def release(self, lease: Lease) -> None:
        """Give up the right to write."""
        await trio.lowlevel.checkpoint()
        if self._fences.get(lease.pool) == lease.fence:
            self._fences[lease.pool] += 1

    async def pools(self) -> tuple[PoolSummary, ...]:
        """Return a summary of each pool, in the order of their first records."""
        await trio.lowlevel.checkpoint()
        return tuple(
            PoolSummary(
                pool,
                0.0,
                len({one.agent_id for one in records if _begins(one)}),
                # An agent that was branched has several runs, and only the last may be open.
                len({one.agent_id for one in records if _begins(one)})
                - sum(map(_begins, records))
                + sum(one.kind is RecordKind.ENDED for one in records),
                sum(len(one.body) for one in records),
                None,
            )
            for pool, records in self._pools.items()
        )

    async def spend_together(self, spendings: Sequence[Spending]) -> tuple[StoredUse, ...]:
        """Spend from several budgets in one step: all take what they want, or none does.

        Periods are counted on trio's clock, as if the clock had started in 1970.
        """
        await trio.lowlevel.checkpoint()
        return spend_all(_Table(self._used), trio.current_time(), spendings)

    async def append_and_spend(
        self, lease: Lease, records: Sequence[JournalRecord], together: Sequence[Spendings]
    ) -> Sequence[Sequence[StoredUse]]:
        """Store *records* and spend, all or none.

        Raises:
            LeaseLostError: If another process has claimed the pool since.
        """
        await trio.lowlevel.checkpoint()
        self._expect_owner(lease)
        table, now = _Table(self._used), trio.current_time()
        found = [spend_all(table, now, asked) for _, asked in together]
        self._pools.setdefault(lease.pool, []).extend(kept_of(records, together, found))
        return found

    def _expect_owner(self, lease: Lease) -> None:
        if self._fences.get(lease.pool) != lease.fence:
            raise LeaseLostError.of(lease.pool, lease.fence)


@final
@attrs.frozen
class _Table(UseTable):
    """What budgets have used, by name and period."""

    _used: dict[tuple[str, str], Amounts]

    def latest(self, name: str, per: Period) -> str:
        """Return the last known period. Empty: the budget is new."""
        known = (kept for of, kept in self._used if of == name and kept.startswith(f"{per} "))
        return max(known, default="")

    def used(self, name: str, period: str) -> Amounts:
        """Return what is used and reserved."""
        return self._used.get((name, period), NOTHING)

    def add(self, name: str, period: str, amounts: Amounts) -> None:
        """Add to what is used."""
        before = self.used(name, period)
        self._used[name, period] = minus(before, minus(NOTHING, amounts))


def _begins(record: JournalRecord) -> bool:
    return record.kind is RecordKind.ACCEPTED and record.agent_id > 0
