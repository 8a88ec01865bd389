"""Limits that many agents share: reserve first, then commit what was used.

The rules are in ``claims``.
"""

from __future__ import annotations

from typing import Final, Literal, final

from agentpool._base import Shown, Unique
from agentpool._budget.account import (
    COST,
    Account,
    BudgetNotice,
    amounts_of,
    cost_limit,
    count_limit,
)
from agentpool._budget.claims import Ledger
from agentpool._budget.period import Period
from agentpool._budget.reservation import Reservation
from agentpool._budget.statistics import BudgetStatistics
from agentpool._budget.store import BudgetStore, Kept
from agentpool._checks import expect, expect_arguments, expect_name
from agentpool._errors import UsageError

_LIMITS: Final = ("tokens", "cost_usd", "requests", "tool_calls")
"""The arguments that are checked separately."""


@final
class Budget(Unique, Shown):
    """A limit on what agents, pools and tools may spend together.

    Give it to ``open_pool`` or to a ``SpawnConfig``. Several of these may share one budget. What is
    spent from a budget with a parent is spent from the parent as well.

    >>> from agentpool import Budget
    >>> everything = Budget(tokens=10_000)
    >>> part = Budget(tokens=1_000, parent=everything)
    >>> with part.reserve(tokens=400) as reservation:
    ...     reservation.commit(tokens=250)
    False
    >>> part.statistics().tokens.left, everything.statistics().tokens.left
    (750, 9750)
    """

    __slots__ = ("__weakref__", "_ledger", "_parent")

    _ledger: Ledger
    _parent: Budget | None

    def __init__(
        self,
        *,
        tokens: int | None = None,
        cost_usd: float | None = None,
        requests: int | None = None,
        tool_calls: int | None = None,
        parent: Budget | None = None,
        name: str = "budget",
        allow_unpriced: bool = False,
        per: Period | None = None,
        store: BudgetStore | None = None,
    ) -> None:
        """Make a budget with nothing spent, or with what its store says.

        Args:
            tokens: Tokens in plus tokens out. ``None``: no limit. The same holds for the limits
                below.
            cost_usd: US dollars.
            requests: Requests to a model, retries included.
            tool_calls: Tool calls that run.
            parent: The budget that this one is a part of.
            name: Its name in errors and events.
            allow_unpriced: Whether a limit on cost allows more requests after an answer without a
                known price. Only known costs count then.
            per: ``hour``, ``day`` or ``month``: the limits hold in each such period, which begins
                in UTC, for all processes that have a budget of this name with the same store.
                ``ever``: they hold as long as the store lasts.
            store: What keeps the used amounts: a journal.

        Raises:
            UsageError: If a limit is 0, negative, infinite or not a number.
        """
        expect_arguments(Budget.__init__, locals(), but=("parent", *_LIMITS))
        expect_name(name)
        if (per is None) != (store is None):
            raise UsageError(
                "give both per= and store=, or neither, as in Budget(per='day', store=journal): "
                f"got per={per!r}, store={store!r}"
            )
        if parent is not None:
            expect(parent, Budget, "parent must be a Budget", "write Budget(parent=budget)")
        limits = (
            count_limit("tokens", tokens),
            cost_limit("cost_usd", cost_usd),
            count_limit("requests", requests),
            count_limit("tool_calls", tool_calls),
        )
        above = None if parent is None else parent._ledger
        kept = None if per is None or store is None else Kept.of(name, store, per)
        if kept is not None and above is not None and above.shares_row(name, kept):
            raise UsageError(
                f"budget {name!r} is a part of one with the same name and store, where each "
                "request would count twice; give one of them another name"
            )
        news = list[BudgetNotice]() if above is None else above.account.news
        account = Account(name, limits, allow_unpriced, True, news)  # noqa: FBT003  # see family_budget
        self._parent = parent
        self._ledger = Ledger.below(account, above, kept)

    def __repr__(self) -> str:
        """Return the name and the limits."""
        return f"<Budget {self.name!r}: {self._ledger.account.words()}>"

    @property
    def name(self) -> str:
        """The budget's name in errors and events."""
        return self._ledger.name

    @property
    def parent(self) -> Budget | None:
        """The parent that also counts all spending of this budget. ``None``: it has no parent."""
        return self._parent

    def is_within(self, other: Budget) -> bool:
        """Return whether all spending of this budget also counts in *other*."""
        expect_arguments(Budget.is_within, locals())
        return other._ledger in self._ledger.path

    @property
    def _needs_prices(self) -> bool:
        """Whether a limit on cost, here or above, needs a known price."""
        accounts = [ledger.account for ledger in self._ledger.path]
        return any(one.limits[COST] is not None and not one.allow_unpriced for one in accounts)

    def statistics(self) -> BudgetStatistics:
        """Return a snapshot of what was used, reserved and is left."""
        return self._ledger.account.statistics()

    def change_limit(
        self,
        kind: Literal["tokens", "cost_usd", "requests", "tool_calls"],
        limit: float | None,
    ) -> None:
        """Raise, lower or remove a limit from now on.

        Used and reserved amounts stay as they are, and agents that were stopped stay stopped. The
        budget decides again about agents that wait for it.

        Args:
            kind: The limit to change.
            limit: How much is allowed in total. ``None``: there is no longer a limit.

        Raises:
            UsageError: If *limit* is 0, negative, infinite or not a number.
        """
        expect_arguments(Budget.change_limit, locals(), but=("limit",))
        self._ledger.account.change_limit(kind, limit)
        self._ledger.root.reconsider()

    def reserve(
        self,
        *,
        tokens: int = 0,
        cost_usd: float | None = 0.0,
        requests: int = 0,
        tool_calls: int = 0,
    ) -> Reservation:
        """Reserve amounts in this budget and all above it, or raise.

        This does not wait, and no agent waits for amounts that are reserved in this way.

        Args:
            tokens: Tokens in plus out, as estimated.
            cost_usd: US dollars, as estimated. ``None``: unknown.
            requests: Requests to a model.
            tool_calls: Tool calls.

        Raises:
            LimitExceededError: If there is too little. Nothing was reserved.
            UsageError: If a number is invalid. Nothing was reserved.
        """
        amounts = amounts_of(
            tokens=tokens, cost_usd=cost_usd, requests=requests, tool_calls=tool_calls
        )
        return self._ledger.reserve(amounts, priced=cost_usd is not None)


def ledger_of(budget: Budget) -> Ledger:
    """Return the ledger of *budget*."""
    return budget._ledger  # pyright: ignore[reportPrivateUsage]  # the package's own way in


def family_budget(
    *,
    tokens: int | None,
    cost_usd: float | None,
    requests: int | None,
    tool_calls: int,
    parent: Budget | None,
    name: str,
) -> Budget:
    """Make the budget that one run shares with its children, from the run's own limits.

    It treats limits as a guard does: an agent that is not above a limit may make one more request,
    whatever the estimate says, and unknown costs are ignored. Limits of requests and tool calls are
    exact, and the limit of tool calls may be 0.
    """
    budget = Budget(
        tokens=tokens, cost_usd=cost_usd, requests=requests, parent=parent, name=name,
        allow_unpriced=True,
    )  # fmt: skip
    account = ledger_of(budget).account
    account.limits = (*account.limits[:3], tool_calls)
    account.by_estimate = False
    return budget
