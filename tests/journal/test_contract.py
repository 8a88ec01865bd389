"""Every journal keeps the contract, and the check sees one that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import msgspec
import pytest
import trio

from agentpool.journal import InMemoryJournal, Journal, JournalRecord, Lease, open_journal
from agentpool.testing import check_journal


@asynccontextmanager
async def open_in_memory() -> AsyncIterator[Journal]:
    """Open the one in this process."""
    yield InMemoryJournal()  # noqa: ASYNC119  # nothing to clean up


@asynccontextmanager
async def open_in_a_file() -> AsyncIterator[Journal]:
    """Open one that survives the process."""
    with TemporaryDirectory() as folder:
        async with open_journal(Path(folder, "agentpool.journal")) as journal:
            yield journal  # noqa: ASYNC119  # pytest-trio leaves it in order


@asynccontextmanager
async def open_on_the_disk() -> AsyncIterator[Journal]:
    """Open one that survives a power cut."""
    with TemporaryDirectory() as folder:
        async with open_journal(Path(folder, "j"), durability="power") as journal:
            yield journal  # noqa: ASYNC119  # pytest-trio leaves it in order


JOURNALS: dict[str, Callable[[], AbstractAsyncContextManager[Journal]]] = {
    "in memory": open_in_memory,
    "sqlite, process": open_in_a_file,
    "sqlite, power": open_on_the_disk,
}


@pytest.mark.parametrize("kind", JOURNALS)
async def test_the_contract_is_kept(kind: str) -> None:
    """By each of them."""
    await check_journal(JOURNALS[kind])


@attrs.define(eq=False)
class Faulty(Journal):
    """A good journal, for faults to be put into."""

    inside: InMemoryJournal = attrs.field(factory=InMemoryJournal)

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write."""
        return await self.inside.claim(pool, lease_seconds=lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records."""
        await self.inside.append(lease, records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records."""
        return await self.inside.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give the right to write back."""
        await self.inside.release(lease)


class Backwards(Faulty):
    """Forgets the order."""

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records, with the fault."""
        return (await super().read(pool))[::-1]


class OnePool(Faulty):
    """Mixes pools up."""

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write, with the fault."""
        lease = await super().claim(pool[:3], lease_seconds=lease_seconds)
        return Lease(pool, lease.fence, lease.seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, with the fault."""
        await super().append(Lease(lease.pool[:3], lease.fence, lease.seconds), records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records, with the fault."""
        return await super().read(pool[:3])


class FlatFence(Faulty):
    """Takes every owner for the same."""

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write, with the fault."""
        await trio.lowlevel.checkpoint()
        if pool not in self.inside._fences:
            return await super().claim(pool, lease_seconds=lease_seconds)
        return Lease(pool, self.inside._fences[pool], lease_seconds)


class NoFence(Faulty):
    """Lets everybody write."""

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, with the fault."""
        fence = self.inside._fences[lease.pool]
        await super().append(Lease(lease.pool, fence, lease.seconds), records)


class OneByOne(Faulty):
    """Keeps records of several calls mixed."""

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, with the fault."""
        if not records:
            await super().append(lease, records)
        for record in records:
            await super().append(lease, [record])


class Lossy(Faulty):
    """Keeps no more than so many."""

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records, with the fault."""
        return (await super().read(pool))[:49]


class WithoutCheckpoint(Faulty):
    """Does not hear that it is cancelled."""

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, with the fault."""
        with trio.CancelScope(shield=True):
            await super().append(lease, records)


class SaysSo(Faulty):
    """Says that it has kept what it has not."""

    def append_at_once(self, lease: Lease, records: Sequence[JournalRecord]) -> bool:  # noqa: ARG002  # see above
        """Keep records, with the fault."""
        return True


class Cutting(Faulty):
    """Keeps the beginning of a long body."""

    longest = 2**16 - 1

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records, with the fault."""
        found = await super().read(pool)
        return [msgspec.structs.replace(one, body=one.body[: self.longest]) for one in found]


class CuttingLater(Cutting):
    """Keeps the beginning of a very long body."""

    longest = 2**24


class NoFenceAtOnce(Faulty):
    """Looks at no lease where it does not wait."""

    def append_at_once(self, lease: Lease, records: Sequence[JournalRecord]) -> bool:
        """Keep records, with the fault."""
        self.inside._pools.setdefault(lease.pool, []).extend(records)
        return True


FAULTS: dict[type[Faulty], str] = {
    SaysSo: "append_at_once\\(\\) said that",
    NoFenceAtOnce: "under a lease that was released must not keep",
    Cutting: "76,800 bytes must come back whole, got 65,535",
    CuttingLater: "16,777,217 bytes must come back whole, got 16,777,216",
    Backwards: "in order",
    OnePool: "only its own records",
    FlatFence: "higher fence",
    NoFence: "must raise LeaseLostError",
    OneByOne: "stay together",
    Lossy: "got 49 of 50",
    WithoutCheckpoint: "must have a checkpoint",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_seen(fault: type[Faulty]) -> None:
    """Each by the promise that it breaks."""
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        await check_journal(fault)
