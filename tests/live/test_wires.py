"""All three wires against a real llama.cpp, the one that the local driver starts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import pytest
import trio

from agentpool.abc import CompletionRequest, Driver
from agentpool.drivers import (
    AnswerForm,
    AssistantMessage,
    ChatMessage,
    FinishReason,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    open_anthropic,
    open_local,
    open_openai,
)

pytestmark = pytest.mark.live

WIRES: Final = ("chat", "responses", "messages")

ADD: Final = ToolDefinition(
    "add",
    "Add two numbers.",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)


@contextlib.asynccontextmanager
async def open_wire(wire: str) -> AsyncIterator[Driver]:
    """Open a driver that speaks *wire* with a llama.cpp of its own."""
    async with open_local(seed=1) as local:
        url = str(local._client._base_url).rstrip("/").removesuffix("/v1") + "/v1"
        bearer = local._client._headers["authorization"]
        key = bearer.removeprefix("Bearer ")
        with trio.fail_after(120):
            if wire == "messages":
                async with open_anthropic("m", base_url=url, api_key=key) as driver:
                    yield driver
            elif wire == "responses":
                async with open_openai("m", base_url=url, api_key=key, api="responses") as driver:
                    yield driver
            else:
                async with open_openai("m", base_url=url, api_key=key) as driver:
                    yield driver


@pytest.mark.parametrize("wire", WIRES)
async def test_text_is_streamed(wire: str) -> None:
    """Piece by piece, and with its usage."""
    heard: list[str] = []
    request = CompletionRequest([UserMessage("Say hello.")], system="Be kind.", max_tokens=20)
    async with open_wire(wire) as driver:
        answer = await driver.complete(request, on_delta=heard.append)
    assert answer.text == "".join(heard)
    assert len(heard) > 1
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert 0 < answer.usage.output_tokens <= 20


@pytest.mark.parametrize("wire", WIRES)
async def test_a_cut_answer_says_so(wire: str) -> None:
    """As every provider does; llama.cpp's Responses calls it completed all the same."""
    request = CompletionRequest([UserMessage("Write a long story.")], max_tokens=5)
    async with open_wire(wire) as driver:
        answer = await driver.complete(request)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5
    if wire != "responses":
        assert answer.finish_reason is FinishReason.MAX_TOKENS


@pytest.mark.parametrize("wire", WIRES)
async def test_calls_and_results_are_taken(wire: str) -> None:
    """The model's template may know no tools; the server takes the conversation."""
    said: list[ChatMessage] = [
        UserMessage("What is 1 + 2?"),
        AssistantMessage("", (ToolCall("call-1-0", "add", '{"a":1,"b":2}'),)),
        ToolMessage("call-1-0", "add", "3"),
    ]
    request = CompletionRequest(said, tools=(ADD,), max_tokens=40)
    async with open_wire(wire) as driver:
        answer = await driver.complete(request)
    assert answer.text or answer.tool_calls


@pytest.mark.parametrize("wire", ["chat"])
async def test_a_form_is_kept(wire: str) -> None:
    """The grammar sees to that."""
    form = AnswerForm("sum", ADD.input_schema)
    request = CompletionRequest([UserMessage("1 and 2")], answer_form=form, max_tokens=60)
    async with open_wire(wire) as driver:
        answer = await driver.complete(request)
    assert answer.text.startswith("{")
