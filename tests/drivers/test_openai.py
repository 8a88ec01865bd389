"""The driver for chat completions, against a server that has bad days."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from agentpool import DriverError, PrivacyTier, Usage, UsageError
from agentpool._messages import Json
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import (
    AuthenticationError,
    BadRequestError,
    FinishReason,
    NetworkError,
    OpenAIDriver,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UserMessage,
    open_openai,
)
from agentpool.drivers._http_stack import StackTransport
from tests.support.http_servers import (
    CHUNKED,
    DONE,
    HELLO,
    Line,
    always,
    chunk,
    event,
    head,
    once,
    open_loopback,
    text_event,
    whole,
)
from tests.support.keys import KEY, make_key

ASK = CompletionRequest([UserMessage("Hi")])
HELLO_ANSWER = Completion("Hello", (), FinishReason.END_TURN, Usage(7, 2), "m")


async def open_count(driver: OpenAIDriver) -> int:
    """Return how many connections the driver holds."""
    await wait_all_tasks_blocked()
    transport = driver._client._transport
    assert isinstance(transport, StackTransport)
    return transport.open_count


async def test_an_answer() -> None:
    """Text, why it ended, what it cost; the pieces as they come; the key in the request."""
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_openai("m", base_url=server.url, api_key=KEY) as driver,
    ):
        heard: list[str] = []
        assert await driver.complete(ASK, on_delta=heard.append) == HELLO_ANSWER
        assert heard == ["Hel", "lo"]
        assert await driver.complete(ASK) == HELLO_ANSWER
        assert KEY not in repr(driver)
    assert len(server.lines) == 1
    assert f"authorization: Bearer {KEY}".lower().encode() in server.requests[0].lower()
    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert set(body) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://mine.services.ai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://api.moonshot.ai/v1", "max_tokens"),
        ("https://notapi.openai.com.example.org/v1", "max_tokens"),
    ],
)
async def test_the_limit_has_the_name_that_the_host_wants(url: str, field: str) -> None:
    """Decided by the host and not by the whole address; a setting goes before."""
    async with open_openai("m", base_url=url) as driver:
        assert driver._options.max_tokens_field == field
    async with open_openai("m", base_url=url, max_tokens_field="max_tokens") as driver:
        assert driver._options.max_tokens_field == "max_tokens"


async def test_options_that_the_wire_writes_are_refused() -> None:
    """By name, with what to do instead; before anything is sent."""
    options: dict[str, Json] = {"temperature": 1, "user": "me", "text": {"format": {}, "other": 1}}
    with pytest.raises(UsageError) as caught:
        async with open_openai("m", options=options):
            pass
    assert str(caught.value) == (
        "options.temperature: is written by agentpool; write model.temperature; "
        "options.text.format: is written by agentpool; spawn the agent with output_type"
    )


async def test_the_connection_is_kept_when_the_end_comes_late() -> None:
    """What follows [DONE] is the empty chunk that ends the body."""

    async def serve(line: Line) -> None:
        while await line.read_request() is not None:
            await line.send(CHUNKED + chunk(HELLO))
            await wait_all_tasks_blocked()
            await line.send(chunk(b""))

    async with (
        open_loopback(serve) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        for _ in range(3):
            assert await driver.complete(ASK) == HELLO_ANSWER
    assert len(server.lines) == 1


async def test_nobody_waits_for_an_end_that_does_not_come() -> None:
    """The answer is there; the connection is given up."""
    async with (
        open_loopback(always(CHUNKED + chunk(HELLO))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        with trio.fail_after(5):
            assert await driver.complete(ASK) == HELLO_ANSWER
        assert await open_count(driver) == 0


async def test_a_stream_that_ends_well_but_early_is_no_answer() -> None:
    """A proxy that gives up ends the body as if that were all."""
    async with (
        open_loopback(always(whole(text_event("Hel")))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        with pytest.raises(NetworkError, match="middle of the answer, after 3 characters"):
            await driver.complete(ASK)


async def test_an_error_after_200_is_an_error() -> None:
    """The original returned the text so far as a success."""
    stream = text_event("Hel") + event({"error": {"message": "oops", "type": "server_error"}})
    async with (
        open_loopback(always(whole(stream))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        with pytest.raises(OverloadedError, match="oops"):
            await driver.complete(ASK)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (whole(b'{"ok":1}', content_type="application/json"), ProtocolError, "ok"),
        (head(200, {"content-length": "2"}) + b"hi", ProtocolError, "got content type none"),
        (whole(b"data: " + b"x" * 17_000_000), ProtocolError, "longer than"),
        (whole(b"data: \xff\n\n"), ProtocolError, "not a JSON object"),
        (whole(b"data: {\xff\n\n"), ProtocolError, "not a chat completion chunk"),
        (whole(b"data: {}\n\n" + DONE), ProtocolError, "without a reason"),
        (whole(b"", status=204), ProtocolError, "204"),
        (whole(b"", status=302, location="http://evil.example/"), BadRequestError, "evil"),
        (whole(b"slow", status=429, retry_after="7"), RateLimitError, "slow"),
        (whole(b"no", status=401), AuthenticationError, "401"),
    ],
)
async def test_hostile_answers(answer: bytes, kind: type[DriverError], says: str) -> None:
    """Each has its error, and none of them keeps a connection that is not at its end."""
    async with (
        open_loopback(always(answer)) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        with pytest.raises(kind, match=says) as caught:
            await driver.complete(ASK)
        if kind is RateLimitError:
            assert caught.value.retry_after_seconds == 7.0
        assert len(server.requests) == 1


async def test_a_key_may_change() -> None:
    """A callable is asked for each request."""
    keys = iter([make_key("first-"), make_key("second-"), make_key("second-")])
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_openai("m", base_url=server.url, api_key=lambda: next(keys)) as driver,
    ):
        for _ in range(3):
            await driver.complete(ASK)
    found = [make_key("first-").encode() in one for one in server.requests]
    assert found == [True, False, False]


async def test_a_key_that_was_taken_away_is_sent_no_more() -> None:
    """Who returns none has none, and what the driver was opened with is sent again."""
    keys = iter([KEY, None, "", KEY])
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_openai(
            "m",
            base_url=server.url,
            api_key=lambda: next(keys) or "",
            headers={"authorization": "Basic proxy"},
        ) as driver,
    ):
        for _ in range(4):
            await driver.complete(ASK)
    own = [b"authorization: Basic proxy" in one for one in server.requests]
    assert own == [False, True, True, False]
    assert [KEY.encode() in one for one in server.requests] == [True, False, False, True]


async def test_a_key_with_a_newline_is_named_and_not_shown() -> None:
    """It is from a file, mostly."""
    async with open_openai("m", base_url="http://127.0.0.1:1", api_key=f"{KEY}\n") as driver:
        with pytest.raises(UsageError, match="'authorization'") as caught:
            await driver.complete(ASK)
    assert KEY not in str(caught.value)


async def test_a_cancelled_request_stops_the_model() -> None:
    """The connection is closed while the stream runs."""
    gone = trio.Event()

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.send(CHUNKED + chunk(text_event("Hel")))
        await line.wait_gone()
        gone.set()

    async with (
        open_loopback(serve) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        with trio.CancelScope() as scope:
            await driver.complete(ASK, on_delta=lambda _: scope.cancel())
        assert scope.cancelled_caught
        with trio.fail_after(5):
            await gone.wait()


async def test_a_silent_server_is_left_at_the_callers_deadline() -> None:
    """There are no seconds in the driver; a slow answer is not an error."""

    async def serve(line: Line) -> None:
        await line.wait_gone()

    async with (
        open_loopback(serve) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        with trio.move_on_after(0.02) as scope:
            await driver.complete(ASK)
        assert scope.cancelled_caught
        assert await open_count(driver) == 0


async def test_calls_without_an_id_have_different_ones_in_each_answer() -> None:
    """The original numbered from 1 in each answer, and histories had doubles."""
    piece = {"index": 0, "function": {"name": "now", "arguments": ""}}
    choice = {"delta": {"tool_calls": [piece]}, "finish_reason": "tool_calls"}
    async with (
        open_loopback(always(whole(event({"choices": [choice]}) + DONE))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        answers = [await driver.complete(ASK) for _ in range(2)]
    assert [one.tool_calls[0].call_id for one in answers] == ["call-1-0", "call-2-0"]


async def test_facts_are_what_was_said() -> None:
    """Nobody but the caller knows the price, the window and the place."""

    def price(usage: Usage, model: str | None) -> float | None:
        return usage.total_tokens * {"m": 1.0, "big": 2.0}[model or "?"]

    async with open_openai("m", context_window=5, privacy=PrivacyTier.PRIVATE, price=price) as own:
        assert (own.context_window, own.privacy) == (5, PrivacyTier.PRIVATE)
        assert own.price(Usage(1, 1)) == 2.0
        assert own.price(Usage(1, 1), model="big") == 4.0
    async with open_openai("m") as plain:
        assert (plain.context_window, plain.privacy) == (None, PrivacyTier.STANDARD)
        assert plain.price(Usage(1, 1)) is None


async def test_openai_itself_over_a_transport_of_the_users_own() -> None:
    """Which sees the request as httpx has it."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=HELLO)

    transport = httpx.MockTransport(answer)
    async with open_openai(
        "m", api_key=KEY, transport=transport, headers={"x-org": "o"}, api="chat"
    ) as driver:
        assert await driver.complete(replace(ASK, max_tokens=9)) == HELLO_ANSWER
    (request,) = seen
    assert str(request.url) == "https://api.openai.com/v1/chat/completions"
    assert request.headers["x-org"] == "o"
    assert json.loads(request.content)["max_completion_tokens"] == 9


