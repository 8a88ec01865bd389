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
   A request that asks its next driver comes before all others, since it may hold the turn at a gate
   for which they wait; and it waits only for what requests have that were sent.
8. An unknown cost is not zero: it is counted as unpriced, and a limit on cost allows nothing
   more after such an answer, unless the budget says so.

A budget belongs to trio's thread. Several pools may share it, and it may outlast them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import msgspec

from agentpool._base import Live
from agentpool._budget.account import (
    Account,
    Amounts,
    amounts_of,
    no_amounts,
)
from agentpool._budget.line import Line
from agentpool._budget.reservation import (
    RequestReservation,
    Reservation,
    leave_count,
    reserved_by,
)
from agentpool._budget.store import Kept, StoredUse, minus
from agentpool._errors import LimitExceededError

MAX_PASSED: Final = 8
"""How many claims may overtake one that waits for more: as many as a usual pool has slots."""


@final
class Claim(Live):
    """A request's claim to part of a budget, which may have to wait for it."""

    ledger: Ledger
    amounts: Amounts
    priced: bool
    is_stalled: Callable[[], bool]
    is_waiting: Callable[[], bool] = bool
    """Whether its agent waits at all, also at a gate."""
    is_begun: bool = False
    """Whether its request has asked a driver already, and asks the next one. It may hold the turn
    at a gate that others wait for."""
    result: RequestReservation | LimitExceededError | None = None
    """``None``: it waits."""
    wake: Callable[[], object] = lambda: None
    """Called when a waiting claim gets its result. Set this if the claim waits."""
    short: Ledger | None = None
    """The ledger that had too little for the claim at the last look. ``None``: all had enough."""
    passed: int = 0
    """How many later claims have overtaken it."""

    def withdraw(self) -> None:
        """Drop the claim and what it got meanwhile, a reservation or a refusal; only once."""
        root = self.ledger.root
        root.waiting.leave(self.ledger.path, self)
        root.urgent.pop(self, None)
        if isinstance(self.result, RequestReservation):
            self.result.refund()
        elif self.result is not None:
            for one in self.ledger.path:
                one.account.refused -= 1
        self.result = None
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
    urgent: dict[Claim, None] = {}  # noqa: RUF012  # each has its own
    """The waiting claims of requests that have begun. Used at the root only."""
    kept: Kept | None = None
    """The store of its used amounts. ``None``: the budget ends with the program."""
    counted: dict[Reservation, None] = {}  # noqa: RUF012  # each has its own
    """The open reservations, here and below, that its store has counted in the current period."""
    counted_amounts: list[int] = msgspec.field(default_factory=no_amounts)
    """What these hold of each kind."""
    past: set[Reservation] = set()  # noqa: RUF012  # each has its own
    """The open reservations, here and below, of earlier periods: nothing of this one is theirs."""

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

    def shares_row(self, name: str, kept: Kept) -> bool:
        """Return whether this ledger or one above it is kept where a budget *name* would be."""
        place = kept.store.backing_store, kept.per, name
        return any(
            one.kept is not None and (one.kept.store.backing_store, one.kept.per, one.name) == place
            for one in self.path
        )

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

    # --- for stores

    def note_counted(self, reservation: Reservation, period: str) -> None:
        """Note that the store has counted the new *reservation*, and in which period."""
        reservation._periods = {**reservation._periods, self: period}  # pyright: ignore[reportPrivateUsage, reportUnhashable]
        self.counted[reservation] = None
        for kind, amount in enumerate(reserved_by(reservation)):
            self.counted_amounts[kind] += amount
        if period < self.account.period:  # the answer to a later question came before
            self._leave_behind(reservation)

    def see(self, found: StoredUse) -> None:
        """Take over what the store says, unless it is of a period that is over."""
        assert self.kept is not None  # noqa: S101  # it is its store
        if found.period < self.account.period:
            return
        if found.period > self.account.period:
            for one in [one for one in self.counted if one._periods[self] != found.period]:  # pyright: ignore[reportPrivateUsage]
                self._leave_behind(one)
            self.account.begin(found.period)
        self.account.see(found.used, self.kept.pending(found.period), self.counted_amounts)

    def see_unknown(self, found: StoredUse) -> None:
        """Take over what the store says is unknown of the current period."""
        assert self.kept is not None  # noqa: S101  # it is its store
        if found.period == self.account.period:
            self.account.see_unknown(found.used)

    def see_lost(self, found: StoredUse) -> None:
        """Take over how many requests of other processes the store has under way."""
        assert self.kept is not None  # noqa: S101  # it is its store
        if found.period == self.account.period:
            own = self.kept.marks.own(self.kept, found.period)
            lost, unpriced, _, _ = minus(found.used, own)
            self.account.lost = max(0, lost), max(0, unpriced)

    def _leave_behind(self, reservation: Reservation) -> None:
        leave_count(reservation, self)
        self.past.add(reservation)
        self.account.set_aside(reserved_by(reservation), -1)

    # --- for requests, which may wait

    def claim(
        self,
        *,
        tokens: int,
        cost_usd: float | None,
        is_stalled: Callable[[], bool],
        is_waiting: Callable[[], bool] = bool,
        is_begun: bool = False,
    ) -> Claim:
        """Claim what one request needs, now or when others give some back.

        Args:
            tokens: Tokens in plus out, as estimated.
            cost_usd: US dollars, as estimated. ``None``: unknown.
            is_stalled: Whether the agent that makes the request waits for others, so that others
                must not rely on its end.
            is_waiting: Whether that agent waits at all, also at a gate.
            is_begun: Whether the request has asked a driver already, and asks the next one.

        Raises:
            UsageError: If a number is invalid. Nothing was reserved.
        """
        amounts = amounts_of(tokens=tokens, cost_usd=cost_usd, requests=1, tool_calls=0)
        claim = Claim(self, amounts, cost_usd is not None, is_stalled, is_waiting, is_begun)
        lack = self._find_lack(claim.amounts, priced=claim.priced)
        waiting = self.root.waiting
        if lack is not None and not self._can_come(lack, claim):
            claim.result = self._refuse(lack, claim.amounts)
        elif lack is None and (is_begun or not waiting):
            claim.result = self._take_for(claim)
        elif is_begun:
            self.root.urgent[claim] = None
        else:
            waiting.join(self.path, claim)
            if lack is None:
                self.root.reconsider()  # whether it may overtake those that wait
        return claim

    def reconsider(self) -> None:
        """Decide again about the claims that wait and have their turn. Only the root does this.

        This is called after each settlement, and when a task that makes a request begins to wait.
        """
        for claim in tuple(self.urgent):
            claim.ledger._decide(claim)
        if self.waiting:
            self._go_through_line()

    def _go_through_line(self) -> None:
        held: set[Ledger] = set()
        staying, short_of = list[Claim](), dict[Ledger, int]()
        for claim in self.waiting.look(held):
            ledger = claim.ledger
            lack = ledger._find_lack(claim.amounts, priced=claim.priced)
            if lack is None:
                for one in staying:
                    if one.short in ledger.path:
                        one.passed += 1
                        if one.passed >= MAX_PASSED:
                            held.add(one.short)
                claim.result = ledger._take_for(claim)
            elif ledger._can_come(lack, claim):
                claim.short = short = lack[0]
                staying.append(claim)
                short_of[short] = waiting = short_of.get(short, 0) + 1
                if waiting >= MAX_PASSED or claim.passed >= MAX_PASSED:
                    held.add(short)
                continue
            else:
                claim.result = ledger._refuse(lack, claim.amounts)
            self.waiting.leave(ledger.path, claim)
            claim.wake()

    def _decide(self, claim: Claim) -> None:
        """Take what an urgent *claim* wants, refuse it, or let it wait on."""
        lack = self._find_lack(claim.amounts, priced=claim.priced)
        if lack is not None and self._can_come(lack, claim):
            return
        claim.result = self._take_for(claim) if lack is None else self._refuse(lack, claim.amounts)
        del self.root.urgent[claim]
        claim.wake()

    @staticmethod
    def _can_come(lack: tuple[Ledger, int], claim: Claim) -> bool:
        """Return whether those that make requests may give back what *claim* lacks."""
        short, kind = lack
        return not short.account.is_used_up(kind, claim.amounts) and any(
            one.may_give_back(kind, is_begun=claim.is_begun)
            for one in short.under_way
            if one not in short.past
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

    def take_again(self, reservation: RequestReservation) -> RequestReservation:
        """Reserve the same once more, for a request that is sent anyway: no limit refuses it."""
        return self._take_for(
            Claim(
                self,
                reserved_by(reservation),
                reservation.cost_usd is not None,
                reservation._is_stalled,  # pyright: ignore[reportPrivateUsage]
                reservation._is_waiting,  # pyright: ignore[reportPrivateUsage]
            )
        )

    def _take_for(self, claim: Claim) -> RequestReservation:
        reservation = RequestReservation(
            self,
            claim.amounts,
            claim.priced,
            _is_stalled=claim.is_stalled,
            _is_waiting=claim.is_waiting,
        )
        self.open.add(reservation)
        for one in self.path:
            one.account.set_aside(claim.amounts)
            one.under_way[reservation] = None
        return reservation
