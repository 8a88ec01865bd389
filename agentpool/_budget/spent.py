"""What was spent before its budget could reserve it, and how a budget is charged with it."""

from __future__ import annotations

from typing import final

import msgspec

from agentpool._budget.account import Account, Amounts, amounts_of
from agentpool._messages import Usage
from agentpool._served_call import Loss


@final
class Spent(msgspec.Struct, frozen=True, gc=False):
    """How much of each kind was used."""

    tokens: int = 0
    """Tokens in plus out."""
    cost_usd: float | None = 0.0
    """US dollars. ``None``: it has no known price."""
    requests: int = 0
    """Requests to a model."""
    tool_calls: int = 0
    """Tool calls that ran."""
    is_lost: bool = False
    """Whether there was no answer, so that an unknown price is no reason to allow nothing more."""
    unmeasured: int = 0
    """Requests whose real usage is unknown: what was reserved counts."""
    unpriced: int = 0
    """Requests without a known price."""

    @property
    def unknown(self) -> tuple[int, int]:
        """How many requests are unmeasured and unpriced.

        Files that older versions pruned have sums of them without these numbers.
        """
        unpriced = self.unpriced or int(self.cost_usd is None)
        return self.unmeasured or int(self.is_lost), unpriced

    @property
    def amounts(self) -> Amounts:
        """The amounts as a tuple, one for each kind."""
        return amounts_of(
            tokens=self.tokens,
            cost_usd=self.cost_usd,
            requests=self.requests,
            tool_calls=self.tool_calls,
        )


def spent_on(loss: Loss) -> Spent:
    """Return the budget's charge for a request without an answer."""
    if loss.is_unsent:
        return Spent()
    is_lost = loss.written is not None or loss.is_repeated or loss.is_reserved
    return Spent(
        loss.tokens, loss.cost_usd, 1, is_lost=is_lost, unmeasured=int(is_lost),
        unpriced=int(loss.cost_usd is None),
    )  # fmt: skip


def spent_on_answer(
    usage: Usage | None, cost_usd: float | None, reserved: Loss | None, *, requests: int = 1
) -> Spent:
    """Return the budget's charge for an answer; what is unknown of it counts as *reserved*."""
    tokens = 0 if usage is None else usage.total_tokens
    if reserved is None:
        return Spent(tokens, cost_usd, requests, unpriced=int(cost_usd is None))
    tokens = reserved.tokens if usage is None else tokens
    cost_usd = reserved.cost_usd if cost_usd is None else cost_usd
    # Without a price, the budget shall know that it cannot check the cost.
    return Spent(
        tokens, cost_usd, requests, is_lost=cost_usd is not None, unmeasured=1,
        unpriced=int(cost_usd is None),
    )  # fmt: skip


def charge(account: Account, spent: Spent) -> None:
    """Charge *account* with what was spent. No limit refuses it."""
    account.use(spent.amounts)
    unmeasured, unpriced = spent.unknown
    note = account.note_loss if spent.is_lost else account.note_answer
    note(unmeasured=unmeasured, unpriced=unpriced)
