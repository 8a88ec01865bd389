"""Budgets that outlive their pool: a store keeps what is spent per hour, day or month.

Rules:

1. Before a request is sent, the most that it may use is added to the used amount, in one
   transaction with the check of the limit: several processes cannot spend the same amount. The
   difference to what it really used is corrected afterwards. A process that dies in between has
   spent what it reserved. If the store is the pool's journal too, the same transaction stores the
   record that the request begins, and the correction is stored together with the record of its
   result.
2. How many requests are under way is kept in a row of its own: each is added before it is reserved,
   and taken out after it was settled. What a process that died had under way stays, as requests
   whose use is unknown.
3. How many requests have no known usage or price is kept in a row of its own. A process reads it
   when a pool opens, and before each request without a price.
4. A new period begins with nothing used. The clock decides when, but never goes back to an earlier
   period: setting the clock back frees nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, MutableMapping, Sequence
from contextlib import suppress
from typing import Final, Self, TypeAlias, final
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from agentpool._base import Live, Shown
from agentpool._budget.account import Amounts
from agentpool._budget.period import Period, period_at
from agentpool._errors import UsageError

Limits: TypeAlias = tuple[int | None, int | None, int | None, int | None]
"""How much is allowed of each kind. ``None``: there is no limit."""

NOTHING: Final[Amounts] = (0, 0, 0, 0)
NO_LIMITS: Final[Limits] = (None, None, None, None)


@final
class Correction(msgspec.Struct, frozen=True):
    """The difference between what a reservation used and what it had reserved."""

    period: str
    """The period of the reservation. Empty: the current one."""
    amounts: Amounts
    """The difference of each kind. Below zero: it used less."""


@final
class Spending(msgspec.Struct, frozen=True):
    """One request to a store, as in ``BudgetStore.spend``."""

    name: str
    per: Period
    limits: Limits
    wanted: Amounts
    corrections: Sequence[Correction]


@final
class StoredUse(msgspec.Struct, frozen=True):
    """A store's answer about one budget."""

    period: str
    """The current period."""
    used: Amounts
    """The amounts used and reserved in the period, by all processes."""
    lacking: int | None
    """The kind with too little left; then nothing was taken. ``None``: there was enough."""


class BudgetStore(Shown, ABC):
    """Stores what budgets have used. A journal is such a store; several processes may share it."""

    __slots__ = ()

    @property
    def backing_store(self) -> BudgetStore:
        """The store that keeps the amounts: this one, or the one to which it passes every call.

        A journal of this package is called directly, to write all rows of a request in one
        transaction; and if it is the journal of a pool, with the record of the request.
        """
        return self

    @abstractmethod
    def spend(
        self,
        name: str,
        per: Period,
        limits: Limits,
        wanted: Amounts,
        corrections: Sequence[Correction],
    ) -> Awaitable[StoredUse]:
        """Apply *corrections*, then take *wanted* if the *limits* allow it; all in one step.

        Args:
            name: The budget's name. Two rows are kept beside each budget, whose names end in
                ``(unknown)`` and ``(under way)``.
            per: How long its limits last.
            limits: How much is allowed.
            wanted: How much to take. Zeros: only return what is used.
            corrections: By how much earlier requests used more or less than was reserved.

        Raises:
            Exception: If it cannot be asked. Nothing has changed: the same is told again.
        """


@final
class Marks(Live, weakref=True):
    """The requests that one process has in ``under_way_row``, by all budgets of one name."""

    holders: dict[Kept, None] = {}  # noqa: RUF012  # each has its own
    """The budgets that agents draw on. What others have there nobody will settle."""
    asking: int = 0
    """How many calls are under way that add some or take some out."""
    calls: int = 0
    """How many there have been."""

    def begin(self) -> None:
        """Note that a call begins that adds some or takes some out."""
        self.asking += 1
        self.calls += 1

    def own(self, kept: Kept, period: str) -> Amounts:
        """Return what is not lost of the row of *period*, as *kept* sees it."""
        known = {**self.holders, kept: None}  # pyright: ignore[reportUnhashable]  # by identity
        return summed(one.open.get(period, NOTHING) for one in known)


_MARKS: Final[MutableMapping[BudgetStore, MutableMapping[tuple[str, Period], Marks]]] = (
    WeakKeyDictionary()
)
"""Those that somebody uses, by the store, name and period of their budgets."""


