"""OpenAI Chat Completions, both ways: what is sent, and what a stream comes to."""

from __future__ import annotations

import json
from collections import UserList
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from agentpool import _errors
from agentpool._errors import DriverError, ProtocolError
from agentpool._messages import (
    AssistantMessage,
    Completion,
    CompletionRequest,
    FinishReason,
    Json,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentpool.drivers.wire import _openai_chat
from agentpool.drivers.wire._openai_chat import ChatAccumulator, ChatOptions, encode_request
from agentpool.drivers.wire._sse import SseEvent, SseParser

KEY = "sk-very-secret"
GOLDEN = sorted((Path(__file__).parent / "openai").glob("*.sse"))


def read(stream: bytes, *, secret: str = "") -> tuple[Completion, list[str]]:
    """Return what *stream* comes to, and the pieces of text on the way."""
    accumulator = ChatAccumulator(call_id_prefix="call-9", secret=secret)
    texts = [text for event in SseParser().feed(stream) for text in accumulator.feed(event)]
    return accumulator.finish(), texts


def expected_of(golden: Path) -> dict[str, Any]:
    """Return what is written next to a recorded stream."""
    found: dict[str, Any] = json.loads(golden.with_suffix(".expected.json").read_text())
    return found


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_golden_streams(golden: Path) -> None:
    """Each recorded stream comes to the answer, or the error, that is written next to it."""
    expected = expected_of(golden)
    if "error" in expected:
        with pytest.raises(DriverError) as caught:
            read(golden.read_bytes())
        assert type(caught.value) is getattr(_errors, expected["error"])
        assert caught.value.retryable is expected["retryable"]
        assert expected["says"] in str(caught.value)
        return
    completion, texts = read(golden.read_bytes())
    usage = expected["usage"] and Usage(*expected["usage"])
    assert completion == Completion(
        text=expected["text"],
        tool_calls=tuple(ToolCall(*one) for one in expected["tool_calls"]),
        finish_reason=FinishReason[expected["finish"]],
        usage=usage,
        model=expected["model"],
    )
    assert "".join(texts) == expected["text"]
    assert all(texts)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_d05_a_stream_that_is_cut_is_never_a_whole_answer(golden: Path) -> None:
    """Cut at any event: an error, or everything that the model said."""
    expected = expected_of(golden)
    events = SseParser().feed(golden.read_bytes())
    for count in range(len(events)):
        accumulator = ChatAccumulator(call_id_prefix="call-9")
        try:
            for event in events[:count]:
                accumulator.feed(event)
            completion = accumulator.finish()
        except DriverError:
            continue
        assert completion.text == expected["text"]
        assert [[one.call_id, one.name, one.arguments] for one in completion.tool_calls] == (
            expected["tool_calls"]
        )


def test_d05_an_empty_piece_of_arguments_wipes_nothing() -> None:
    """It is in the recorded stream; here by name."""
    completion, _ = read((GOLDEN[0].parent / "parallel_calls.sse").read_bytes())
    assert completion.tool_calls[0].arguments == '{"city":"Paris"}'


def test_d05_arguments_that_are_no_json_stay_as_they_came() -> None:
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
    monkeypatch.setattr(_openai_chat, "MAX_ANSWER_CHARS", 10)
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
    assert "sk-very" not in said
    assert "***" in said
    assert len(said) < 1000
    assert caught.value.__cause__ is None
    assert "sk-very" not in repr(accumulator)


TOOL = ToolDefinition(
    "add",
    "Add.",
    MappingProxyType({"type": "object", "properties": {"a": {"enum": UserList("xy")}}}),
)


def body_of(request: CompletionRequest, options: ChatOptions) -> dict[str, Any]:
    """Return what is sent, decoded."""
    found: dict[str, Any] = json.loads(encode_request(request, options))
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
        ChatOptions(model="m", is_openai=True),
    )
    assert body["max_completion_tokens"] == 9
    assert "max_tokens" not in body


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
