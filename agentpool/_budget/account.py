"""The bookkeeping of one budget: its limits, what was used and what is reserved.

Money is counted in whole trillionths of a dollar: a sum of floats would not return to zero when
everything is given back, and the sums of a tree would not add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias, final

import msgspec

from agentpool._base import Live
from agentpool._budget.statistics import BudgetMeter, BudgetStatistics
from agentpool._budget.way_on import way_on
from agentpool._errors import LimitExceededError, UsageError
from agentpool._numbers import is_number, is_whole, plain_number, quoted
from agentpool._outcome import StopReason

KINDS: Final = (
    StopReason.TOKEN_BUDGET,
    StopReason.COST_BUDGET,
    StopReason.REQUEST_BUDGET,
    StopReason.TOOL_CALL_BUDGET,
)
"""The kinds of amount that a budget counts, in the order of ``Amounts``."""

TOKENS: Final = 0
COST: Final = 1

PICO: Final = 10**12
"""Trillionths in a dollar. The cheapest tokens cost some ten thousand of them."""

_NAMES: Final = ("tokens", "cost_usd", "requests", "tool_calls")
"""The names of the limits, in the order of ``Amounts``."""

_UNITS: Final = ("tokens", "US dollars", "requests", "tool calls")

_ADVICE: Final[dict[int, str]] = dict.fromkeys(
    (TOKENS, COST),
    " for the input of a request and its longest possible answer, which a lower "
    "model.max_tokens shortens",
)
"""Advice on how a request can reserve less, by the kind of amount."""

Amounts: TypeAlias = tuple[int, int, int, int]
"""Tokens, trillionths of a dollar, requests, tool calls."""


@final
class BudgetNotice(msgspec.Struct, frozen=True, gc=False):
    """A limit of a budget is near or reached."""

    budget: str
    """The budget's name."""
    kind: StopReason
    """Which of its limits."""
    used: float
    """The used amount; at a refusal, the reserved amount is included."""
    limit: float
    """How much is allowed."""
    reached: bool
    """Whether the limit is reached. If not, four fifths of it are used."""


def no_amounts() -> list[int]:
    """Return zeros, one for each kind."""
    return [0] * len(KINDS)


