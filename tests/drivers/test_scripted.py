"""Drivers for tests: what they answer, and what they write down."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import AsyncGenerator

import pytest
import trio

from agentpool import PrivacyTier, Usage, UsageError
from agentpool._messages import estimate_tokens
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    FinishReason,
    FunctionDriver,
    ProtocolError,
    RateLimitError,
    ScriptedDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
    call,
    calls,
    say,
)


def ask(text: str = "hi") -> CompletionRequest:
    """Return a request that says *text*."""
    return CompletionRequest([UserMessage(text)])


async def test_answers_come_in_order() -> None:
    """A script is read from top to bottom."""
    driver = ScriptedDriver(["one", say("two"), Completion(text="three")])
    assert [(await driver.complete(ask())).text for _ in range(3)] == ["one", "two", "three"]


async def test_an_exception_is_raised_and_the_script_goes_on() -> None:
    """A retry gets the next step."""
    error = RateLimitError("slow down")
    driver = ScriptedDriver([error, "there"])
    with pytest.raises(RateLimitError) as caught:
        await driver.complete(ask())
    assert caught.value is error
    assert (await driver.complete(ask())).text == "there"


async def test_an_exhausted_script_is_an_error() -> None:
    """Not a text that an agent would take for an answer."""
    driver = ScriptedDriver(["only"])
    await driver.complete(ask())
    with pytest.raises(ProtocolError, match="the script has 1 step and was asked for one more"):
        await driver.complete(ask())


async def test_requests_are_kept_as_they_were() -> None:
    """The conversation is a live view: what is kept must not grow with it."""
    history: list[ChatMessage] = [UserMessage("one")]
    driver = ScriptedDriver(itertools.repeat("ok"))
    request = CompletionRequest(history, system="be brief", temperature=0.0)
    await driver.complete(request)
    history.append(AssistantMessage("ok"))
    await driver.complete(request)
    first, second = driver.requests
    assert first.messages == (UserMessage("one"),)
    assert second.messages == (UserMessage("one"), AssistantMessage("ok"))
    assert (first.system, first.temperature) == ("be brief", 0.0)


async def test_requests_are_not_kept_where_nobody_wants_them() -> None:
    """A benchmark would measure the keeping."""
    driver = ScriptedDriver(["ok"], record=False)
    await driver.complete(ask())
    with pytest.raises(UsageError, match="record=False"):
        _ = driver.requests


async def test_calls_get_ids_that_are_never_the_same() -> None:
    """The same step twice is two calls; an id that was given is kept."""
    own = Completion(tool_calls=(ToolCall("mine", "x", "{}"),))
    driver = ScriptedDriver([call("a"), calls(call("a", n=1), call("b")), own, call("a")])
    answers = [await driver.complete(ask()) for _ in range(4)]
    ids = [[one.call_id for one in answer.tool_calls] for answer in answers]
    assert ids == [["call-1"], ["call-2", "call-3"], ["mine"], ["call-4"]]


async def test_ids_are_given_only_where_they_are_missing() -> None:
    """A script may name one call of several."""
    mixed = Completion(tool_calls=(ToolCall("mine", "x", "{}"), ToolCall("", "y", "{}")))
    answer = await ScriptedDriver([mixed]).complete(ask())
    assert [one.call_id for one in answer.tool_calls] == ["mine", "call-1"]


def test_call_writes_its_arguments_as_json() -> None:
    """So does a model. A tool may have a parameter called name."""
    answer = call("greet", name="Åse", times=2)
    (one,) = answer.tool_calls
    assert one.name == "greet"
    assert json.loads(one.arguments) == {"name": "Åse", "times": 2}
    assert answer.finish_reason is FinishReason.TOOL_USE


def test_calls_may_come_with_text_and_usage() -> None:
    """A model may say why it calls."""
    answer = calls(call("a"), call("b"), text="Let me look.", usage=Usage(5, 6))
    assert (answer.text, answer.usage) == ("Let me look.", Usage(5, 6))
    assert [one.name for one in answer.tool_calls] == ["a", "b"]


async def test_usage_is_estimated_from_the_texts() -> None:
    """So that a budget has something to count."""
    request = CompletionRequest(
        [
            UserMessage("question"),
            AssistantMessage("hm", (ToolCall("1", "look", '{"at":1}'),)),
            ToolMessage("1", "look", "a result"),
        ],
        system="system",
    )
    answer = await ScriptedDriver(["an answer"]).complete(request)
    texts = ["system", "question", "hm", "look", '{"at":1}', "a result"]
    assert answer.usage == Usage(sum(map(estimate_tokens, texts)), estimate_tokens("an answer"))


async def test_usage_that_is_given_is_kept_and_none_can_be_meant() -> None:
    """A provider that does not say what it used is a case to be tested as well."""
    driver = ScriptedDriver([say("a", usage=Usage(1, 2)), "b"], estimate_usage=False)
    assert (await driver.complete(ask())).usage == Usage(1, 2)
    assert (await driver.complete(ask())).usage is None


@pytest.mark.parametrize(("price", "expected"), [(0.5, 1.5), (0.0, 0.0), (None, None)])
def test_price_is_by_the_token(price: float | None, expected: float | None) -> None:
    """Unknown is None, free is zero."""
    assert ScriptedDriver([], price_per_token_usd=price).price(Usage(1, 2)) == expected


def test_facts_are_what_was_said() -> None:
    """A test may need a small window or a strict tier."""
    driver = ScriptedDriver([], context_window=None, privacy=PrivacyTier.STANDARD)
    assert driver.context_window is None
    assert driver.privacy is PrivacyTier.STANDARD
    assert ScriptedDriver([]).context_window == 8192
    assert ScriptedDriver([]).privacy is PrivacyTier.SOVEREIGN


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [(1, ["abcde"]), (2, ["abc", "de"]), (3, ["ab", "cd", "e"]), (9, list("abcde"))],
)
async def test_text_is_streamed_in_pieces(pieces: int, expected: list[str]) -> None:
    """Together they are the text."""
    heard: list[str] = []
    await ScriptedDriver(["abcde"], pieces=pieces).complete(ask(), on_delta=heard.append)
    assert heard == expected


async def test_nothing_is_streamed_where_there_is_no_text() -> None:
    """An empty piece is not a piece."""
    heard: list[str] = []
    await ScriptedDriver([call("a")]).complete(ask(), on_delta=heard.append)
    assert heard == []


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_a_price_is_a_number_of_dollars(price: float) -> None:
    """Before any agent asks."""
    with pytest.raises(UsageError, match="price_per_token_usd must be finite and >= 0, got"):
        FunctionDriver(lambda _: "ok", price_per_token_usd=price)


def test_a_text_has_at_least_one_piece() -> None:
    """Zero pieces of something is a slip."""
    with pytest.raises(UsageError, match="pieces must be a whole number >= 1, got 0"):
        ScriptedDriver([], pieces=0)


async def test_a_request_that_is_cancelled_at_once_uses_nothing_up() -> None:
    """Each answer is a checkpoint, and before it nothing has happened."""
    driver = ScriptedDriver(["first"])
    with trio.CancelScope() as scope:
        scope.cancel()
        await driver.complete(ask())
    assert scope.cancelled_caught
    assert driver.requests == ()
    assert (await driver.complete(ask())).text == "first"


async def test_a_stream_can_be_cancelled_between_two_pieces() -> None:
    """That is where a person presses Ctrl-C."""
    heard: list[str] = []
    with trio.CancelScope() as scope:

        def stop(piece: str) -> None:
            heard.append(piece)
            scope.cancel()

        await ScriptedDriver(["abcd"], pieces=2).complete(ask(), on_delta=stop)
    assert scope.cancelled_caught
    assert heard == ["ab"]


async def test_a_function_answers() -> None:
    """It sees the request, and may wait."""

    def sync(request: CompletionRequest) -> str:
        last = request.messages[-1]
        assert isinstance(last, UserMessage)
        return last.text.upper()

    async def slow(request: CompletionRequest) -> Completion:
        await trio.lowlevel.checkpoint()
        return say(f"{len(request.messages)} messages")

    driver = FunctionDriver(sync)
    assert (await driver.complete(ask("loud"))).text == "LOUD"
    assert len(driver.requests) == 1
    assert (await FunctionDriver(slow).complete(ask())).text == "1 messages"


async def _pieces() -> AsyncGenerator[str, None]:  # noqa: ASYNC900  # no one enters it
    await trio.lowlevel.checkpoint()
    yield "hi"


@pytest.mark.parametrize("answer", [7, {"text": "hi"}, ["hi"], _pieces()])
async def test_a_function_that_returns_another_kind_is_told_which_there_are(answer: object) -> None:
    """The return was there."""
    driver = FunctionDriver(lambda _: answer)  # type: ignore[arg-type,return-value]
    says = r"text or a Completion, got .*; return a str, or agentpool.drivers.Completion"
    with pytest.raises(UsageError, match=says):
        await driver.complete(ask())


@pytest.mark.parametrize("answer", [None])
async def test_a_function_that_returns_no_answer_is_told_what_to_return(answer: object) -> None:
    """A return that was forgotten is the commonest mistake."""
    driver = FunctionDriver(lambda _: answer)  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match=r"text or a Completion, got .*; write return"):
        await driver.complete(ask())
