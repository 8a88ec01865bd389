"""Anthropic Messages: what is sent. What a stream comes to is in test_golden."""

from __future__ import annotations

import json
import re
from collections import UserList
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from agentpool._loop.tokens import means_nothing
from agentpool.abc import CompletionRequest, ToolDefinition
from agentpool.drivers import (
    AssistantMessage,
    BadRequestError,
    ChatMessage,
    ProtocolError,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._messages_answer import MessageAccumulator
from agentpool.drivers.wire._messages_request import (
    MessageOptions,
    encode_request,
)
from agentpool.drivers.wire._provider_parts import INVALID_ARGUMENTS
from agentpool.drivers.wire._sse import SseEvent
from tests.support.keys import KEY
from tests.support.sdk_types import check_request

TOOL = ToolDefinition(
    "add",
    "Add.",
    MappingProxyType({"type": "object", "properties": {"a": {"enum": UserList("xy")}}}),
)


def body_of(*messages: ChatMessage, **settings: Any) -> dict[str, Any]:  # noqa: ANN401  # any setting
    """Return what is sent for *messages*, decoded."""
    request = CompletionRequest(messages, **settings)
    found: dict[str, Any] = json.loads(
        encode_request(request, MessageOptions(model="claude", cache=False))
    )
    check_request("messages", found)
    return found


def text(said: str) -> dict[str, str]:
    """Return a block of text."""
    return {"type": "text", "text": said}


def test_a_request_says_everything() -> None:
    """As the API's page has it."""
    assert body_of(
        UserMessage("Hi"), system="Be brief.", tools=(TOOL,), max_tokens=7, temperature=0.5
    ) == {
        "model": "claude",
        "messages": [{"role": "user", "content": [text("Hi")]}],
        "max_tokens": 7,
        "temperature": 0.5,
        "system": "Be brief.",
        "tools": [
            {
                "name": "add",
                "description": "Add.",
                "input_schema": {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}},
            }
        ],
        "stream": True,
    }


def test_what_is_not_there_is_not_said() -> None:
    """And the request's own model goes before the driver's; the upper end is 1.0 here."""
    body = body_of(UserMessage("Hi"), model="opus", temperature=2.0)
    assert (body["model"], body["temperature"]) == ("opus", 1.0)
    assert "system" not in body
    assert "tools" not in body
    assert set(body_of(UserMessage("Hi"))) == {"model", "messages", "max_tokens", "stream"}


def test_what_was_said_is_sent() -> None:
    """Under the names of the API."""
    body = body_of(UserMessage("Hi"), top_p=0.5, stop=("END",))
    assert (body["top_p"], body["stop_sequences"]) == (0.5, ["END"])


@pytest.mark.parametrize("setting", [{"seed": 1}, {"verbosity": "low"}])
def test_what_the_api_does_not_know_is_refused(setting: dict[str, Any]) -> None:
    """A setting that was left out without a word would seem to work."""
    (name,) = setting
    with pytest.raises(BadRequestError, match=f"has no {name}; leave model.{name} out"):
        body_of(UserMessage("Hi"), **setting)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 16_384),
        ({"max_output_tokens": 64_000}, 64_000),
        ({"extra": {"thinking": {"type": "enabled", "budget_tokens": 4096}}}, 20_480),
        ({"extra": {"thinking": {"type": "adaptive"}}}, 16_384),
    ],
)
def test_the_api_wants_a_limit(options: dict[str, Any], most: int) -> None:
    """What is known of the model, or else room for a long answer besides its thoughts."""
    request = CompletionRequest([UserMessage("Hi")])
    body = json.loads(encode_request(request, MessageOptions(model="claude", **options)))
    assert body["max_tokens"] == most
    assert body.get("thinking") == options.get("extra", {}).get("thinking")