@final
class Account(Live):
    """The counters of one budget, which include everything spent below it."""

    name: str
    limits: tuple[int | None, int | None, int | None, int | None]
    allow_unpriced: bool
    by_estimate: bool
    """Whether an estimate of tokens and cost must fit. If not, a request may be sent as long as the
    limit is not exceeded yet."""
    news: list[BudgetNotice]
    """The notices not yet reported; one list for a whole tree."""
    committed: list[int] = msgspec.field(default_factory=no_amounts)
    reserved: list[int] = msgspec.field(default_factory=no_amounts)
    unmeasured: int = 0
    unpriced: int = 0
    lost: tuple[int, int] = (0, 0)
    """The requests of other processes that its store has under way, which may be dead; and those of
    them without a price."""
    refused: int = 0
    has_blind_spot: bool = False
    """Whether an answer had no price."""
    period: str = ""
    """For which period the limits hold, as its store says. Empty: for the budget's life."""
    _told: set[tuple[int, bool]] = msgspec.field(default_factory=set[tuple[int, bool]])

    @property
    def blind(self) -> bool:
        """Whether the limit on cost can no longer be enforced, since an answer had no price."""
        return self.has_blind_spot and self.limits[COST] is not None and not self.allow_unpriced

    def lacks(self, amounts: Amounts, *, priced: bool) -> int | None:
        """Return the first kind with too little left for *amounts*. ``None``: there is enough."""
        for kind, limit in enumerate(self.limits):
            # What an unpriced request takes is unknown, so there must be something left.
            amount = amounts[kind] or (1 if kind == COST and not priced and amounts[2] else 0)
            # A request that is thought to be free is none once the limit is passed: what
            # it takes may turn out to be more, and nothing else would ever stop it.
            if limit is None or not (amount or amounts[2]):
                continue
            used = self.committed[kind]
            if self.by_estimate or kind not in {TOKENS, COST}:
                used += self.reserved[kind] + amount
            if used > limit or (kind == COST and self.blind and amount):
                return kind
        return None

    def change_limit(self, name: str, limit: float | None) -> None:
        """Change the limit that *name* sets in ``Budget()``.

        Raises:
            UsageError: If the limit is invalid.
        """
        kind = _NAMES.index(name)
        checked = cost_limit(name, limit) if kind == COST else count_limit(name, limit)
        limits = list(self.limits)
        limits[kind] = checked
        first, second, third, fourth = limits
        self.limits = (first, second, third, fourth)
        # Reaching the new one is news again.
        self._told -= {(kind, False), (kind, True)}

    def is_used_up(self, kind: int, amounts: Amounts) -> bool:
        """Return whether *kind* would be exceeded even if all reservations were given back."""
        limit = self.limits[kind]
        assert limit is not None  # noqa: S101  # there is too little of it
        if kind not in {TOKENS, COST} or (kind == COST and self.blind):
            # Requests and calls that are under way were made: they do not come back.
            return True
        return self.committed[kind] + max(amounts[kind], 1) > limit

    def set_aside(self, amounts: Amounts, sign: int = 1) -> None:
        """Add *amounts* to the reservations. With the sign -1: subtract them."""
        for kind, amount in enumerate(amounts):
            self.reserved[kind] += sign * amount

    def use(self, amounts: Amounts) -> None:
        """Add *amounts* to what was used."""
        for kind, amount in enumerate(amounts):
            if not amount:
                continue
            self.committed[kind] += amount
            limit = self.limits[kind]
            if limit is not None and self.committed[kind] * 5 >= limit * 4:
                self._tell(kind, self.committed[kind], reached=self.committed[kind] >= limit)

    def see(self, used: Amounts, pending: Amounts, set_aside: Sequence[int]) -> None:
        """Store what a budget store reports.

        Args:
            used: What is used and reserved, by all processes.
            pending: The part of this process's own use that is not included yet.
            set_aside: The part of *used* that is only reserved, by this process.
        """
        for kind, amount in enumerate(used):
            self.committed[kind] = max(0, amount + pending[kind] - set_aside[kind])

    def see_unknown(self, used: Amounts) -> None:
        """Take over how much is unknown by all processes, as ``unknown_row`` says it.

        Within a period it never becomes less, so the answers of a store may come in any order.
        """
        self.unmeasured = max(self.unmeasured, used[0])
        self.unpriced = max(self.unpriced, used[2])
        self.has_blind_spot = self.has_blind_spot or used[1] > 0

    def begin(self, period: str) -> None:
        """Begin a period, in which nothing is unmeasured or unpriced yet."""
        self.period = period
        self.unmeasured = self.unpriced = 0
        self.lost = 0, 0
        self.has_blind_spot = False
        self._told.clear()

    def note_answer(self, *, unmeasured: int, unpriced: int) -> bool:
        """Record the charge for an answer; return whether a limit was exceeded."""
        self.unmeasured += unmeasured
        if unpriced:
            self.unpriced += unpriced
            self.has_blind_spot = True
        return any(
            limit is not None and used > limit
            for limit, used in zip(self.limits, self.committed, strict=True)
        )

    def note_loss(self, *, unpriced: int, unmeasured: int = 1) -> None:
        """Record the charge for a request without an answer."""
        self.unmeasured += unmeasured
        # No reason to allow nothing more: an answer would perhaps have had a price.
        self.unpriced += unpriced

    def error(self, kind: int, amounts: Amounts) -> LimitExceededError:
        """Return the error for *amounts* that exceed the limit of *kind*."""
        limit, used = self.limits[kind], self.committed[kind]
        assert limit is not None  # noqa: S101  # or it would not lack
        taken = used + self.reserved[kind]
        self._tell(kind, taken, reached=True)
        if kind == COST and self.blind:
            text = (
                f"budget {self.name!r}: an answer has no known price, so the limit of "
                f"{_shown(kind, limit)} cannot be enforced; give the driver prices (in a manifest "
                "[model.price] or [model.fallback.price]), limit tokens instead, or allow "
                "it with Budget(allow_unpriced=True)"
            )
        else:
            advice = _ADVICE.get(kind, "") if amounts[2] else ""  # it is for a request, or is not
            text = (
                f"budget {self.name!r} has too little left: {_shown(kind, used)} of "
                f"{_shown(kind, limit)} {_UNITS[kind]} are used and "
                f"{_shown(kind, self.reserved[kind])} set aside, and "
                f"{_shown(kind, amounts[kind])} are wanted{advice}"
                f"{way_on(self.period)}"
            )
        return LimitExceededError(
            text,
            kind=KINDS[kind].value,
            used=_plain(kind, taken),
            limit=_plain(kind, limit),
            source=self.name,
        )

    def statistics(self) -> BudgetStatistics:
        """Return a snapshot of the counters."""
        tokens, cost, requests, tool_calls = map(self._meter, range(len(KINDS)))
        return BudgetStatistics(
            name=self.name,
            tokens=tokens,
            cost=cost,
            requests=requests,
            tool_calls=tool_calls,
            unmeasured=self.unmeasured + self.lost[0],
            unpriced=self.unpriced + self.lost[1],
            refused=self.refused,
        )

    def _meter(self, kind: int) -> BudgetMeter:
        limit = self.limits[kind]
        return BudgetMeter(
            limit=None if limit is None else _plain(kind, limit),
            committed=_plain(kind, self.committed[kind]),
            reserved=_plain(kind, self.reserved[kind]),
        )

    def take_news(self) -> tuple[BudgetNotice, ...]:
        """Return the notices not yet reported, for the whole tree, and mark them as reported."""
        news = tuple(self.news)
        self.news.clear()
        return news

    def words(self) -> str:
        """Return the limits in words, as ``10,000 tokens``."""
        limits = (
            f"{_shown(kind, limit)} {_UNITS[kind]}"
            for kind, limit in enumerate(self.limits)
            if limit is not None
        )
        return ", ".join(limits) or "no limit"

    def _tell(self, kind: int, used: int, *, reached: bool) -> None:
        """Add a notice when a limit is near, and another when it is reached; each only once."""
        if (kind, reached) in self._told or (kind, True) in self._told:
            return
        self._told.add((kind, reached))
        limit = self.limits[kind]
        assert limit is not None  # noqa: S101  # nothing else is near or reached
        amounts = (_plain(kind, used), _plain(kind, limit))
        self.news.append(BudgetNotice(self.name, KINDS[kind], *amounts, reached))


