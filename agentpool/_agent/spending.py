"""How one agent spends from a budget: it reserves before each request.

While an agent waits for what others have reserved, it gives its slot back, as in every other wait.
It is never part of a circle of waiting agents: see the rules of ``claims``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, final

import msgspec
import trio

from agentpool._agent.stored_spending import begin_with, look, settle, take
from agentpool._base import Live
from agentpool._budget.account import Amounts, amounts_of
from agentpool._budget.budget import Budget, ledger_of
from agentpool._budget.claims import Claim, Ledger
from agentpool._budget.reservation import RequestReservation, Reservation, reserved_by
from agentpool._errors import (
    AllDriversFailedError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    LimitExceededError,
    OverloadedError,
    RateLimitError,
    RecordingMissError,
    UnknownModelError,
)
from agentpool._events import BudgetNear, BudgetReached
from agentpool._loop.tokens import Estimator
from agentpool._messages import AgentId, CompletionRequest, Usage
from agentpool._numbers import plain_number
from agentpool._scheduling.ctrl_c import interruptible, unbroken
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._scheduling.slot import Slot, parked
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool.abc import Driver
from agentpool.abc._driver_facts import count_of
from agentpool.observe._hub import EventHub

if TYPE_CHECKING:
    from agentpool._agent.run_journal import RunJournal
    from agentpool._journal_records import JournalRecord

REFUSALS: Final = (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    OverloadedError,
    RateLimitError,
    RecordingMissError,
    UnknownModelError,
)
"""A provider's refusals. Only answers are charged."""

_ONE_CALL: Final[Amounts] = (0, 0, 0, 1)


def is_refusal(error: BaseException) -> bool:
    """Return whether a provider refused the request with *error*, and so charges nothing."""
    if isinstance(error, AllDriversFailedError):
        return all(map(is_refusal, error.errors))
    return isinstance(error, REFUSALS) and not error.has_begun


def estimate(
    driver: Driver, request: CompletionRequest, estimator: Estimator
) -> tuple[int, float | None]:
    """Estimate the tokens and US dollars that *request* may use. ``None``: the price is unknown."""
    usage = estimator.estimate(request, driver.context_window, count_of(driver))
    return usage.total_tokens, plain_number(_highest_price(driver, usage, request.model))


@interruptible
def _highest_price(driver: Driver, usage: Usage, model: str | None) -> float | None:
    return driver.highest_price(usage, model=model)


# Here and not there, since rules know nothing of trio.
for _kept in (Budget, Ledger, Claim, Reservation, RequestReservation):
    unbroken(_kept)