@final
class Kept(Live):
    """The link between one budget and its store."""

    store: BudgetStore
    per: Period
    marks: Marks
    """Those of all budgets of the same name in this process."""
    open: dict[str, Amounts] = {}  # noqa: RUF012  # each has its own
    """What it has in ``under_way_row``, by period."""
    agents: int = 0
    """How many agents draw on it."""
    owed: list[Correction] = []  # noqa: RUF012  # each has its own
    """The corrections to send to the store with the next request."""
    on_the_way: list[Correction] = []  # noqa: RUF012  # the same
    """The corrections that the store is receiving right now."""
    unknown: list[Correction] = []  # noqa: RUF012  # the same
    """The requests to tell the store of whose usage or price is unknown, as in ``unknown_row``."""
    ended: list[Correction] = []  # noqa: RUF012  # the same
    """What to take out of ``under_way_row``: the requests that are settled."""

    @property
    def has_news(self) -> bool:
        """Whether there is something that the store was not told."""
        return bool(self.owed or self.unknown or self.ended)

    @classmethod
    def of(cls, name: str, store: BudgetStore, per: Period) -> Self:
        """Return the link between budget *name* and its *store*.

        Raises:
            UsageError: If a store may have a row of that name for another budget.
        """
        if name.endswith(OWN_ROWS):
            own = " or ".join(map(repr, OWN_ROWS))
            raise UsageError(
                f"budget {name!r} must have another name: a store has rows of its own whose names "
                f"end in {own}"
            )
        marks = Marks()
        # A user's store may be one that cannot be referred to weakly, or that has no hash.
        with suppress(TypeError):
            named = _MARKS.setdefault(store.backing_store, WeakValueDictionary())
            marks = named.setdefault((name, per), marks)
        return cls(store, per, marks)

    def begin_use(self) -> None:
        """Note that one more agent draws on the budget."""
        self.agents += 1
        self.marks.holders[self] = None

    def end_use(self) -> None:
        """Note that the agent has ended. What the last one did not settle is lost for others."""
        self.agents -= 1
        if not self.agents:
            self.marks.holders.pop(self, None)

    def end_change(self, changes: Sequence[Correction]) -> None:
        """Note that a call has ended that ``Marks.begin`` began, and what it changed."""
        self.marks.asking -= 1
        for one in changes:
            self.open[one.period] = plus(self.open.get(one.period, NOTHING), one.amounts)
            if not any(self.open[one.period]):
                del self.open[one.period]

    def owe(self, period: str, reserved: Amounts, used: Amounts | None) -> None:
        """Note how a settled reservation differs from what the store has counted.

        Args:
            period: The period of the reservation in the store. Empty: there is none.
            reserved: What the store has counted for it.
            used: What it really used. ``None``: nothing was used.
        """
        known = reserved if period else NOTHING
        change = minus(used or NOTHING, known)
        if any(change):
            self.owed.append(Correction(period, change))

    def note_unknown(self, period: str, unknown: Amounts) -> None:
        """Note requests whose usage or price is unknown, in the period of their reservation."""
        if any(unknown):
            self.unknown.append(Correction(period, unknown))

    def pending(self, period: str) -> Amounts:
        """Return what the store has not counted yet for *period*, the current one."""
        owed = (*self.owed, *self.on_the_way)
        return summed(one.amounts for one in owed if one.period in {"", period})


OWN_ROWS: Final = (" (unknown)", " (under way)")
"""The ends of the names of rows that no budget of a user may have."""


def unknown_row(name: str) -> str:
    """Return the name under which a store keeps what is unknown of a budget's use.

    Its amounts are: requests whose usage is unknown, answers without a price, all requests without
    a price, and 0.
    """
    return name + OWN_ROWS[0]


def under_way_row(name: str) -> str:
    """Return the name under which a store keeps the requests under way that draw on a budget.

    Its amounts are: the requests, those of them without a price, 0, and 0. Requests of processes
    that have died stay.
    """
    return name + OWN_ROWS[1]


class UseTable(ABC):
    """A table of what was used, by budget and period. Each store has one."""

    __slots__ = ()

    @abstractmethod
    def latest(self, name: str, per: Period) -> str:
        """Return the last known period. Empty: the budget is new."""

    @abstractmethod
    def used(self, name: str, period: str) -> Amounts:
        """Return what is used and reserved."""

    @abstractmethod
    def add(self, name: str, period: str, amounts: Amounts) -> None:
        """Add to what is used."""


def spend_all(table: UseTable, now: float, spendings: Sequence[Spending]) -> tuple[StoredUse, ...]:
    """Apply all corrections, then take what all budgets want, or nothing if one has too little.

    Args:
        table: The used amounts. Nothing else may change them meanwhile.
        now: Seconds since 1970.
        spendings: The requests of different budgets.
    """
    found: list[StoredUse] = []
    for one in spendings:
        period = period_at(one.per, now, table.latest(one.name, one.per))
        for change in one.corrections:
            table.add(one.name, change.period or period, change.amounts)
        used = table.used(one.name, period)
        found.append(StoredUse(period, used, lacking_kind(one.limits, used, one.wanted)))
    if any(use.lacking is not None for use in found):
        return tuple(found)
    for place, one in enumerate(spendings):
        if any(one.wanted):
            period = found[place].period
            table.add(one.name, period, one.wanted)
            found[place] = StoredUse(period, table.used(one.name, period), None)
    return tuple(found)


def lacking_kind(limits: Limits, used: Amounts, wanted: Amounts) -> int | None:
    """Return the first kind with too little left for *wanted*. ``None``: there is enough.

    >>> lacking_kind((None, None, 3, None), (0, 0, 2, 0), (9, 0, 1, 0))
    >>> lacking_kind((None, None, 3, None), (0, 0, 3, 0), (9, 0, 1, 0))
    2
    """
    for kind, limit in enumerate(limits):
        if limit is not None and (wanted[kind] or wanted[2]) and used[kind] + wanted[kind] > limit:
            return kind
    return None


def plus(one: Amounts, other: Amounts) -> Amounts:
    """Return the sum of two, kind by kind."""
    return minus(one, minus(NOTHING, other))


def minus(one: Amounts, other: Amounts) -> Amounts:
    """Return the difference, kind by kind."""
    a, b, c, d = (x - y for x, y in zip(one, other, strict=True))
    return a, b, c, d


def summed(amounts: Iterable[Amounts]) -> Amounts:
    """Return the sum, kind by kind."""
    a, b, c, d = map(sum, zip(NOTHING, *amounts, strict=True))
    return a, b, c, d
