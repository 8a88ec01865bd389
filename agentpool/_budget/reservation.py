"""What is set aside of a budget, until it is known what was used of it.

The rules are those of ``_budget``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, final

from agentpool._base import Live
from agentpool._budget.account import COST, PICO, TOKENS, Account, Amounts, count, pico
from agentpool._errors import UsageError


class Source(ABC):
    """What can be set aside of: a budget."""

    __slots__ = ()

    name: str
    """What it is called."""
    account: Account
    """What it counts."""
    under_way: dict[Reservation, None]
    """What is set aside for requests that are made right now, in order."""

    @property
    @abstractmethod
    def sources(self) -> tuple[Source, ...]:
        """Itself and everything above it, the root last."""

    @abstractmethod
    def reconsider(self) -> None:
        """Look again at those who wait. To be asked of the root."""


@final
class Reservation(Live):
    """What a budget has set aside for one thing. Settle it once, whatever happens.

    As a context manager it settles itself at the end of its block, if nobody did: nobody
    has said then what was used, so all of it is charged. One for a request that did not
    start is given back.
    """

    budget: Source
    """Where it was taken."""
    _amounts: Amounts
    _priced: bool
    _is_stalled: Callable[[], bool] | None
    """Whether who makes the request waits for others. ``None``: it is for no request."""
    _started: bool = False
    _settled: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that were set aside."""
        return self._amounts[TOKENS]

    @property
    def cost_usd(self) -> float | None:
        """US dollars that were set aside. ``None``: there was no price to go by."""
        return self._amounts[COST] / PICO if self._priced else None

    @property
    def has_started(self) -> bool:
        """Whether the request may have gone out."""
        return self._started

    @property
    def is_settled(self) -> bool:
        """Whether it was settled."""
        return self._settled

    def start(self) -> None:
        """Say that the request goes out now: from here on it is not simply given back."""
        self._started = True

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Settle it, unless that was done."""
        if not self._settled:
            if self._is_stalled is None or self._started:
                self.charge()
            else:
                self.refund()

    def commit(self, *, tokens: int | None = None, cost_usd: float | None = None) -> bool:
        """Charge what was used and give the rest back; return whether that passed a limit.

        Requests and tool calls are charged as they were reserved.

        Args:
            tokens: Tokens in plus out. ``None``: nobody said, so what was reserved counts.
            cost_usd: US dollars. ``None``: nobody said, so what was reserved counts. If
                there was no estimate either, the cost is unknown.

        Raises:
            UsageError: If it was settled before, or a number has no meaning. Nothing has
                changed.
        """
        used = self._amounts[TOKENS] if tokens is None else count("tokens", tokens)
        cost = self._amounts[COST] if cost_usd is None else pico(cost_usd)
        unpriced = cost_usd is None and not self._priced
        unmeasured = tokens is None or (cost_usd is None and self._priced)
        self._settle((used, cost, *self._amounts[2:]))
        passed = [
            budget.account.note_answer(unmeasured=unmeasured, unpriced=unpriced)
            for budget in self.budget.sources
        ]
        self.budget.sources[-1].reconsider()
        return any(passed)

    def charge(self) -> None:
        """Charge all of it: something was under way, and nobody knows what it used.

        Raises:
            UsageError: If it was settled before.
        """
        self._settle(self._amounts)
        for budget in self.budget.sources:
            budget.account.note_loss(unpriced=not self._priced)
        self.budget.sources[-1].reconsider()

    def refund(self) -> None:
        """Give all of it back: nothing was used.

        Raises:
            UsageError: If it was settled before.
        """
        self._settle(None)
        self.budget.sources[-1].reconsider()

    def may_give_back(self, kind: int) -> bool:
        """Whether some of *kind* may come back from it before long."""
        if self._is_stalled is None or not self._amounts[kind]:
            return False
        # Who has its reservation and did not start yet waits for a slot or for its turn.
        return not (self._started and self._is_stalled())

    def _settle(self, used: Amounts | None) -> None:
        if self._settled:
            raise UsageError(
                f"a reservation of budget {self.budget.name!r} was settled before; commit, "
                "charge or refund it once"
            )
        self._settled = True
        for budget in self.budget.sources:
            budget.account.set_aside(self._amounts, -1)
            budget.under_way.pop(self, None)
            if used is not None:
                budget.account.use(used)
