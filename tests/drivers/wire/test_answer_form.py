"""How each wire asks for an answer of a form."""

from __future__ import annotations

import json
from typing import Annotated

import attrs
import msgspec
import pytest

from agentpool.abc import Completion, CompletionRequest, ToolDefinition
from agentpool.drivers import AnswerForm, FinishReason, UserMessage
from agentpool.drivers.wire import _messages_request
from agentpool.drivers.wire._chat_request import ChatOptions, encode_request
from agentpool.drivers.wire._local_chat import read_answer, shape_prompt
from agentpool.drivers.wire._messages_request import MessageOptions
from agentpool.tools._output import build_output

MESSAGES = MessageOptions(model="m", cache=False)


class Score(msgspec.Struct):
    """From 0 to 10."""

    points: Annotated[int, msgspec.Meta(ge=0, le=10)]
    words: list[str]


@attrs.frozen
class Loose:
    """One optional key, and any keys."""

    counts: dict[str, int]
    note: str = ""


class Part(msgspec.Struct):
    """A part of a part, or of the whole."""

    name: Annotated[str, msgspec.Meta(max_length=9)]
    above: Part | None


class Whole(msgspec.Struct):
    """All parts, from the smallest one on."""

    part: Part


class Knot(msgspec.Struct):
    """One with any keys, and the next one."""

    counts: dict[str, int]
    after: Knot | None


class Rope(msgspec.Struct):
    """Knots."""

    first: Knot


class Place(msgspec.Struct):
    """Where it is: two numbers, in this order."""

    at: tuple[float, float]


TOOL = ToolDefinition("now", "the time", {"type": "object", "properties": {}, "required": []})


def asking(kind: type, *tools: ToolDefinition) -> tuple[CompletionRequest, AnswerForm]:
    """Return a request for an answer of that type."""
    form = build_output(kind).form
    return CompletionRequest([UserMessage("Hi")], "Be kind.", tools, answer_form=form), form


def test_openai_is_asked_for_a_schema() -> None:
    """To the letter where every key is required, else shown; others know no ``strict``."""
    request, form = asking(Score)
    body = json.loads(encode_request(request, ChatOptions(model="m", is_openai=True)))
    named = {"name": "Score", "schema": form.schema}
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {**named, "strict": True},
    }
    body = json.loads(encode_request(request, ChatOptions(model="m")))
    assert body["response_format"] == {"type": "json_schema", "json_schema": named}
    loose, _ = asking(Loose)
    body = json.loads(encode_request(loose, ChatOptions(model="m", is_openai=True)))
    assert "strict" not in body["response_format"]["json_schema"]
    own = ChatOptions(model="m", response_format={"type": "json_object"})
    assert json.loads(encode_request(request, own))["response_format"] == {"type": "json_object"}


def test_anthropic_is_asked_for_what_it_can_keep() -> None:
    """Bounds are left out, since it refuses them; whoever asked checks them."""
    request, _ = asking(Score, TOOL)
    body = json.loads(_messages_request.encode_request(request, MESSAGES))
    assert body["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "description": "From 0 to 10.",
                "type": "object",
                "properties": {
                    "points": {"type": "integer"},
                    "words": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["points", "words"],
                "additionalProperties": False,
            },
        }
    }
    assert (body["system"], [tool["name"] for tool in body["tools"]]) == ("Be kind.", ["now"])


def test_anthropic_is_told_what_it_cannot_keep() -> None:
    """An object with any keys is refused as a form, and can still be described."""
    request, form = asking(Loose)
    body = json.loads(_messages_request.encode_request(request, MESSAGES))
    assert "output_config" not in body
    assert body["system"].startswith("Be kind.\n\nUnless you call a tool, answer with JSON")
    assert json.loads(body["system"].splitlines()[-1]) == form.schema


def test_unions_and_named_types_are_kept_by_both() -> None:
    """What is inside of them is looked at as well, and its bounds are left out.

    A type that has itself in it is kept by OpenAI alone: Anthropic refuses it.
    """
    request, form = asking(Whole)
    body = json.loads(encode_request(request, ChatOptions(model="m", is_openai=True)))
    assert body["response_format"]["json_schema"]["strict"] is True
    assert "output_config" not in json.loads(_messages_request.encode_request(request, MESSAGES))
    text = json.dumps(form.schema)
    schema = json.loads(text.replace('[{"$ref": "#/$defs/Part"}', '[{"type": "string"}'))
    once = CompletionRequest([UserMessage("Hi")], answer_form=AnswerForm("whole", schema))
    body = json.loads(_messages_request.encode_request(once, MESSAGES))
    kept = body["output_config"]["format"]["schema"]["$defs"]["Part"]["properties"]
    assert kept["name"] == {"type": "string"}
    assert {"type": "null"} in kept["above"]["anyOf"]


def test_a_form_may_let_anything_into_a_list() -> None:
    """Whoever writes a schema by hand may write ``true`` for that."""
    schema = {
        "type": "object",
        "properties": {"all": {"type": "array", "items": True}},
        "required": ["all"],
        "additionalProperties": False,
    }
    request = CompletionRequest([UserMessage("Hi")], answer_form=AnswerForm("all", schema))
    body = json.loads(_messages_request.encode_request(request, MESSAGES))
    assert body["output_config"]["format"]["schema"] == schema


@pytest.mark.parametrize("kind", [Rope])
def test_what_neither_provider_knows_is_kept_by_neither(kind: type) -> None:
    """Any keys, also of a type that only stands below a name."""
    request, _ = asking(kind)
    body = json.loads(encode_request(request, ChatOptions(model="m", is_openai=True)))
    assert "strict" not in body["response_format"]["json_schema"]
    body = json.loads(_messages_request.encode_request(request, MESSAGES))
    assert "output_config" not in body


def test_a_local_model_without_tools_is_held_to_the_form_itself() -> None:
    """Its grammar is the schema; the text is the answer."""
    request, form = asking(Score)
    prompt = shape_prompt(request, tool_rounds=None)
    assert prompt.response_format is None
    body = json.loads(encode_request(prompt.request, ChatOptions(model="m")))
    assert body["response_format"]["json_schema"]["schema"] == form.schema


def test_a_local_model_with_tools_chooses_between_a_call_and_the_form() -> None:
    """The form stands where words would; what comes back is the form's own JSON."""
    request, form = asking(Score, TOOL)
    prompt = shape_prompt(request, tool_rounds=None)
    assert prompt.request.answer_form is None
    assert prompt.response_format is not None
    shape = json.loads(json.dumps(prompt.response_format))["json_schema"]["schema"]["anyOf"]
    assert shape[-1]["properties"]["answer"] == form.schema
    text = '{"answer": {"points": 3, "words": []}}'
    read = read_answer(Completion(text), call_id="c")
    assert json.loads(read.text) == {"points": 3, "words": []}
    assert read.finish_reason is FinishReason.END_TURN
    assert read_answer(Completion('{"answer": "hi"}'), call_id="c").text == "hi"
