"""Asks the stores of budgets: what is used, whether there is enough, and what was really spent.

Rules:

1. A request is marked as under way before it is reserved, or in the same step, and the mark is
   taken out with what it used and what is unknown of it, or after. So a process that dies between
   any two calls leaves a mark too many, and never one too few.
2. A store that is a journal of ours is told all in one step, and another one row by row. What a
   call could not tell, the next one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, final

import trio

from agentpool._base import Live
from agentpool._budget.account import Amounts
from agentpool._budget.budget import Budget, ledger_of
from agentpool._budget.claims import Ledger
from agentpool._budget.reservation import Reservation, is_for_request, note_mark, reserved_by
from agentpool._budget.store import (
    NO_LIMITS,
    NOTHING,
    Correction,
    Kept,
    Limits,
    Spending,
    StoredUse,
    under_way_row,
    unknown_row,
)
from agentpool._errors import UsageError
from agentpool._numbers import quoted

if TYPE_CHECKING:
    from agentpool._agent.run_journal import RunJournal
    from agentpool._journal_records import JournalRecord
    from agentpool.journal._joint import JointJournal, Together


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
        if (journal := _joint(one.kept)) is not None:
            await _in_one_step(journal, _together((one,), NOTHING, NOTHING, len, is_look=True))
        else:
            await _row_by_row(one, one.kept, is_look=True)


async def settle(ledger: Ledger, kept: Kept) -> None:
    """Tell the store what was really used, what is unknown of it, and what is over.

    Cancellation:
        It is not cancelled.
    """
    if (journal := _joint(kept)) is not None:
        await _in_one_step(journal, _together((ledger,), NOTHING, NOTHING, len))
    else:
        await _row_by_row(ledger, kept)


async def take(reservation: Reservation, ledger: Ledger, kept: Kept) -> StoredUse:
    """Take *reservation* in the store of one ledger. The answer says whether there was enough.

    Cancellation:
        It is not cancelled: what the store has counted would be unknown.
    """
    wanted = reserved_by(reservation)
    if (journal := _joint(kept)) is not None:
        return (await _in_one_step(journal, _together_for(reservation, (ledger,))[0]))[0]
    if kept.has_news:
        await _row_by_row(ledger, kept)
    if any(marked := _marked_by(reservation)):
        row = under_way_row(ledger.name)
        found = await _change_marks(kept, row, marked, ())
        note_mark(reservation, ledger, found.period, marked)
    found = await _ask(kept, ledger.name, ledger.account.limits, wanted, ())
    if found.lacking is None:
        ledger.note_counted(reservation, found.period)
    _see(ledger, found)
    return found


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
    together, lacks = _together_for(reservation, ledgers)
    journal.writer.note(started, wakes=False, together=together)
    # Not cut off: what the store has counted would be unknown.
    with trio.CancelScope(shield=True):
        await journal.flush()
    return lacks[0] if lacks else None


def owed_by(ledgers: Sequence[Ledger]) -> Together | None:
    """Return what the stores of *ledgers* have not been told. ``None``: they know all of it."""
    owing = [one for one in ledgers if one.kept is not None and one.kept.has_news]
    return _together(owing, NOTHING, NOTHING, len) if owing else None


# --- in one step


def _joint(kept: Kept) -> JointJournal | None:
    """Return the store if it can write several rows in one step."""
    from agentpool.journal._joint import JointJournal  # noqa: PLC0415  # with a store alone

    store = kept.store.backing_store
    return store if isinstance(store, JointJournal) else None


async def _in_one_step(journal: JointJournal, together: Together) -> Sequence[StoredUse]:
    found: Sequence[StoredUse] | None = None
    try:
        # Not cut off: what the store has counted would be unknown.
        with trio.CancelScope(shield=True):
            found = await journal.spend_together(together.spendings)
    finally:
        together.on_written(found)
    assert found is not None  # noqa: S101  # the scope above is never cancelled
    return found


def _together_for(
    reservation: Reservation, ledgers: Sequence[Ledger]
) -> tuple[Together, list[tuple[Ledger, int]]]:
    """Return what takes *reservation* in the stores of *ledgers*.

    Returns also a list of those that had too little, and of what: it is filled when it is written.
    """
    lacks: list[tuple[Ledger, int]] = []
    marked = _marked_by(reservation)

    def learn(found: Sequence[StoredUse]) -> None:
        answers = list(zip(ledgers, found, strict=True))
        lacks.extend((one, use.lacking) for one, use in answers if use.lacking is not None)
        for one, use in () if lacks else answers:
            one.note_counted(reservation, use.period)
            if any(marked):
                note_mark(reservation, one, use.period, marked)

    return _together(ledgers, reserved_by(reservation), marked, learn), lacks


def _together(
    ledgers: Sequence[Ledger],
    wanted: Amounts,
    marked: Amounts,
    learn: Callable[[Sequence[StoredUse]], object],
    *,
    is_look: bool = False,
) -> Together:
    """Return the spendings that take *wanted* in each store and tell what it does not know.

    Args:
        ledgers: Whose stores.
        wanted: What to take of each.
        marked: What to add to the requests under way.
        learn: Called with the answer to each ledger, before these see it.
        is_look: Whether also rows of which nothing is new are read.
    """
    from agentpool.journal._joint import Together  # noqa: PLC0415  # with a journal alone

    pages = [_Page.of(one, wanted, marked, is_look=is_look) for one in ledgers]

    def on_written(found: Sequence[StoredUse] | None) -> None:
        if found is None:
            for page in pages:
                page.put_back()
            return
        learn(found[: len(pages)])
        is_taken = all(use.lacking is None for use in found)
        rest = iter(found[len(pages) :])
        for page, use in zip(pages, found, strict=False):
            page.see(use, rest, is_taken=is_taken)

    used = [page.used for page in pages]
    return Together([*used, *(one for page in pages for one in page.more)], on_written)


@final
class _Page(Live):
    """What is written of one budget in one step, and what is learned from the answers."""

    ledger: Ledger
    kept: Kept
    news: _News
    marked: Amounts
    changes: bool
    """Whether requests are added to those under way, or taken out."""
    calls: int
    """How many such calls there have been."""
    used: Spending
    """The row of what is used."""
    more: list[Spending]
    """The rows of what is unknown and of what is under way, as far as they are wanted."""

    @classmethod
    def of(cls, ledger: Ledger, wanted: Amounts, marked: Amounts, *, is_look: bool) -> _Page:
        """Take all that is new of the budget, to write it with *wanted* and *marked*."""
        kept = ledger.kept
        assert kept is not None  # noqa: S101  # they were chosen by it
        news, more = _take_news(kept), list[Spending]()
        used = Spending(ledger.name, kept.per, ledger.account.limits, wanted, news.owed)
        if is_look or news.unknown:
            row = unknown_row(ledger.name)
            more.append(Spending(row, kept.per, NO_LIMITS, NOTHING, news.unknown))
        if is_look or news.ended or any(marked):
            row = under_way_row(ledger.name)
            more.append(Spending(row, kept.per, NO_LIMITS, marked, news.ended))
        if changes := bool(news.ended) or any(marked):
            kept.marks.begin()
        return cls(ledger, kept, news, marked, changes, kept.marks.calls, used, more)

    def see(self, use: StoredUse, rest: Iterator[StoredUse], *, is_taken: bool) -> None:
        """Learn from the answers. *is_taken*: no budget had too little."""
        _note_told(self.kept, self.news.owed)
        self.ledger.see(use)
        for spending in self.more:
            found = next(rest)
            if spending.name == unknown_row(self.ledger.name):
                self.ledger.see_unknown(found)
                continue
            if self.changes:
                added = (Correction(found.period, self.marked),) if is_taken else ()
                self.kept.end_change((*self.news.ended, *added))
            _see_lost(self.ledger, self.kept, found, self.calls)
        self.ledger.root.reconsider()

    def put_back(self) -> None:
        """Keep for the next step what was not written."""
        if self.changes:
            self.kept.end_change(())
        _put_back(self.kept, self.news)


# --- row by row


async def _row_by_row(ledger: Ledger, kept: Kept, *, is_look: bool = False) -> None:  # noqa: ASYNC910  # there is something to ask or to tell
    """Tell a store all that is new, the marks of requests that are over last."""
    news = _take_news(kept)
    try:
        if is_look or news.owed:
            limits = ledger.account.limits
            found = await _ask(kept, ledger.name, limits, NOTHING, news.owed)
            _note_told(kept, news.owed)
            news.owed = []
            _see(ledger, found)
        if is_look or news.unknown:
            row = unknown_row(ledger.name)
            found = await _ask(kept, row, NO_LIMITS, NOTHING, news.unknown)
            news.unknown = []
            ledger.see_unknown(found)
        if is_look or news.ended:
            row, calls = under_way_row(ledger.name), kept.marks.calls + 1
            found = await _change_marks(kept, row, NOTHING, news.ended)
            news.ended = []
            _see_lost(ledger, kept, found, calls)
    finally:
        _put_back(kept, news)


async def _change_marks(
    kept: Kept, row: str, marked: Amounts, ended: Sequence[Correction]
) -> StoredUse:
    """Add *marked* to the requests under way, and take out those that have *ended*."""
    changes: Sequence[Correction] = ()
    kept.marks.begin()
    try:
        found = await _ask(kept, row, NO_LIMITS, marked, ended)
        changes = (*ended, Correction(found.period, marked))
    finally:
        kept.end_change(changes)
    return found


async def _ask(
    kept: Kept, row: str, limits: Limits, wanted: Amounts, told: Sequence[Correction]
) -> StoredUse:
    """Ask a store, which may be a user's.

    Raises:
        UsageError: If its answer is no ``StoredUse``, or lacks what no budget counts.
    """
    answer: object = None
    # Not cut off: what the store has counted would be unknown.
    with trio.CancelScope(shield=True):
        answer = await kept.store.spend(row, kept.per, limits, wanted, told)
    if not isinstance(answer, StoredUse) or answer.lacking not in {None, *range(len(NOTHING))}:
        raise UsageError(
            f"{type(kept.store).__name__}.spend() must return a StoredUse whose lacking is None "
            f"or the place of an amount, got {quoted(answer)}"
        )
    return answer


# --- what a store was told, and what it says


@final
class _News(Live):
    """What a store is being told: see ``Kept``."""

    owed: list[Correction]
    unknown: list[Correction]
    ended: list[Correction]


def _take_news(kept: Kept) -> _News:
    """Return all that the store does not know, to tell it now."""
    news = _News(kept.owed, kept.unknown, kept.ended)
    kept.owed, kept.unknown, kept.ended = [], [], []
    kept.on_the_way += news.owed
    return news


def _put_back(kept: Kept, news: _News) -> None:
    """Keep what the store was not told for the next call."""
    _note_told(kept, news.owed)
    kept.owed = [*news.owed, *kept.owed]
    kept.unknown = [*news.unknown, *kept.unknown]
    kept.ended = [*news.ended, *kept.ended]


def _note_told(kept: Kept, owed: Sequence[Correction]) -> None:
    for one in owed:
        kept.on_the_way.remove(one)


def _marked_by(reservation: Reservation) -> Amounts:
    """Return what stands for it among the requests under way: nothing, if it is for none."""
    return (1, int(reservation.cost_usd is None), 0, 0) if is_for_request(reservation) else NOTHING


def _see(ledger: Ledger, found: StoredUse) -> None:
    ledger.see(found)
    ledger.root.reconsider()


def _see_lost(ledger: Ledger, kept: Kept, found: StoredUse, calls: int) -> None:
    """Learn how many requests others have under way, unless other tasks changed that meanwhile.

    *calls*: how many calls had changed it when this one was made, itself included.
    """
    if not kept.marks.asking and kept.marks.calls == calls:
        ledger.see_lost(found)
