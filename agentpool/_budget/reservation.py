"""What a budget has set aside for one purpose: committed, charged or given back, once.

The rules are in ``claims``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self, final

from agentpool._amounts import counted
from agentpool._base import Live
from agentpool._budget.account import COST, PICO, TOKENS, Account, Amounts, count, pico
from agentpool._budget.store import NOTHING, Correction, Kept, minus
from agentpool._errors import UsageError


class Books(Protocol):
    """The part of a budget that its reservations need."""

    account: Account
    """The counters."""
    kept: Kept | None
    """The store of its used amounts. ``None``: it has none."""
    open: set[Reservation]
    """Its reservations that are not settled."""
    counted: dict[Reservation, None]
    """The open reservations, here and below, that its store has counted in the current period."""
    counted_amounts: list[int]
    """What these hold of each kind."""
    past: set[Reservation]
    """The open reservations, here and below, of earlier periods: nothing of this one is theirs."""
    under_way: dict[RequestReservation, None]
    """The reservations of requests in progress, in order, here and below."""

    @property
    def path(self) -> Sequence[Books]:
        """Itself and all above it."""
        ...

    @property
    def name(self) -> str:
        """The budget's name."""
        ...

    @property
    def root(self) -> Books:
        """The topmost one."""
        ...

    def reconsider(self) -> None:
        """Decide again about the claims that wait."""

    def take_again(self, reservation: RequestReservation) -> RequestReservation:
        """Reserve the same once more, for a request that is sent anyway: no limit refuses it."""
        ...


class Reservation(Live):
    """Amounts that a budget has reserved for one purpose. Settle it exactly once.

    Used as a context manager, a reservation that is not settled within the block is charged in full
    at its end, since the used amount is unknown.
    """

    _ledger: Books
    _amounts: Amounts
    _priced: bool
    _settled: bool = False
    # Where a store knows of it, and in which period.
    _periods: dict[Books, str] = {}  # noqa: RUF012  # each has its own
    # Where a store has it among the requests under way, and what takes it out.
    _marks: tuple[tuple[Books, Correction], ...] = ()

    def _repr_words(self) -> str:
        return f"of {counted(self.tokens, 'token')}" + ", settled" * self._settled

    @property
    def tokens(self) -> int:
        """The reserved tokens."""
        return self._amounts[TOKENS]

    @property
    def cost_usd(self) -> float | None:
        """The reserved US dollars. ``None``: no price is known."""
        return self._amounts[COST] / PICO if self._priced else None

    @property
    def is_settled(self) -> bool:
        """Whether it was committed, charged or refunded."""
        return self._settled

    def __enter__(self) -> Self:
        """Return the reservation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Settle the reservation if it is not settled yet."""
        if not self._settled:
            self.charge()

    def commit(self, *, tokens: int | None = None, cost_usd: float | None = None) -> bool:
        """Charge what was used and refund the rest. Return whether a limit was exceeded.

        Requests and tool calls are charged as they were reserved.

        Args:
            tokens: Tokens in plus out. ``None``: unknown, so the reserved amount counts.
            cost_usd: US dollars. ``None``: unknown, so the reserved amount counts. If
                there was no estimate either, the cost is unknown.

        Raises:
            UsageError: If it has already been settled, or a number is invalid. Nothing has changed.
        """
        used = self._amounts[TOKENS] if tokens is None else count("tokens", tokens)
        unpriced = cost_usd is None and not self._priced
        known = 0 if unpriced else self._amounts[COST]
        cost = known if cost_usd is None else pico(cost_usd)
        unmeasured = tokens is None or (cost_usd is None and self._priced)
        counting = self._settle((used, cost, *self._amounts[2:]))
        self._tell_stores((int(unmeasured), int(unpriced), int(unpriced), 0))
        passed = [
            one.account.note_answer(unmeasured=unmeasured, unpriced=unpriced) for one in counting
        ]
        self._ledger.root.reconsider()
        return any(passed)

    def charge(self) -> None:
        """Charge the whole reservation, because the real usage is unknown.

        Raises:
            UsageError: If it was settled before.
        """
        counting = self._settle(self._amounts)
        self._tell_stores((1, 0, int(not self._priced), 0))
        for one in counting:
            one.account.note_loss(unpriced=not self._priced)
        self._ledger.root.reconsider()

    def refund(self) -> None:
        """Give the whole reservation back: nothing was used.

        Raises:
            UsageError: If it was settled before.
        """
        self._settle(None)
        self._ledger.root.reconsider()

    def _tell_stores(self, unknown: Amounts) -> None:
        for one in self._ledger.path:
            if one.kept is not None:
                one.kept.note_unknown(self._periods.get(one, ""), unknown)

    def _settle(self, used: Amounts | None) -> list[Books]:
        """Settle it with what was used. Return the ledgers that count it in this period."""
        # The ledger knows those that it made: one that was made from another one (by
        # ``msgspec.structs.replace``) holds nothing.
        if self._settled or self not in self._ledger.open:
            raise UsageError(
                f"a reservation of budget {self._ledger.name!r} has already been settled, or is a "
                "copy; commit, charge or refund the original from reserve(), and only once"
            )
        self._settled = True
        self._ledger.open.remove(self)
        counting = [one for one in self._ledger.path if self not in one.past]
        for one in counting:
            one.account.set_aside(self._amounts, -1)
            if used is not None:
                one.account.use(used)
        for one in self._ledger.path:
            leave_count(self, one)
            one.past.discard(self)
            if one.kept is not None:
                one.kept.owe(self._periods.get(one, ""), self._amounts, used)
        for one, mark in self._marks:
            if one.kept is not None:
                one.kept.ended.append(mark)
        return counting


