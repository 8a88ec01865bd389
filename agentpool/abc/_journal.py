"""Journals: they record what a pool must not do twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentpool._base import Shown

if TYPE_CHECKING:
    from agentpool._journal_records import JournalRecord, Lease


class Journal(Shown, ABC):
    """Records what a pool must not do twice.

    A journal has the records of many pools, each under its name. A process that writes records of a
    pool holds the pool's lease. A later claim raises the fence, and writes under an older fence are
    refused. `agentpool.testing.check_journal` checks that an implementation keeps these promises.
    """

    __slots__ = ()

    @abstractmethod
    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write the records of *pool*.

        Args:
            pool: The pool's name. It need not have records yet.
            lease_seconds: How long the lease lasts after the last write.

        Raises:
            RunBusyError: If another process holds the lease, which has not ended.
            JournalError: If the journal cannot be written.

        Cancellation:
            The lease may have been taken; a claim by the same process takes it again.
        """

    @abstractmethod
    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Store *records*, all or none, and renew the lease. Without records: only renew it.

        A body may be long: tens of megabytes with an image. Refuse it, or store all of it.

        When this returns, the records survive everything that the journal promises to survive.

        Raises:
            LeaseLostError: If another process has claimed the pool since. Nothing was stored.
            JournalError: If the journal cannot be written. Nothing was stored.

        Cancellation:
            All records were stored, or none.
        """

    def append_at_once(self, lease: Lease, records: Sequence[JournalRecord]) -> bool:  # noqa: ARG002  # see below
        """Store *records* as ``append`` does if that needs no waiting. Return whether it did so.

        By default, nothing is stored. Override this method unless your journal always has to wait.

        Raises:
            LeaseLostError: If another process has claimed the pool since. Nothing was stored.
            JournalError: If the journal cannot be written. Nothing was stored.
        """
        return False

    @abstractmethod
    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return the records of *pool* in the order in which they were written.

        Raises:
            JournalError: If the journal cannot be read.
        """

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give up the right to write, if *lease* still holds it.

        Raises:
            JournalError: If the journal cannot be written.
        """
