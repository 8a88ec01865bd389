"""Crashes a pool at each write to its journal, and checks that resuming gives the same result.

Rules:

1. A crash comes right before records are kept, or right after. These are the only two states that
   another process can find.
2. After a crash, nothing more is kept, even if code still runs.
3. The scenario is run again, with the records that were kept, to its end. It must return the same
   result as without a crash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar, final

import attrs
import trio

from agentpool._budget.store import Spending, StoredUse
from agentpool._checks import expect_arguments, expect_function
from agentpool._errors import JournalError
from agentpool._journal_records import JournalRecord, Lease
from agentpool.abc import Journal
from agentpool.journal._in_memory import InMemoryJournal
from agentpool.journal._joint import JointJournal, Spendings
from agentpool.testing._simulation.explore import simulate
from agentpool.testing._simulation.findings import CrashPointError

T = TypeVar("T")


@final
@attrs.frozen(kw_only=True)
class CrashReport:
    """Counts the runs of ``crash_everywhere``."""

    points: int
    """The number of crash points. They are before and after each write of a run without crashes. A
    change of a budget with ``store=journal`` is either a separate write or part of a write of
    records."""
    writes: int
    """The number of writes in that run."""


@final
@attrs.define(eq=False)
class _MortalJournal(JointJournal):
    """A journal and store of budgets that stops when the simulated process dies."""

    _kept: InMemoryJournal
    _dies_at: int
    """The number of the last write, from 1. 0: the process never dies."""
    _keeps_last: bool = attrs.field(alias="keeps_last", kw_only=True)
    """Whether the last write is kept."""
    writes: int = 0
    is_dead: bool = False

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write, until the process dies."""
        return await self._kept.claim(pool, lease_seconds=lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Store *records*, unless the process is dead or dies now."""
        await self._write(partial(self._kept.append, lease, records))

    async def append_and_spend(
        self, lease: Lease, records: Sequence[JournalRecord], together: Sequence[Spendings]
    ) -> Sequence[Sequence[StoredUse]]:
        """Store *records* and spend, unless the process is dead or dies now."""
        return await self._write(partial(self._kept.append_and_spend, lease, records, together))

    async def spend_together(self, spendings: Sequence[Spending]) -> Sequence[StoredUse]:
        """Spend from budgets, unless the process is dead or dies now."""
        return await self._write(partial(self._kept.spend_together, spendings))

    async def _write(self, write: Callable[[], Awaitable[T]]) -> T:
        self.writes += 1
        dies = self.writes == self._dies_at
        is_kept = not self.is_dead and (not dies or self._keeps_last)
        self.is_dead = self.is_dead or dies
        if not is_kept:
            await trio.lowlevel.checkpoint()
            raise JournalError("the simulated process is dead")
        written = await write()
        if self.is_dead:
            raise JournalError("the simulated process is dead")
        return written

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return the stored records."""
        return await self._kept.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give up the right to write, unless the process is dead."""
        if self.is_dead:
            await trio.lowlevel.checkpoint()
        else:
            await self._kept.release(lease)


def crash_everywhere(
    scenario: Callable[[Journal], Awaitable[object]], *, seed: int = 0
) -> CrashReport:
    """Crash a scenario at each write to its journal, run it again, and compare the results.

    The scenario opens its pools with ``journal=journal, resume=True``, so that it goes on where its
    earlier run ended. The scenario is called again for each run, so make drivers and tools inside
    it. Outside, make only things that outlive a process, such as a record of what a tool has done.

    Example::

        def test_nothing_is_lost():
            async def scenario(journal):
                async with open_pool(driver, journal=journal, resume=True) as pool:
                    await pool.spawn(SpawnConfig(manifest, "Go on", key="only"))
                    return [outcome.text for outcome in (await pool.join_all()).values()]

            assert crash_everywhere(scenario).points > 0

    Args:
        scenario: Called with the journal to use. The result that it returns must be the same after
            a crash.
        seed: Chooses the order of tasks, as in ``simulate``.

    Raises:
        CrashPointError: If the result differs after a crash, or the scenario raises. The error says
            at which point, and its cause is the error that the scenario raised.
        Exception: What the scenario raises without a crash.
    """
    expect_function(
        scenario, "scenario must be an async function", "pass main, not what main() returns"
    )
    expect_arguments(crash_everywhere, locals())
    whole = _MortalJournal(InMemoryJournal(), 0, keeps_last=True)
    wanted = simulate(partial(scenario, whole), seed=seed)
    points = 0
    for write in range(1, whole.writes + 1):
        for keeps_last in (False, True):
            points += 1
            kept = InMemoryJournal()
            first = _MortalJournal(kept, write, keeps_last=keeps_last)
            try:
                simulate(partial(scenario, first), seed=seed)
            except Exception:
                if not first.is_dead:
                    raise
            _go_on(scenario, kept, wanted, seed, f"{'after' if keeps_last else 'before'} {write}")
    return CrashReport(points=points, writes=whole.writes)


def _words(point: str) -> str:
    when, _, write = point.partition(" ")
    return f"{when} write {write}"


def _go_on(
    scenario: Callable[[Journal], Awaitable[object]],
    kept: InMemoryJournal,
    wanted: object,
    seed: int,
    point: str,
) -> None:
    try:
        found = simulate(partial(scenario, _MortalJournal(kept, 0, keeps_last=True)), seed=seed)
    except Exception as error:
        raise CrashPointError(
            f"the scenario fails after a crash {_words(point)} to the journal: "
            f"{type(error).__name__}: {error}",
            point,
        ) from error
    if found != wanted:
        raise CrashPointError(
            f"the result is {found!r} after a crash {_words(point)} to the journal, but without "
            f"a crash it is {wanted!r}",
            point,
        )
