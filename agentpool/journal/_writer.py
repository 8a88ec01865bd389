"""Writes the records of a pool in order and in groups, each record before its action.

Rules:

1. Records are written in the order in which they were noted: if one is kept, so is every earlier
   one.
2. An action (sending a request, starting a tool, handing out an outcome) waits until everything
   that was noted before it is kept. Nothing else waits.
3. Records that several agents note during a write go into the next write together. The first agent
   that waits writes them all; a task writes those that no agent waits for.
4. A record and the spending that belongs to it are one write, and a record whose budget refuses the
   spending is left out. The code that noted the record learns this before any waiting agent goes
   on.
5. A failed write ends the pool: an agent that went on would do things that are not recorded.
6. A write is never cancelled, since nobody would know whether it was kept. A write may wait for a
   stopped process as long as that process is stopped, but a pool that ends waits for half a minute
   at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._budget.paid_ahead import PaidAhead
from agentpool._budget.store import BudgetStore
from agentpool._errors import JournalError
from agentpool._journal_records import JournalRecord, Lease
from agentpool._scheduling.ctrl_c import unbroken
from agentpool.abc import Journal
from agentpool.journal._joint import JointJournal, Together

END_SECONDS: Final = 30.0
"""The time for a write once its pool ends. The next process repeats the actions whose records were
not kept by then."""

RENEWALS_PER_LEASE = 3
"""How often, during the length of a lease, a pool renews the lease when there is nothing to
write."""


@unbroken
@final
class JournalWriter(Live):
    """Writes the records of one pool. One task runs ``run``; all others add records and wait."""

    journal: Journal
    """Where the records are kept."""
    lease: Lease
    """The right to write the records."""
    ahead: PaidAhead = msgspec.field(default_factory=PaidAhead)
    """What earlier records have charged to budgets before their runs count it."""
    _pending: list[JournalRecord] = msgspec.field(default_factory=list[JournalRecord])
    _joint: list[tuple[int, Together]] = msgspec.field(default_factory=list[tuple[int, Together]])
    """The spending that belongs to some of the pending records, by the places of these records."""
    _noted: int = 0
    _kept: int = 0
    _began_at: float = -math.inf
    """When the last write began."""
    _is_writing: bool = False
    _is_shared: bool = False
    """Whether the last write had records of several agents, so that the next one may have them
    too."""
    is_cut: bool = False
    """Whether the pool was cancelled from outside. It is set before any agent hears of it."""
    _closed: bool = False
    _is_ending: bool = False
    _shield: trio.CancelScope | None = None
    """The scope of the write that is under way."""
    _error: Exception | None = None
    _work: trio.lowlevel.ParkingLot = msgspec.field(default_factory=trio.lowlevel.ParkingLot)
    _waiting: trio.lowlevel.ParkingLot = msgspec.field(default_factory=trio.lowlevel.ParkingLot)

    @property
    def kept_count(self) -> int:
        """The number of records written."""
        return self._kept

    def keeps(self, store: BudgetStore) -> bool:
        """Return whether *store* can be written in one step with records."""
        return isinstance(self.journal, JointJournal) and store.backing_store is self.journal

    def wake(self) -> None:
        """Write the noted records soon, for callers whose ``flush`` may come much later."""
        if self._work:
            self._work.unpark()

    def note(
        self, record: JournalRecord, *, wakes: bool = True, together: Together | None = None
    ) -> None:
        """Queue *record* for writing, after all earlier ones.

        Args:
            record: What to write.
            wakes: Whether the record is written soon without a ``flush``. If not, the caller
                flushes next.
            together: The spending that belongs to the record. With it, the journal must be a
                ``JointJournal``.
        """
        if together is not None and self._error is not None:
            together.on_written(None)
        elif together is not None:
            self._joint.append((len(self._pending), together))
        self._pending.append(record)
        self._noted += 1
        if wakes:
            self.wake()

    async def flush(self) -> None:  # noqa: ASYNC910  # to park is a checkpoint, and so is a write
        """Wait until all records so far are written.

        Raises:
            JournalError: If this write or an earlier one failed.

        Cancellation:
            The records are written later.
        """
        noted = self._noted
        if self._kept >= noted:
            await trio.lowlevel.checkpoint()
            self._raise_if_broken()
            return
        lets_join = self._is_shared
        while self._kept < noted:
            self._raise_if_broken()
            if self._is_writing:
                await self._waiting.park()
            elif lets_join:
                lets_join = False
                await trio.lowlevel.checkpoint()
            else:
                await self._write()
        self._raise_if_broken()

    def flush_at_once(self) -> bool:
        """Write all records so far in this thread, if that needs no waiting.

        Return whether the records are kept. If not, call ``flush``, which waits or raises the
        error.
        """
        batch = self._pending
        if not batch or self._is_writing or self._is_shared or self._joint or self._error:
            return False
        self._is_shared = batch[0].agent_id != batch[-1].agent_id
        self._began_at = trio.current_time()
        try:
            if not self.journal.append_at_once(self.lease, batch):
                return False
        except Exception as error:  # noqa: BLE001  # raised where it is waited for, and by run()
            self._break(error, [])
            return False
        self._kept += len(batch)
        self._pending = []
        return True

    def _break(self, error: Exception, joint: Sequence[tuple[int, Together]]) -> None:
        """Raise *error* in every waiting call. *joint* was not written."""
        self._error = error
        left, self._joint = self._joint, []
        for _, one in (*joint, *left):
            one.on_written(None)
        self._work.unpark_all()

    def _raise_if_broken(self) -> None:
        if self._error is not None:
            raise JournalError(f"the journal cannot be written: {self._error}") from self._error

    async def run(self) -> None:
        """Write records and renew the lease, until ``close``.

        Raises:
            JournalError: If the journal cannot be written.

        Cancellation:
            The noted records are written first.
        """
        try:
            async with trio.open_nursery() as nursery:
                # An infinite lease needs no renewal, and its pool no timer that never ends.
                if self.lease.seconds < math.inf:
                    nursery.start_soon(self._renew)
                nursery.start_soon(self._end_when_cancelled)
                await self._write_until_closed()
                nursery.cancel_scope.cancel()
        finally:
            await self.write_rest()  # noqa: ASYNC102  # it shields itself
        if self._error is not None:
            raise self._error

    async def write_rest(self) -> None:  # noqa: ASYNC910  # there may be nothing to write
        """Write all that was noted, also after ``run`` has ended.

        Cancellation:
            The records are written first.
        """
        with trio.CancelScope(shield=True):  # noqa: ASYNC912  # see above
            while self._error is None and (self._pending or self._is_writing):
                await self._next_write()

    def end_soon(self) -> None:
        """Limit the time of each write from now on, because the pool or all of its agents end."""
        self._is_ending = True
        if self._shield is not None:
            self._shield.deadline = trio.current_time() + END_SECONDS

    async def _end_when_cancelled(self) -> None:
        def note(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self.is_cut = not self._closed
            self.end_soon()
            return trio.lowlevel.Abort.SUCCEEDED

        # A step of this task would come after those of agents, which cancel others.
        await trio.lowlevel.wait_task_rescheduled(note)

    async def _write_until_closed(self) -> None:  # noqa: ASYNC910  # closed before it began, it has nothing to do
        while self._error is None and (self._pending or not self._closed):
            if self._pending:
                await self._next_write()
            else:
                await self._work.park()

    async def _next_write(self) -> None:  # noqa: ASYNC910  # to park is a checkpoint, and so is a write
        if self._is_writing:
            await self._waiting.park()
        else:
            await self._write()

    async def _renew(self) -> None:  # noqa: ASYNC910  # it ends with the writer
        """Renew the lease whenever the pool has not written for a while."""
        pause_seconds = self.lease.seconds / RENEWALS_PER_LEASE
        claimed_at = trio.current_time()
        while self._error is None:
            # Of the last write, not of the last look: a lease is never older than that.
            await trio.sleep_until(max(claimed_at, self._began_at) + pause_seconds)
            if self._is_writing:
                await self._waiting.park()
            elif trio.current_time() >= self._began_at + pause_seconds:
                await self._write()

    async def _write(self) -> None:
        """Write the pending records. An error is raised in every call that waits for them."""
        batch, self._pending = self._pending, []
        joint, self._joint = self._joint, []
        self._is_shared = bool(batch) and batch[0].agent_id != batch[-1].agent_id
        self._is_writing = True
        self._began_at = trio.current_time()
        try:
            if joint or not self.journal.append_at_once(self.lease, batch):
                await self._write_shielded(batch, joint)
        except Exception as error:  # noqa: BLE001  # raised where it is waited for, and by run()
            self._break(error, joint)
        else:
            self._kept += len(batch)
        finally:
            self._is_writing = False
            if self._waiting:
                self._waiting.unpark_all()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _write_shielded(
        self, batch: Sequence[JournalRecord], joint: Sequence[tuple[int, Together]]
    ) -> None:
        with trio.CancelScope(shield=True) as self._shield:
            if self._is_ending:
                self.end_soon()
            if not joint:
                await self.journal.append(self.lease, batch)
                return
            assert isinstance(self.journal, JointJournal)  # noqa: S101  # see note()
            asked = [(place, one.spendings) for place, one in joint]
            found = await self.journal.append_and_spend(self.lease, batch, asked)
            for (_, one), uses in zip(joint, found, strict=True):
                one.on_written(uses)
        if self._shield.cancelled_caught:
            raise JournalError(
                f"the pool ended, and the journal's file stayed busy for {END_SECONDS:g} seconds"
            )

    def close(self) -> None:
        """End ``run`` once all records are written."""
        self._closed = True
        self._work.unpark()
