"""Records are written in order, together, and before what waits for them goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import pytest
import trio

from agentpool.journal import (
    InMemoryJournal,
    Journal,
    JournalError,
    JournalRecord,
    Lease,
    RecordKind,
)
from agentpool.journal._writer import JournalWriter
from agentpool.testing import cancel_everywhere, explore, simulate


def record(number: int) -> JournalRecord:
    """Return a record that can be told from others."""
    return JournalRecord(number, RecordKind.RESULT)


@attrs.define(eq=False)
class Slow(Journal):
    """Takes a second for each write, and says what came together."""

    error: Exception | None = None
    inside: InMemoryJournal = attrs.field(factory=InMemoryJournal)
    batches: list[list[int]] = attrs.field(factory=list[list[int]])

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write."""
        lease = await self.inside.claim(pool)
        return Lease(pool, lease.fence, lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records."""
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        self.batches.append([one.agent_id for one in records])
        await self.inside.append(lease, records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records."""
        return await self.inside.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give the right to write back."""
        await self.inside.release(lease)


async def open_writer(journal: Journal, lease_seconds: float = math.inf) -> JournalWriter:
    """Return a writer of the pool ``p``."""
    return JournalWriter(journal, await journal.claim("p", lease_seconds=lease_seconds))


def test_what_comes_during_a_write_goes_together() -> None:
    """And whoever waits goes on when its own records are kept, not earlier."""

    async def scenario() -> None:
        journal = Slow()
        writer = await open_writer(journal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.note(record(1))
            await trio.sleep(0.5)
            for number in (2, 3, 4):
                writer.note(record(number))
            await writer.flush()
            assert trio.current_time() == 2
            await writer.flush()
            assert (trio.current_time(), writer.kept_count) == (2, 4)
            writer.close()
        assert journal.batches == [[1], [2, 3, 4]]

    simulate(scenario)


def test_nobody_goes_on_before_its_records_are_kept() -> None:
    """Under every order of ten tasks that note and wait."""

    async def scenario() -> None:
        journal = Slow()
        writer = await open_writer(journal)

        async def work(number: int) -> None:
            for step in range(3):
                writer.note(record(10 * number + step))
                await writer.flush()
                kept = [one.agent_id for one in await journal.read("p")]
                assert 10 * number + step in kept

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            async with trio.open_nursery() as workers:
                for number in range(10):
                    workers.start_soon(work, number)
            writer.close()

    explore(scenario, schedules=100)


def test_a_cancelled_writer_writes_what_was_noted() -> None:
    """Wherever it is cancelled: what an agent noted before the end is not lost."""

    async def scenario() -> None:
        journal = Slow()
        writer = await open_writer(journal)
        noted = 0
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run)
                for number in range(5):
                    await trio.sleep(0.4)
                    writer.note(record(number))
                    noted += 1
                await writer.flush()
                writer.close()
        finally:
            assert sum(map(len, journal.batches)) == noted

    assert cancel_everywhere(scenario).points > 5


def test_an_idle_pool_renews_its_lease() -> None:
    """Three times for each lease, by a write of nothing."""

    async def scenario() -> None:
        journal = Slow()
        writer = await open_writer(journal, lease_seconds=30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.sleep(34)
            assert journal.batches == [[], [], []]
            writer.note(record(1))
            await trio.sleep(9)
            assert journal.batches == [[], [], [], [1]]
            await trio.sleep(3)  # a third of the lease after that write, which took a second
            assert journal.batches == [[], [], [], [1], []]
            writer.close()

    simulate(scenario)


def test_a_lease_is_renewed_as_soon_as_a_slow_write_is_over() -> None:
    """It takes two thirds of the lease, and renews it as of its beginning."""

    async def scenario() -> None:
        journal = Slow()
        writer = await open_writer(journal, lease_seconds=1.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.sleep(0.2)
            writer.note(record(1))
            await writer.flush()
            await trio.sleep(1.1)
            assert journal.batches == [[1], []]
            assert trio.current_time() == pytest.approx(2.3)
            writer.close()

    simulate(scenario)


def test_a_lease_that_cannot_be_renewed_ends_the_writer() -> None:
    """The next process may have it already."""

    async def scenario() -> None:
        writer = await open_writer(Slow(OSError("gone")), lease_seconds=30)
        with pytest.raises(OSError, match="gone"):
            await writer.run()
        assert trio.current_time() == 11

    simulate(scenario)


def test_a_write_that_fails_ends_all_who_wait() -> None:
    """And whoever comes later: what nobody keeps must not be done."""

    async def scenario() -> None:
        writer = await open_writer(Slow(OSError("the disk is full")))
        refused = 0

        async def work() -> None:
            nonlocal refused
            writer.note(record(1))
            with pytest.raises(JournalError, match="cannot be written: the disk is full"):
                await writer.flush()
            refused += 1

        async def write() -> None:
            with pytest.raises(OSError, match="the disk is full"):
                await writer.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(work)
            nursery.start_soon(work)
        await work()
        assert refused == 3

    simulate(scenario)


@attrs.define(eq=False)
class Quick(Slow):
    """Writes at once, if it does."""

    writes_at_once: bool = True

    def append_at_once(self, lease: Lease, records: Sequence[JournalRecord]) -> bool:  # noqa: ARG002  # what is counted are records
        """Keep records here and now."""
        if self.error is not None:
            raise self.error
        if self.writes_at_once:
            self.batches.append([one.agent_id for one in records])
        return self.writes_at_once


def test_what_can_be_written_at_once_needs_no_waiting() -> None:
    """One agent alone is not waited for; of several, who may come together again, all are."""

    async def main() -> None:
        journal = Quick()
        writer = await open_writer(journal)
        assert not writer.flush_at_once()  # there is nothing to write
        writer.note(record(1), wakes=False)
        assert writer.flush_at_once()
        assert (writer.kept_count, journal.batches) == (1, [[1]])
        journal.writes_at_once = False
        writer.note(record(2), wakes=False)
        assert not writer.flush_at_once()
        journal.writes_at_once = True
        writer.note(record(3), wakes=False)
        assert writer.flush_at_once()
        assert journal.batches == [[1], [2, 3]]
        writer.note(record(4), wakes=False)
        assert not writer.flush_at_once()
        await writer.flush()
        assert journal.batches == [[1], [2, 3], [4]]

    simulate(main)


def test_a_write_at_once_that_fails_is_raised_where_it_is_waited_for() -> None:
    """And in every later call, since what was noted is not kept."""

    async def main() -> None:
        journal = Quick(error=JournalError("full"))
        writer = await open_writer(journal)
        for _ in range(2):
            writer.note(record(1), wakes=False)
            assert not writer.flush_at_once()
            with pytest.raises(JournalError, match="cannot be written: full"):
                await writer.flush()
        assert writer.kept_count == 0

    simulate(main)
