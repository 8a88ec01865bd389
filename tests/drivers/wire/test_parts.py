"""What belongs to a provider goes back to it as it came, and to no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.abc import CompletionRequest
from agentpool.drivers import (
    AnswerForm,
    AssistantMessage,
    BadRequestError,
    ChatMessage,
    ProviderPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    open_openai,
)
from agentpool.drivers.wire._call_ids import (
    CHAT_IDS,
    MESSAGES_IDS,
    MISTRAL_IDS,
    RESPONSES_IDS,
    CallIds,
    IdForm,
)
from agentpool.drivers.wire._chat_request import ChatOptions
from agentpool.drivers.wire._chat_request import encode_request as encode_chat
from agentpool.drivers.wire._messages_answer import MessageAccumulator
from agentpool.drivers.wire._messages_request import MessageOptions
from agentpool.drivers.wire._messages_request import encode_request as encode_messages
from agentpool.drivers.wire._provider_parts import INVALID_ARGUMENTS, UNSIGNED, Origin
from agentpool.drivers.wire._responses_request import ResponsesOptions
from agentpool.drivers.wire._responses_request import encode_request as encode_responses
from agentpool.drivers.wire._sse import SseEvent
from tests.support.http_servers import DONE, always, event, open_loopback, whole
from tests.support.sdk_types import check_request

HERE: Final = Origin("api.example", "m")
CALLS: Final = (ToolCall("a", "add", "{}"), ToolCall("b", "add", "{}"))
RESULTS: Final = (ToolMessage("a", "add", "1"), ToolMessage("b", "add", "2"))


def part(kind: str, data: object, *, text_at: int = 0, call_at: int = 0) -> ProviderPart:
    """Return a part that came from here."""
    return HERE.part(kind, json.dumps(data).encode(), text_at=text_at, call_at=call_at)


def chat(*messages: Any, model: str = "m", provider: str = "api.example") -> Any:  # noqa: ANN401  # JSON
    """Return the messages that Chat Completions are sent."""
    options = ChatOptions(model=model, provider=provider)
    return json.loads(encode_chat(CompletionRequest(messages), options))["messages"]


def anthropic(*messages: Any, model: str = "m", provider: str = "api.example") -> Any:  # noqa: ANN401  # JSON
    """Return the messages that Messages are sent."""
    options = MessageOptions(model=model, provider=provider, cache=False)
    return json.loads(encode_messages(CompletionRequest(messages), options))["messages"]


def test_thoughts_go_back_beside_the_text() -> None:
    """Under the name that the server has for them, also where they are empty."""
    for kind, data in (
        ("reasoning_content", "hm"),
        ("reasoning_content", ""),
        ("reasoning", "hm"),
        ("reasoning_details", [{"type": "reasoning.text", "text": "hm", "signature": "s"}]),
        ("extra_content", {"google": {"thought_signature": "s"}}),
    ):
        (sent,) = chat(AssistantMessage("yes", parts=(part(kind, data),)))
        assert sent == {"role": "assistant", "content": "yes", kind: data}


def test_a_signature_goes_back_with_its_call() -> None:
    """Gemini refuses the next turn without."""
    signed = part("call.extra_content", {"google": {"thought_signature": "s"}}, call_at=1)
    (sent,) = chat(AssistantMessage("", CALLS, (signed,)))
    assert sent["content"] is None
    assert "extra_content" not in sent["tool_calls"][0]
    assert sent["tool_calls"][1]["extra_content"] == {"google": {"thought_signature": "s"}}


def test_a_thought_among_the_pieces_goes_back_among_them() -> None:
    """As Mistral has them."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    (sent,) = chat(AssistantMessage("yes", parts=(part("content", thought),)))
    assert sent["content"] == [thought, {"type": "text", "text": "yes"}]
    (sent,) = chat(AssistantMessage("", CALLS, (part("content", thought),)))
    assert sent["content"] == [thought]


def test_blocks_of_thoughts_keep_their_place() -> None:
    """Before, inside and after the text, and between and after the calls."""
    places = [(0, 0), (3, 0), (6, 0), (6, 1), (6, 2)]
    thoughts = tuple(
        part("thinking", {"type": "thinking", "n": n}, text_at=text_at, call_at=call_at)
        for n, (text_at, call_at) in enumerate(places)
    )
    (sent,) = anthropic(AssistantMessage("abcdef", CALLS, thoughts))
    shown = [one.get("n", one.get("text", one.get("id"))) for one in sent["content"]]
    assert shown == [0, "abc", 1, "def", 2, "a", 3, "b", 4]


