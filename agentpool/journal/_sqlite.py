"""A journal in an SQLite file, which outlives the process. Each pool has one writer at a time.

Rules:

1. The records of one call are all kept or none, and the same transaction checks the lease: a
   process whose lease was taken over can write nothing more.
2. A lease ends when its length has passed since the last write, or up to a twentieth earlier: a
   write does not renew a lease that was renewed less than a twentieth of its length ago. If the
   holder was a process of this machine since its last start, and is now dead, the lease is free
   immediately.
3. The clock decides only how long another process waits; the fence decides who may write. If the
   clock went back, a lease stays alive until ``claim`` has seen no write for its length.
4. Later versions read what any released version wrote. A file of a newer format is refused and left
   untouched.
"""

from __future__ import annotations

import logging
import time  # noqa: TID251  # a lease is held against other processes: their clock is the wall's
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, final

import attrs
import trio

from agentpool._base import Unique
from agentpool._budget.store import Spending, StoredUse, spend_all
from agentpool._checks import expect_arguments
from agentpool._database.database import Database, InFile
from agentpool._database.opening import open_database
from agentpool._database.transaction import Row, Transaction
from agentpool._errors import JournalError, RunBusyError, UsageError
from agentpool._file_kind import FileKind
from agentpool._journal_records import JournalRecord, Lease, PoolSummary
from agentpool._needs_trio import check_trio
from agentpool._opening import opening
from agentpool.journal._budgets import MIGRATION as BUDGETS
from agentpool.journal._budgets import BudgetTable
from agentpool.journal._holder import an_opening, live_holder
from agentpool.journal._joint import JointJournal, Spendings, kept_of
from agentpool.journal._lease_rows import SeenLease, give_up, lease_of, state_of, take
from agentpool.journal._pruning import check_over, forget
from agentpool.journal._record_rows import keep, keep_at_once
from agentpool.journal._rows import damaged, record_of, seconds_of, text_of
from agentpool.journal._shared_work import MIGRATION as SHARED_WORK
from agentpool.journal._shared_work import SharedWork

T = TypeVar("T")

Durability: TypeAlias = Literal["process", "power"]
"""What a written record survives: only the end of the process, or a power failure as well."""

MIGRATIONS: Final = (
    """\
CREATE TABLE pools (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    fence INTEGER NOT NULL,
    holder TEXT NOT NULL,
    lease_seconds REAL NOT NULL,
    renewed_at REAL NOT NULL
);

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    pool INTEGER NOT NULL REFERENCES pools ON DELETE CASCADE,
    agent INTEGER NOT NULL,
    kind TEXT NOT NULL,
    place INTEGER NOT NULL,
    part INTEGER NOT NULL,
    digest TEXT NOT NULL,
    body BLOB NOT NULL
);

CREATE INDEX records_of_pool ON records (pool, id);

CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);

""",
    BUDGETS,
    SHARED_WORK,
)
"""Format 1, 2, 3, … of the file. A released format never changes: a change adds a format."""

_OWNERS: Final = """SELECT name FROM pools WHERE instr(holder, '"pid":' || ? || ',')"""
"""Finds the pools of a process by its process id."""

_KIND: Final = FileKind(
    "journal", JournalError, MIGRATIONS, interrupts=False, synchronous="FULL", owners=_OWNERS
)

_log: Final = logging.getLogger("agentpool")

_SYNCHRONOUS: Final[dict[str, str]] = {"process": "OFF", "power": "FULL"}
"""When SQLite waits for the disk."""

_COMMAND_OF: Final = "command of "
"""The beginning of the name of a fact. The pool's name follows."""


