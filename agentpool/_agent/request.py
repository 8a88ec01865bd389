"""Asking the model: one request of a run, within its time, again where that makes sense.

Rules:

1. A request is asked again only if its error says so and nothing of the answer has arrived:
   a text is never said twice.
2. While an agent waits to ask again it has no slot. Where the wait is longer than what is
   left of the request's time, the provider's own error is the answer, at once.
3. An answer leaves here with its price, if anybody knows it: the one that it came with, or
   else the driver's.
4. What a request needs of a budget is set aside before it is made, for each attempt anew.
   A provider that refuses takes nothing but the request; of one that broke off, or that was
   cancelled, nobody knows what it took, so all of it is charged, and the run counts it as
   unmeasured, with the text that had come. A request that never left is none.
5. A usage or a cost below zero is a fault of the provider: it is not known, and is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

import msgspec
import trio

from agentpool._agent.agent import Agent, Hearing
from agentpool._agent.retry import RetrySchedule
from agentpool._agent.spending import Purse
from agentpool._agent.telling import RequestTeller, tell_messages
from agentpool._base import Live
from agentpool._budget.reservation import Reservation
from agentpool._errors import (
    AllDriversFailedError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DriverError,
    FailedAttemptError,
    LimitExceededError,
    NetworkError,
    OverloadedError,
    RateLimitError,
    RecordingMissError,
    UnknownModelError,
)
from agentpool._events import Phase, RequestRetried
from agentpool._loop.guard import Stop
from agentpool._loop.run import Run
from agentpool._loop.tokens import Estimator, sound_cost
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool._scheduling.request_clock import RequestClock, current_clock, waiting_for_turn
from agentpool._scheduling.slot import parked
from agentpool._scheduling.step_clock import allow
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool.abc import Driver, OnDelta
from agentpool.drivers._sending import ask

RETRIES: Final = RetrySchedule()

REFUSALS: Final = (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    OverloadedError,
    RateLimitError,
    RecordingMissError,
    UnknownModelError,
)
"""What a provider says in place of an answer. It charges for answers."""


async def complete(agent: Agent, request: CompletionRequest, run: Run) -> Completion | None:
    """Ask the driver, within the time that the manifest gives one request.

    ``None``: a budget does not allow it, and ``run.exhausted`` says which.

    Raises:
        DriverError: What the last attempt failed with.

    Cancellation:
        The request ends at the provider as well. What had arrived is in the run.
    """
    agent.phase(Phase.REASON)
    teller = None
    if agent.hub.listening:
        tell_messages(agent, run)
        teller = RequestTeller.of(agent, request, by_tool=False)
        agent.on_piece = teller.arrived
    hear = agent.arrived if teller is None else Hearing(agent)
    seconds = agent.config.manifest.resources.request_seconds
    allow(agent.clock, seconds)
    if seconds is None or agent.clock is None:
        answer = await _ask(agent, agent.driver, request, hear, run.arriving, teller=teller)
    else:
        with RequestClock(agent.clock):
            answer = await _ask(agent, agent.driver, request, hear, run.arriving, teller=teller)
    if isinstance(answer, LimitExceededError):
        run.exhausted = Stop.of_error(answer)
        return None
    if agent.purse is not None:
        run.passed_shared = agent.purse.passed
    agent.on_piece = None
    if agent.hub.listening:
        (teller or RequestTeller.of(agent, request, by_tool=False)).answered(answer)
    return answer


def late_answer(agent: Agent) -> NetworkError:
    """Return the error of a request whose time was over."""
    return NetworkError(
        f"no whole answer within {agent.config.manifest.resources.request_seconds:g} seconds; "
        "raise resources.request_seconds if the model is slow"
    )


async def complete_aside(
    agent: Agent, driver: Driver, request: CompletionRequest, on_delta: OnDelta | None
) -> Completion:
    """Ask a model for a tool of *agent*: what that takes counts for the agent.

    Raises:
        DriverError: What the last attempt failed with.
        LimitExceededError: If a budget does not allow it. The driver was not asked.

    Cancellation:
        The request ends at the provider as well.
    """
    arrived: list[str] = []
    teller = RequestTeller.of(agent, request, by_tool=True) if agent.hub.listening else None

    def arrive(piece: str) -> None:
        arrived.append(piece)
        if teller is not None:
            teller.arrived()
        if on_delta is not None:
            on_delta(piece)

    answer = await _ask(
        agent, driver, request, arrive, arrived, teller=teller, estimator=Estimator()
    )
    if isinstance(answer, LimitExceededError):
        raise answer
    agent.charge(answer.usage, answer.cost_usd, requests=1)
    if teller is not None:
        teller.answered(answer)
    return answer


async def _ask(
    agent: Agent,
    driver: Driver,
    request: CompletionRequest,
    on_delta: OnDelta,
    arrived: Sequence[str],
    *,
    teller: RequestTeller | None,
    estimator: Estimator | None = None,
) -> Completion | LimitExceededError:
    """Ask again where that makes sense and nothing has arrived yet."""
    attempts, waited_seconds = 1, 0.0
    while True:
        try:
            if agent.purse is None:
                return await _ask_once(agent, driver, request, on_delta, arrived, teller, None)
            return await _ask_paying(
                agent,
                agent.purse,
                driver,
                request,
                on_delta,
                arrived,
                teller=teller,
                estimator=estimator,
            )
        except DriverError as error:
            delay_seconds = (
                RETRIES.next_delay_seconds(
                    attempts, waited_seconds, error.retry_after_seconds, agent.home.random.random()
                )
                if _makes_sense(error, attempts) and not arrived
                else None
            )
            clock = current_clock()
            seconds_left = math.inf if clock is None else clock.seconds_left
            if delay_seconds is None or delay_seconds >= seconds_left:
                raise
            if agent.hub.listening:
                stamp = agent.hub.stamp(agent.agent_id, agent.name)
                agent.hub.publish(RequestRetried(*stamp, attempts, delay_seconds, str(error)))
        # Others may have the slots when the delay is over: that is no time of the model.
        with waiting_for_turn():
            async with parked(Wait.other("a retry", WaitReason.RETRY)):
                await trio.sleep(delay_seconds)
        if clock is not None:
            clock.spend(delay_seconds)
        attempts, waited_seconds = attempts + 1, waited_seconds + delay_seconds


async def _ask_paying(  # noqa: ASYNC910, PLR0917  # without a request there is nothing to wait for
    agent: Agent,
    purse: Purse,
    driver: Driver,
    request: CompletionRequest,
    on_delta: OnDelta,
    arrived: Sequence[str],
    *,
    teller: RequestTeller | None,
    estimator: Estimator | None,
) -> Completion | LimitExceededError:
    """Ask once, and settle what was set aside for it, however that ends."""
    reservation = await purse.reserve(driver, request, estimator or purse.estimator)
    if isinstance(reservation, LimitExceededError):
        return reservation
    with reservation:  # all of it is charged if nothing below says better
        # Who was cancelled while it waited for its slot asks nothing, and is charged nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        completion = await _ask_once(agent, driver, request, on_delta, arrived, teller, reservation)
        usage = completion.usage
        tokens = None if usage is None else usage.total_tokens
        purse.passed = reservation.commit(tokens=tokens, cost_usd=completion.cost_usd)
    purse.tell()
    return completion


async def _ask_once(  # noqa: PLR0917  # keywords take longer than some of what follows
    agent: Agent,
    driver: Driver,
    request: CompletionRequest,
    on_delta: OnDelta,
    arrived: Sequence[str],
    teller: RequestTeller | None,
    reservation: Reservation | None,
) -> Completion:
    """Ask once, and count what a request took that broke off."""
    sending = _Sending(reservation)
    try:
        if teller is None:
            answer = await ask(driver, request, on_delta, sending.leave)
        else:
            with teller.attempt(reservation):
                answer = await ask(driver, request, on_delta, sending.leave)
    except BaseException as error:
        if sending.has_left:
            if arrived or not _is_refusal(error):
                agent.lose(driver, request, arrived)
            elif reservation is not None:
                reservation.commit(tokens=0, cost_usd=0.0)
        raise
    return _sound(agent, driver, answer)


@final
class _Sending(Live):
    """One attempt at a request: whether any of it has left."""

    reservation: Reservation | None
    has_left: bool = False

    def leave(self) -> None:
        """Record that part of the request leaves now."""
        self.has_left = True
        if self.reservation is not None:
            self.reservation.start()


def _makes_sense(error: DriverError, attempt: int) -> bool:
    """Whether to ask again after the attempt of that number."""
    return error.retryable and not (isinstance(error, FailedAttemptError) and attempt > 1)


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, AllDriversFailedError):
        return all(map(_is_refusal, error.errors))
    return isinstance(error, REFUSALS)


def _means_nothing(usage: Usage) -> bool:
    # Spelled out: a loop over the fields takes longer than the rest of the look at an answer.
    return (
        usage.input_tokens < 0
        or usage.output_tokens < 0
        or usage.cached_tokens < 0
        or usage.reasoning_tokens < 0
        or usage.cache_write_tokens < 0
    )


def _sound(agent: Agent, driver: Driver, completion: Completion) -> Completion:
    """Return the answer with its price; what a provider cannot mean is not known."""
    usage, cost_usd = completion.usage, sound_cost(completion.cost_usd)
    if usage is not None and _means_nothing(usage):
        text = f"the provider says that an answer took {usage!r}; counted as unknown"
        agent.hub.warned(agent.agent_id, agent.name, text)
        usage = None
    if cost_usd is None and usage is not None:
        cost_usd = sound_cost(driver.price(usage, model=completion.model))
    if usage is completion.usage and cost_usd == completion.cost_usd:
        return completion
    return msgspec.structs.replace(completion, usage=usage, cost_usd=cost_usd)
