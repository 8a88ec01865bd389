"""A driver that asks the next of several drivers when one fails.

Rules:

1. Drivers are asked in order, except those whose breakers are open.
2. After any `DriverError` the next driver is asked: another provider may be able to do what this
   one cannot. After a bug (any other exception), no other driver is asked.
3. Once text has been handed on, no other driver is asked: the text would come twice.
4. If no driver answers, the error contains all of their errors. A retry makes sense as soon as one
   of the drivers whose error was retryable may be asked again.
5. Only failures of the provider itself count for its breaker: rate limits, overload, the network,
   the key, silence. A bad request says nothing about the provider.
6. An answer carries its cost, as given by the driver that answered.
7. The reported facts are the worst of all drivers: the smallest window, the laxest tier. So a
   manifest that forbids one driver is refused before anything is sent to any of them.
8. An answer without text and calls counts as a failure, unless it is the last driver's. If the
   request is to continue a text, an empty answer counts as an answer: there was nothing left to
   say.

No driver is asked twice for one request. A budget that does not allow the next one ends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import final

import attrs
import msgspec
import trio

from agentpool._attachments import Attachment
from agentpool._base import Unique
from agentpool._checks import expect, expect_arguments, expect_each, expect_piece
from agentpool._errors import (
    AllDriversFailedError,
    AuthenticationError,
    DriverError,
    EmptyAnswerError,
    NetworkError,
    OverloadedError,
    RateLimitError,
    UsageError,
)
from agentpool._loop.joined_pieces import goes_on
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import Completion, CompletionRequest, FinishReason, Usage
from agentpool._scheduling.request_clock import RequestClock
from agentpool._scheduling.watcher import asking_now, watcher_now
from agentpool.abc import Driver, HearsThoughts, OnDelta, OnSent, SendingDriver
from agentpool.abc._driver_facts import check_facts, count_of, expect_completion
from agentpool.drivers._breaker import Attempt, CircuitBreaker, FallbackCounts

_WHOLE = (FinishReason.END_TURN, FinishReason.STOP_SEQUENCE)

_UNWELL = (RateLimitError, OverloadedError, NetworkError, AuthenticationError)


@final
@attrs.define(eq=False, repr=False)
class _Choice:
    driver: Driver
    breaker: CircuitBreaker
    counts: Counter[str] = attrs.field(factory=Counter[str])
    last_failure: str = ""


@final
class FallbackDriver(Unique, SendingDriver):
    """Asks several drivers in order until one answers.

    >>> import trio
    >>> from agentpool.abc import CompletionRequest
    >>> from agentpool.drivers import FallbackDriver, OverloadedError, ScriptedDriver
    >>> busy = ScriptedDriver([OverloadedError("busy")])
    >>> driver = FallbackDriver(busy, ScriptedDriver(["Hello!"]))
    >>> trio.run(driver.complete, CompletionRequest(())).text
    'Hello!'
    """

    __slots__ = ("_choices", "_models", "_patience_seconds")

    def __init__(
        self,
        *drivers: Driver,
        patience_seconds: float | None = None,
        max_failures: int = 5,
        cool_down_seconds: float = 30.0,
        models: Sequence[str] = (),
    ) -> None:
        """Make a driver that asks *drivers* in this order.

        Args:
            drivers: The drivers, in the order in which they are asked. The code that opened them
                must close them.
            patience_seconds: How long each driver may take until its first word (or until the whole
                answer, if it does not stream) before the next is asked. Waiting at a gate does not
                count. ``None``: no limit.
            max_failures: After how many failures in a row a driver is skipped for a while.
            cool_down_seconds: How long it is skipped, unless its provider asked for a longer wait.
            models: The names of the drivers' models in traces and reports, in the same order.

        Raises:
            UsageError: If there are no drivers, or a number is invalid.
        """
        expect_arguments(FallbackDriver.__init__, locals(), but=("drivers", "models"))
        if not drivers:
            raise UsageError("FallbackDriver needs at least one driver, got none")
        for driver in drivers:
            expect(driver, Driver, "each driver must be a Driver", "write FallbackDriver(a, b)")
            check_facts(driver)
        if patience_seconds is not None and not patience_seconds > 0:
            raise UsageError(f"patience_seconds must be > 0, got {patience_seconds!r}")
        self._patience_seconds = patience_seconds
        expect_each(models, str, "models must be texts", "write models=['first', 'second']")
        self._models = (*models, *([""] * len(drivers)))
        self._choices = [
            _Choice(driver, CircuitBreaker(max_failures, cool_down_seconds)) for driver in drivers
        ]

    def __repr__(self) -> str:
        """Return the drivers in the order in which they are asked."""
        names = ", ".join(type(choice.driver).__name__ for choice in self._choices)
        return f"<FallbackDriver {names}>"

    @property
    def context_window(self) -> int | None:
        """The smallest known window, since any of the drivers may answer."""
        windows = [choice.driver.context_window for choice in self._choices]
        return min((window for window in windows if window is not None), default=None)

    @property
    def max_output_tokens(self) -> int | None:
        """The smallest limit of the drivers. ``None``: the limit of one is unknown."""
        limits = [choice.driver.max_output_tokens for choice in self._choices]
        known = [limit for limit in limits if limit is not None]
        return min(known) if len(known) == len(limits) else None

    @property
    def inputs(self) -> frozenset[str] | None:
        """The kinds of input that all drivers read, as far as is known."""
        known = [one for choice in self._choices if (one := choice.driver.inputs) is not None]
        return known[0].intersection(*known[1:]) if known else None

    @property
    def most_input_tokens(self) -> int | None:
        """The smallest known limit, since any of the drivers may be asked."""
        limits = [choice.driver.most_input_tokens for choice in self._choices]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def most_image_bytes(self) -> int | None:
        """The smallest known limit, since any of the drivers may be asked."""
        limits = [choice.driver.most_image_bytes for choice in self._choices]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def most_image_pixels(self) -> int | None:
        """The smallest known limit, since any of the drivers may be asked."""
        limits = [choice.driver.most_image_pixels for choice in self._choices]
        return min((limit for limit in limits if limit is not None), default=None)

    def attachment_tokens(self, attachment: Attachment) -> int:
        """Return the highest estimate, since any of the drivers may be asked."""
        return max(count_of(choice.driver)(attachment) for choice in self._choices)

    @property
    def privacy(self) -> PrivacyTier:
        """The least strict tier, since any of the drivers may answer."""
        tiers = [choice.driver.privacy for choice in self._choices]
        return next(tier for tier in tiers if all(tier.allows(other) for other in tiers))

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the price if all drivers have the same price. ``None``: their prices differ.

        The answer itself says what it costs.
        """
        prices = {choice.driver.price(usage, model=model) for choice in self._choices}
        return prices.pop() if len(prices) == 1 else None

    def highest_price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the highest known price of the drivers, since any of them may answer.

        ``None``: none of them has a known price.
        """
        prices = [choice.driver.highest_price(usage, model=model) for choice in self._choices]
        return max((price for price in prices if price is not None), default=None)

    def prices(self, usage: Usage) -> tuple[float | None, ...]:
        """Return the cost of *usage* at each driver, in order. ``None``: a driver has no price."""
        expect_arguments(FallbackDriver.prices, locals())
        return tuple(choice.driver.price(usage) for choice in self._choices)

    def counts(self) -> tuple[FallbackCounts, ...]:
        """Return how the requests so far ended, for each driver in order."""
        now = trio.current_time()
        return tuple(
            FallbackCounts(
                answered=choice.counts["answered"],
                failed=choice.counts["failed"],
                skipped=choice.counts["skipped"],
                breaker=choice.breaker.state(now),
                times_opened=choice.breaker.times_opened,
            )
            for choice in self._choices
        )

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Ask one driver after another until one answers.

        Raises:
            AllDriversFailedError: If no driver answered. It contains all of their errors.
            DriverError: If a driver failed in the middle of its answer.

        Cancellation:
            The request ends at the driver that was asked, and its breaker does not count it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        errors: list[DriverError | None] = []
        for number, choice in enumerate(self._choices, 1):
            attempt = choice.breaker.begin(trio.current_time())
            if attempt is None:
                choice.counts["skipped"] += 1
                errors.append(None)
                self._tell(number, None)
                continue
            is_last = choice is self._choices[-1]
            heard = _Heard(choice.driver, on_delta, on_sent, holds_back=not is_last)
            try:
                return await self._ask(choice, attempt, request, heard)
            except DriverError as error:
                if heard.was_handed_on:
                    raise
                errors.append(error)
                self._tell(number, error)
                asking = asking_now() if heard.has_left else None
                # One that has the errors of others was told of them.
                if asking is not None and not isinstance(error, AllDriversFailedError):
                    asking.count_failed(error)
            # The name is the first one's; each of the others knows its own model.
            request = msgspec.structs.replace(request, model=None)
        await trio.lowlevel.cancel_shielded_checkpoint()
        failure = _failure(self._choices, errors)
        raise failure from (failure.errors[-1] if failure.errors else None)

    def _tell(self, number: int, error: DriverError | None) -> None:
        """Report that the next driver is asked, if there is one."""
        watcher = watcher_now()
        if watcher is not None and number < len(self._choices):
            watcher.fell_back(number, error, *self._models[number - 1 : number + 1])

    async def _ask(
        self, choice: _Choice, attempt: Attempt, request: CompletionRequest, heard: _Heard
    ) -> Completion:
        try:
            if (asking := asking_now()) is not None:
                await asking.go_on()
            completion = await self._patiently(choice.driver, request, heard)
            expect_completion(completion, choice.driver)
            if choice is not self._choices[-1] and not heard.was_handed_on:
                _refuse_empty(choice.driver, request, completion)
            heard.hand_on()
        except BaseException as error:
            if isinstance(error, DriverError):
                choice.counts["failed"] += 1
                choice.last_failure = f"{type(error).__name__}: {error}"
            if isinstance(error, _UNWELL):
                now, seconds = trio.current_time(), error.retry_after_seconds
                choice.breaker.failed(attempt, now, seconds)
            else:
                choice.breaker.abandoned(attempt)
            raise
        choice.breaker.succeeded(attempt)
        choice.counts["answered"] += 1
        if completion.cost_usd is not None:
            return completion
        usage = completion.usage if isinstance(completion.usage, Usage) else None
        cost_usd = choice.driver.price(usage or Usage(1, 1), model=completion.model)
        if cost_usd is None and asking is not None:
            asking.lose_price()  # another one has a price, and that was reserved
        return (
            completion if usage is None else msgspec.structs.replace(completion, cost_usd=cost_usd)
        )

    async def _patiently(
        self, driver: Driver, request: CompletionRequest, heard: _Heard
    ) -> Completion:
        seconds = self._patience_seconds
        if seconds is None:
            return await driver.complete_telling(request, heard, heard.leave)
        answered: list[Completion] = []
        with trio.move_on_after(seconds) as scope, RequestClock(scope) as heard.patience:
            answered.append(await driver.complete_telling(request, heard, heard.leave))
        if not answered:
            raise NetworkError(f"the model sent nothing within {seconds:g} seconds")
        return answered[0]


@final
class _Heard:
    """Passes text on, and remembers whether there was any.

    White space at the start is held back while another driver may still be asked: an answer of only
    white space counts as empty, so none of it may be handed on.
    """

    __slots__ = (
        *("_driver", "_held", "_holds_back", "_on_delta", "_on_sent"),
        *("has_left", "patience", "was_handed_on"),
    )

    def __init__(
        self, driver: Driver, on_delta: OnDelta | None, on_sent: OnSent | None, *, holds_back: bool
    ) -> None:
        self._driver = driver
        self._on_delta = on_delta
        self._on_sent = on_sent
        self._holds_back = holds_back
        self._held = ""
        self.has_left = self.was_handed_on = False
        self.patience: RequestClock | None = None

    def __call__(self, text: str) -> None:
        if self.patience is not None:
            self.patience.lift()
        if self._on_delta is None:
            return
        self._held += text if type(text) is str else expect_piece(text, self._driver)
        if self._held and not (self._holds_back and self._held.isspace()):
            self._holds_back = False
            self.hand_on()

    def hand_on(self) -> None:
        """Pass on the text held back, such as an answer that is only white space."""
        if self._held and self._on_delta is not None:
            self.was_handed_on = True
            text, self._held = self._held, ""
            self._on_delta(text)

    def leave(self) -> None:
        """Record that a part of the request has been sent, and report it."""
        self.has_left = True
        if self._on_sent is not None:
            self._on_sent()
        elif (asking := asking_now()) is not None:
            asking.leave()  # the driver around the fallback does not pass it on

    def thought(self, text: str) -> None:
        """Pass on a thought. The next driver may still be asked."""
        if self.patience is not None:
            self.patience.lift()
        if isinstance(self._on_delta, HearsThoughts):
            self._on_delta.thought(text)


def _refuse_empty(driver: Driver, request: CompletionRequest, answer: Completion) -> None:
    """Raise if *answer* is empty. The error carries its usage."""
    # A text of a wrong type is the agent's to refuse.
    said = type(answer.text) is not str or answer.text.strip() or answer.tool_calls
    if said or answer.finish_reason not in _WHOLE or goes_on(request.messages):
        return
    error = EmptyAnswerError("the answer has no text and no tool call", retryable=True)
    error.has_begun = True
    if (usage := answer.usage) is not None:
        error.tokens, error.cost_usd = (usage.input_tokens, usage.output_tokens), answer.cost_usd
        if error.cost_usd is None:
            error.cost_usd = driver.price(usage, model=answer.model)
    raise error


def _failure(
    choices: Sequence[_Choice], errors: Sequence[DriverError | None]
) -> AllDriversFailedError:
    """Return the error for *errors*, one for each driver. ``None``: that driver was not asked."""
    now = trio.current_time()
    told, waits = list[str](), list[float]()
    for choice, error in zip(choices, errors, strict=True):
        rest_seconds = choice.breaker.rest_seconds(now)
        if error is None:
            told.append(f"one driver was skipped because of {choice.last_failure}")
            waits.append(rest_seconds)
            continue
        told.append(f"{type(error).__name__}: {error}")
        if error.retryable:
            waits.append(max(rest_seconds, error.retry_after_seconds or 0.0))
    return AllDriversFailedError(
        f"none of the {len(choices)} drivers answered: " + "; ".join(told),
        errors=[error for error in errors if error is not None],
        retryable=bool(waits),
        retry_after_seconds=min(waits, default=0.0) or None,
    )