@unbroken
@final
class Purse(Live):
    """One agent's access to a budget."""

    budget: Budget
    """The budget to spend from."""
    _slot: Slot
    _hub: EventHub
    _agent_id: AgentId
    _name: str
    estimator: Estimator = msgspec.field(default_factory=Estimator)
    """Estimates requests of the agent's conversation."""

    def __post_init__(self) -> None:
        """Reconsider waiting claims when this agent begins to wait."""
        self._slot.on_waiting = self.ledger.root.reconsider
        for one in self.ledger.path:
            if one.kept is not None:
                one.kept.begin_use()

    def close(self) -> None:
        """Note that the agent has ended."""
        for one in self.ledger.path:
            if one.kept is not None:
                one.kept.end_use()

    @property
    def ledger(self) -> Ledger:
        """The inside of the budget."""
        return ledger_of(self.budget)

    async def reserve(  # waits only when there is too little; the request follows
        self,
        driver: Driver,
        request: CompletionRequest,
        estimator: Estimator,
        journal: RunJournal | None = None,
        *,
        is_begun: bool = False,
    ) -> RequestReservation | LimitExceededError:
        """Reserve what *request* needs, waiting while others may give some back.

        If there is too little, nothing is reserved, and the error is returned. A record that is
        due in *journal* is written together with the reservations in stores in the same file. Call
        ``tell`` when the reservation is where it will be given back.
        *is_begun*: the request has asked a driver already, and asks the next one.

        Cancellation:
            Nothing was reserved.
        """
        tokens, cost_usd = estimate(driver, request, estimator)
        wanted = amounts_of(tokens=tokens, cost_usd=cost_usd, requests=1, tool_calls=0)
        if cost_usd is None and self.is_stored:
            # Another process may have had an answer without a price.
            await look([one for one in self.ledger.path if one.kept is not None])
        # If none is short, the claim follows in the same step: no other one comes in between.
        if short := self.ledger.stored_short_of(wanted, priced=cost_usd is not None):
            await look(short)
        task = trio.lowlevel.current_task()
        while True:
            claim = self.ledger.claim(
                tokens=tokens, cost_usd=cost_usd, is_stalled=partial(self._is_stalled, task),
                is_waiting=partial(self._is_waiting, task), is_begun=is_begun,
            )  # fmt: skip
            result = claim.result
            if result is not None:
                break
            result = await self._wait(claim)
            if not (isinstance(result, LimitExceededError) and self.is_stored):
                break
            # It may have waited into the next period, which the store knows.
            await look([one for one in self.ledger.path if one.kept is not None])
            if self.ledger.stored_short_of(wanted, priced=cost_usd is not None):
                break
            for one in self.ledger.path:
                one.account.refused -= 1
        if self.is_stored and not isinstance(result, LimitExceededError):
            started = None if journal is None else journal.take_due()
            result = await self._take_stored(result, journal, started) or result
        return result  # noqa: ASYNC910  # see above

    @property
    def is_stored(self) -> bool:
        """Whether the budget, or one above it, outlives the program."""
        return any(one.kept is not None for one in self.ledger.path)

    def kept_with(self, journal: RunJournal) -> tuple[Ledger, ...]:
        """Return the budgets whose store can be written together with *journal*."""
        path = self.ledger.path
        return tuple(one for one in path if one.kept and journal.writer.keeps(one.kept.store))

    async def settle(self, but: Sequence[Ledger] = ()) -> None:  # noqa: ASYNC910  # without a store there is nothing to wait for
        """Report to the stores what was really used.

        Args:
            but: Budgets to leave out: their reports are written with the next result, which follows
                immediately.

        Cancellation:
            It is not cancelled: an answer that has come is first of all kept.
        """
        for one in self.ledger.path:
            if one.kept is not None and one.kept.has_news and one not in but:
                await settle(one, one.kept)

    async def _take_stored(
        self,
        reservation: Reservation,
        journal: RunJournal | None,
        started: JournalRecord | None,
    ) -> LimitExceededError | None:
        """Take *reservation* in the stores as well. If a store has too little, give it back."""
        joint: tuple[Ledger, ...] = ()
        if journal is not None and started is not None:
            joint = self.kept_with(journal)
        try:
            await trio.lowlevel.checkpoint()
            lack = await self._find_stored_lack(reservation, joint)
            if lack is None and joint and journal is not None and started is not None:
                lack = await begin_with(reservation, joint, journal, started)
        except BaseException:
            reservation.refund()
            raise
        if lack is None:
            return None
        reservation.refund()
        for one in self.ledger.path:
            one.account.refused += 1
        await self.settle()
        short, kind = lack
        await look((short,))  # what was set aside here, and not there, is counted no more
        return short.account.error(kind, reserved_by(reservation))

    async def _find_stored_lack(  # noqa: ASYNC910  # its caller has a checkpoint
        self, reservation: Reservation, joint: Sequence[Ledger]
    ) -> tuple[Ledger, int] | None:
        for one in self.ledger.path:
            if one.kept is not None and one not in joint:
                found = await take(reservation, one, one.kept)
                if found.lacking is not None:
                    return one, found.lacking
        return None  # noqa: ASYNC910  # see above

    async def _wait(self, claim: Claim) -> RequestReservation | LimitExceededError:
        decided = trio.Event()
        claim.wake = decided.set
        with waiting_for_turn():
            try:
                async with parked(Wait.other(f"budget {claim.ledger.name!r}", WaitReason.BUDGET)):
                    try:
                        await decided.wait()
                    except BaseException:
                        # At once, not when it has its slot again: others wait for what it has.
                        claim.withdraw()
                        raise
            except BaseException:
                claim.withdraw()  # an observer may end the program as it is told of the wait
                raise
        assert claim.result is not None  # noqa: S101  # decided
        return claim.result

    def _is_stalled(self, task: trio.lowlevel.Task) -> bool:
        """Return whether the request of *task* waits for an agent that may wait for a claim."""
        waiting = self._slot.waits.get(task)
        if waiting is not None:
            return not waiting.wait.lends  # who waits at a gate waits for no agent
        # Its driver may have tasks of its own. Who wants a slot does not wait for anybody.
        return not (self._slot.held or self._slot.wanted)

    def _is_waiting(self, task: trio.lowlevel.Task) -> bool:
        """Return whether the request of *task* waits for anything without a slot."""
        return task in self._slot.waits or not self._slot.held

    async def take_tool_call(  # noqa: ASYNC910  # waits for stores alone
        self, journal: RunJournal | None = None, started: JournalRecord | None = None
    ) -> LimitExceededError | None:
        """Spend one tool call. Return why the budget does not allow it. ``None``: it is allowed.

        Args:
            journal: The journal of the agent's run.
            started: The record that the call begins. It is written together with the spending in
                stores in the same file.
        """
        if self.is_stored and (short := self.ledger.stored_short_of(_ONE_CALL)):
            await look(short)
        try:
            reservation = self.ledger.reserve(_ONE_CALL)
            refusal = None
            if self.is_stored:
                refusal = await self._take_stored(reservation, journal, started)
            if refusal is None:
                reservation.commit(tokens=0, cost_usd=0.0)
        except LimitExceededError as error:
            return error  # noqa: ASYNC910  # see above
        finally:
            self.tell()
        return refusal  # noqa: ASYNC910  # see above

    def tell(self) -> None:
        """Report limits that are near or have been reached."""
        for notice in self.ledger.account.take_news():
            kind = BudgetReached if notice.reached else BudgetNear
            self._hub.tell(
                kind,
                self._agent_id,
                self._name,
                notice.budget,
                notice.kind,
                notice.used,
                notice.limit,
            )