@pytest.mark.parametrize("limit", [4096, None])
def test_thoughts_may_not_take_all_of_an_answer(limit: int | None) -> None:
    """Neither of the request's limit nor of the model's: the provider refuses both."""
    request = CompletionRequest([UserMessage("Hi")], max_tokens=limit)
    extra: Any = {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    options = MessageOptions(model="claude", max_output_tokens=4096, extra=extra)
    with pytest.raises(BadRequestError, match=r"max_tokens \(4096\) must be more than options\.th"):
        encode_request(request, options)


def test_calls_and_results_are_blocks() -> None:
    """Results come first in the message after their calls, and arguments as they came."""
    calls = (ToolCall("a", "add", '{"a": 1.0}'), ToolCall("b", "now", "{}"))
    body = body_of(
        UserMessage("go"),
        AssistantMessage("Well.", calls),
        ToolMessage("a", "add", "2"),
        UserMessage("by the way"),
        ToolMessage("b", "now", "broken", is_error=True),
    )
    assert body["messages"] == [
        {"role": "user", "content": [text("go")]},
        {
            "role": "assistant",
            "content": [
                text("Well."),
                {"type": "tool_use", "id": "a", "name": "add", "input": {"a": 1.0}},
                {"type": "tool_use", "id": "b", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "2"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": "broken",
                    "is_error": True,
                },
                text("by the way"),
            ],
        },
    ]


def test_what_one_side_says_in_a_row_is_one_message() -> None:
    """Also across an answer that was empty: the API refuses a message without content."""
    body = body_of(
        UserMessage("a"),
        UserMessage("b"),
        AssistantMessage("one"),
        AssistantMessage("two"),
        UserMessage("c"),
        AssistantMessage("  "),
    )
    assert [(m["role"], [b["text"] for b in m["content"]]) for m in body["messages"]] == [
        ("user", ["a", "b"]),
        ("assistant", ["one", "two"]),
        ("user", ["c"]),
    ]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("arguments", ['{"path', "[1]", "", "7", "[" * 100_000])
def test_arguments_that_are_no_object_go_back_as_text(arguments: str) -> None:
    """The model sees what it wrote."""
    body = body_of(UserMessage("go"), AssistantMessage("", (ToolCall("a", "add", arguments),)))
    (block,) = body["messages"][1]["content"]
    assert block["input"] == {INVALID_ARGUMENTS: arguments}


def test_ids_of_another_provider_are_made_legal() -> None:
    """The same way in the call and in its result."""
    calls = (ToolCall("functions.add:0", "add", "{}"),)
    body = body_of(
        UserMessage("go"),
        AssistantMessage("", calls),
        ToolMessage("functions.add:0", "add", ""),
    )
    sent = body["messages"][1]["content"][0]["id"]
    assert re.fullmatch("[a-zA-Z0-9_-]+", sent)
    assert body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": sent}]


def test_ids_that_differ_stay_different() -> None:
    """Or the result of one call would be told as that of another. Legal ones go as they are."""
    legal = ["a_b", "toolu_01-x", "hex", "call-1-0"]
    strange = ["a.b", "a:b", "a b", "", "ä", "\ud800", "a_b\n", "hex-612e62", "hex-"]
    calls = tuple(ToolCall(one, "add", "{}") for one in legal + strange)
    body = body_of(UserMessage("go"), AssistantMessage("", calls))
    sent = [block["id"] for block in body["messages"][1]["content"]]
    assert sent[: len(legal)] == legal
    assert len(set(sent)) == len(calls)
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", one) for one in sent)


def test_a_schema_that_is_no_json_is_refused() -> None:
    """Before anything is sent."""
    tool = ToolDefinition("x", "X.", {"type": object()})
    with pytest.raises(NotImplementedError, match="not JSON: object"):
        body_of(UserMessage("Hi"), tools=(tool,))


def test_arguments_that_come_whole_are_taken() -> None:
    """Some servers give them with the beginning of the block, and nothing follows."""
    accumulator = MessageAccumulator()
    block = {"type": "tool_use", "id": "a", "name": "add", "input": {"a": 1}}
    for event in (
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ):
        accumulator.feed(SseEvent(json.dumps(event)))
    assert json.loads(accumulator.finish().tool_calls[0].arguments) == {"a": 1}


def test_nothing_counts_after_the_end() -> None:
    """A server may send what it likes there; it is not part of the answer."""
    accumulator = MessageAccumulator()
    accumulator.feed(SseEvent('{"type":"message_stop"}'))
    assert accumulator.done
    assert accumulator.feed(SseEvent("{not json")) == []


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -5, "output_tokens": 2},
        {"input_tokens": 5, "output_tokens": -2},
        {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": -4},
        {"input_tokens": 5, "output_tokens": 2, "cache_creation_input_tokens": -4},
        {"input_tokens": -5, "output_tokens": 2, "cache_read_input_tokens": 9},
    ],
)
def test_a_count_below_zero_is_not_taken_for_zero(usage: dict[str, int]) -> None:
    """Unknown is never zero; who counts what answers took is told of it."""
    accumulator = MessageAccumulator()
    begin = {"type": "message_start", "message": {"content": [], "usage": usage}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    for event in (begin, end, {"type": "message_stop"}):
        accumulator.feed(SseEvent(json.dumps(event)))
    found = accumulator.finish().usage
    assert found is None or means_nothing(found)


def test_the_name_of_an_event_counts_where_its_data_has_none() -> None:
    """They are the same in every stream that is right."""
    accumulator = MessageAccumulator()
    data = '{"index":0,"content_block":{"type":"text","text":"Hi"}}'
    assert accumulator.feed(SseEvent(data, "content_block_start")) == ["Hi"]


def test_what_came_is_shown_without_the_key() -> None:
    """An error is for a person to read, and may be logged."""
    accumulator = MessageAccumulator(secret=KEY)
    with pytest.raises(ProtocolError) as caught:
        accumulator.feed(SseEvent(KEY + "x" * 5000))
    assert KEY not in str(caught.value) + repr(accumulator)
    assert "[secret]" in str(caught.value)


# --- thinking, effort, and the provider's cache


def sent(request: CompletionRequest, **options: Any) -> dict[str, Any]:  # noqa: ANN401  # any option
    """Return what is sent, decoded and held against the official client's types."""
    found: dict[str, Any] = json.loads(
        encode_request(request, MessageOptions(model="claude", **options))
    )
    check_request("messages", found)
    return found


def test_an_effort_lets_the_model_think() -> None:
    """As much as it finds right; its thoughts are summarized for whoever watches."""
    body = sent(CompletionRequest([UserMessage("Hi")], reasoning_effort="high"))
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"}
    body = sent(CompletionRequest([UserMessage("Hi")], reasoning_effort="none"))
    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


@pytest.mark.parametrize(
    ("model", "effort", "budget"),
    [
        ("claude-sonnet-4-5", "minimal", 1024),
        ("claude-haiku-4-5-20251001", "low", 1024),
        ("anthropic/claude-opus-4.1", "medium", 4096),
        ("claude-3-7-sonnet-latest", "high", 16_384),
        ("claude-sonnet-4-20250514", "max", 32_768),
    ],
)
def test_an_effort_is_a_budget_for_older_models(model: str, effort: str, budget: int) -> None:
    """They refuse adaptive thinking, and the effort itself."""
    asked = CompletionRequest([UserMessage("Hi")], reasoning_effort=effort, model=model)
    body = sent(asked, max_output_tokens=128_000)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in body


@pytest.mark.parametrize(("effort", "word"), [("low", "low"), ("high", "high"), ("max", "high")])
def test_one_older_model_takes_an_effort_as_well(effort: str, word: str) -> None:
    """Up to the highest that it knows."""
    model = "claude-opus-4-5-20251101"
    body = sent(CompletionRequest([UserMessage("Hi")], reasoning_effort=effort, model=model))
    assert body["output_config"] == {"effort": word}
    assert body["thinking"]["type"] == "enabled"


@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-sonnet-5", "claude-opus-4.7"])
def test_newer_models_think_adaptively(model: str) -> None:
    """And are told the effort as it is."""
    body = sent(CompletionRequest([UserMessage("Hi")], reasoning_effort="max", model=model))
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "max"}


