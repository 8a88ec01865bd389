"""What many may spend together: set aside first, then used, and counted once.

Rules:

1. Between the check and the reservation nothing waits, so no two can take the same rest.
2. A reservation is taken in its budget and in every budget above, or in none. So a budget
   inside another can only narrow it.
3. A reservation is settled exactly once: by what was used, as a whole when nobody knows
   what was used, or given back when nothing was.
4. Requests and tool calls are used as they were reserved, so their limits are exact. Tokens
   and money are estimates until they are known: they pass a limit by no more than the
   estimates of what was under way at that moment were too low.
5. Nothing that was used is given back, and nothing is given back twice: a budget never has
   more left than it had before.
6. Who finds too little may wait for what others have set aside for requests. It waits only
   while what is used alone would leave enough, and while some of what lacks is held by a
   request whose agent does not wait for anybody. So there is no circle of waiting, and who
   cannot be served is told.
7. Who fits goes before one that waits for more, but not more than ``MAX_PASSED`` times past
   the same one: then all who want of the budget that lacks wait behind it. So a large
   request does not starve among small ones.
8. A cost that nobody can know is not zero: it is counted as unpriced, and a limit on cost
   allows nothing more after such an answer, unless the budget says so.

A budget belongs to one thread, the one that trio runs in. It knows no pool: several pools
may share one, and one may last longer than any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Final, Self, final

import attrs

from agentpool._budget.account import (
    Account,
    Amounts,
    BudgetNotice,
    amounts_of,
    cost_limit,
    count_limit,
)
from agentpool._budget.reservation import Reservation, Source
from agentpool._budget.statistics import BudgetStatistics
from agentpool._checks import expect, expect_arguments
from agentpool._errors import LimitExceededError

MAX_PASSED: Final = 8
"""How many may go before one that waits for more. As many as run side by side in a pool that
says nothing else: so it waits for about one round of them."""


@final
@attrs.define(eq=False, repr=False)
class Claim:
    """The wish for a reservation for one request, which may have to wait."""

    budget: Budget
    amounts: Amounts
    priced: bool
    is_stalled: Callable[[], bool]
    result: Reservation | LimitExceededError | None = None
    """``None``: it waits."""
    wake: Callable[[], object] = lambda: None
    """Called when a claim that waited has its result. Set it if it waits."""
    short: Budget | None = None
    """What had too little for it when somebody last looked. ``None``: nothing had."""
    passed: int = 0
    """How many who came later were served before it."""

    def hold(self, held: set[Budget]) -> None:
        """Add to *held* what it lacks, if nobody may go before it any more."""
        if self.short is not None and self.passed >= MAX_PASSED:
            held.add(self.short)

    def withdraw(self) -> None:
        """Want it no more, and give back what was set aside for it."""
        root = self.budget.root
        root.waiting.pop(self, None)
        if isinstance(self.result, Reservation):
            self.result.refund()
        root.reconsider()  # others may have waited for its turn


@final
@attrs.define(eq=False, init=False, repr=False)
class Budget(Source):
    """What agents, pools and tools may spend together.

    Give it to ``open_pool`` or to a ``SpawnConfig``; several may have the same one. What is
    spent of a budget with a parent is spent of the parent as well.
    """

    name: str
    """What it is called in errors and events."""
    parent: Budget | None
    """The budget that it is a part of. ``None``: of none."""
    path: tuple[Budget, ...]
    """Itself and every budget above it, the root last."""
    account: Account
    """What it counts, for the other rooms; ``statistics()`` is for people."""
    under_way: dict[Reservation, None]
    """What is set aside for requests that are made right now, in order."""
    waiting: dict[Claim, None]
    """At the root: who waits, in order."""

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
    ) -> None:
        """Make a budget.

        Args:
            tokens: Tokens in plus tokens out. ``None``: no limit, here as below.
            cost_usd: US dollars.
            requests: Requests to a model, retries included.
            tool_calls: Tool calls that run.
            parent: The budget that this one is a part of.
            name: What it is called in errors and events.
            allow_unpriced: Whether a limit on cost allows more after an answer that nobody
                can price. It is then held against what is known.

        Raises:
            UsageError: If a limit is 0, negative, infinite or no number.
        """
        if parent is not None:
            expect(parent, Budget, "parent must be a Budget", "write Budget(parent=budget)")
        expect_arguments(
            Budget.__init__, locals(), but=("tokens", "cost_usd", "requests", "tool_calls")
        )
        limits = (
            count_limit("tokens", tokens),
            cost_limit("cost_usd", cost_usd),
            count_limit("requests", requests),
            count_limit("tool_calls", tool_calls),
        )
        self.name = name
        self.parent = parent
        self.path = (self,) if parent is None else (self, *parent.path)
        news = list[BudgetNotice]() if parent is None else parent.account.news
        self.account = Account(name, limits, allow_unpriced, True, news)  # noqa: FBT003  # see of_run
        self.under_way = {}
        self.waiting = {}

    @classmethod
    def of_run(
        cls,
        *,
        tokens: int | None,
        cost_usd: float | None,
        requests: int,
        tool_calls: int,
        parent: Budget | None,
        name: str,
    ) -> Self:
        """Make the budget that a run shares with its children, out of its own limits.

        Held as a guard holds them: who is not above a limit may make one more request,
        whatever the estimate says, and a cost without a price is passed over. Requests and
        tool calls are exact, and there may be none of the latter left.
        """
        budget = cls(
            tokens=tokens, cost_usd=cost_usd, requests=requests, parent=parent, name=name,
            allow_unpriced=True,
        )  # fmt: skip
        budget.account.limits = (*budget.account.limits[:3], tool_calls)
        budget.account.by_estimate = False
        return budget

    def __repr__(self) -> str:
        """Return the name and what is limited."""
        return f"<Budget {self.name!r}: {self.account.words()}>"

    @property
    def sources(self) -> tuple[Budget, ...]:
        """Itself and every budget above it, the root last."""
        return self.path

    @property
    def root(self) -> Budget:
        """The budget above all others: itself, if it has no parent."""
        return self.path[-1]

    def is_within(self, other: Budget) -> bool:
        """Whether everything that is spent here is spent of *other* as well."""
        return other in self.path

    def statistics(self) -> BudgetStatistics:
        """Return the budget as it is at this moment."""
        return self.account.statistics()

    def reserve(
        self,
        *,
        tokens: int = 0,
        cost_usd: float | None = 0.0,
        requests: int = 0,
        tool_calls: int = 0,
    ) -> Reservation:
        """Set something aside, here and in every budget above, or raise.

        It does not wait, and nobody waits for what it has set aside.

        Args:
            tokens: Tokens in plus out, as estimated.
            cost_usd: US dollars, as estimated. ``None``: nobody can say.
            requests: Requests to a model.
            tool_calls: Tool calls.

        Raises:
            LimitExceededError: If there is too little. Nothing was set aside.
            UsageError: If a number has no meaning. Nothing was set aside.
        """
        amounts = amounts_of(
            tokens=tokens, cost_usd=cost_usd, requests=requests, tool_calls=tool_calls
        )
        lack = self._find_lack(amounts, priced=cost_usd is not None)
        if lack is not None:
            raise self._refuse(lack, amounts)
        return self._take(amounts, priced=cost_usd is not None)

    def record(
        self, tokens: int, cost_usd: float | None, *, requests: int = 0, tool_calls: int = 0
    ) -> None:
        """Count what was spent before, by a program that has ended. No limit refuses it.

        Args:
            tokens: Tokens in plus out.
            cost_usd: US dollars. ``None``: it has no price.
            requests: Requests to a model.
            tool_calls: Tool calls that ran.
        """
        amounts = amounts_of(
            tokens=tokens, cost_usd=cost_usd, requests=requests, tool_calls=tool_calls
        )
        reservation = self._take(amounts, priced=cost_usd is not None)
        reservation.commit(tokens=tokens, cost_usd=cost_usd)

    # --- for requests, which may wait

    def claim(
        self, *, tokens: int, cost_usd: float | None, is_stalled: Callable[[], bool]
    ) -> Claim:
        """Set aside what one request needs, now or when others have given some back.

        Args:
            tokens: Tokens in plus out, as estimated.
            cost_usd: US dollars, as estimated. ``None``: nobody can say.
            is_stalled: Whether who makes the request waits for others, so that nobody may
                count on its end.

        Raises:
            UsageError: If a number has no meaning. Nothing was set aside.
        """
        amounts = amounts_of(tokens=tokens, cost_usd=cost_usd, requests=1, tool_calls=0)
        claim = Claim(self, amounts, cost_usd is not None, is_stalled)
        held = set[Budget]()
        for one in self.root.waiting:
            one.hold(held)
        self._decide(claim, held)
        if claim.result is None:
            self.root.waiting[claim] = None
        return claim

    def reconsider(self) -> None:
        """Look again at those who wait, in their order. To be asked of the root.

        After each settlement, and when somebody who makes a request begins to wait.
        """
        held = set[Budget]()
        for claim in tuple(self.waiting):
            self._decide(claim, held)
            if claim.result is not None:
                del self.waiting[claim]
                claim.wake()
            else:
                claim.hold(held)

    @staticmethod
    def _decide(claim: Claim, held: set[Budget]) -> None:
        """Give *claim* its result, unless it can wait for one, or must: *held* is for others."""
        budget = claim.budget
        lack = budget._find_lack(claim.amounts, priced=claim.priced)
        if lack is None:
            if held.isdisjoint(budget.path):
                for one in takewhile(lambda one: one is not claim, budget.root.waiting):
                    one.passed += one.short in budget.path
                    one.hold(held)
                stalled = claim.is_stalled
                claim.result = budget._take(claim.amounts, priced=claim.priced, is_stalled=stalled)
            return
        short, kind = lack
        claim.short = short
        if short.account.is_used_up(kind, claim.amounts) or not any(
            reservation.may_give_back(kind) for reservation in short.under_way
        ):
            claim.result = budget._refuse(lack, claim.amounts)

    def _find_lack(self, amounts: Amounts, *, priced: bool) -> tuple[Budget, int] | None:
        """Return the nearest budget that has too little, and of what."""
        for budget in self.path:
            kind = budget.account.lacks(amounts, priced=priced)
            if kind is not None:
                return budget, kind
        return None

    def _refuse(self, lack: tuple[Budget, int], amounts: Amounts) -> LimitExceededError:
        for budget in self.path:
            budget.account.refused += 1
        short, kind = lack
        return short.account.error(kind, amounts)

    def _take(
        self, amounts: Amounts, *, priced: bool, is_stalled: Callable[[], bool] | None = None
    ) -> Reservation:
        reservation = Reservation(self, amounts, priced, is_stalled)
        for budget in self.path:
            budget.account.set_aside(amounts)
            if is_stalled is not None:
                budget.under_way[reservation] = None
        return reservation
