"""The records of a journal as rows, written only under a valid lease.

Rule: the transaction that writes records also checks the lease, and keeps no row without the lease.
Most writes find the lease unchanged, and then need only one statement.
"""

from __future__ import annotations

import time  # noqa: TID251  # a lease is held against other processes: their clock is the wall's
from collections.abc import Sequence
from functools import cache
from typing import Final

from agentpool._database.database import Database
from agentpool._database.transaction import Transaction, Value
from agentpool._journal_records import JournalRecord, Lease
from agentpool.journal._lease_rows import AS_SEEN, SeenLease, hold, is_new

_INTO: Final = "INSERT INTO records (pool, agent, kind, place, part, digest, body)"

_MOST_AT_ONCE: Final = 8
"""The most records in one statement. This is enough for an agent's turn with some calls."""


def keep(
    transaction: Transaction,
    lease: Lease,
    records: Sequence[JournalRecord],
    seen: dict[str, SeenLease],
) -> None:
    """Add *records*, and renew the lease.

    Args:
        transaction: The transaction.
        lease: The right to write the records.
        records: What to keep.
        seen: Each pool's lease as it was last seen.

    Raises:
        LeaseLostError: If the pool has another holder.
        ValueError: If the stored lease is damaged.
    """
    pool = hold(transaction, lease, seen)
    transaction.insert_many(
        f"{_INTO} VALUES (?, ?, ?, ?, ?, ?, ?)", [(pool, *_values(r)) for r in records]
    )


def keep_at_once(
    database: Database, lease: Lease, records: Sequence[JournalRecord], seen: dict[str, SeenLease]
) -> bool:
    """Add *records* in a single statement, if the lease is unchanged and needs no renewal.

    Return whether the records were added, which no statement does if there are none: then only the
    lease is renewed. The arguments are those of ``keep``.

    Raises:
        JournalError: If the file cannot be written. Nothing was kept.
    """
    row = seen.get(lease.pool)
    if row is None or not 0 < len(records) <= _MOST_AT_ONCE or not is_new(row, lease, time.time()):
        return False
    as_seen = (lease.pool, *row)
    values: list[Value] = []
    for record in records:
        values += _values(record)
        values += as_seen
    return database.change_at_once(_statement(len(records)), values) > 0


def _values(record: JournalRecord) -> tuple[Value, ...]:
    kind = record.kind.value
    return record.agent_id, kind, record.place, record.part, record.digest, record.body


@cache
def _statement(count: int) -> str:
    """Return the statement that adds *count* records, all or none, in their order."""
    one = f"SELECT id, ?, ?, ?, ?, ?, ? FROM pools WHERE {AS_SEEN}"  # noqa: S608  # our own words
    return f"{_INTO} {' UNION ALL '.join([one] * count)}"
