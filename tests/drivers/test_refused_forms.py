"""A server that refuses the form of an answer is told it in words, and asked once more."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx
import pytest
import trio
import trio.testing

from agentpool.abc import CompletionRequest, ToolDefinition
from agentpool.drivers import AnswerForm, BadRequestError, UserMessage, open_openai
from agentpool.testing import FakeTurn, strict_fake

URL: Final = "https://gateway.example/v1"
FORM: Final = AnswerForm("Score", {"type": "object", "properties": {}})
TOOL: Final = ToolDefinition("now", "The time.", {"type": "object", "properties": {}})
WITH_TOOLS: Final = (
    "json mode cannot be combined with tool/function calling",
    "Function calling with a response mime type: 'application/json' is unsupported",
    "Cannot use json response type with tools",
)
AT_ALL: Final = "This model does not support response format `json_schema`. See the docs."


def asking(*tools: ToolDefinition, form: AnswerForm | None = FORM) -> CompletionRequest:
    """Return a request."""
    return CompletionRequest([UserMessage("Hi")], "Be kind.", tools, answer_form=form)


class Server:
    """Refuses each request with a form in it that it is told to refuse."""

    def __init__(
        self, says: str, *, beside_tools_alone: bool = False, always: bool = False
    ) -> None:
        """Say why it refuses."""
        self.bodies: list[dict[str, Any]] = []
        self._says, self._beside_tools_alone, self._always = says, beside_tools_alone, always
        self.transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer *request*."""
        body = json.loads(request.content)
        self.bodies.append(body)
        is_form = "response_format" in body and ("tools" in body or not self._beside_tools_alone)
        if is_form or self._always:
            error = {"message": self._says, "type": "invalid_request_error"}
            return httpx.Response(400, json={"error": error})
        choice = {"index": 0, "delta": {"content": "{}"}, "finish_reason": "stop"}
        text = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)

    @property
    def formed(self) -> list[bool]:
        """Whether each request had a form, oldest first."""
        return ["response_format" in body for body in self.bodies]


@pytest.mark.parametrize("says", WITH_TOOLS)
async def test_a_form_that_is_refused_beside_tools_is_told(says: str) -> None:
    """Once it costs a refusal; then it is known, and without tools it is asked for as before."""
    server = Server(says, beside_tools_alone=True)
    async with open_openai("m", base_url=URL, transport=server.transport) as driver:
        assert (await driver.complete(asking(TOOL))).text == "{}"
        await driver.complete(asking(TOOL))
        await driver.complete(asking())
    assert server.formed == [True, False, False, True]
    assert all(
        "JSON of this schema" in body["messages"][0]["content"] for body in server.bodies[1:3]
    )


async def test_a_form_that_is_refused_at_all_is_told() -> None:
    """With tools or without."""
    server = Server(AT_ALL)
    async with open_openai("m", base_url=URL, transport=server.transport) as driver:
        assert (await driver.complete(asking())).text == "{}"
        await driver.complete(asking())
        await driver.complete(asking(TOOL))
    assert server.formed == [True, False, False, False]


async def test_requests_side_by_side_are_each_asked_once_more() -> None:
    """What one of them finds out is not lost by what the other one does."""
    beside, at_all = Server(WITH_TOOLS[0]), Server(AT_ALL)
    arrived: list[trio.Event] = [trio.Event(), trio.Event()]

    async def answer(request: httpx.Request) -> httpx.Response:
        has_tools = "tools" in json.loads(request.content)
        arrived[has_tools].set()
        await arrived[not has_tools].wait()
        if has_tools and not at_all.formed[1:]:
            await trio.testing.wait_all_tasks_blocked()  # the other one is answered first
        return (beside if has_tools else at_all).answer(request)

    async with open_openai("m", base_url=URL, transport=httpx.MockTransport(answer)) as driver:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(driver.complete, asking(TOOL))
                nursery.start_soon(driver.complete, asking())
            await driver.complete(asking())
    assert (beside.formed, at_all.formed) == ([True, False], [True, False, False])


@pytest.mark.parametrize("says", [*WITH_TOOLS, AT_ALL])
async def test_a_refusal_that_the_words_do_not_mend_is_raised(says: str) -> None:
    """It is asked once more and no more often, and not at all where there was no form."""
    server = Server(says, always=True)
    async with open_openai("m", base_url=URL, transport=server.transport) as driver:
        for asked in (asking(TOOL), asking(TOOL), asking(TOOL, form=None)):
            with pytest.raises(BadRequestError, match="the provider answered 400"):
                await driver.complete(asked)
    assert server.formed == [True, False, False, False]


async def test_groq_is_told_a_form_beside_tools_at_once() -> None:
    """By its address alone it is known that it takes none; without tools it takes one."""
    fake = strict_fake("groq", [FakeTurn(text="{}")])
    url = "https://api.groq.com/openai/v1"
    async with open_openai("m", base_url=url, transport=fake) as driver:
        for asked in (asking(TOOL), asking()):
            assert (await driver.complete(asked)).text == "{}"
    assert fake.refusals == ()
    assert ["response_format" in body for body in fake.requests] == [False, True]


async def test_another_refusal_is_raised_at_once() -> None:
    """The form was not what was wrong."""
    server = Server("no such field", always=True)
    async with open_openai("m", base_url=URL, transport=server.transport) as driver:
        with pytest.raises(BadRequestError, match="no such field"):
            await driver.complete(asking(TOOL))
    assert server.formed == [True]
