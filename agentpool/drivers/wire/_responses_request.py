"""Encodes a CompletionRequest for OpenAI's Responses.

Rules:

1. The provider stores nothing: the whole conversation is sent each time, and encrypted reasoning is
   requested, so that it can be sent back.
2. Items are sent back without the ids that the server gave them. The server would look for an item
   with that id, which it has not stored, and some servers refuse their own ids (hermes-agent#10788,
   oh-my-pi#284). OpenAI's own client requires an id for reasoning, but the API does not.
3. Reasoning comes before the item that it led to, in the original order.
4. Tools and the form of the answer are strict if their schemas allow it, and explicitly not strict
   otherwise: the API's default would refuse a schema with an optional key.
5. Optional fields are only sent if they were asked for. Fields that the API does not know are
   refused.
6. Anything but text is refused.

Source: https://platform.openai.com/docs/api-reference/responses/create,
https://platform.openai.com/docs/guides/reasoning and
https://platform.openai.com/docs/guides/migrate-to-responses (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, assert_never, cast, final

import attrs
import msgspec

from agentpool._errors import BadRequestError
from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    CompletionRequest,
    Json,
    ProviderPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._answer_form import is_strict_schema, openai_format
from agentpool.drivers.wire._attachments import responses_parts
from agentpool.drivers.wire._body import encode_body
from agentpool.drivers.wire._call_ids import RESPONSES_IDS, CallIds
from agentpool.drivers.wire._commentary import label_in
from agentpool.drivers.wire._provider_parts import Origin, in_order, valid_arguments
from agentpool.drivers.wire._text_only import checked_text
from agentpool.drivers.wire._tool_names import legal_name

ENCRYPTED: Final = "reasoning.encrypted_content"
"""The field to request, so that reasoning can be sent back."""


class _Said(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    role: str
    content: str | list[Mapping[str, Json]]
    phase: str | msgspec.UnsetType = msgspec.UNSET


class _Call(msgspec.Struct, frozen=True, tag_field="type", tag="function_call"):
    call_id: str
    name: str
    arguments: str


class _Result(msgspec.Struct, frozen=True, tag_field="type", tag="function_call_output"):
    call_id: str
    output: str | list[Mapping[str, Json]]


class _Tool(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    name: str
    description: str
    parameters: Mapping[str, object]
    strict: bool


_Item: TypeAlias = _Said | _Call | _Result | msgspec.Raw


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    input: list[_Item]
    include: tuple[str, ...]
    store: bool | None = None
    instructions: str = ""
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: Mapping[str, Json] | None = None
    text: Mapping[str, Json] | None = None
    tools: tuple[_Tool, ...] = ()
    # Last, and never the default, so that it is always written.
    stream: bool | None = None


@final
@attrs.frozen(kw_only=True)
class ResponsesOptions:
    """The settings that a driver adds to a request."""

    model: str
    """The model to ask, unless the request names one."""
    provider: str = ""
    """The provider and model, to find the parts that came from there."""
    extra: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    """Other fields of the body, sent unchanged."""


def encode_request(
    request: CompletionRequest, options: ResponsesOptions, stale: frozenset[str] = frozenset()
) -> bytes:
    """Encode *request* as JSON.

    Args:
        request: The request to encode.
        options: The driver's settings.
        stale: The data of parts that the provider can no longer read; they are left out.

    Raises:
        BadRequestError: If it has a field that the API does not know, such as a seed.
    """
    _refuse_unknown(request)
    model = request.model or options.model
    origin, ids = Origin(options.provider, model), CallIds(RESPONSES_IDS)
    items = (
        item for message in request.messages for item in _items_of(message, origin, ids, stale)
    )
    extra = {key: one for key, one in options.extra.items() if key not in _MERGED}
    return encode_body(
        _Request(
            model=model,
            input=list(items),
            include=_include(options),
            store=False,
            instructions=request.system,
            max_output_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            reasoning=_reasoning(request, options),
            text=_text(request, options),
            tools=tuple(map(_tool_to_wire, request.tools)),
            stream=True,
        ),
        extra,
    )


_MERGED: Final = frozenset({"include", "reasoning", "text"})
"""Fields that both a user and this wire may set, so they are merged."""


def takes(request: CompletionRequest) -> bool:
    """Return whether the API supports every field of *request*."""
    return not request.stop and request.seed is None


def _refuse_unknown(request: CompletionRequest) -> None:
    if not takes(request):
        name = "stop" if request.stop else "seed"
        msg = f'the Responses API has no {name}; leave model.{name} out, or write api = "chat"'
        raise BadRequestError(msg)


def _include(options: ResponsesOptions) -> tuple[str, ...]:
    own = options.extra.get("include") or ()
    texts = () if isinstance(own, str) or not isinstance(own, Sequence) else own
    named = tuple(one for one in texts if isinstance(one, str))
    if not isinstance(own, Sequence) or len(named) != len(own):
        msg = f"model.options.include must be a list of texts, got {own!r}"
        raise BadRequestError(msg)
    return (ENCRYPTED, *(one for one in named if one != ENCRYPTED))


def _own(options: ResponsesOptions, key: str) -> dict[str, Json]:
    own = options.extra.get(key) or {}
    if not isinstance(own, Mapping):
        msg = f"model.options.{key} must be a table, got {own!r}"
        raise BadRequestError(msg)
    return dict(own)


def _reasoning(request: CompletionRequest, options: ResponsesOptions) -> Mapping[str, Json] | None:
    found = _own(options, "reasoning")
    if request.reasoning_effort is not None:
        found["effort"] = request.reasoning_effort
    return found or None


def _text(request: CompletionRequest, options: ResponsesOptions) -> Mapping[str, Json] | None:
    found = _own(options, "text")
    if request.verbosity is not None:
        found["verbosity"] = request.verbosity
    if request.answer_form is not None:
        wrapped = openai_format(request.answer_form, is_openai=True)
        named = cast("Mapping[str, Json]", wrapped["json_schema"])
        found["format"] = {"type": "json_schema", **named}
    return found or None


def _items_of(
    message: ChatMessage, origin: Origin, ids: CallIds, stale: frozenset[str]
) -> Iterator[_Item]:
    match message:
        case UserMessage(text=text):
            yield _Said("user", _with_files(checked_text(text), message))
        case ToolMessage(call_id=call_id, content=content):
            yield _Result(ids.of_result(call_id), _with_files(checked_text(content), message))
        case AssistantMessage():
            parts = origin.parts_of(message) if message.parts else ()
            fresh = tuple(part for part in parts if part.data not in stale)
            phase = ""
            for piece in in_order(message, fresh):
                label = label_in(piece) if isinstance(piece, ProviderPart) else None
                if label is None:
                    yield _item_of(piece, ids, phase)
                else:
                    phase = label
        case _:
            assert_never(message)


def _with_files(text: str, message: UserMessage | ToolMessage) -> str | list[Mapping[str, Json]]:
    return responses_parts(text, message.attachments) if message.attachments else text


def _item_of(piece: str | ToolCall | ProviderPart, ids: CallIds, phase: str) -> _Item:
    match piece:
        case str():
            return _Said("assistant", piece, phase or msgspec.UNSET)
        case ToolCall():
            name = legal_name(piece.name)
            return _Call(ids.of_call(piece.call_id), name, valid_arguments(piece))
        case ProviderPart():
            return msgspec.Raw(piece.data.encode())
        case _:
            assert_never(piece)


def _tool_to_wire(tool: ToolDefinition) -> _Tool:
    schema = tool.input_schema
    return _Tool(tool.name, tool.description, schema, strict=is_strict_schema(cast("Json", schema)))
