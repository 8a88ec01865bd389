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
    """Whether this was reserved and the real usage is unknown."""

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
    requests = 0 if loss.is_unsent else 1
    return Spent(loss.tokens, loss.cost_usd, requests, is_lost=loss.written is not None)


def spent_on_answer(
    usage: Usage | None, cost_usd: float | None, reserved: Loss | None, *, requests: int = 1
) -> Spent:
    """Return the budget's charge for an answer; what is unknown of it counts as *reserved*."""
    tokens = 0 if usage is None else usage.total_tokens
    if reserved is None:
        return Spent(tokens, cost_usd, requests)
    tokens = reserved.tokens if usage is None else tokens
    cost_usd = reserved.cost_usd if cost_usd is None else cost_usd
    # Without a price, the budget shall know that it cannot check the cost.
    return Spent(tokens, cost_usd, requests, is_lost=cost_usd is not None)


def charge(account: Account, spent: Spent) -> None:
    """Charge *account* with what was spent. No limit refuses it."""
    account.use(spent.amounts)
    if spent.is_lost:
        account.note_loss(unpriced=spent.cost_usd is None)
    else:
        account.note_answer(unmeasured=False, unpriced=spent.cost_usd is None)
