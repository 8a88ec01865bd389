"""Charges budgets with what earlier processes of a pool spent, before its agents go on.

Rules:

1. A resumed run counts its past step by step. By then other agents may have sent requests. So all
   that is known of its past is charged before, and each step takes back as much as it counts.
2. Each budget is charged once for each agent, and so is each budget above it.
3. What no step counts stays charged: it was spent, even if the agent is never spawned again.
4. A budget with a store has its past there, and is not charged here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import final

import msgspec

from agentpool._base import Live
from agentpool._budget.account import KINDS, Account
from agentpool._budget.claims import Ledger
from agentpool._budget.spent import Spent, charge
from agentpool._messages import AgentId


@final
class PaidAhead(Live):
    """What the budgets of one pool were charged ahead, and no run has counted yet."""

    _rest: dict[AgentId, dict[Ledger, list[int]]] = msgspec.field(
        default_factory=dict[AgentId, dict[Ledger, list[int]]]
    )
    """For each agent and budget: the amounts of each kind, then unmeasured and unpriced ones."""

    def pay(self, ledger: Ledger, agent_id: AgentId, past: Callable[[], Iterable[Spent]]) -> None:
        """Charge *ledger* and all above it with the past of an agent, unless they have it.

        Args:
            ledger: The ledger of the budget that the agent draws on.
            agent_id: The agent.
            past: Returns what earlier processes spent on the agent.
        """
        known = self._rest.setdefault(agent_id, {})
        new = [one for one in ledger.path if one.kept is None and one not in known]
        if not new:
            return
        every = tuple(past())
        for one in new:
            rest = known[one] = [0] * (len(KINDS) + 2)
            for spent in every:
                rest[:] = map(operator.add, rest, _counted(spent))
                charge(one.account, spent)

    def forget(self, agent_id: AgentId) -> None:
        """Forget an agent that counts no more steps. What none of them counted stays charged."""
        self._rest.pop(agent_id, None)

    def record(self, ledger: Ledger, agent_id: AgentId, spent: Spent) -> None:
        """Count in *ledger* and all above it what a step of an agent's past *spent*, once.

        Args:
            ledger: The ledger of the budget that the agent, or one above it, draws on.
            agent_id: The agent.
            spent: What the step spent.
        """
        known = self._rest.get(agent_id, {})
        for one in ledger.path:
            if (rest := known.get(one)) is not None:
                back = tuple(map(min, rest, _counted(spent)))
                rest[:] = map(operator.sub, rest, back)
                _take_back(one.account, back)
            if one.kept is None:
                charge(one.account, spent)
        ledger.root.reconsider()


def _counted(spent: Spent) -> tuple[int, ...]:
    """Return the amounts of *spent*, and how many requests are unmeasured and unpriced."""
    return (*spent.amounts, *spent.unknown)


def _take_back(account: Account, back: tuple[int, ...]) -> None:
    *amounts, unmeasured, unpriced = back
    account.committed[:] = map(operator.sub, account.committed, amounts)
    account.unmeasured -= unmeasured
    account.unpriced -= unpriced
