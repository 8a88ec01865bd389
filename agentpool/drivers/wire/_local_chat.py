"""Asks a small local model: with tools as text, and answers in an enforced form.

A model of 135M parameters does not follow a format for tool calls by itself. So a grammar enforces
the format: if tools may be called, the answer must be JSON that is either one call, with arguments
that fit the tool's schema, or an answer in words.

Rules:

1. Without tools nothing is added: the conversation is sent unchanged.
2. With tools, the system prompt lists them, and ``response_format`` sets the answer's form.
3. ``tool_rounds`` limits how often in a row, since the last message to it, the model gets that
   choice. After that it is asked to say in words what the tools returned. A small model does not
   notice by itself that it has what it needs.
4. Calls of earlier rounds are shown in the same form as new ones are made.
5. If the request sets a form for the answer, the model must use that form instead of words. If no
   tools may be called, it is the only form allowed.
6. An answer that was cut never passes for a whole one: a cut call keeps its broken name or
   arguments, and a cut text or form is kept with `MAX_TOKENS`. Only the form of rule 2 around it is
   removed.

The texts were chosen by trial on SmolLM2-135M-Instruct: 6 of 8 first calls chose the right
tool, 8 of 8 were valid, 6 of 6 answers said what the tool had returned (2026-11).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never, cast, final

import attrs
import msgspec

from agentpool._errors import ProtocolError
from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    Completion,
    CompletionRequest,
    FinishReason,
    Json,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._failure import shown

_TOOLS_TEXT: Final = """\
You are provided with function signatures within <tools></tools> XML tags. \
You may call one function to assist with the user query:
<tools>
{tools}
</tools>
For each function call, return a json object with function name and arguments: \
{{"name": <function-name>, "arguments": <args-json-object>}}. \
To answer in words, return {{"answer": <text>}}."""

_RETURNED_TEXT: Final = """\
The tool {name} returned:
{content}"""

_ASK_TEXT: Final = """\
Answer with what the tool returned, in one sentence."""


@final
@attrs.frozen
class LocalPrompt:
    """The prompt to send, and the form of the answer."""

    request: CompletionRequest
    """The request with everything written as text, and without tools."""
    response_format: Mapping[str, Json] | None = None
    """The form of the answer. ``None``: words, or the form that the request sets."""


class _Turn(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    answer: msgspec.Raw = msgspec.Raw(b'""')


def shape_prompt(request: CompletionRequest, *, tool_rounds: int | None) -> LocalPrompt:
    """Turn *request* into a prompt for a local model.

    Args:
        request: The agent's request.
        tool_rounds: The limit of rule 3, at least 1. ``None``: no limit.
    """
    if not request.tools:
        return LocalPrompt(
            msgspec.structs.replace(request, messages=list(_plain(request.messages)))
        )
    rounds = _rounds_since_told(request.messages)
    if tool_rounds is not None and rounds >= tool_rounds:
        messages = _asking_for_words(request.messages)
        return LocalPrompt(msgspec.structs.replace(request, messages=messages, tools=()))
    listed = "\n".join(msgspec.json.encode(_listed(tool)).decode() for tool in request.tools)
    system = f"{request.system}\n\n{_TOOLS_TEXT.format(tools=listed)}".strip()
    shaped = msgspec.structs.replace(
        request, messages=list(_plain(request.messages)), system=system, tools=()
    )
    form = request.answer_form
    answer: Json = {"type": "string"} if form is None else cast("Json", form.schema)
    return LocalPrompt(
        msgspec.structs.replace(shaped, answer_form=None), _answer_form(request.tools, answer)
    )


def read_answer(completion: Completion, *, call_id: str) -> Completion:
    """Return the call or the text in an answer that has the form of rule 2.

    Raises:
        ProtocolError: If it has a different form, because the server did not keep to the schema.
    """
    try:
        turn = msgspec.json.decode(completion.text, type=_Turn)
    except (msgspec.DecodeError, RecursionError) as exc:
        if completion.finish_reason.is_cut:
            return _read_cut_answer(completion, call_id=call_id)
        msg = (
            f"the model did not keep to the form of its answer ({exc}): {shown(completion.text)!r}"
        )
        raise ProtocolError(msg) from exc
    if turn.name is not None:
        call = ToolCall(call_id, turn.name, bytes(turn.arguments).decode())
        return _with_call(completion, call, FinishReason.TOOL_USE)
    return msgspec.structs.replace(
        completion, text=_words(turn.answer), finish_reason=FinishReason.END_TURN
    )


def _words(answer: msgspec.Raw) -> str:
    text = bytes(answer).decode()
    # Of a form of its own, the answer is that JSON; else it is a text.
    return msgspec.json.decode(text, type=str) if text.startswith('"') else text


def _read_cut_answer(completion: Completion, *, call_id: str) -> Completion:
    if found := _CUT_CALL.match(completion.text):
        # Whoever runs it finds that its arguments are not JSON, even where there are none yet.
        cut = ToolCall(call_id, found["name"], found["arguments"] or "")
        return _with_call(completion, cut, FinishReason.MAX_TOKENS)
    found = _CUT_ANSWER.match(completion.text)
    return msgspec.structs.replace(completion, text=_cut_words(found["answer"]) if found else "")


_CUT_CALL: Final = re.compile(
    r'\s*\{\s*"name"\s*:\s*"(?P<name>[^"]+)(?:"\s*,\s*"arguments"\s*:\s*(?P<arguments>.*)\Z)?',
    re.DOTALL,
)
_CUT_ANSWER: Final = re.compile(r'\s*\{\s*"answer"\s*:\s*(?P<answer>.*)\Z', re.DOTALL)

# The longest escape in JSON is a surrogate pair: two times "\uXXXX", the last digit cut.
_LONGEST_CUT_ESCAPE: Final = 11


def _cut_words(answer: str) -> str:
    if not answer.startswith('"'):
        return answer  # of a form of its own
    text = answer[1:]
    # Shortened until it is no longer cut inside an escape, or after the closing quote.
    for cut in range(min(_LONGEST_CUT_ESCAPE, len(text)) + 1):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(f'"{text[: len(text) - cut]}"', type=str)
    return text  # JSON does not have it so, and it was paid for


def _with_call(completion: Completion, call: ToolCall, reason: FinishReason) -> Completion:
    return msgspec.structs.replace(completion, text="", tool_calls=(call,), finish_reason=reason)


def _plain(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    for message in messages:
        match message:
            case ToolMessage(name=name, content=content):
                yield UserMessage(_RETURNED_TEXT.format(name=name, content=content))
            case AssistantMessage(text=text, tool_calls=calls) if calls:
                made = [f'{{"name": "{one.name}", "arguments": {one.arguments}}}' for one in calls]
                yield AssistantMessage("\n".join([text, *made]).strip())
            case UserMessage() | AssistantMessage():
                yield message
            case _:
                assert_never(message)


def _asking_for_words(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    start = _last_told(messages)
    told = cast("UserMessage", messages[start])
    returned = [
        _RETURNED_TEXT.format(name=one.name, content=one.content)
        for one in messages[start + 1 :]
        if isinstance(one, ToolMessage)
    ]
    question = "\n\n".join([told.text, *returned, _ASK_TEXT])
    return [*_plain(messages[:start]), UserMessage(question)]


def _last_told(messages: Sequence[ChatMessage]) -> int:
    told = [i for i, one in enumerate(messages) if isinstance(one, UserMessage)]
    return told[-1] if told else -1


def _rounds_since_told(messages: Sequence[ChatMessage]) -> int:
    start = _last_told(messages)
    if start < 0:
        return 0  # a conversation without a question has nothing to answer
    return sum(
        isinstance(one, AssistantMessage) and bool(one.tool_calls) for one in messages[start + 1 :]
    )


def _listed(tool: ToolDefinition) -> Mapping[str, Json]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": _copied(cast("Json", tool.input_schema), prefix=None),
        },
    }


def _answer_form(tools: Sequence[ToolDefinition], answer: Json) -> Mapping[str, Json]:
    definitions: dict[str, Json] = {}
    forms: list[Json] = []

    def moved(schema: Json, name: str) -> Json:
        # "$ref" is resolved from the root, so the definitions of all schemas move there.
        prefix = f"{name}."
        copied = cast("dict[str, Json]", _copied(schema, prefix=prefix))
        own = cast("Mapping[str, Json]", copied.pop("$defs", {}))
        definitions.update({prefix + one: inner for one, inner in own.items()})
        return copied

    for tool in tools:
        arguments = moved(cast("Json", tool.input_schema), tool.name)
        forms.append(_object({"name": {"const": tool.name}, "arguments": arguments}))
    forms.append(_object({"answer": moved(answer, "answer.")}))
    schema: Json = {"anyOf": forms, **({"$defs": definitions} if definitions else {})}
    return {"type": "json_schema", "json_schema": {"name": "turn", "schema": schema}}


def _object(properties: Mapping[str, Json]) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _copied(schema: Json, *, prefix: str | None) -> Json:
    match schema:
        case Mapping():
            copied = {key: _copied(one, prefix=prefix) for key, one in schema.items()}
            reference = copied.get("$ref")
            if prefix is not None and isinstance(reference, str):
                copied["$ref"] = reference.replace("#/$defs/", f"#/$defs/{prefix}", 1)
            return copied
        case str():
            return schema
        case Sequence():
            return [_copied(one, prefix=prefix) for one in schema]
        case _:
            return schema