@final
class RequestReservation(Reservation):
    """Amounts that a budget has reserved for one request to a model.

    If the request did not start, the reservation is given back when it is closed.
    """

    _is_stalled: Callable[[], bool] = bool
    """Whether the agent that makes the request waits for others."""
    _is_waiting: Callable[[], bool] = bool
    """Whether it waits at all, also at a gate."""
    _started: bool = False
    _is_told: bool = False

    @property
    def budget_name(self) -> str:
        """The name of the budget that the amounts come from."""
        return self._ledger.name

    def start(self, *, is_told: bool = True) -> None:
        """Mark the request as sent: its reservation can no longer simply be refunded.

        *is_told*: its driver has said so. Otherwise it may wait for what others of them hold.
        """
        self._started, self._is_told = True, self._is_told or is_told

    def again(self) -> RequestReservation:
        """Reserve the same once more, for a request that is sent anyway: no limit refuses it."""
        return self._ledger.take_again(self)

    def doubt_price(self) -> None:
        """Count an unknown cost as unpriced if the request was thought to be free."""
        if not self._amounts[COST]:
            self._priced = False

    def lose_price(self) -> None:
        """Count an unknown cost as unpriced, although a price was expected."""
        self._priced = False

    def close(self) -> None:
        """Settle the reservation if it is not settled yet: in full if the request has started."""
        if not self._settled:
            (self.charge if self._started else self.refund)()

    def may_give_back(self, kind: int, *, is_begun: bool) -> bool:
        """Return whether part of *kind* may be refunded soon.

        Args:
            kind: The kind of amount.
            is_begun: Whether the claim for it is that of a request that has begun.
        """
        if not self._amounts[kind]:
            return False
        if is_begun:
            # Who waits for a slot, at a gate, or in a user's driver, may wait for that one.
            return self._is_told and not self._is_waiting()
        # Who has its reservation and did not start yet waits for a slot or for its turn.
        return not (self._started and self._is_stalled())

    def _settle(self, used: Amounts | None) -> list[Books]:
        counting = super()._settle(used)
        for one in self._ledger.path:
            one.under_way.pop(self, None)
        return counting


def reserved_by(reservation: Reservation) -> Amounts:
    """Return what *reservation* holds of each kind."""
    return reservation._amounts  # pyright: ignore[reportPrivateUsage]


def is_for_request(reservation: Reservation) -> bool:
    """Return whether it is for a request, whose use is unknown until it is settled."""
    return isinstance(reservation, RequestReservation)


def note_mark(reservation: Reservation, books: Books, period: str, marked: Amounts) -> None:
    """Note that a store has *reservation* among the requests under way, as the amounts *marked*."""
    mark = Correction(period, minus(NOTHING, marked))
    reservation._marks = (*reservation._marks, (books, mark))  # pyright: ignore[reportPrivateUsage]


def leave_count(reservation: Reservation, books: Books) -> None:
    """Take it out of what the store of *books* has counted in the current period."""
    if reservation in books.counted:
        del books.counted[reservation]
        for kind, amount in enumerate(reserved_by(reservation)):
            books.counted_amounts[kind] -= amount
