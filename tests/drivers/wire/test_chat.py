"""OpenAI Chat Completions, both ways: what is sent, and what a stream comes to."""

from __future__ import annotations

import json
from collections import UserList
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from agentpool._messages import Json
from agentpool.abc import CompletionRequest, ToolDefinition
from agentpool.drivers import AssistantMessage, ProtocolError, ToolCall, ToolMessage, UserMessage
from agentpool.drivers.wire import _partial_answer
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._chat_request import ChatOptions, encode_request
from agentpool.drivers.wire._sse import SseEvent
from tests.support.keys import KEY
from tests.support.sdk_types import check_request


def test_arguments_that_are_no_json_stay_as_they_came() -> None:
    """An empty object in their place would run the tool with nothing."""
    pieces: Json = [{"index": 0, "id": "a", "function": {"name": "rm", "arguments": '{"path'}}]
    chunk = {"choices": [{"delta": {"tool_calls": pieces}, "finish_reason": "tool_calls"}]}
    accumulator = ChatAccumulator()
    accumulator.feed(SseEvent(json.dumps(chunk)))
    assert accumulator.finish().tool_calls[0].arguments == '{"path'


def test_nothing_counts_after_done() -> None:
    """A server may send what it likes there; it is not part of the answer."""
    accumulator = ChatAccumulator()
    accumulator.feed(SseEvent('{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}'))
    accumulator.feed(SseEvent("[DONE]"))
    assert accumulator.done
    assert accumulator.feed(SseEvent("{not json")) == []
    assert accumulator.finish().text == "a"


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text and arguments together have a bound."""
    monkeypatch.setattr(_partial_answer, "MAX_ANSWER_CHARS", 10)
    accumulator = ChatAccumulator()
    event = SseEvent('{"choices":[{"delta":{"content":"123456"}}]}')
    accumulator.feed(event)
    with pytest.raises(ProtocolError, match="longer than 10 characters"):
        accumulator.feed(event)


def test_what_came_is_shown_shortened_and_without_the_key() -> None:
    """An error is for a person to read, and may be logged."""
    accumulator = ChatAccumulator(secret=KEY)
    with pytest.raises(ProtocolError) as caught:
        accumulator.feed(SseEvent(KEY + "x" * 5000))
    said = str(caught.value)
    assert "sk-" not in said
    assert "[secret]" in said
    assert len(said) < 1000
    assert caught.value.__cause__ is None
    assert "sk-" not in repr(accumulator)


TOOL = ToolDefinition(
    "add",
    "Add.",
    MappingProxyType({"type": "object", "properties": {"a": {"enum": UserList("xy")}}}),
)


def body_of(request: CompletionRequest, options: ChatOptions) -> dict[str, Any]:
    """Return what is sent, decoded."""
    found: dict[str, Any] = json.loads(encode_request(request, options))
    check_request("chat", found)
    return found


def test_a_request_says_everything() -> None:
    """System first, calls with their arguments as text, results by id, tools with schema."""
    request = CompletionRequest(
        [
            UserMessage("Grüße"),
            AssistantMessage("", (ToolCall("c1", "add", '{"a":"x"}'),)),
            ToolMessage("c1", "add", "2", is_error=True),
            AssistantMessage("Two."),
            AssistantMessage(""),
        ],
        system="Be brief.",
        tools=(TOOL,),
        max_tokens=5,
        temperature=0.0,
    )
    assert body_of(request, ChatOptions(model="m")) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Grüße"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "add", "arguments": '{"a":"x"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
            {"role": "assistant", "content": "Two."},
            {"role": "assistant", "content": ""},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Add.",
                    "parameters": {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}},
                },
            }
        ],
        "max_tokens": 5,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_options_are_added_to_a_request() -> None:
    """What a driver wants besides: a form, a seed, and the cache left alone."""
    options = ChatOptions(
        model="m", response_format={"type": "json_object"}, seed=1, cache_prompt=False
    )
    body = body_of(CompletionRequest([UserMessage("x")], model="other"), options)
    assert body["model"] == "other"
    assert body["response_format"] == {"type": "json_object"}
    assert (body["seed"], body["cache_prompt"]) == (1, False)
    assert "tools" not in body


def test_openai_itself_is_told_max_completion_tokens() -> None:
    """Its newer models refuse the other name, which everybody else wants."""
    body = body_of(
        CompletionRequest([UserMessage("x")], max_tokens=9),
        ChatOptions(model="m", max_tokens_field="max_completion_tokens"),
    )
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body


def test_nothing_is_sent_that_was_not_said() -> None:
    """GPT-5 answers 400 to any temperature but 1, and Claude to any."""
    body = body_of(CompletionRequest([UserMessage("x")]), ChatOptions(model="m"))
    assert set(body) == {"model", "messages", "stream", "stream_options"}


def test_what_was_said_is_sent() -> None:
    """Under the names of the API; other fields as they are."""
    request = CompletionRequest(
        [UserMessage("x")],
        temperature=0.0,
        top_p=0.0,
        stop=("END",),
        seed=0,
        reasoning_effort="high",
        verbosity="low",
    )
    body = body_of(request, ChatOptions(model="m", seed=1, extra={"logit_bias": {"5": -1}}))
    del body["model"], body["messages"], body["stream"], body["stream_options"]
    assert body == {
        "temperature": 0.0,
        "top_p": 0.0,
        "stop": ["END"],
        "seed": 0,
        "reasoning_effort": "high",
        "verbosity": "low",
        "logit_bias": {"5": -1},
    }


def test_a_schema_that_is_no_json_is_refused() -> None:
    """A slip of a tool's author, not of the provider."""
    broken: Any = {"type": object()}
    request = CompletionRequest([], tools=(ToolDefinition("x", "", broken),))
    with pytest.raises(NotImplementedError, match="not JSON"):
        encode_request(request, ChatOptions(model="m"))


def test_encoding_is_done_by_msgspec_alone() -> None:
    """The bytes decode to the same with another parser."""
    body = encode_request(CompletionRequest([UserMessage("\u2028\x00")]), ChatOptions(model="m"))
    assert json.loads(body) == msgspec.json.decode(body)


@pytest.mark.parametrize(
    ("schema", "keys", "said"),
    [
        (
            {"type": "object", "properties": {"$top": {"type": "integer"}, "path": {}}},
            {"type": "object", "properties": {"path": {}}},
            ': {"$top":{"type":"integer"}}',
        ),
        (
            {"type": "object", "properties": {"x" * 65: {}}, "required": ["x" * 65]},
            {"type": "object", "properties": {}, "required": []},
            f'{{}}}}\nOf these it needs: ["{"x" * 65}"]',
        ),
        ({"type": "object", "properties": {"a.b-c": {}}}, None, "List."),
        ({"type": "object"}, None, "List."),
    ],
)
def test_claude_behind_a_gateway_is_told_of_odd_arguments(
    schema: dict[str, Any], keys: dict[str, Any] | None, said: str
) -> None:
    """It would refuse their names; other models are shown them as they are."""
    request = CompletionRequest([UserMessage("Hi")], tools=(ToolDefinition("l", "List.", schema),))
    for model, shown in (("anthropic/claude-x", keys or schema), ("gpt-5", schema)):
        body = json.loads(encode_request(request, ChatOptions(model=model)))
        check_request("chat", body)
        function = body["tools"][0]["function"]
        assert function["parameters"] == shown
        assert function["description"].endswith(said if shown is keys else "List.")