def test_a_budget_leaves_half_of_the_answer() -> None:
    """Thoughts are a part of it; where too little is left for them the model does not think."""
    asked = CompletionRequest([UserMessage("Hi")], reasoning_effort="high", model="claude-opus-4-1")
    assert sent(asked)["thinking"] == {"type": "enabled", "budget_tokens": 8192}
    body = sent(msgspec.structs.replace(asked, max_tokens=3000))
    assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (1500, 3000)
    body = sent(msgspec.structs.replace(asked, max_tokens=2000))
    assert ("thinking" in body, "output_config" in body) == (False, False)
    none = sent(msgspec.structs.replace(asked, reasoning_effort="none"))
    assert none["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    "model", ["claude-3-5-sonnet-latest", "anthropic/claude-3.5-haiku", "claude-3-opus-20240229",
              "claude-instant-1.2", "anthropic.claude-v2:1", "claude-2.1"],
)  # fmt: skip
def test_a_model_that_cannot_think_is_asked_for_no_thoughts(model: str) -> None:
    """An effort is refused before anything is paid; that there shall be none is nothing to send."""
    asked = CompletionRequest([UserMessage("Hi")], reasoning_effort="none", model=model)
    assert not {"thinking", "output_config"} & sent(asked).keys()
    with pytest.raises(BadRequestError, match=f"{model} cannot think.*'low'; leave it out, or"):
        sent(msgspec.structs.replace(asked, reasoning_effort="low"))


