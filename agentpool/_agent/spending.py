"""How one agent spends from a budget: it reserves before each request.

An agent that has to wait for what others have set aside gives its slot back meanwhile, as
for every other wait. It is never one of a circle: see the rules of ``ledger``.
"""

from __future__ import annotations

from functools import partial
from typing import final

import attrs
import trio

from agentpool._budget.budget import Budget, ledger_of
from agentpool._budget.ledger import Claim, Ledger, RequestReservation
from agentpool._errors import LimitExceededError
from agentpool._events import BudgetNear, BudgetReached
from agentpool._loop.tokens import Estimator
from agentpool._messages import AgentId, CompletionRequest
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._scheduling.slot import Slot, parked
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool.abc import Driver
from agentpool.observe._hub import EventHub


def estimate(
    driver: Driver, request: CompletionRequest, estimator: Estimator
) -> tuple[int, float | None]:
    """Estimate the tokens and US dollars that *request* may use. ``None``: no price is known."""
    usage = estimator.estimate(request, driver.context_window)
    return usage.total_tokens, driver.price(usage, model=request.model)


@final
@attrs.define(eq=False, repr=False)
class Purse:
    """One agent's access to a budget."""

    budget: Budget
    """What it spends of."""
    _slot: Slot
    _hub: EventHub
    _agent_id: AgentId
    _name: str
    ledger: Ledger = attrs.field(init=False)
    """What that is inside."""
    estimator: Estimator = attrs.field(init=False, factory=Estimator)
    """For the agent's own conversation."""
    passed: bool = attrs.field(init=False, default=False)
    """Whether a limit is passed since the last answer."""

    def __attrs_post_init__(self) -> None:
        """Have those who wait told when this agent begins to wait as well."""
        self.ledger = ledger_of(self.budget)
        self._slot.on_waiting = self.ledger.root.reconsider

    async def reserve(  # waits only when there is too little; the request follows
        self, driver: Driver, request: CompletionRequest, estimator: Estimator
    ) -> RequestReservation | LimitExceededError:
        """Reserve what *request* needs, waiting while others may give some back.

        If there is too little, nothing is set aside, and the error is returned.

        Cancellation:
            Nothing was set aside.
        """
        tokens, cost_usd = estimate(driver, request, estimator)
        is_stalled = partial(self._is_stalled, trio.lowlevel.current_task())
        claim = self.ledger.claim(tokens=tokens, cost_usd=cost_usd, is_stalled=is_stalled)
        result = claim.result or await self._wait(claim)
        self.tell()
        return result  # noqa: ASYNC910  # see above

    async def _wait(self, claim: Claim) -> RequestReservation | LimitExceededError:
        decided = trio.Event()
        claim.wake = decided.set
        with waiting_for_turn():
            async with parked(Wait.other(f"budget {claim.ledger.name!r}", WaitReason.BUDGET)):
                try:
                    await decided.wait()
                except BaseException:
                    # At once, not when it has its slot again: others wait for what it has.
                    claim.withdraw()
                    raise
        assert claim.result is not None  # noqa: S101  # decided
        return claim.result

    def _is_stalled(self, task: trio.lowlevel.Task) -> bool:
        """Return whether the request of *task* may wait for an agent, and so for a claim."""
        waiting = self._slot.waits.get(task)
        if waiting is not None:
            return not waiting.wait.lends  # who waits at a gate waits for no agent
        # Its driver may have tasks of its own. Who wants a slot does not wait for anybody.
        return not (self._slot.held or self._slot.wanted)

    def take_tool_call(self) -> LimitExceededError | None:
        """Spend one tool call. Return why it may not run. ``None``: it may."""
        try:
            self.ledger.reserve(tool_calls=1).commit(tokens=0, cost_usd=0.0)
        except LimitExceededError as error:
            return error
        finally:
            self.tell()
        return None

    def tell(self) -> None:
        """Report limits that are near or reached."""
        for notice in self.ledger.account.take_news():
            if self._hub.listening:
                kind = BudgetReached if notice.reached else BudgetNear
                stamp = self._hub.stamp(self._agent_id, self._name)
                limit = (notice.budget, notice.kind, notice.used, notice.limit)
                self._hub.publish(kind(*stamp, *limit))
