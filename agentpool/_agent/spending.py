"""How one agent spends from a budget: it reserves before each request.

While an agent waits for what others have reserved, it gives its slot back, as in every other wait.
It is never part of a circle of waiting agents: see the rules of ``claims``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._budget.account import Amounts, amounts_of
from agentpool._budget.budget import Budget, ledger_of
from agentpool._budget.claims import (
    Claim,
    Ledger,
    RequestReservation,
    Reservation,
    note_period,
    reserved_by,
)
from agentpool._budget.store import NOTHING, Correction, Kept, Spending, StoredUse
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
from agentpool._messages import AgentId, CompletionRequest
from agentpool._numbers import plain_number
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._scheduling.slot import Slot, parked
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool.abc import Driver
from agentpool.abc._driver_facts import count_of
from agentpool.observe._hub import EventHub

if TYPE_CHECKING:
    from agentpool._agent.run_journal import RunJournal
    from agentpool._journal_records import JournalRecord
    from agentpool.journal._joint import Together

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
    return usage.total_tokens, plain_number(driver.highest_price(usage, model=request.model))


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
    passed: bool = False
    """Whether a limit has been passed since the last answer."""

    def __post_init__(self) -> None:
        """Reconsider waiting claims when this agent begins to wait."""
        self._slot.on_waiting = self.ledger.root.reconsider

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
    ) -> RequestReservation | LimitExceededError:
        """Reserve what *request* needs, waiting while others may give some back.

        If there is too little, nothing is reserved, and the error is returned. A record that is
        due in *journal* is written together with the reservations in stores in the same file.

        Cancellation:
            Nothing was reserved.
        """
        tokens, cost_usd = estimate(driver, request, estimator)
        if self.is_stored:
            wanted = amounts_of(tokens=tokens, cost_usd=cost_usd, requests=1, tool_calls=0)
            # If none is short, the claim follows in the same step: no other one comes in between.
            if short := self.ledger.stored_short_of(wanted, priced=cost_usd is not None):
                await _look(short)
        is_stalled = partial(self._is_stalled, trio.lowlevel.current_task())
        claim = self.ledger.claim(tokens=tokens, cost_usd=cost_usd, is_stalled=is_stalled)
        result = claim.result or await self._wait(claim)
        if self.is_stored and not isinstance(result, LimitExceededError):
            started = None if journal is None else journal.take_due()
            result = await self._take_stored(result, journal, started) or result
        self.tell()
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
            if one.kept is not None and one.kept.owed and one not in but:
                await _spend(one, one.kept, NOTHING)

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
                lack = await _begin_with(reservation, joint, journal, started)
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
        await _look((short,))  # what was set aside here, and not there, is counted no more
        return short.account.error(kind, reserved_by(reservation))

    async def _find_stored_lack(  # noqa: ASYNC910  # its caller has a checkpoint
        self, reservation: Reservation, joint: Sequence[Ledger]
    ) -> tuple[Ledger, int] | None:
        for one in self.ledger.path:
            if one.kept is not None and one not in joint:
                found = await _spend(one, one.kept, reserved_by(reservation))
                if found.lacking is not None:
                    return one, found.lacking
                note_period(reservation, one, found.period)
        return None  # noqa: ASYNC910  # see above

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
        """Return whether the request of *task* waits for an agent that may wait for a claim."""
        waiting = self._slot.waits.get(task)
        if waiting is not None:
            return not waiting.wait.lends  # who waits at a gate waits for no agent
        # Its driver may have tasks of its own. Who wants a slot does not wait for anybody.
        return not (self._slot.held or self._slot.wanted)

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
            await _look(short)
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


async def look_at(budget: Budget | None) -> None:  # noqa: ASYNC910  # without a store there is nothing to wait for
    """Read what is used of *budget*, if it or one above it has a store.

    Raises:
        Exception: An error of the store.
    """
    path = () if budget is None else ledger_of(budget).path
    if stored := [one for one in path if one.kept is not None]:
        await _look(stored)


async def _look(ledgers: Sequence[Ledger]) -> None:
    """Ask the stores whether a new period has begun."""
    await trio.lowlevel.checkpoint()
    for one in ledgers:
        assert one.kept is not None  # noqa: S101  # they were chosen by it
        await _spend(one, one.kept, NOTHING)


async def _spend(ledger: Ledger, kept: Kept, wanted: Amounts) -> StoredUse:
    """Spend from the store, and give its answer to the account."""
    told = _take_owed(kept)
    found: StoredUse | None = None
    try:
        # Not cut off: what the store has counted would be unknown.
        with trio.CancelScope(shield=True):
            limits = ledger.account.limits
            found = await kept.store.spend(ledger.name, kept.per, limits, wanted, told)
    finally:
        _learn(ledger, kept, told, found)
    assert found is not None  # noqa: S101  # the scope above is never cancelled
    return found


async def _begin_with(
    reservation: Reservation,
    ledgers: Sequence[Ledger],
    journal: RunJournal,
    started: JournalRecord,
) -> tuple[Ledger, int] | None:
    """Take *reservation* in the stores of *ledgers*, in one transaction with *started*.

    If a ledger has too little left, nothing is stored. Returns that ledger and the kind of limit
    that is reached. ``None``: all of them had enough.
    """
    lacks: list[tuple[Ledger, int]] = []

    def learn(found: Sequence[StoredUse]) -> None:
        lacks.extend(
            (one, use.lacking)
            for one, use in zip(ledgers, found, strict=True)
            if use.lacking is not None
        )
        if not lacks:
            for one, use in zip(ledgers, found, strict=True):
                note_period(reservation, one, use.period)

    together = _together(ledgers, reserved_by(reservation), learn)
    journal.writer.note(started, wakes=False, together=together)
    # Not cut off: what the store has counted would be unknown.
    with trio.CancelScope(shield=True):
        await journal.flush()
    return lacks[0] if lacks else None


def owed_by(ledgers: Sequence[Ledger]) -> Together | None:
    """Return the corrections that the stores of *ledgers* still lack. ``None``: they lack none."""
    owing = [one for one in ledgers if one.kept is not None and one.kept.owed]
    return _together(owing, NOTHING, len) if owing else None


def _together(
    ledgers: Sequence[Ledger], wanted: Amounts, learn: Callable[[Sequence[StoredUse]], object]
) -> Together:
    """Return the spendings that take *wanted* in each store and settle what is owed."""
    spendings: list[Spending] = []
    for one in ledgers:
        assert one.kept is not None  # noqa: S101  # they were chosen by it
        limits, told = one.account.limits, _take_owed(one.kept)
        spendings.append(Spending(one.name, one.kept.per, limits, wanted, told))

    def on_written(found: Sequence[StoredUse] | None) -> None:
        if found is not None:
            learn(found)
        for place, (one, asked) in enumerate(zip(ledgers, spendings, strict=True)):
            assert one.kept is not None  # noqa: S101  # see above
            _learn(one, one.kept, asked.corrections, None if found is None else found[place])

    from agentpool.journal._joint import Together  # noqa: PLC0415  # with a journal alone

    return Together(spendings, on_written)


def _take_owed(kept: Kept) -> list[Correction]:
    """Return the corrections to send to the store now."""
    told, kept.owed = kept.owed, []
    kept.on_the_way += told
    return told


def _learn(ledger: Ledger, kept: Kept, told: Sequence[Correction], found: StoredUse | None) -> None:
    """Give the account the store's answer. ``None``: the store was not asked."""
    for one in told:
        kept.on_the_way.remove(one)
    if found is None:
        kept.owed = [*told, *kept.owed]
        return
    ledger.account.see(found.used, kept.pending(), found.period)
    ledger.root.reconsider()
