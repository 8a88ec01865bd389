"""The task that writes the records of one pool: in order, many at once, before each deed.

Rules:

1. Records are kept in the order in which they were noted, so a record that is kept means
   that every earlier one is.
2. A deed (a request that leaves, a tool that begins, an outcome that is handed out) waits
   until everything that was noted before it is kept. Nothing else waits.
3. What several agents note while a write is under way goes into the next write together.
4. A write that fails ends the pool: an agent that goes on would do what nobody keeps.
"""

from __future__ import annotations

from typing import final

import attrs
import trio

from agentpool._errors import JournalError
from agentpool._records import JournalRecord, Lease
from agentpool.abc import Journal

RENEWALS_PER_LEASE = 3
"""How often a pool that has nothing to write says that it is there."""


@final
@attrs.define(eq=False)
class JournalWriter:
    """Writes the records of one pool. One task runs ``run``; all others note and wait."""

    journal: Journal
    """Where they are kept."""
    lease: Lease
    """The right to write them."""
    _pending: list[JournalRecord] = attrs.field(init=False, factory=list[JournalRecord])
    _noted: int = attrs.field(init=False, default=0)
    _kept: int = attrs.field(init=False, default=0)
    _closed: bool = attrs.field(init=False, default=False)
    _error: Exception | None = attrs.field(init=False, default=None)
    _work: trio.lowlevel.ParkingLot = attrs.field(init=False, factory=trio.lowlevel.ParkingLot)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(init=False, factory=trio.lowlevel.ParkingLot)

    @property
    def kept_count(self) -> int:
        """The number of records written."""
        return self._kept

    def note(self, record: JournalRecord) -> None:
        """Queue *record* for writing, after all that were noted before."""
        self._pending.append(record)
        self._noted += 1
        self._work.unpark()

    async def flush(self) -> None:  # noqa: ASYNC910  # to park is a checkpoint
        """Wait until everything noted so far is written.

        Raises:
            JournalError: If it cannot be written, here or before.

        Cancellation:
            What was noted is kept later.
        """
        noted = self._noted
        if self._kept >= noted:
            await trio.lowlevel.checkpoint()
            self._raise_if_broken()
            return
        while self._kept < noted:
            self._raise_if_broken()
            await self._waiting.park()

    def _raise_if_broken(self) -> None:
        if self._error is not None:
            raise JournalError(f"the journal cannot be written: {self._error}") from self._error

    async def run(self) -> None:  # noqa: ASYNC910  # closed before it began, it has nothing to do
        """Write what is noted, and renew the lease, until ``close``.

        Raises:
            JournalError: If it cannot be written.

        Cancellation:
            What was noted is written first.
        """
        try:
            while self._pending or not self._closed:
                if not self._pending and await self._is_called():
                    continue
                await self._write()
        finally:
            with trio.CancelScope(shield=True):  # noqa: ASYNC912  # nothing may be left to write
                if self._error is None and self._pending:
                    await self._write()

    async def _is_called(self) -> bool:
        """Wait for something to do. Return False when the lease must be renewed."""
        # An infinite lease needs no renewal, and its pool no timer that never ends.
        with trio.move_on_after(self.lease.seconds / RENEWALS_PER_LEASE) as until:
            await self._work.park()
        return not until.cancelled_caught

    async def _write(self) -> None:
        batch, self._pending = self._pending, []
        try:
            # Not cut off: nobody could tell whether it was kept.
            with trio.CancelScope(shield=True):
                await self.journal.append(self.lease, batch)
        except Exception as error:
            self._error = error
            raise
        else:
            self._kept += len(batch)
        finally:
            self._waiting.unpark_all()
        await trio.lowlevel.checkpoint_if_cancelled()

    def close(self) -> None:
        """End ``run`` once everything noted is written."""
        self._closed = True
        self._work.unpark()
