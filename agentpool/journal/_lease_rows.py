"""The leases of a journal's pools as rows; the rules are in ``agentpool._lease``."""

from __future__ import annotations

import math
import time  # noqa: TID251  # a lease is held against other processes: their clock is the wall's
from typing import Final, TypeAlias

import msgspec

from agentpool._database.transaction import Row, Transaction
from agentpool._errors import LeaseLostError
from agentpool._journal_records import Lease
from agentpool._lease import NOBODY, LeaseState
from agentpool.journal._holder import refuse_if_busy, this_process
from agentpool.journal._rows import number_of, seconds_of, text_of

SeenLease: TypeAlias = tuple[int, int, str, float, float]
"""A lease as its row has it: number of the pool, fence, holder, seconds, last renewal."""

_LEASE: Final = "SELECT fence, holder, lease_seconds, renewed_at FROM pools WHERE name = ?"

AS_SEEN: Final = (
    "name = ? AND id = ? AND fence = ? AND holder = ? AND lease_seconds = ? AND renewed_at = ?"
)
"""Matches a lease that has not changed since ``hold`` saw it. The first parameter is the pool's
name."""

_HELD: Final = "SELECT id, fence, holder, lease_seconds, renewed_at FROM pools WHERE name = ?"

NEW_SHARE: Final = 0.05
"""The part of a lease that may pass before a write renews the lease. Not every write renews it,
since a renewal writes one more page."""

_CHANGE: Final = (
    "UPDATE pools SET fence = ?, holder = ?, lease_seconds = ?, renewed_at = ? WHERE name = ?"
)


def lease_of(transaction: Transaction, pool: str) -> LeaseState:
    """Return the lease of *pool*.

    Raises:
        ValueError: If the row is damaged.
    """
    rows = transaction.rows(_LEASE, pool)
    return state_of(rows[0]) if rows else LeaseState()


def state_of(row: Row) -> LeaseState:
    """Return the lease in *row*: fence, holder, seconds, time of the last renewal.

    Raises:
        ValueError: If the row is damaged.
    """
    fence, holder, seconds, renewed_at = row
    return LeaseState(
        text_of(holder, "holder"),
        number_of(fence, "fence"),
        seconds_of(seconds, most=math.inf),
        seconds_of(renewed_at),
    )


def take(
    transaction: Transaction,
    pool: str,
    lease_seconds: float,
    opening: int,
    *,
    silent_since: float | None = None,
) -> int:
    """Make an opening in this process the holder of *pool* and return its fence.

    Raises:
        RunBusyError: If a different opening holds the lease and has written since *silent_since*.
        ValueError: If the stored lease is damaged.
    """
    me = msgspec.json.encode(this_process(opening)).decode()
    before = lease_of(transaction, pool)
    refuse_if_busy(pool, before, me, silent_since)
    lease = before.claimed(me, seconds=lease_seconds, now=time.time())
    if not before.fence:
        begin(transaction, pool)
    _keep(transaction, pool, lease)
    return lease.fence


def begin(transaction: Transaction, pool: str) -> None:
    """Add *pool* without a holder, unless the file has it already."""
    transaction.insert(
        "INSERT OR IGNORE INTO pools "
        "(name, created_at, fence, holder, lease_seconds, renewed_at) VALUES (?, ?, 0, '', 0, 0)",
        pool, time.time(),
    )  # fmt: skip


def hold(transaction: Transaction, lease: Lease, seen: dict[str, SeenLease] | None = None) -> int:
    """Renew *lease* unless that was done recently, and return its pool's number in the file.

    Everything else that the transaction writes is kept only if the lease is held.

    Args:
        transaction: The transaction.
        lease: The lease.
        seen: Gets the lease as it is now stored, under the pool's name.

    Raises:
        LeaseLostError: If the pool has another holder.
        ValueError: If the stored lease is damaged.
    """
    number, state = 0, LeaseState()
    now = time.time()
    for row in transaction.rows(_HELD, lease.pool):
        number, state = number_of(row[0], "pool"), state_of(row[1:])
    renewed = state.renewed(lease.fence, now=now)
    if renewed is None:
        raise LeaseLostError.of(lease.pool, lease.fence)
    if not _is_fresh(now - state.renewed_at, state.seconds):
        _keep(transaction, lease.pool, renewed)
        state = renewed
    if seen is not None:
        # What is rolled back is not found again, and looked for anew.
        seen[lease.pool] = (number, state.fence, state.holder, state.seconds, state.renewed_at)
    return number


def is_new(row: SeenLease, lease: Lease, now: float) -> bool:
    """Return whether *row* belongs to *lease* and needs no renewal."""
    _, fence, holder, seconds, renewed_at = row
    return fence == lease.fence and holder != NOBODY and _is_fresh(now - renewed_at, seconds)


def _is_fresh(age_seconds: float, seconds: float) -> bool:
    return 0 <= age_seconds < seconds * NEW_SHARE


def give_up(transaction: Transaction, lease: Lease) -> None:
    """Give up *lease*, if it is still held.

    Raises:
        ValueError: If the stored lease is damaged.
    """
    released = lease_of(transaction, lease.pool).released(lease.fence)
    if released is not None:
        _keep(transaction, lease.pool, released)


def _keep(transaction: Transaction, pool: str, lease: LeaseState) -> None:
    transaction.change(_CHANGE, lease.fence, lease.holder, lease.seconds, lease.renewed_at, pool)