@pytest.mark.parametrize(
    ("provider", "model", "kind", "is_sent"),
    [
        ("api.example", "m", "thinking", True),
        ("api.example", "m", UNSIGNED, False),
        ("api.example", "anthropic/claude-x", "thinking", False),
        ("eu.anthropic.com", "m", "thinking", False),
    ],
)
def test_a_thought_whose_signature_is_missing_is_left_out(
    provider: str, model: str, kind: str, *, is_sent: bool
) -> None:
    """It ends a conversation at Anthropic. DeepSeek's server signs nothing and wants it back."""
    thought = {"type": "thinking", "thinking": 'a "signature": b'}
    for data in (thought, {**thought, "signature": ""}):
        encoded = msgspec.json.encode(data)
        said = AssistantMessage("yes", parts=(Origin(provider, model).part(kind, encoded),))
        (message,) = anthropic(said, model=model, provider=provider)
        expected = is_sent or ("signature" in data and kind == "thinking")
        assert (data in message["content"]) is expected
        assert message["content"][-1] == {"type": "text", "text": "yes"}


@pytest.mark.parametrize(
    ("begins", "delta", "kind", "signature"),
    [
        ({"signature": ""}, None, UNSIGNED, None),
        ({"signature": ""}, "", "thinking", ""),
        ({"signature": ""}, "sig", "thinking", "sig"),
        ({}, None, "thinking", None),
        ({}, "", "thinking", ""),
        ({"signature": "sig"}, None, "thinking", "sig"),
    ],
)
def test_a_signature_that_was_announced_may_be_missing(
    begins: dict[str, str], delta: str | None, kind: str, signature: str | None
) -> None:
    """llama.cpp sends an empty one by itself; Anthropic's is announced by an empty one."""
    answer = MessageAccumulator(origin=HERE)
    block = {"type": "thinking", "thinking": "hm", **begins}
    events: list[dict[str, object]] = [{"type": "content_block_start", "content_block": block}]
    if delta is not None:
        signed = {"type": "signature_delta", "signature": delta}
        events.append({"type": "content_block_delta", "delta": signed})
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    for one in events:
        answer.feed(SseEvent(json.dumps(one)))
    (kept,) = answer.finish().parts
    assert (kept.kind, kept.text) == (kind, "hm")
    assert json.loads(kept.data).get("signature") == signature


