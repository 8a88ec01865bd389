"""The driver that asks the next one when one fails."""

from __future__ import annotations

import pickle

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    DriverError,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    Usage,
    UsageError,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta
from agentpool.drivers import (
    AllDriversFailedError,
    AuthenticationError,
    BadRequestError,
    BreakerState,
    ContextOverflowError,
    EmptyAnswerError,
    FallbackDriver,
    FinishReason,
    FunctionDriver,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ScriptedDriver,
    ToolCall,
    UnknownModelError,
    UserMessage,
    open_openai,
)
from agentpool.testing import check_driver
from tests.support.fakes import LiveDriver, hanging_driver, job, manifest
from tests.support.http_servers import HELLO, always, open_loopback, whole

ASK = CompletionRequest((UserMessage("Hi"),), model="first-model")


def failing(error: Exception) -> FunctionDriver:
    """Return a driver that fails each time."""

    def fail(_: CompletionRequest) -> Completion:
        raise error

    return FunctionDriver(fail)


def breakers(driver: FallbackDriver) -> list[BreakerState]:
    """Return whom each breaker lets through."""
    return [counts.breaker for counts in driver.counts()]


# --- who is asked


async def test_the_first_that_answers_is_the_last_that_is_asked() -> None:
    """And it counts who did what."""
    primary, second = ScriptedDriver(["one", OverloadedError("busy")]), ScriptedDriver(["two"])
    driver = FallbackDriver(primary, second)
    assert (await driver.complete(ASK)).text == "one"
    assert (await driver.complete(ASK)).text == "two"
    first, other = driver.counts()
    assert (first.answered, first.failed, first.skipped) == (1, 1, 0)
    assert (other.answered, other.failed, other.skipped) == (1, 0, 0)


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("slow down"),
        OverloadedError("busy"),
        NetworkError("gone"),
        AuthenticationError("key"),
        BadRequestError("no"),
        ContextOverflowError("long"),
        UnknownModelError("who"),
        ProtocolError("what"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_every_failure_falls_over(error: DriverError) -> None:
    """The original left out rate limits and overload, the cases that it is for."""
    driver = FallbackDriver(failing(error), ScriptedDriver(["two"]))
    assert (await driver.complete(ASK)).text == "two"


async def test_a_bug_does_not_fall_over() -> None:
    """Or nobody would ever hear of it. It is held against nobody."""
    driver = FallbackDriver(failing(ZeroDivisionError()), ScriptedDriver(["two"]), max_failures=1)
    with pytest.raises(ZeroDivisionError):
        await driver.complete(ASK)
    assert breakers(driver) == [BreakerState.CLOSED, BreakerState.CLOSED]
    assert driver.counts()[0].failed == 0


async def test_the_models_name_is_the_first_ones() -> None:
    """Another provider does not know it; each has a model of its own."""
    primary, second = ScriptedDriver([OverloadedError("busy")]), ScriptedDriver(["two"])
    await FallbackDriver(primary, second).complete(ASK)
    assert primary.requests[0].model == "first-model"
    assert second.requests[0] == CompletionRequest(ASK.messages)


async def test_when_none_answers_all_errors_are_kept() -> None:
    """The original kept the last one alone. They survive pickle, and stand in the text."""
    errors = [ContextOverflowError("too long"), AuthenticationError("no key")]
    driver = FallbackDriver(*map(failing, errors))
    with pytest.raises(AllDriversFailedError) as caught:
        await driver.complete(ASK)
    failure = caught.value
    assert list(failure.errors) == errors
    assert failure.__cause__ is errors[-1]
    assert "ContextOverflowError: too long; AuthenticationError: no key" in str(failure)
    again = pickle.loads(pickle.dumps(failure))
    assert [str(error) for error in again.errors] == ["too long", "no key"]
    assert again.retryable is False


@pytest.mark.parametrize(
    ("errors", "retryable", "seconds"),
    [
        ([BadRequestError("a"), BadRequestError("b")], False, None),
        ([BadRequestError("a"), OverloadedError("b")], True, None),
        ([RateLimitError("a", retry_after_seconds=60), OverloadedError("b")], True, None),
        (
            [
                RateLimitError("a", retry_after_seconds=60),
                RateLimitError("b", retry_after_seconds=20),
            ],
            True,
            20.0,
        ),
        (
            [RateLimitError("a", retryable=False, retry_after_seconds=5), BadRequestError("b")],
            False,
            None,
        ),
    ],
)
async def test_it_is_worth_a_retry_as_soon_as_one_of_them_is(
    errors: list[DriverError], *, retryable: bool, seconds: float | None
) -> None:
    """Who waits for the slower one has forgotten the other."""
    with pytest.raises(AllDriversFailedError) as caught:
        await FallbackDriver(*map(failing, errors)).complete(ASK)
    assert (caught.value.retryable, caught.value.retry_after_seconds) == (retryable, seconds)


# --- text that was handed on


async def test_a_primary_that_fails_after_its_first_word_is_not_repeated() -> None:
    """Whoever listens would hear two beginnings."""

    async def break_off(_: CompletionRequest, on_delta: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        on_delta("once upon ")
        raise NetworkError("reset")

    second = ScriptedDriver(["two"])
    driver = FallbackDriver(LiveDriver(break_off), second)
    heard: list[str] = []
    with pytest.raises(NetworkError, match="reset"):
        await driver.complete(ASK, on_delta=heard.append)
    assert (heard, second.requests) == (["once upon "], ())
    # Where nobody listens nothing was said.
    assert (await driver.complete(ASK)).text == "two"


async def test_an_agent_neither_repeats_nor_loses_what_had_come() -> None:
    """Fallback and retries agree about what counts as said."""

    async def break_off(_: CompletionRequest, on_delta: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        on_delta("once upon ")
        raise NetworkError("reset")

    primary, second = LiveDriver(break_off), ScriptedDriver(["two"])
    async with open_pool(FallbackDriver(primary, second)) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert (outcome.text, primary.calls, second.requests) == ("once upon ", 1, ())
    assert isinstance(outcome.error, NetworkError)


# --- silence


async def test_a_silent_one_is_left_for_the_next(autojump_clock: MockClock) -> None:
    """The commonest bad day: nothing comes. It counts against its health."""
    driver = FallbackDriver(
        hanging_driver(), ScriptedDriver(["two"] * 2), patience_seconds=20, max_failures=1
    )
    assert (await driver.complete(ASK)).text == "two"
    assert trio.current_time() == 20
    assert (await driver.complete(ASK)).text == "two"
    assert trio.current_time() == 20
    assert driver.counts()[0].skipped == 1


async def test_patience_ends_with_the_first_word(autojump_clock: MockClock) -> None:
    """A long answer is not a silence."""

    async def dictate(_: CompletionRequest, on_delta: OnDelta) -> str:
        for word in ("one", "two", "three"):
            await trio.sleep(15)
            on_delta(word)
        return "onetwothree"

    driver = FallbackDriver(LiveDriver(dictate), ScriptedDriver(["two"]), patience_seconds=20)
    heard: list[str] = []
    assert (await driver.complete(ASK, on_delta=heard.append)).text == "onetwothree"
    assert trio.current_time() == 45
    assert (await driver.complete(ASK)).text == "onetwothree"


async def test_when_all_are_silent_the_error_says_so(autojump_clock: MockClock) -> None:
    """And it may be better later."""
    driver = FallbackDriver(hanging_driver(), hanging_driver(), patience_seconds=5)
    with pytest.raises(
        AllDriversFailedError, match="the model sent nothing within 5 seconds"
    ) as caught:
        await driver.complete(ASK)
    assert caught.value.retryable
    assert trio.current_time() == 10


# --- who is left alone


async def test_who_fails_often_is_left_alone_for_a_while(autojump_clock: MockClock) -> None:
    """Nobody waits for an error that is known beforehand; later one request tries."""
    primary = ScriptedDriver([*[OverloadedError("busy")] * 2, "back", "back"])
    driver = FallbackDriver(primary, ScriptedDriver(["two"] * 9), max_failures=2)
    for _ in range(4):
        assert (await driver.complete(ASK)).text == "two"
    assert len(primary.requests) == 2
    assert breakers(driver) == [BreakerState.OPEN, BreakerState.CLOSED]
    await trio.sleep(30)
    assert breakers(driver)[0] is BreakerState.HALF_OPEN
    assert (await driver.complete(ASK)).text == "back"
    assert breakers(driver)[0] is BreakerState.CLOSED
    assert driver.counts()[0].times_opened == 1
    assert driver.counts()[0].skipped == 2


async def test_a_request_that_is_wrong_says_nothing_about_health() -> None:
    """Else one agent's long conversation would take the provider from all others."""
    driver = FallbackDriver(
        failing(ContextOverflowError("long")), ScriptedDriver(["two"] * 9), max_failures=1
    )
    for _ in range(3):
        await driver.complete(ASK)
    assert breakers(driver) == [BreakerState.CLOSED, BreakerState.CLOSED]
    assert driver.counts()[0].failed == 3


async def test_a_cancelled_request_gives_back_the_try(autojump_clock: MockClock) -> None:
    """Or a cancelled agent would lock the provider out for all others, for ever."""
    hanging = [False]

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        if hanging[0]:
            await trio.sleep_forever()
        raise OverloadedError("busy")

    driver = FallbackDriver(LiveDriver(answer), ScriptedDriver(["two"] * 9), max_failures=1)
    await driver.complete(ASK)
    await trio.sleep(30)
    hanging[0] = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.complete, ASK)
        await wait_all_tasks_blocked()
        assert (await driver.complete(ASK)).text == "two"
        assert driver.counts()[0].skipped == 1
        nursery.cancel_scope.cancel()
    hanging[0] = False
    await driver.complete(ASK)
    assert driver.counts()[0].failed == 2
    assert driver.counts()[0].times_opened == 2


async def test_where_all_are_left_alone_the_error_says_why_and_until_when(
    autojump_clock: MockClock,
) -> None:
    """So an agent that waits for a retry comes back when somebody may be asked again."""
    driver = FallbackDriver(
        failing(OverloadedError("busy")),
        failing(RateLimitError("slow down", retry_after_seconds=50)),
        max_failures=1,
    )
    with pytest.raises(AllDriversFailedError) as caught:
        await driver.complete(ASK)
    assert (caught.value.retryable, caught.value.retry_after_seconds) == (True, 30.0)
    await trio.sleep(10)
    with pytest.raises(AllDriversFailedError, match="because of OverloadedError: busy") as caught:
        await driver.complete(ASK)
    assert caught.value.errors == ()
    assert caught.value.__cause__ is None
    assert (caught.value.retryable, caught.value.retry_after_seconds) == (True, 20.0)


async def test_retries_do_not_multiply(autojump_clock: MockClock) -> None:
    """Four attempts of the agent at two drivers are four requests to each, never sixteen."""
    drivers = [failing(OverloadedError("busy")), failing(OverloadedError("busy too"))]
    async with open_pool(FallbackDriver(*drivers), random_seed=1) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert isinstance(outcome.error, AllDriversFailedError)
    assert [len(driver.requests) for driver in drivers] == [4, 4]
    assert trio.current_time() < 10


async def test_an_agent_waits_until_somebody_may_be_asked_again(
    autojump_clock: MockClock,
) -> None:
    """It does not use up its attempts on breakers that are known to be open."""
    drivers = [ScriptedDriver([OverloadedError("busy"), "back"]) for _ in range(2)]
    async with open_pool(FallbackDriver(*drivers, max_failures=1), random_seed=1) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert outcome.text == "back"
    assert 30 <= trio.current_time() <= 31


# --- answers that say nothing

CUT = Completion("It is", finish_reason=FinishReason.MAX_TOKENS)


@pytest.mark.parametrize("usage", [Usage(10, 5), None])
async def test_the_next_is_asked_after_an_answer_that_says_nothing(usage: Usage | None) -> None:
    """The first one ended the agent, and was asked twice. What it took is charged all the same."""
    blank = Completion("", usage=usage)
    first = ScriptedDriver([blank], price_per_token_usd=2.0, estimate_usage=False)
    second = ScriptedDriver(
        [Completion("two", usage=Usage(1, 1))], price_per_token_usd=1.0, estimate_usage=False
    )
    driver, budget = FallbackDriver(first, second), Budget(cost_usd=1_000_000)
    async with open_pool(driver, budget=budget) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert (outcome.text, len(first.requests), len(second.requests)) == ("two", 1, 1)
    assert [(one.answered, one.failed) for one in driver.counts()] == [(0, 1), (1, 0)]
    assert breakers(driver) == [BreakerState.CLOSED] * 2
    if usage is not None:
        assert outcome.usage == Usage(11, 6)
        assert budget.statistics().cost_usd == 32.0
    else:
        assert budget.statistics().unmeasured == 1


def whispering(*pieces: str, error: DriverError | None = None) -> LiveDriver:
    """Return a model that streams *pieces*, and fails after them if there is an error."""

    async def whisper(_: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.lowlevel.checkpoint()
        for piece in pieces:
            on_delta(piece)
        if error is not None:
            raise error
        return Completion("".join(pieces))

    return LiveDriver(whisper)


@pytest.mark.parametrize("error", [None, NetworkError("lost")])
async def test_streamed_white_space_is_an_answer_that_says_nothing(
    error: DriverError | None,
) -> None:
    """It had been handed on, so that no other model was asked."""
    heard: list[str] = []
    first = whispering("", "\n", " \n", error=error)
    driver = FallbackDriver(first, whispering("\n", "two"))
    answer = await driver.complete(ASK, on_delta=heard.append)
    assert ("".join(heard), answer.text) == ("\ntwo", "\ntwo")


async def test_what_is_streamed_is_the_answer_to_the_last_space() -> None:
    """Also where it is taken without a word, and where words come after it."""
    call = Completion(" \n", (ToolCall("1", "look", "{}"),), FinishReason.TOOL_USE)

    async def ask(_: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.lowlevel.checkpoint()
        on_delta(" \n")
        return call

    for first, text in ((LiveDriver(ask), " \n"), (whispering("\n", " a", " b"), "\n a b")):
        heard: list[str] = []
        driver = FallbackDriver(first, failing(BadRequestError("no")))
        answer = await driver.complete(ASK, on_delta=heard.append)
        assert ("".join(heard), answer.text) == (text, text)


async def test_a_price_of_an_answer_that_says_nothing_stays() -> None:
    """As of any other answer."""
    first = ScriptedDriver([Completion("", usage=Usage(1, 0), cost_usd=0.5)])
    with pytest.raises(AllDriversFailedError, match="no text and no tool call") as caught:
        await FallbackDriver(first, failing(BadRequestError("no"))).complete(ASK)
    assert caught.value.retryable
    (empty, _) = caught.value.errors
    assert isinstance(empty, EmptyAnswerError)
    assert (empty.tokens, empty.cost_usd, empty.has_begun) == ((1, 0), 0.5, True)


async def test_where_all_say_nothing_all_are_asked_once_more() -> None:
    """The last answer is the one that counts; the error advises no model that is there."""
    first, second = ScriptedDriver(["", ""]), ScriptedDriver(["", ""])
    text = "[model]\nmodel_path='a.gguf'\n[model.fallback]\nmodel_path='b.gguf'"
    async with open_pool(FallbackDriver(first, second)) as pool:
        config = SpawnConfig(AgentManifest.parse(text), "hello")
        outcome = await (await pool.spawn(config)).wait()
    assert (len(first.requests), len(second.requests)) == (2, 2)
    assert isinstance(outcome.error, EmptyAnswerError)
    assert str(outcome.error).endswith("twice in a row; look at the settings of both")


async def test_nothing_more_to_say_is_the_end_of_a_text() -> None:
    """Whoever was cut off and has no more to say has answered."""
    first, second = ScriptedDriver([CUT, ""]), ScriptedDriver([])
    config = SpawnConfig(AgentManifest.parse('[model]\non_cut = "continue"'), "hello")
    async with open_pool(FallbackDriver(first, second)) as pool:
        outcome = await (await pool.spawn(config)).wait()
    assert (outcome.text, second.requests) == ("It is", ())


# --- prices, windows, tiers


@pytest.mark.parametrize(("fails", "cost"), [(False, 30.0), (True, 300.0)])
async def test_an_answer_costs_what_whoever_gave_it_asks(*, fails: bool, cost: float) -> None:
    """The original's router cost nothing, so no budget ever held."""
    primary = ScriptedDriver(
        [OverloadedError("busy") if fails else Completion("one", usage=Usage(10, 5))],
        price_per_token_usd=2.0,
    )
    second = ScriptedDriver([Completion("two", usage=Usage(10, 5))], price_per_token_usd=20.0)
    completion = await FallbackDriver(primary, second).complete(ASK)
    assert completion.cost_usd == cost


async def test_a_budget_holds_over_a_fallback() -> None:
    """Through the agent: the dear one answered, and that is what was spent."""
    dear = ScriptedDriver([Completion("two", usage=Usage(10, 5))], price_per_token_usd=20.0)
    async with open_pool(FallbackDriver(failing(OverloadedError("busy")), dear)) as pool:
        config = SpawnConfig(manifest(max_cost_usd=100.0), "hello")
        outcome = await (await pool.spawn(config)).wait()
    assert (outcome.cost_usd, outcome.over_budget) == (300.0, True)


async def test_a_price_that_came_with_the_answer_stays() -> None:
    """An answer that is priced where it is made is not priced again."""
    priced = Completion("one", usage=Usage(10, 5), cost_usd=0.5)
    driver = FallbackDriver(ScriptedDriver([priced], price_per_token_usd=20.0))
    assert (await driver.complete(ASK)).cost_usd == 0.5


async def test_what_nobody_can_price_is_unknown() -> None:
    """Not 0.0, and not the price of the one that did not answer."""
    drivers = [
        ScriptedDriver([Completion("one", usage=Usage(1, 1))], price_per_token_usd=None),
        ScriptedDriver([], price_per_token_usd=20.0),
    ]
    async with open_pool(FallbackDriver(*drivers)) as pool:
        outcome = await (await pool.spawn(job())).wait()
    assert (outcome.status, outcome.cost_usd) == (AgentStatus.COMPLETED, None)
    quiet = ScriptedDriver([Completion("one")], price_per_token_usd=2.0, estimate_usage=False)
    assert (await FallbackDriver(quiet).complete(ASK)).cost_usd is None


def test_its_own_price_is_the_one_that_all_agree_on() -> None:
    """A reservation must not rest on the cheaper one."""
    two, three = (ScriptedDriver([], price_per_token_usd=usd) for usd in (2.0, 3.0))
    assert FallbackDriver(two, two).price(Usage(1, 1)) == 4.0
    assert FallbackDriver(two, three).price(Usage(1, 1)) is None


tiers = st.lists(st.sampled_from(PrivacyTier), min_size=1, max_size=4)
windows = st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=4)


@given(tiers)
def test_the_tier_is_the_laxest(chosen: list[PrivacyTier]) -> None:
    """Any of them may be asked, so data that may not go to one may not go here."""
    driver = FallbackDriver(*(ScriptedDriver([], privacy=tier) for tier in chosen))
    for tier in PrivacyTier:
        assert tier.allows(driver.privacy) is all(tier.allows(one) for one in chosen)


@given(windows)
def test_the_window_is_the_smallest_that_is_known(chosen: list[int | None]) -> None:
    """The original cut for the primary and sent it to a smaller one."""
    driver = FallbackDriver(*(ScriptedDriver([], context_window=one) for one in chosen))
    known = [window for window in chosen if window is not None]
    assert driver.context_window == (min(known) if known else None)


@pytest.mark.parametrize(
    ("limits", "least"), [((8, 4), 4), ((8, None), None), ((None,), None), ((8,), 8)]
)
def test_what_an_answer_may_have_is_what_all_of_them_can_write(
    limits: tuple[int | None, ...], least: int | None
) -> None:
    """One whose limit nobody knows may refuse what another takes."""

    async def answer(_: CompletionRequest, __: OnDelta) -> str:  # noqa: ASYNC124  # a driver is async
        raise AssertionError("unreachable")  # pragma: no cover

    drivers = [LiveDriver(answer, max_output_tokens=limit) for limit in limits]
    assert FallbackDriver(*drivers).max_output_tokens == least


async def test_a_conversation_is_cut_for_the_smaller_window() -> None:
    """The request that both are sent fits both."""
    small = ScriptedDriver(["fits"], context_window=400)
    driver = FallbackDriver(failing(OverloadedError("busy")), small)
    history = tuple(UserMessage(f"fact {n}: " + "x" * 200) for n in range(10))
    config = SpawnConfig(manifest(max_tokens=100), "and now?", history=history)
    async with open_pool(driver) as pool:
        outcome = await (await pool.spawn(config)).wait()
    assert outcome.stop_reason is StopReason.END_TURN
    assert 1 <= len(small.requests[0].messages) < 5


async def test_g17_a_sovereign_agent_is_refused_before_a_socket_opens() -> None:
    """Also where only the fallback is elsewhere, and the primary would have done."""
    primary = ScriptedDriver(["one"])
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_openai("m", base_url=server.url) as second,
        open_pool(FallbackDriver(primary, second)) as pool,
    ):
        with pytest.raises(PrivacyError, match="is Sovereign, but its driver is Standard"):
            await pool.spawn(SpawnConfig(AgentManifest(), "secret"))
        await wait_all_tasks_blocked()
    assert (server.lines, primary.requests) == ([], ())


# --- the rest of the contract


@pytest.mark.parametrize(
    "drivers",
    [
        [ScriptedDriver(["hello"] * 9, pieces=2)],
        [failing(OverloadedError("busy")), ScriptedDriver(["hello"] * 9, pieces=2)],
    ],
    ids=["the first answers", "the second answers"],
)
@pytest.mark.parametrize("patience_seconds", [None, 60.0])
async def test_it_is_a_driver_like_any_other(
    drivers: list[Driver], patience_seconds: float | None
) -> None:
    """Facts, an answer, streaming, cancellation, two at once."""
    await check_driver(lambda: FallbackDriver(*drivers, patience_seconds=patience_seconds))


async def test_it_fails_in_our_words() -> None:
    """Whatever is wrong is a DriverError."""
    await check_driver(lambda: FallbackDriver(failing(BadRequestError("no"))), is_answered=False)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"patience_seconds": 0.0}, "patience_seconds must be > 0, got 0.0"),
        ({"max_failures": 0}, "max_failures must be a whole number >= 1, got 0"),
        ({"cool_down_seconds": -1.0}, "cool_down_seconds must be >= 0, got -1.0"),
    ],
)
def test_numbers_without_meaning_are_refused(numbers: dict[str, float], says: str) -> None:
    """The message names the argument."""
    with pytest.raises(UsageError, match=says):
        FallbackDriver(ScriptedDriver([]), **numbers)  # type: ignore[arg-type]  # numbers, all of them


def test_no_driver_is_no_fallback() -> None:
    """It could answer nothing."""
    with pytest.raises(UsageError, match="needs at least one driver"):
        FallbackDriver()
