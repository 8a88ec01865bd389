"""Asks the stores of budgets: what is used, whether there is enough, and what was really spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from agentpool._budget.account import Amounts
from agentpool._budget.budget import Budget, ledger_of
from agentpool._budget.claims import Ledger
from agentpool._budget.reservation import Reservation, reserved_by
from agentpool._budget.store import (
    NO_LIMITS,
    NOTHING,
    Correction,
    Kept,
    Spending,
    StoredUse,
    unknown_row,
)
from agentpool._errors import UsageError
from agentpool._numbers import quoted

if TYPE_CHECKING:
    from agentpool._agent.run_journal import RunJournal
    from agentpool._journal_records import JournalRecord
    from agentpool.journal._joint import Together


async def look_at(budget: Budget | None) -> None:  # noqa: ASYNC910  # without a store there is nothing to wait for
    """Read what is used of *budget*, if it or one above it has a store.

    Raises:
        Exception: An error of the store.
    """
    path = () if budget is None else ledger_of(budget).path
    if stored := [one for one in path if one.kept is not None]:
        await look(stored)


async def look(ledgers: Sequence[Ledger]) -> None:
    """Ask the stores whether a new period has begun, and what is unknown of the current one."""
    await trio.lowlevel.checkpoint()
    for one in ledgers:
        assert one.kept is not None  # noqa: S101  # they were chosen by it
        await spend(one, one.kept, NOTHING)
        await tell_unknown(one, one.kept)


async def tell_unknown(ledger: Ledger, kept: Kept) -> None:
    """Report to the store how many requests have no known usage or price, and learn of others'."""
    told, kept.unknown = kept.unknown, []
    answer: object = None
    found: StoredUse | None = None
    try:
        with trio.CancelScope(shield=True):
            row = unknown_row(ledger.name)
            answer = await kept.store.spend(row, kept.per, NO_LIMITS, NOTHING, told)
        found = _expect_use(answer, kept)
    finally:
        if found is None:
            kept.unknown = [*told, *kept.unknown]
    assert found is not None  # noqa: S101  # the scope above is never cancelled
    ledger.see_unknown(found)


async def spend(
    ledger: Ledger, kept: Kept, wanted: Amounts, reservation: Reservation | None = None
) -> StoredUse:
    """Spend from the store, for a *reservation* if there is one, and note its answer."""
    told = _take_owed(kept)
    answer: object = None
    found: StoredUse | None = None
    try:
        # Not cut off: what the store has counted would be unknown.
        with trio.CancelScope(shield=True):
            limits = ledger.account.limits
            answer = await kept.store.spend(ledger.name, kept.per, limits, wanted, told)
        found = _expect_use(answer, kept)
        if reservation is not None and found.lacking is None:
            ledger.note_counted(reservation, found.period)
    finally:
        _learn(ledger, kept, told, found)
    assert found is not None  # noqa: S101  # the scope above is never cancelled
    return found


def _expect_use(answer: object, kept: Kept) -> StoredUse:
    """Return what a store answered, which may be a user's.

    Raises:
        UsageError: If it is no ``StoredUse``, or lacks what no budget counts.
    """
    if not isinstance(answer, StoredUse) or answer.lacking not in {None, *range(len(NOTHING))}:
        raise UsageError(
            f"{type(kept.store).__name__}.spend() must return a StoredUse whose lacking is None "
            f"or the place of an amount, got {quoted(answer)}"
        )
    return answer


async def begin_with(
    reservation: Reservation,
    ledgers: Sequence[Ledger],
    journal: RunJournal,
    started: JournalRecord,
) -> tuple[Ledger, int] | None:
    """Take *reservation* in the stores of *ledgers*, in one transaction with *started*.

    If a ledger has too little left, nothing is stored. Returns that ledger and the kind of limit
    that is reached. ``None``: all of them had enough.
    """
    lacks: list[tuple[Ledger, int]] = []

    def learn(found: Sequence[StoredUse]) -> None:
        lacks.extend(
            (one, use.lacking)
            for one, use in zip(ledgers, found, strict=True)
            if use.lacking is not None
        )
        if not lacks:
            for one, use in zip(ledgers, found, strict=True):
                one.note_counted(reservation, use.period)

    together = _together(ledgers, reserved_by(reservation), learn)
    journal.writer.note(started, wakes=False, together=together)
    # Not cut off: what the store has counted would be unknown.
    with trio.CancelScope(shield=True):
        await journal.flush()
    return lacks[0] if lacks else None


def owed_by(ledgers: Sequence[Ledger]) -> Together | None:
    """Return the corrections that the stores of *ledgers* still lack. ``None``: they lack none."""
    owing = [one for one in ledgers if one.kept is not None and one.kept.owed]
    return _together(owing, NOTHING, len) if owing else None


def _together(
    ledgers: Sequence[Ledger], wanted: Amounts, learn: Callable[[Sequence[StoredUse]], object]
) -> Together:
    """Return the spendings that take *wanted* in each store and settle what is owed."""
    spendings: list[Spending] = []
    for one in ledgers:
        assert one.kept is not None  # noqa: S101  # they were chosen by it
        limits, told = one.account.limits, _take_owed(one.kept)
        spendings.append(Spending(one.name, one.kept.per, limits, wanted, told))

    def on_written(found: Sequence[StoredUse] | None) -> None:
        if found is not None:
            learn(found)
        for place, (one, asked) in enumerate(zip(ledgers, spendings, strict=True)):
            assert one.kept is not None  # noqa: S101  # see above
            _learn(one, one.kept, asked.corrections, None if found is None else found[place])

    from agentpool.journal._joint import Together  # noqa: PLC0415  # with a journal alone

    return Together(spendings, on_written)


def _take_owed(kept: Kept) -> list[Correction]:
    """Return the corrections to send to the store now."""
    told, kept.owed = kept.owed, []
    kept.on_the_way += told
    return told


def _learn(ledger: Ledger, kept: Kept, told: Sequence[Correction], found: StoredUse | None) -> None:
    """Give the account the store's answer. ``None``: the store was not asked."""
    for one in told:
        kept.on_the_way.remove(one)
    if found is None:
        kept.owed = [*told, *kept.owed]
        return
    ledger.see(found)
    ledger.root.reconsider()