@final
@attrs.define(eq=False, repr=False)
class SqliteJournal(Unique, InFile, JointJournal):
    """Keeps records in an SQLite file. Opened by ``open_journal``."""

    _database: Database
    _opening: int
    """The number of this opening in this process."""
    _is_quick: bool = False
    """Whether a write does not wait for the disk."""
    _leases: dict[str, SeenLease] = attrs.field(init=False, factory=dict[str, SeenLease])
    """Each pool's lease as it was last seen."""

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write the records of *pool*.

        Raises:
            RunBusyError: If the lease of another process, or of another opening of the file in this
                process, has not ended.
            JournalError: If the file cannot be written.

        Cancellation:
            The lease may have been taken. Claiming it again with this journal is possible.
        """
        expect_arguments(SqliteJournal.claim, locals())
        if not lease_seconds > 0:
            raise UsageError(f"lease_seconds must be > 0, got {lease_seconds!r}")
        try:
            fence = await self._write(lambda t: take(t, pool, lease_seconds, self._opening))
        except RunBusyError as busy:
            state = await self._database.read(lambda t: lease_of(t, pool))  # noqa: ASYNC120  # whoever gives up claims nothing
            if not state.went_back(time.time()):
                raise
            # The clock cannot tell how long ago the last write was. Who does not write for
            # the length of the lease has lost it.
            _log.warning("%s; waiting %g seconds to see whether it writes", busy, state.seconds)
            await trio.sleep(state.seconds)
            try:
                fence = await self._write(
                    lambda t: take(
                        t, pool, lease_seconds, self._opening, silent_since=state.renewed_at
                    )
                )
            except RunBusyError:
                raise busy from None
        return Lease(pool, fence, float(lease_seconds))

    async def _write(self, job: Callable[[Transaction], T]) -> T:
        try:
            return await self._database.write(job)
        except (TypeError, ValueError) as exc:
            raise damaged(self.path, exc) from exc

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Store *records*, all or none, and renew the lease.

        Raises:
            LeaseLostError: If another process has claimed the pool since.
            JournalError: If the file cannot be written. Nothing was kept.

        Cancellation:
            The records were kept, all or none.
        """
        await self._write(lambda t: keep(t, lease, records, self._leases))

    def append_at_once(self, lease: Lease, records: Sequence[JournalRecord]) -> bool:
        """Store *records* in this thread, if nothing has to wait for the disk.

        Raises:
            LeaseLostError: If another process has claimed the pool since.
            JournalError: If the file cannot be written. Nothing was kept.
        """
        if not self._is_quick:
            return False
        if keep_at_once(self._database, lease, records, self._leases):
            return True
        try:
            return self._database.write_at_once(lambda t: keep(t, lease, records, self._leases))
        except (TypeError, ValueError) as exc:
            raise damaged(self.path, exc) from exc

    async def append_and_spend(
        self, lease: Lease, records: Sequence[JournalRecord], together: Sequence[Spendings]
    ) -> Sequence[Sequence[StoredUse]]:
        """Store *records*, renew the lease, and spend, all in one transaction.

        Raises:
            LeaseLostError: If another process has claimed the pool since.
            JournalError: If the file cannot be written. Nothing was kept.

        Cancellation:
            Either everything was written or nothing.
        """

        def spend(transaction: Transaction) -> list[tuple[StoredUse, ...]]:
            table, now = BudgetTable(transaction), time.time()
            found = [spend_all(table, now, asked) for _, asked in together]
            keep(transaction, lease, kept_of(records, together, found), self._leases)
            return found

        return await self._write(spend)

    async def read(self, pool: str) -> tuple[JournalRecord, ...]:
        """Return the records of *pool* in the order in which they were written.

        Raises:
            JournalError: If the file cannot be read.
        """
        expect_arguments(SqliteJournal.read, locals())

        def select(transaction: Transaction) -> list[Row]:
            return transaction.rows(
                "SELECT agent, kind, place, part, digest, body FROM records "
                "WHERE pool = (SELECT id FROM pools WHERE name = ?) ORDER BY id",
                pool,
            )

        rows = await self._database.read(select)
        try:
            return tuple(map(record_of, rows))
        except (TypeError, ValueError) as exc:
            raise JournalError(
                f"journal file {str(self.path)!r}: pool {pool!r} has a record that this version "
                f"does not know: {exc}; upgrade trio-agentpool"
            ) from exc

    async def release(self, lease: Lease) -> None:
        """Give up the right to write, if *lease* still has it.

        Raises:
            JournalError: If the file cannot be written.
        """
        await self._write(lambda transaction: give_up(transaction, lease))

    async def pools(self) -> tuple[PoolSummary, ...]:
        """Return a summary of each pool, oldest first.

        Raises:
            JournalError: If the file cannot be read.
        """

        def select(transaction: Transaction) -> list[Row]:
            return transaction.rows(
                "SELECT name, created_at, fence, holder, lease_seconds, renewed_at, "
                "COUNT(DISTINCT CASE WHEN kind = 'accepted' AND agent > 0 THEN agent END), "
                "COUNT(CASE WHEN kind = 'accepted' AND agent > 0 THEN 1 END), "
                "COUNT(CASE kind WHEN 'ended' THEN 1 END), "
                "TOTAL(LENGTH(body)) "
                "FROM pools LEFT JOIN records ON records.pool = pools.id "
                "GROUP BY pools.id ORDER BY pools.id"
            )

        rows = await self._database.read(select)
        try:
            return tuple(map(_summary_of, rows))
        except (TypeError, ValueError) as exc:
            raise damaged(self.path, exc) from exc

    async def keep_command(self, pool: str, command: str, *, is_first: bool = False) -> None:
        """Store the command that made the agents of *pool*, replacing an earlier one.

        Args:
            pool: The pool's name.
            command: The command that continues the pool.
            is_first: Whether to store it only if no command is stored yet.

        Raises:
            JournalError: If the file cannot be written.
        """
        expect_arguments(SqliteJournal.keep_command, locals())
        keep = "INSERT OR IGNORE" if is_first else "INSERT OR REPLACE"
        await self._database.write(
            lambda transaction: transaction.change(
                f"{keep} INTO facts VALUES (?, ?)", _COMMAND_OF + pool, command
            )
        )

    async def command_of(self, pool: str) -> str | None:
        """Return the command of *pool* that ``keep_command`` stored. ``None``: there is none.

        Raises:
            JournalError: If the file cannot be read.
        """
        expect_arguments(SqliteJournal.command_of, locals())
        rows = await self._database.read(
            lambda t: t.rows("SELECT value FROM facts WHERE name = ?", _COMMAND_OF + pool)
        )
        try:
            return text_of(rows[0][0], "command") if rows else None
        except ValueError as exc:
            raise damaged(self.path, exc) from exc

    async def spend_together(self, spendings: Sequence[Spending]) -> tuple[StoredUse, ...]:
        """Spend from several budgets in one transaction: all take what they want, or none does.

        Raises:
            JournalError: If the file cannot be written. Nothing has changed.
        """
        return await self._database.write(
            lambda t: spend_all(BudgetTable(t), time.time(), spendings)
        )

    def shared_work(self, name: str) -> SharedWork:
        """Return the shared work of that name."""
        return SharedWork(self._database, name)

    async def prune(self, pool: str) -> int:
        """Delete the records of ended agents of *pool*, except outcomes; return their number.

        The tasks of the agents, their answers and their spending stay. A pool is left as it is if
        an agent has not ended, or a process uses the pool. The file shrinks.

        Raises:
            JournalError: If the pool is missing or has not ended, or the file cannot be written.
        """
        expect_arguments(SqliteJournal.prune, locals())
        found = {one.pool: one for one in await self.pools()}
        if pool not in found:
            raise JournalError(f"the journal has no pool {pool!r}; it has {sorted(found)}")
        check_over(found[pool])
        gone = await self._write(lambda transaction: forget(transaction, pool))
        await self._database.command("VACUUM")
        await self._database.command("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone


@opening("journal")
@asynccontextmanager
async def open_journal(
    path: str | Path, *, durability: Durability | None = None, read_only: bool = False
) -> AsyncGenerator[SqliteJournal]:
    """Open the journal in the file *path*. A new file can be read by its owner only.

    Args:
        path: The file. Its folder must exist.
        durability: With ``process``, records survive the end of the process, even a kill. With
            ``power``, records also survive a power failure, but each write waits for the disk.
            ``None``: as the file says, or ``process`` for a new file.
        read_only: Whether to read only: no file is created or changed.

    Yields:
        The journal. Many pools may use it at the same time.

    Raises:
        UsageError: If the durability is unknown.
        JournalError: If the file cannot be opened, is not a journal, or was written by a later
            version.
    """
    expect_arguments(open_journal, locals())
    check_trio("open_journal")
    async with open_database(Path(path), _KIND, read_only=read_only) as database:
        said: Durability = "power"
        if not read_only:
            said = await database.write(lambda transaction: _settle(transaction, durability))
            await database.command(f"PRAGMA synchronous = {_SYNCHRONOUS[said]}")
        with an_opening() as opening_number:
            yield SqliteJournal(database, opening_number, said == "process")


def _settle(transaction: Transaction, durability: Durability | None) -> Durability:
    """Set how durable the file's records are, and return it."""
    found = transaction.rows("SELECT value FROM facts WHERE name = 'durability'")
    kept: Durability = "power" if found == [("power",)] else "process"
    wanted = durability or kept
    transaction.change("INSERT OR REPLACE INTO facts VALUES ('durability', ?)", wanted)
    return wanted


def _summary_of(row: Row) -> PoolSummary:
    """Return the summary of *row*.

    Raises:
        ValueError: If the row is damaged.
    """
    name, created, fence, holder, seconds, renewed, agents, runs, ended, size = row
    return PoolSummary(
        text_of(name, "name"),
        seconds_of(created),
        int(agents or 0),
        # An agent that was branched has several runs, of which only the last can be open.
        max(int(agents or 0) - max(int(runs or 0) - int(ended or 0), 0), 0),
        int(size or 0),
        live_holder(state := state_of((fence, holder, seconds, renewed))),
        state.ahead_of(time.time()),
    )
