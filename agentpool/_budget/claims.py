"""How the amounts of one budget are reserved, used and counted, and how claims wait.

Rules:

1. Nothing waits between the check and the reservation, so no two can take the same amount.
2. A reservation is taken in its budget and in every budget above, or in none. So a budget
   inside another can only narrow it.
3. A reservation is settled exactly once: with the used amount, or in full if that is unknown, or by
   giving it back if nothing was used.
4. Limits of requests and tool calls are exact. Tokens and money are estimates until they are known:
   they exceed a limit by no more than the error in the estimates of the requests under way.
5. Nothing that was used is given back, and nothing is given back twice: a budget never has
   more left than it had before.
6. A claim that finds too little left may wait for what others have reserved for requests. It waits
   only while the used amount alone would leave enough, and while a part of the missing amount is
   held by a request whose agent does not wait for another. So no agents wait in a circle, and a
   claim that cannot be met is refused.
7. A claim that fits may overtake those that wait for more, but no more than ``MAX_PASSED`` that
   wait for the same budget, and the same claim is overtaken at most ``MAX_PASSED`` times: then all
   others wait behind it. So small requests do not starve a large one, and what is given back is
   offered to a few claims, however many wait. Each of these waits for a request that will end.
8. An unknown cost is not zero: it is counted as unpriced, and a limit on cost allows nothing
   more after such an answer, unless the budget says so.

A budget belongs to trio's thread. Several pools may share it, and it may outlast them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self, final

import msgspec

from agentpool._amounts import counted
from agentpool._base import Live
from agentpool._budget.account import (
    COST,
    PICO,
    TOKENS,
    Account,
    Amounts,
    amounts_of,
    count,
    pico,
)
from agentpool._budget.line import Line
from agentpool._budget.store import Kept
from agentpool._errors import LimitExceededError, UsageError

MAX_PASSED: Final = 8
"""How many claims may overtake one that waits for more: as many as a usual pool has slots."""


class Reservation(Live):
    """Amounts that a budget has reserved for one purpose. Settle it exactly once.

    Used as a context manager, a reservation that is not settled within the block is charged in full
    at its end, since the used amount is unknown.
    """

    _ledger: Ledger
    _amounts: Amounts
    _priced: bool
    _settled: bool = False
    # Where a store knows of it, and in which period.
    _periods: dict[Ledger, str] = {}  # noqa: RUF012  # each has its own

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
        cost = self._amounts[COST] if cost_usd is None else pico(cost_usd)
        unpriced = cost_usd is None and not self._priced
        unmeasured = tokens is None or (cost_usd is None and self._priced)
        self._settle((used, cost, *self._amounts[2:]))
        passed = [
            one.account.note_answer(unmeasured=unmeasured, unpriced=unpriced)
            for one in self._ledger.path
        ]
        self._ledger.root.reconsider()
        return any(passed)

    def charge(self) -> None:
        """Charge the whole reservation, because the real usage is unknown.

        Raises:
            UsageError: If it was settled before.
        """
        self._settle(self._amounts)
        for one in self._ledger.path:
            one.account.note_loss(unpriced=not self._priced)
        self._ledger.root.reconsider()

    def refund(self) -> None:
        """Give the whole reservation back: nothing was used.

        Raises:
            UsageError: If it was settled before.
        """
        self._settle(None)
        self._ledger.root.reconsider()

    def _settle(self, used: Amounts | None) -> None:
        # The ledger knows those that it made: one that was made from another one (by
        # ``msgspec.structs.replace``) holds nothing.
        if self._settled or self not in self._ledger.open:
            raise UsageError(
                f"a reservation of budget {self._ledger.name!r} has already been settled, or is a "
                "copy; commit, charge or refund the original from reserve(), and only once"
            )
        self._settled = True
        self._ledger.open.remove(self)
        for one in self._ledger.path:
            one.account.set_aside(self._amounts, -1)
            if used is not None:
                one.account.use(used)
            if one.kept is not None:
                one.kept.owe(self._periods.get(one, ""), self._amounts, used)


@final
class RequestReservation(Reservation):
    """Amounts that a budget has reserved for one request to a model.

    If the request did not start, the reservation is given back when it is closed.
    """

    _is_stalled: Callable[[], bool] = bool
    """Whether the agent that makes the request waits for others."""
    _started: bool = False

    @property
    def budget_name(self) -> str:
        """The name of the budget that the amounts come from."""
        return self._ledger.name

    def start(self) -> None:
        """Mark the request as sent: its reservation can no longer simply be refunded."""
        self._started = True

    def again(self) -> RequestReservation:
        """Reserve the same once more, for a request that is sent anyway: no limit refuses it."""
        claim = Claim(self._ledger, self._amounts, self._priced, self._is_stalled)
        return self._ledger._take_for(claim)  # pyright: ignore[reportPrivateUsage]  # of the same rules

    def doubt_price(self) -> None:
        """Count an unknown cost as unpriced if the request was thought to be free."""
        if not self._amounts[COST]:
            self._priced = False

    def close(self) -> None:
        """Settle the reservation if it is not settled yet: in full if the request has started."""
        if not self._settled:
            (self.charge if self._started else self.refund)()

    def may_give_back(self, kind: int) -> bool:
        """Return whether part of *kind* may be refunded soon."""
        # Who has its reservation and did not start yet waits for a slot or for its turn.
        return bool(self._amounts[kind]) and not (self._started and self._is_stalled())

    def _settle(self, used: Amounts | None) -> None:
        super()._settle(used)
        for one in self._ledger.path:
            one.under_way.pop(self, None)


@final
class Claim(Live):
    """A request's claim to part of a budget, which may have to wait for it."""

    ledger: Ledger
    amounts: Amounts
    priced: bool
    is_stalled: Callable[[], bool]
    result: RequestReservation | LimitExceededError | None = None
    """``None``: it waits."""
    wake: Callable[[], object] = lambda: None
    """Called when a waiting claim gets its result. Set this if the claim waits."""
    short: Ledger | None = None
    """The ledger that had too little for the claim at the last look. ``None``: all had enough."""
    passed: int = 0
    """How many later claims have overtaken it."""

    def withdraw(self) -> None:
        """Drop the claim and what it got meanwhile, a reservation or a refusal."""
        root = self.ledger.root
        root.waiting.leave(self.ledger.path, self)
        if isinstance(self.result, RequestReservation):
            self.result.refund()
        elif self.result is not None:
            for one in self.ledger.path:
                one.account.refused -= 1
        root.reconsider()  # others may have waited for its turn


