"""One request to a model: its time limit, its payment, its retries.

Rules:

1. A request is made again only if its error allows it and no part of the answer has arrived: no
   text is shown twice.
2. While an agent waits before it tries again, it has no slot. If the wait would be longer than the
   time that the request has left, the provider's error is raised without waiting.
3. What a request needs of a budget is reserved before each attempt. A request that the provider
   refuses counts as one request without tokens. An answer that became an error at its end costs
   what the provider measured. If an attempt broke off or was cancelled, its usage is unknown: all
   that was reserved is charged, and the run counts it as unmeasured, with the text that had
   arrived. A request that was never sent does not count.
4. If a fallback asks several drivers, each that is asked is an attempt of its own: it is reserved
   for, recorded and counted, before the next one is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, final

import trio

from agentpool._agent.agent import Agent
from agentpool._agent.attempt import ANSWERED, COUNTED, NEW, SENT, Step, loss_of
from agentpool._agent.budget_stop import budget_stop
from agentpool._agent.checked_answer import refuse_wrong_method, sound_answer
from agentpool._agent.past_usage import is_joint
from agentpool._agent.request_events import RequestTeller
from agentpool._agent.retry_policy import delay_after
from agentpool._agent.spending import Purse, estimate
from agentpool._base import Live
from agentpool._budget.claims import Ledger
from agentpool._budget.reservation import RequestReservation
from agentpool._errors import DriverError, LimitExceededError
from agentpool._events import RequestRetried
from agentpool._loop.run import Complete
from agentpool._loop.tokens import Estimator
from agentpool._messages import Completion, CompletionRequest
from agentpool._scheduling.ctrl_c import interruptible, unbroken
from agentpool._scheduling.pace import STEPS
from agentpool._scheduling.request_clock import RequestClock, current_clock, waiting_for_turn
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool._served_call import Loss, current_call
from agentpool.abc import Driver, OnDelta

if TYPE_CHECKING:
    from agentpool._agent.aside import Aside
    from agentpool._agent.run_journal import RunJournal


@unbroken
@final
class ModelRequest(Live):
    """One request to a model, with all of its attempts. Follows the steps of the rules in order."""

    agent: Agent
    """The agent that makes the request."""
    driver: Driver
    """The driver to ask."""
    request: CompletionRequest
    """The request to make."""
    on_delta: OnDelta
    """Receives the pieces of the answer."""
    for_tool: Sequence[str]
    """The pieces that have come for a tool."""
    watcher: RequestTeller | None
    """Tells observers. ``None``: there are no observers."""
    estimator: Estimator | None = None
    """Estimates what the request needs of a budget. ``None``: the agent's conversation does."""
    effect: Complete | None = None
    """Receives the answer in the agent's turn. ``None``: a tool asks."""
    limit: trio.CancelScope | None = None
    """Ends the request when its time is over. ``None``: it has no time limit."""
    answer: Completion | None = None
    """The answer that a budget pays."""
    step: Step = NEW
    """How far the current attempt has come."""
    reservation: RequestReservation | None = None
    """The reservation for the current attempt."""
    refusal: LimitExceededError | None = None
    """Why a budget does not allow the next driver of a fallback."""
    _clock: RequestClock | None = None
    aside: Aside | None = None
    """The records of a tool's request in the journal. ``None``: it has none."""

    @property
    def arrived(self) -> Sequence[str]:
        """The pieces that have come."""
        run = self.agent.run
        return self.for_tool if self.effect is None or run is None else run.arriving

    @property
    def clock(self) -> RequestClock | None:
        """The clock, which stops while the request waits for its turn. ``None``: no time limit."""
        if self._clock is None and self.limit is not None:
            self._clock = RequestClock(self.limit)
        return self._clock

    @interruptible
    async def make(self) -> Completion | LimitExceededError:
        """Make the request. Retry it if that may help and nothing has arrived yet.

        If a budget does not allow the request, the error is returned.

        Raises:
            DriverError: The error of the last attempt.

        Cancellation:
            The request ends at the provider as well.
        """
        agent, attempts, waited_seconds = self.agent, 1, 0.0
        delay_seconds: float | None = None
        # One coroutine for all attempts: another one would be 300 bytes of each agent.
        try:
            while True:  # noqa: ASYNC913  # each attempt asks the driver
                try:
                    agent.asked += 1
                    if delay_seconds is not None or not agent.asked % STEPS:
                        await self._wait(delay_seconds)
                    if agent.purse is not None:
                        return await self._pay(agent.purse)
                    if self.aside is not None:
                        await self.aside.begin(self._most())
                    # As _send(), without its coroutine: most requests are not paid by a budget.
                    if self.watcher is not None:
                        self.watcher.begin(None)
                    if self.driver.tells_sent:
                        answer = await self._ask()
                    else:
                        self.step = SENT
                        answer = await self.driver.complete(self.request, on_delta=self.on_delta)
                    return self._take(answer)
                except DriverError as error:
                    self._break_off(error)
                    delay_seconds = self._delay_seconds(error, attempts, waited_seconds)
                    if delay_seconds is None:
                        self._close(error)
                        error.attempts = attempts
                        raise
                    retried = (attempts, delay_seconds, str(error))
                    agent.hub.tell(RequestRetried, agent.agent_id, agent.name, *retried)
                except BaseException as error:
                    self._break_off(error)
                    self._close(error)
                    refuse_wrong_method(self.driver, error)
                    raise
                attempts, waited_seconds = attempts + 1, waited_seconds + delay_seconds
        finally:
            self._end()

    def _end(self) -> None:
        if self.effect is not None:  # or it is a tool's, beside which the agent's own goes on
            self.agent.slot.asking = None
        if self._clock is not None:
            self._clock.end()  # also for tasks that were left behind and still wait

    def _refused(self, refusal: LimitExceededError) -> LimitExceededError:
        if self.effect is not None and self.agent.run is not None:
            self.agent.run.exhausted = budget_stop(self.agent, refusal)
        return refusal

    def _take(self, answer: Completion) -> Completion:
        """Take an answer that no budget pays."""
        answer, self.step = sound_answer(self.agent, self.driver, answer, None), ANSWERED
        if self.watcher is not None:
            self.watcher.end()
        return self._done(answer)

    def _done(self, answer: Completion) -> Completion:
        """Store the answer in the agent's turn, and report it."""
        effect, agent, teller = self.effect, self.agent, self.watcher
        if effect is None:
            return answer
        if agent.stream is not None:
            agent.end_stream(agent.stream, answer)
        if agent.hub.listening:
            teller = teller or RequestTeller(agent, self.request, agent.turn, agent.hub.seconds())
            teller.answered(answer, self.reservation)
        effect.completion = answer
        if self.reservation is not None:
            effect.reserved = self.reserved_for(answer)
        return answer

    def reserved_for(self, answer: Completion) -> Loss | None:
        """Return what the budget was charged for what is unknown of *answer*, for the journal."""
        held = None if self.agent.journal is None else self._reserved
        is_unpriced = held is not None and answer.cost_usd is None and held.cost_usd is not None
        return held if answer.usage is None or is_unpriced else None

    async def _wait(self, seconds: float | None) -> None:
        """Wait without a slot before a retry. The delay counts as time of the model."""
        if seconds is None:  # others must run before it: its driver may never wait
            await trio.lowlevel.checkpoint()
            return
        clock = current_clock()
        # Others may have the slots when the delay is over: that is not a time of the model.
        with waiting_for_turn():
            async with parked(Wait.other("a retry", WaitReason.RETRY)):
                await trio.sleep(seconds)
                await self._begin_row()
        if clock is not None:
            clock.spend(seconds)

    @interruptible
    def _ask(self) -> Awaitable[Completion]:
        if self.driver.tells_sent:
            return self.driver.complete_telling(self.request, self.on_delta, self.leave)
        self.leave(is_told=False)
        return self.driver.complete(self.request, on_delta=self.on_delta)

    def leave(self, *, is_told: bool = True) -> None:
        """Record that the first part is sent now, or that it may be: its driver does not tell."""
        self.step, paid = SENT, self.reservation
        if paid is not None:
            # If it is settled, a driver of drivers asks one more after a fallback.
            self.reservation = paid = paid.again() if paid.is_settled else paid
            paid.start(is_told=is_told)

    @property
    def _journal(self) -> RunJournal | None:
        """The journal that has a row for each attempt. ``None``: there is none, or a tool asks."""
        return self.agent.journal if self.aside is None else None

    async def _begin_row(self) -> None:  # noqa: ASYNC910  # without a journal there is nothing to wait for
        """Begin another attempt, after one that is counted or was not sent."""
        journal, was_counted, self.step = self._journal, self.step is COUNTED, NEW
        if was_counted and journal is not None:
            joint = is_joint(self.agent)
            if journal.begin_request(self.request, self._reserved, is_joint=joint):
                await journal.flush()

    async def _reserve(self, purse: Purse, *, is_begun: bool) -> LimitExceededError | None:  # noqa: ASYNC910  # see Purse.reserve
        """Reserve what an attempt needs. Return why the budget does not allow it."""
        asked = self.driver, self.request, self.estimator or purse.estimator, self._journal
        found = await purse.reserve(*asked, is_begun=is_begun)
        if isinstance(found, RequestReservation):
            if self.reservation is not None:
                self.reservation.close()  # of a driver that asks several at once
            self.reservation = found
        purse.tell()
        return None if isinstance(found, RequestReservation) else found  # noqa: ASYNC910  # see above

    async def _pay(self, purse: Purse) -> Completion | LimitExceededError:  # noqa: ASYNC910  # without a request there is nothing to wait for
        """Make one attempt and settle its reservation, however it ends."""
        told_later: tuple[Ledger, ...] = ()
        try:
            refusal = await self._reserve(purse, is_begun=False)
            if refusal is not None:
                return self._refused(refusal)
            if self.aside is not None:
                await self.aside.begin(self._most())
            # Cancelled while it waited for its slot, it asks nothing and is charged nothing.
            await trio.lowlevel.checkpoint_if_cancelled()
            answer = await self._send()
            tokens = answer.usage and answer.usage.total_tokens
            assert self.reservation is not None  # noqa: S101  # it was made above
            passed = self.reservation.commit(tokens=tokens, cost_usd=answer.cost_usd)
            if self.effect is not None and self.agent.run is not None:
                self.agent.run.passed_shared = passed
            if self._journal is not None:
                told_later = purse.kept_with(self._journal)  # its result is noted next
        except LimitExceededError as error:
            if error is not self.refusal:
                raise
            return self._refused(error)  # noqa: ASYNC910  # see above
        finally:
            if self.reservation is not None:
                self.reservation.close()  # all of it is charged if nothing above said better
            if purse.is_stored:
                await purse.settle(told_later)  # noqa: ASYNC102  # it shields itself
        purse.tell()
        return self._done(answer)

    @interruptible
    async def _send(self) -> Completion:
        """Make one attempt that a budget pays, and report it to observers."""
        if self.watcher is not None:
            self.watcher.begin(self.reservation)
        try:
            return self._sound(await self._ask())
        except BaseException as error:
            self._break_off(error)  # before its reservation is closed
            refuse_wrong_method(self.driver, error)
            raise

    def _sound(self, answer: Completion) -> Completion:
        """Return the answer that a budget pays, without what is broken in it."""
        if self.reservation is not None and self.reservation.is_settled:
            self.leave()  # nobody has said that one more was asked
        # First: what cannot be read counts as lost.
        self.answer = sound_answer(self.agent, self.driver, answer, self.reservation)
        self.step = ANSWERED
        if self.watcher is not None:
            self.watcher.end()
        return self.answer

    def _break_off(self, error: BaseException) -> None:
        """Count what a failed attempt used, and report that it failed; only once."""
        self.count_failed(error)
        if self.watcher is not None:
            self.watcher.failed(error)

    def count_failed(self, error: BaseException) -> None:
        """Count what the attempt, which has failed with *error*, has used, if it was sent."""
        if self.step is not SENT:
            return
        self.step, paid, agent = COUNTED, self.reservation, self.agent
        loss = loss_of(error, self.driver, self.request, self.arrived, self._most)
        if paid is None or paid.is_settled:
            pass  # Ctrl-C came just before, and all of it is charged
        elif loss.written is None:
            paid.commit(tokens=loss.tokens, cost_usd=loss.cost_usd)
        else:
            paid.charge()
        agent.lose(loss)
        if self.watcher is not None:
            self.watcher.lose(loss, None if paid is None else paid.cost_usd)
        self._record(loss)

    def lose_price(self) -> None:
        """Record that the model that answers has no known price, whatever was reserved."""
        if self.reservation is not None:
            self.reservation.lose_price()

    def _record(self, loss: Loss) -> None:
        if self.aside is not None:
            self.aside.keep(loss)
        if (mark := current_call.get()) is not None:
            mark.losses.append(loss)  # kept with the result of the call
        elif self.agent.journal is not None:
            self.agent.journal.keep_loss(loss)

    def _close(self, error: BaseException) -> None:
        """Record what became of an attempt that is not counted: it was sent, or not."""
        if self.step is ANSWERED:
            # It could not be paid. The agent itself asks again if it was cancelled then.
            if self.aside is not None or isinstance(error, Exception):
                self._record(Loss(*self._most(), is_reserved=True))
                self._tell_unpaid()
        elif self.step is NEW and self.aside is not None:
            self.aside.withdraw()
        elif self.step is NEW and self.agent.journal is not None:
            self.agent.journal.keep_unsent()

    def _tell_unpaid(self) -> None:
        """Count an answer that came, and whose payment could not be stored."""
        one = self.answer
        if self.effect is None or one is None:
            return
        self.agent.lose(Loss(0, one.cost_usd, 0 if one.usage is None else None, usage=one.usage))
        if self.watcher is not None:
            self.watcher.answered(one, self.reservation)

    async def go_on(self) -> None:  # noqa: ASYNC910  # without a journal and a budget there is nothing to wait for
        """Begin the attempt of the next driver, if one that failed is counted.

        Raises:
            LimitExceededError: If a budget does not allow it. The driver must not be asked.
        """
        if self.step is not COUNTED:
            return  # noqa: ASYNC910  # see above
        await self._begin_row()
        if self.agent.purse is not None:
            self.refusal = await self._reserve(self.agent.purse, is_begun=True)
            if self.refusal is not None:
                raise self.refusal
        if self.aside is not None:
            await self.aside.begin(self._most())
        if not self.driver.tells_sent:
            self.leave(is_told=False)

    @property
    def _reserved(self) -> Loss | None:
        """What a budget has reserved for the attempt. ``None``: there is no budget."""
        paid = self.reservation
        return None if paid is None else Loss(paid.tokens, paid.cost_usd)

    def _most(self) -> tuple[int, float | None]:
        """Return how many tokens and US dollars the attempt may use, if they are counted."""
        if (paid := self.reservation) is not None:
            return paid.tokens, paid.cost_usd
        if self.agent.journal is None:
            return 0, None
        # The next process may draw on a budget.
        return estimate(self.driver, self.request, self.estimator or Estimator())

    def _delay_seconds(
        self, error: DriverError, attempts: int, waited_seconds: float
    ) -> float | None:
        """Return the delay before the next attempt. ``None``: do not try again."""
        if self.arrived:
            return None
        home, clock, dice = self.agent.home, current_clock(), self.agent.home.random.random
        delay_seconds = delay_after(home.retries, error, attempts, waited_seconds, dice)
        is_late = clock is not None and (delay_seconds or 0.0) >= clock.seconds_left
        return None if is_late else delay_seconds
