"""How a local model is asked, and what its answers stand for."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from agentpool.abc import Completion, CompletionRequest, ToolDefinition
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    FinishReason,
    ProtocolError,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._local_chat import read_answer, shape_prompt

ADD = ToolDefinition(
    "add",
    "Add two numbers.",
    {"type": "object", "properties": {"a": {"type": ["integer", "null"], "minimum": 0}}},
)
FIND = ToolDefinition(
    "find",
    "Find a place.",
    {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Point"}},
        "$defs": {"Point": {"type": "object", "properties": {"near": {"$ref": "#/$defs/Point"}}}},
    },
)
ASKED = UserMessage("What is 1 + 1?")
CALLED = AssistantMessage("Hm.", (ToolCall("c1", "add", '{"a":1}'),))
RETURNED = ToolMessage("c1", "add", "2")


def shape(
    *messages: ChatMessage, rounds: int | None = 1, tools: tuple[ToolDefinition, ...] = (ADD,)
) -> tuple[CompletionRequest, dict[str, Any] | None]:
    """Return what is sent, and the form of the answer."""
    request = CompletionRequest(messages, system="Be kind.", tools=tools)
    prompt = shape_prompt(request, tool_rounds=rounds)
    assert prompt.request.tools == ()
    form = json.loads(json.dumps(prompt.response_format))
    return prompt.request, cast("dict[str, Any] | None", form)


def test_without_tools_nothing_is_added() -> None:
    """A plain conversation goes out as it is."""
    request, form = shape(ASKED, AssistantMessage("2"), UserMessage("Sure?"), tools=())
    assert list(request.messages) == [ASKED, AssistantMessage("2"), UserMessage("Sure?")]
    assert request.system == "Be kind."
    assert form is None


def test_tools_are_listed_and_the_form_has_one_of_each() -> None:
    """A call of one of the tools, or words."""
    request, form = shape(ASKED, tools=(ADD, FIND))
    assert request.system.startswith("Be kind.\n\n")
    assert '"name":"add"' in request.system
    assert '"$ref":"#/$defs/Point"' in request.system
    assert form is not None
    schema = form["json_schema"]["schema"]
    names = [one["properties"].get("name", {}).get("const") for one in schema["anyOf"]]
    assert names == ["add", "find", None]
    assert schema["anyOf"][0]["properties"]["arguments"] == ADD.input_schema
    assert schema["anyOf"][2]["properties"] == {"answer": {"type": "string"}}
    assert all(one["additionalProperties"] is False for one in schema["anyOf"])


def test_definitions_move_to_the_root_under_their_tools_name() -> None:
    """A reference is looked up from there, and two tools may use one name."""
    _, form = shape(ASKED, tools=(FIND,))
    assert form is not None
    schema = form["json_schema"]["schema"]
    arguments = schema["anyOf"][0]["properties"]["arguments"]
    assert arguments["properties"]["at"] == {"$ref": "#/$defs/find.Point"}
    assert "$defs" not in arguments
    point = schema["$defs"]["find.Point"]
    assert point["properties"]["near"] == {"$ref": "#/$defs/find.Point"}
    assert "$defs" in FIND.input_schema, "the tool's own schema is left alone"


def test_after_its_rounds_the_model_is_asked_for_words() -> None:
    """With the question and what was returned in one text, and without the tools."""
    earlier = (UserMessage("Hi"), AssistantMessage("Hello"))
    request, form = shape(*earlier, ASKED, CALLED, RETURNED)
    assert form is None
    assert request.system == "Be kind."
    assert list(request.messages[:2]) == list(earlier)
    (asked,) = request.messages[2:]
    assert asked == UserMessage(
        "What is 1 + 1?\n\nThe tool add returned:\n2\n\n"
        "Answer with what the tool returned, in one sentence."
    )


def test_a_new_question_begins_new_rounds() -> None:
    """Also one that another agent asks in the middle of a run."""
    request, form = shape(ASKED, CALLED, RETURNED, UserMessage("And 2 + 2?"))
    assert form is not None
    assert list(request.messages) == [
        ASKED,
        AssistantMessage('Hm.\n{"name": "add", "arguments": {"a":1}}'),
        UserMessage("The tool add returned:\n2"),
        UserMessage("And 2 + 2?"),
    ]


def test_a_model_without_bound_goes_on_choosing() -> None:
    """Larger ones see for themselves that they have what they need."""
    _, form = shape(ASKED, CALLED, RETURNED, CALLED, RETURNED, rounds=None)
    assert form is not None


def test_a_conversation_that_nobody_began_has_no_rounds() -> None:
    """A context that lost its first message must not end in an IndexError."""
    _, form = shape(CALLED, RETURNED, rounds=1)
    assert form is not None


def read(text: str, finish: FinishReason = FinishReason.END_TURN) -> Completion:
    """Return what a model's *text* stands for."""
    return read_answer(Completion(text=text, finish_reason=finish), call_id="local-1")