@final
class Ledger(Live):
    """The inside of one budget: its account, requests under way, and waiting claims."""

    account: Account
    """The counters."""
    path: tuple[Ledger, ...] = ()
    """Itself and every ledger above it, the root last."""
    under_way: dict[RequestReservation, None] = {}  # noqa: RUF012  # each has its own
    """The reservations of requests in progress, in order, here and below."""
    open: set[Reservation] = set()  # noqa: RUF012  # each has its own
    """The reservations of this ledger that are not settled."""
    waiting: Line[Ledger, Claim] = msgspec.field(default_factory=Line[Any, Any])
    """The waiting claims. Used at the root only."""
    kept: Kept | None = None
    """The store of its used amounts. ``None``: the budget ends with the program."""

    @classmethod
    def below(cls, account: Account, parent: Ledger | None, kept: Kept | None = None) -> Ledger:
        """Make the ledger of *account* as a child of *parent*."""
        ledger = cls(account, kept=kept)
        ledger.path = (ledger,) if parent is None else (ledger, *parent.path)
        return ledger

    @property
    def root(self) -> Ledger:
        """The topmost ledger: this one, if it has no parent."""
        return self.path[-1]

    @property
    def name(self) -> str:
        """The name of its budget."""
        return self.account.name

    def stored_short_of(self, amounts: Amounts, *, priced: bool = True) -> tuple[Ledger, ...]:
        """Return the ledgers whose stores are known to have too little for these amounts."""
        return tuple(
            one
            for one in self.path
            if one.kept is not None and one.account.lacks(amounts, priced=priced) is not None
        )

    def reserve(self, amounts: Amounts, *, priced: bool = True) -> Reservation:
        """Reserve *amounts* in this budget and all above it, or raise.

        Raises:
            LimitExceededError: If there is too little. Nothing was reserved.
        """
        lack = self._find_lack(amounts, priced=priced)
        if lack is not None:
            raise self._refuse(lack, amounts)
        return self._take(amounts, priced=priced)

    # --- for requests, which may wait

    def claim(
        self, *, tokens: int, cost_usd: float | None, is_stalled: Callable[[], bool]
    ) -> Claim:
        """Claim what one request needs, now or when others give some back.

        Args:
            tokens: Tokens in plus out, as estimated.
            cost_usd: US dollars, as estimated. ``None``: unknown.
            is_stalled: Whether the agent that makes the request waits for others, so that others
                must not rely on its end.

        Raises:
            UsageError: If a number is invalid. Nothing was reserved.
        """
        amounts = amounts_of(tokens=tokens, cost_usd=cost_usd, requests=1, tool_calls=0)
        claim = Claim(self, amounts, cost_usd is not None, is_stalled)
        lack = self._find_lack(claim.amounts, priced=claim.priced)
        waiting = self.root.waiting
        if lack is not None and not self._can_come(lack, claim.amounts):
            claim.result = self._refuse(lack, claim.amounts)
        elif lack is None and not waiting:
            claim.result = self._take_for(claim)
        else:
            waiting.join(self.path, claim)
            if lack is None:
                self.root.reconsider()  # whether it may overtake those that wait
        return claim

    def reconsider(self) -> None:
        """Decide again about the claims that wait and have their turn. Only the root does this.

        This is called after each settlement, and when a task that makes a request begins to wait.
        """
        if not self.waiting:
            return
        held: set[Ledger] = set()
        staying, short_of = list[Claim](), dict[Ledger, int]()
        for claim in self.waiting.look(held):
            ledger, amounts = claim.ledger, claim.amounts
            lack = ledger._find_lack(amounts, priced=claim.priced)
            if lack is None:
                for one in staying:
                    if one.short in ledger.path:
                        one.passed += 1
                        if one.passed >= MAX_PASSED:
                            held.add(one.short)
                claim.result = ledger._take_for(claim)
            elif ledger._can_come(lack, amounts):
                claim.short = short = lack[0]
                staying.append(claim)
                short_of[short] = waiting = short_of.get(short, 0) + 1
                if waiting >= MAX_PASSED or claim.passed >= MAX_PASSED:
                    held.add(short)
                continue
            else:
                claim.result = ledger._refuse(lack, amounts)
            self.waiting.leave(ledger.path, claim)
            claim.wake()

    @staticmethod
    def _can_come(lack: tuple[Ledger, int], amounts: Amounts) -> bool:
        """Return whether those that make requests may give back what is lacking."""
        short, kind = lack
        return not short.account.is_used_up(kind, amounts) and any(
            reservation.may_give_back(kind) for reservation in short.under_way
        )

    def _find_lack(self, amounts: Amounts, *, priced: bool) -> tuple[Ledger, int] | None:
        """Return the nearest budget with too little left, and the kind it lacks."""
        for one in self.path:
            if (kind := one.account.lacks(amounts, priced=priced)) is not None:
                return one, kind
        return None

    def _refuse(self, lack: tuple[Ledger, int], amounts: Amounts) -> LimitExceededError:
        for one in self.path:
            one.account.refused += 1
        short, kind = lack
        return short.account.error(kind, amounts)

    def _take(self, amounts: Amounts, *, priced: bool) -> Reservation:
        for one in self.path:
            one.account.set_aside(amounts)
        reservation = Reservation(self, amounts, priced)
        self.open.add(reservation)
        return reservation

    def _take_for(self, claim: Claim) -> RequestReservation:
        reservation = RequestReservation(
            self, claim.amounts, claim.priced, _is_stalled=claim.is_stalled
        )
        self.open.add(reservation)
        for one in self.path:
            one.account.set_aside(claim.amounts)
            one.under_way[reservation] = None
        return reservation


def reserved_by(reservation: Reservation) -> Amounts:
    """Return what *reservation* holds of each kind."""
    return reservation._amounts  # pyright: ignore[reportPrivateUsage]


def note_period(reservation: Reservation, ledger: Ledger, period: str) -> None:
    """Note the period to which the store of *ledger* counts the new *reservation*."""
    reservation._periods = {**reservation._periods, ledger: period}  # pyright: ignore[reportPrivateUsage, reportUnhashable]