def test_a_conversation_that_begins_with_the_models_calls_is_looked_at_from_there() -> None:
    """Without a user's message before them they are the loop: begun elsewhere, without thoughts."""
    calls = AssistantMessage("", (ToolCall("a", "look", "{}"),))
    messages: list[ChatMessage] = [calls, ToolMessage("a", "look", "nothing")]
    model = "claude-opus-4-1"
    asked = CompletionRequest(messages, reasoning_effort="high", model=model)
    assert "thinking" not in sent(asked)
    assert "thinking" in sent(msgspec.structs.replace(asked, messages=[UserMessage("Hi")]))


def test_an_effort_that_has_no_budget_is_refused() -> None:
    """Where it would be left out without a word."""
    asked = CompletionRequest([UserMessage("Hi")], reasoning_effort="big", model="claude-opus-4-1")
    with pytest.raises(BadRequestError, match="reasoning_effort 'big'; write one of: none, min"):
        sent(asked)


def test_a_users_own_thinking_goes_before() -> None:
    """Such as a budget, for models that know no effort."""
    own: dict[str, Any] = {"type": "enabled", "budget_tokens": 4096}
    extra = {"thinking": own, "output_config": {"task_budget": 1}, "service_tier": "auto"}
    request = CompletionRequest([UserMessage("Hi")], reasoning_effort="low")
    body = sent(request, extra=extra)
    assert body["thinking"] == own
    assert body["output_config"] == {"task_budget": 1, "effort": "low"}
    assert body["service_tier"] == "auto"


def test_the_beginning_is_kept_in_the_cache() -> None:
    """Behind the tools, the system prompt and the last two turns of the user's side."""
    calls = (ToolCall("a", "add", "{}"),)
    said: list[ChatMessage] = [
        UserMessage("one"),
        AssistantMessage("", calls),
        ToolMessage("a", "add", "2"),
        AssistantMessage("two"),
        UserMessage("three"),
    ]
    more = ToolDefinition("now", "Now.", {"type": "object", "properties": {}})
    body = sent(CompletionRequest(said, system="Be brief.", tools=(TOOL, more)))
    mark = {"type": "ephemeral"}
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, mark]
    assert body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": mark}]
    ends = [one["content"][-1].get("cache_control") for one in body["messages"]]
    assert ends == [None, None, mark, None, mark]
    assert "cache_control" not in json.dumps(
        sent(CompletionRequest(said, system="x", tools=(more,)), cache=False)
    )