def count_limit(name: str, limit: float | None) -> int | None:
    """Return *limit* if it is a whole number above 0, or ``None``.

    Raises:
        UsageError: If it is not.
    """
    # Type checkers are optional, and a bool is an int.
    if limit is None:
        return None
    if not is_whole(limit) or limit < 1:
        raise UsageError(
            f"{name} must be a whole number >= 1, got {quoted(limit)}; leave it out for no limit"
        )
    return plain_number(limit)


def cost_limit(name: str, limit: float | None) -> int | None:
    """Return *limit*, in US dollars, as trillionths of a dollar.

    Raises:
        UsageError: If it is not finite or not above 0.
    """
    if limit is None:
        return None
    _expect_dollars(name, limit, "leave it out for no limit")
    if not is_number(limit) or not 0 < limit < math.inf:
        raise UsageError(
            f"{name} must be finite and > 0, got {quoted(limit)}; leave it out for no limit"
        )
    return max(1, pico(limit))


def count(name: str, number: int) -> int:
    """Return *number* if it is a whole number and not negative.

    Raises:
        UsageError: If it is not.
    """
    if not is_whole(number) or number < 0:
        raise UsageError(f"{name} must be a whole number >= 0, got {quoted(number)}")
    return plain_number(number)


def pico(cost_usd: float) -> int:
    """Return US dollars as a whole number of trillionths of a dollar.

    Raises:
        UsageError: If it is negative, infinite or not a number.
    """
    _expect_dollars("cost_usd", cost_usd, "use None if it is unknown")
    if not is_number(cost_usd) or not 0 <= cost_usd < math.inf:
        raise UsageError(
            f"cost_usd must be finite and >= 0, got {quoted(cost_usd)}; use None if it is unknown"
        )
    scaled = cost_usd * PICO
    return round(scaled) if scaled < math.inf else int(cost_usd) * PICO


def _expect_dollars(name: str, value: object, advice: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} must be an int or a float, got {quoted(value)}; {advice}")


def amounts_of(*, tokens: int, cost_usd: float | None, requests: int, tool_calls: int) -> Amounts:
    """Return the wanted amounts as a tuple, after checking them.

    Raises:
        UsageError: If a number is negative or not finite.
    """
    return (
        count("tokens", tokens),
        0 if cost_usd is None else pico(cost_usd),
        count("requests", requests),
        count("tool_calls", tool_calls),
    )


def _plain(kind: int, amount: int) -> float:
    return amount / PICO if kind == COST else amount


def _shown(kind: int, amount: int) -> str:
    return f"{amount / PICO:.6f}" if kind == COST else f"{amount:,}"
