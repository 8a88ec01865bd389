"""Everything that servers were seen to send, over real HTTP on this machine."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing

from agentpool import DriverError, Usage, UsageError, _errors
from agentpool.abc import Completion, CompletionRequest, Driver
from agentpool.drivers import (
    AssistantMessage,
    FinishReason,
    ToolMessage,
    UserMessage,
    open_anthropic,
    open_openai,
)
from agentpool.testing import Quirk, QuirkResult, QuirkServer, open_quirk_server, quirks
from tests.support.sdk_types import check_request

QUIRKS: Final = quirks()

NO_TYPE: Final = {
    "thinking-without-signature": "Anthropic signs every thought",
}
"""Answers that go back in a form that the official clients do not know."""
ASK: Final = CompletionRequest([UserMessage("Hi")])


@attrs.define(eq=False)
class Listener:
    """Hears text and thoughts apart."""

    texts: list[str] = attrs.field(factory=list)
    thoughts: list[str] = attrs.field(factory=list)

    def __call__(self, text: str) -> None:
        """Hear a piece of text."""
        self.texts.append(text)

    def thought(self, text: str) -> None:
        """Hear a piece of a thought."""
        self.thoughts.append(text)


OPEN: Final[Mapping[str, Callable[[str], Any]]] = {
    "chat": lambda url: open_openai("m", base_url=url, api="chat"),
    "messages": lambda url: open_anthropic("m", base_url=url),
    "responses": lambda url: open_openai("m", base_url=url, api="responses"),
}


@contextlib.asynccontextmanager
async def meeting(quirk: Quirk) -> AsyncIterator[tuple[Driver, QuirkServer]]:
    """Open a driver for the server that has *quirk*."""
    with trio.fail_after(30):
        async with (
            open_quirk_server([quirk]) as server,
            OPEN[quirk.api](server.url(quirk.name)) as driver,
        ):
            yield driver, server


def has(whole: Any, part: Any) -> bool:  # noqa: ANN401  # JSON
    """Whether everything of *part* is in *whole*, in its place."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(has(whole.get(k), v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and all(
            has(one, other) for one, other in zip(whole, part, strict=False)
        )
    return bool(whole == part)


@pytest.mark.parametrize(
    "quirk",
    [
        pytest.param(one, marks=pytest.mark.odd_request(NO_TYPE[one.name]))
        if one.name in NO_TYPE
        else one
        for one in QUIRKS
    ],
    ids=lambda quirk: quirk.name,
)
async def test_each_quirk_has_its_right_result(quirk: Quirk) -> None:
    """An answer, or the error that it is; and the next request is one that is taken."""
    wanted = quirk.result
    heard = Listener()
    async with meeting(quirk) as (driver, server):
        if wanted.error is not None:
            with pytest.raises(DriverError) as caught:
                await driver.complete(ASK, on_delta=heard)
            assert type(caught.value) is getattr(_errors, wanted.error)
            assert caught.value.retryable is wanted.retryable
            assert caught.value.retry_after_seconds == wanted.wait_seconds
            assert wanted.says in str(caught.value)
            return
        answer = await driver.complete(ASK, on_delta=heard)
        check_answer(quirk, answer, heard)
        said = AssistantMessage(answer.text, answer.tool_calls, answer.parts)
        results = [ToolMessage(call.call_id, call.name, "1") for call in answer.tool_calls]
        await driver.complete(CompletionRequest([*ASK.messages, said, *results]))
    body = json.loads(server.requests[-1].body)
    check_next(quirk, body)


def check_answer(quirk: Quirk, answer: Completion, heard: Listener) -> None:
    """Check that *answer* is what *quirk* comes to."""
    wanted = quirk.result
    assert answer.text == wanted.text == "".join(heard.texts)
    assert "".join(heard.thoughts) == wanted.thoughts
    calls = [(call.call_id, call.name, call.arguments) for call in answer.tool_calls]
    assert len(calls) == len(wanted.tool_calls)
    for (call_id, *rest), (wanted_id, *wanted_rest) in zip(calls, wanted.tool_calls, strict=True):
        assert rest == wanted_rest
        assert call_id == wanted_id if wanted_id is not None else call_id
    assert answer.finish_reason is FinishReason[wanted.finish]
    assert answer.usage == (None if wanted.usage is None else Usage(*wanted.usage))
    assert answer.cost_usd == wanted.cost_usd


def check_next(quirk: Quirk, body: Any) -> None:  # noqa: ANN401  # JSON
    """Check what the next request has of the answer: its parts, and calls that are legal."""
    if quirk.name not in NO_TYPE:
        check_request(quirk.api, body)
    if quirk.api == "responses":
        assert quirk.back is None or has(body["input"][1:], quirk.back)
        return
    said = [one for one in body["messages"] if one["role"] == "assistant"]
    assert quirk.back is None or has(said[-1], quirk.back)
    if quirk.api == "messages" or not said:
        return
    calls = said[-1].get("tool_calls", [])
    ids = [call["id"] for call in calls]
    assert len(set(ids)) == len(ids)
    assert all(len(one) <= 40 for one in ids)
    assert ids == [one["tool_call_id"] for one in body["messages"] if one["role"] == "tool"]
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)


def test_every_row_that_was_seen_is_there() -> None:
    """And twenty further ones, each with its source."""
    rows = {int(one.seen.split()[1].rstrip(":")) for one in QUIRKS if one.seen.startswith("row")}
    assert rows == set(range(1, 39))
    assert sum(not one.seen.startswith(("row", "like")) for one in QUIRKS) >= 20
    assert len({one.name for one in QUIRKS}) == len(QUIRKS)
    # An issue, a page, or what it is like; and when it was looked up.
    place = re.compile(
        r"(?:row \d+: |like |B\d+: )?.*(?:#\d+|\w\.(?:com|ai|dev|org)\b|row \d+|B7).*"
    )
    assert [one.name for one in QUIRKS if not place.fullmatch(one.seen)] == []
    assert all(re.search(r"\(20\d\d-\d\d\)$", one.seen) for one in QUIRKS)
    assert [one.name for one in QUIRKS if re.fullmatch(r"row \d+: [^#./]*", one.seen)] == []


def test_help_says_what_the_fields_of_a_result_hold() -> None:
    """For clients that are not agentpool's: every word, and the order of each tuple."""
    shown = " ".join((inspect.getdoc(QuirkResult) or "").split())
    assert all(f"``{reason.name}``" in shown for reason in FinishReason)
    assert {quirk.result.finish for quirk in QUIRKS} <= {reason.name for reason in FinishReason}
    assert "input, output, cached input, thoughts within the output, input written" in shown


async def test_a_quirk_that_nobody_knows() -> None:
    """Is an error of whoever asks for it; at another address there is nothing."""
    async with open_quirk_server() as server:
        with pytest.raises(UsageError, match="there is no quirk 'x'"):
            server.url("x")
        url = server.url("shared-index").replace("shared-index", "other")
        async with open_openai("m", base_url=url, api="chat") as driver:
            with pytest.raises(_errors.BadRequestError, match="no quirk at /other"):
                await driver.complete(ASK)


async def test_a_client_that_goes_away_harms_nobody() -> None:
    """With half a request, or with none at all."""
    async with open_quirk_server() as server:
        url = server.url("shared-index")
        port = int(url.split(":")[2].split("/")[0])
        for sent in (b"", b"POST / HTTP/1.1\r\nhost: x\r\n", b"no HTTP\r\n\r\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(sent)
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.01)
        async with open_openai("m", base_url=url) as driver:
            assert (await driver.complete(ASK)).tool_calls