async def test_two_servers_of_one_machine_are_two_places() -> None:
    """One of them would get what only the other understands."""
    thought = event({"choices": [{"delta": {"reasoning_content": "hm", "content": "yes"}}]})
    told = whole(thought + event({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + DONE)
    bodies: list[str] = []
    async with open_loopback(always(told)) as first, open_loopback(always(told)) as second:
        async with open_openai("m", base_url=first.url) as driver:
            answer = await driver.complete(CompletionRequest([UserMessage("q")]))
        said = AssistantMessage(answer.text, parts=answer.parts)
        for server in (first, second):
            async with open_openai("m", base_url=server.url) as driver:
                await driver.complete(CompletionRequest([UserMessage("q"), said]))
            bodies.append(server.requests[-1].decode())
    assert ["reasoning_content" in body for body in bodies] == [True, False]
    assert answer.parts[0].provider == first.url.split("/")[2]


@pytest.mark.parametrize("encode", [chat, anthropic])
@pytest.mark.parametrize("other", [{"model": "n"}, {"provider": "api.other"}])
def test_another_model_or_provider_gets_none(
    encode: Callable[..., Any], other: dict[str, str]
) -> None:
    """A signature of somebody else's is refused."""
    kinds = ("thinking", "reasoning_content", "extra_content", "call.extra_content")
    thoughts = tuple(part(kind, {"secret": "s"}) for kind in kinds)
    said = AssistantMessage("yes", CALLS, thoughts)
    assert "secret" in json.dumps(encode(said))
    assert encode(said, **other) == encode(AssistantMessage("yes", CALLS))


@pytest.mark.parametrize("form", [CHAT_IDS, RESPONSES_IDS, MISTRAL_IDS, MESSAGES_IDS])
@given(
    turns=st.lists(
        st.lists(st.sampled_from(["a", "call-1-0", "x" * 99, "", "ä:\ud800"]), max_size=3),
        max_size=4,
    )
)
def test_every_id_is_taken_and_none_is_there_twice(form: IdForm, turns: list[list[str]]) -> None:
    """A result has the id of its call, and the same conversation the same ids."""

    def sent() -> list[tuple[list[str], list[str]]]:
        ids = CallIds(form)
        return [
            ([ids.of_call(one) for one in turn], [ids.of_result(one) for one in turn])
            for turn in turns
        ]

    found = sent()
    assert found == sent()
    every = [one for calls, _ in found for one in calls]
    assert len(set(every)) == len(every)
    assert all(form.pattern.fullmatch(one) for one in every)
    for (calls, results), turn in zip(found, turns, strict=True):
        assert sorted(calls) == sorted(results)
        assert dict(zip(turn, calls, strict=True)).keys() == set(turn)


def test_ids_that_the_server_takes_go_as_they_are() -> None:
    """And its cache knows them again; the second of two that are the same is another."""
    turn = (AssistantMessage("", CALLS), *RESULTS)
    sent = chat(*turn, *turn)
    assert [call["id"] for call in sent[0]["tool_calls"]] == ["a", "b"]
    again = [call["id"] for call in sent[3]["tool_calls"]]
    assert len({"a", "b", *again}) == 4
    assert [one["tool_call_id"] for one in sent[4:]] == again


def test_a_result_of_no_call_has_an_id_as_well() -> None:
    """The server may say what it thinks of it."""
    (sent,) = chat(ToolMessage("x" * 99, "add", "1"))
    assert re.fullmatch("[a-z0-9]{24}", sent["tool_call_id"])


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", "", "nul", "[" * 5000])
def test_arguments_that_are_no_object_go_back_as_one(arguments: str) -> None:
    """Servers that read them would refuse the conversation for ever."""
    said = AssistantMessage("", (ToolCall("a", "add", arguments),))
    (sent,) = chat(said)
    text = sent["tool_calls"][0]["function"]["arguments"]
    assert json.loads(text) == {INVALID_ARGUMENTS: arguments}
    (sent,) = anthropic(said)
    assert sent["content"][0]["input"] == {INVALID_ARGUMENTS: arguments}


def test_who_said_it_is_told_as_well() -> None:
    """A conversation with a question in it."""
    assert chat(UserMessage("Hi"))[0] == {"role": "user", "content": "Hi"}


def responses(*messages: Any, **settings: Any) -> Any:  # noqa: ANN401  # JSON
    """Return the body that Responses are sent."""
    options = settings.pop("options", {})
    found = json.loads(
        encode_responses(
            CompletionRequest(messages, **settings),
            ResponsesOptions(model="m", provider="api.example", extra=options),
        )
    )
    check_request("responses", found)
    return found


def test_a_request_to_responses_says_everything() -> None:
    """Nothing is stored, and encrypted reasoning is asked for."""
    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    form = AnswerForm("score", closed)
    body = responses(
        UserMessage("Hi"),
        system="Be brief.",
        tools=(
            ToolDefinition("now", "Now.", closed),
            ToolDefinition("any", "", {"type": "object"}),
        ),
        max_tokens=9,
        temperature=0.0,
        top_p=0.5,
        reasoning_effort="low",
        verbosity="high",
        answer_form=form,
        options={"reasoning": {"summary": "auto"}, "text": {"x": 1}, "service_tier": "flex"},
    )
    assert body == {
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": "Hi"}],
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "stream": True,
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "reasoning": {"summary": "auto", "effort": "low"},
        "text": {
            "x": 1,
            "verbosity": "high",
            "format": {"type": "json_schema", "name": "score", "schema": closed, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "name": "now",
                "description": "Now.",
                "parameters": closed,
                "strict": True,
            },
            {
                "type": "function",
                "name": "any",
                "description": "",
                "parameters": {"type": "object"},
                "strict": False,
            },
        ],
        "service_tier": "flex",
    }
    assert set(responses(UserMessage("x"))) == {"model", "input", "include", "store", "stream"}


def test_a_schema_is_told_where_none_is_taken() -> None:
    """JSON of any kind is asked for, unless the answer may be a call."""
    form = AnswerForm("score", {"type": "object"})
    options = ChatOptions(model="m", has_schemas=False)
    request = CompletionRequest([UserMessage("Hi")], system="Be kind.", answer_form=form)
    body = json.loads(encode_chat(request, options))
    assert body["response_format"] == {"type": "json_object"}
    assert body["messages"][0]["content"].startswith("Be kind.\n\nUnless you call a tool")
    tools = (ToolDefinition("now", "Now.", {"type": "object"}),)
    request = CompletionRequest([UserMessage("Hi")], tools=tools, answer_form=form)
    assert "response_format" not in json.loads(encode_chat(request, options))


def test_words_do_not_follow_results_where_they_must_not() -> None:
    """Something of the model's stands between them, and nowhere else."""
    options = ChatOptions(model="m", needs_answers=True)
    said: list[ChatMessage] = [UserMessage("go"), AssistantMessage("", CALLS)]
    said += [*RESULTS, UserMessage("stop")]
    body = json.loads(encode_chat(CompletionRequest(said), options))
    roles = [one["role"] for one in body["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


def test_what_is_included_is_merged_with_ours() -> None:
    """A user's own word must not take back what the next turn needs."""
    both = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    for own in (both[1:], both, tuple(both), [], None):
        body = responses(UserMessage("Hi"), options={"include": own})
        assert body["include"] == (both if own else both[:1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"include": "x"}, "include must be a list of texts, got 'x'"),
        ({"include": [1]}, r"include must be a list of texts, got \[1\]"),
        ({"include": {"a": 1}}, "include must be a list of texts, got {'a': 1}"),
        ({"reasoning": "high"}, "reasoning must be a table, got 'high'"),
        ({"text": 1}, "text must be a table, got 1"),
    ],
)
def test_options_of_another_type_are_refused(options: Any, text: str) -> None:  # noqa: ANN401  # JSON
    """They were left out without a word."""
    with pytest.raises(BadRequestError, match=f"model.options.{text}"):
        responses(UserMessage("Hi"), options=options)