async def test_many_at_once() -> None:
    """200 requests, 50 at once, on 50 connections."""
    async with (
        open_loopback(always(CHUNKED, chunk(HELLO), chunk(b""))) as server,
        open_openai("m", base_url=server.url) as driver,
    ):
        limiter = trio.CapacityLimiter(50)
        answers: list[Completion] = []

        async def ask() -> None:
            async with limiter:
                answers.append(await driver.complete(ASK))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
    assert answers == [HELLO_ANSWER] * 200
    assert len(server.lines) < 100, "most connections are used again"


@pytest.mark.parametrize("in_http", [True, False])
async def test_a_date_to_wait_for_is_compared_with_our_clock(*, in_http: bool) -> None:
    """Where the answer has no date of its own, as behind many gateways."""
    then = datetime.now(UTC) + timedelta(hours=1)
    text = format_datetime(then, usegmt=True) if in_http else then.isoformat()
    name = "retry_after" if in_http else "x_ratelimit_reset_requests"
    busy = whole(b"slow", status=429, **{name: text})
    async with open_loopback(always(busy)) as here, open_openai("m", base_url=here.url) as driver:
        with pytest.raises(RateLimitError) as caught:
            await driver.complete(CompletionRequest([UserMessage("Hi")]))
    seconds = caught.value.retry_after_seconds
    assert seconds is not None
    assert 3000 < seconds <= 3600


@pytest.mark.parametrize("usage", [None, Usage(3, 1)])
async def test_a_connection_that_breaks_after_the_end_harms_no_answer(usage: Usage | None) -> None:
    """How it ended was said, so it is whole. It was thrown away and paid for once more."""
    counted = {"prompt_tokens": 3, "completion_tokens": 1}
    more = b"" if usage is None else event({"choices": [], "usage": counted}) + b"data: [DONE]"
    for said, is_whole in (("stop", True), (None, False)):
        broken = CHUNKED + chunk(text_event("Hi.", said) + more)
        async with (
            open_loopback(once(broken)) as server,
            open_openai("m", base_url=server.url) as driver,
        ):
            if is_whole:
                answer = await driver.complete(ASK)
                assert (answer.text, answer.usage) == ("Hi.", usage)
            else:
                with pytest.raises(NetworkError):
                    await driver.complete(ASK)