def test_a_call_is_read_with_its_arguments_as_written() -> None:
    """Spaces and all: they are the model's words."""
    answer = read('{"name": "add", "arguments": { "a" : 1 }}')
    assert answer.tool_calls == (ToolCall("local-1", "add", '{ "a" : 1 }'),)
    assert answer.finish_reason is FinishReason.TOOL_USE
    assert answer.text == ""


def test_words_are_read() -> None:
    """Out of their JSON."""
    answer = read('{"answer": "It is \\"two\\"."}')
    assert (answer.text, answer.tool_calls) == ('It is "two".', ())
    assert answer.finish_reason is FinishReason.END_TURN


@pytest.mark.parametrize(
    "text",
    ["plain words", '{"name": 3}', "", '{"answer":' + "[" * 50_000],
    ids=["words", "a number", "nothing", "nested"],
)
def test_another_form_is_an_error(text: str) -> None:
    """A text that only looks like a call is none."""
    with pytest.raises(ProtocolError, match="did not keep to the form"):
        read(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"answer": "It is tw', "It is tw"),
        ('{\n "answer" : "a \\', "a "),
        ('{"answer": "a \\u00', "a "),
        ('{"answer": "a \\ud83d\\udc4', "a "),
        ('{"answer": "done"', "done"),
        ('{"answer": "use {x}', "use {x}"),
        ('{"answer": "', ""),
        ('{"ans', ""),
        ('{"answer": "a raw \n line break, not JSON', "a raw \n line break, not JSON"),
        ('{"answer": {"summary": "It is tw', '{"summary": "It is tw'),
        ('{"answer": [1, 2', "[1, 2"),
        ('{"answer":', ""),
        ('{"name": "', ""),
        ("", ""),
    ],
)
def test_words_that_were_cut_say_so(text: str, expected: str) -> None:
    """What is there is kept, and its reason says that it is not all."""
    answer = read(text, FinishReason.MAX_TOKENS)
    assert (answer.text, answer.tool_calls) == (expected, ())
    assert answer.finish_reason is FinishReason.MAX_TOKENS


def test_an_answer_that_is_whole_at_the_last_token_is_whole() -> None:
    """The limit was reached, and nothing was cut."""
    said = read('{"answer": "done"}', FinishReason.MAX_TOKENS)
    assert (said.text, said.finish_reason) == ("done", FinishReason.END_TURN)
    called = read('{"name": "add"}', FinishReason.MAX_TOKENS)
    assert called.tool_calls == (ToolCall("local-1", "add", "{}"),)
    assert called.finish_reason is FinishReason.TOOL_USE


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ('{"name": "add", "arguments": {"a": 1', "add", '{"a": 1'),
        ('{"name": "add", "arguments":', "add", ""),
        ('{\n  "name": "add",\n  "arg', "add", ""),
        ('{"name": "add"', "add", ""),
        ('{"name": "ad', "ad", ""),
    ],
)
def test_a_call_that_was_cut_keeps_what_is_there(text: str, name: str, arguments: str) -> None:
    """Whoever runs it finds that they are not JSON; mended, they would say another thing."""
    answer = read(text, FinishReason.MAX_TOKENS)
    assert answer.tool_calls == (ToolCall("local-1", name, arguments),)
    assert answer.finish_reason is FinishReason.MAX_TOKENS
