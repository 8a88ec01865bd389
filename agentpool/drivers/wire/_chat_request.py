"""Encodes a CompletionRequest for Chat Completions.

Rules:

1. Every request asks for a stream, and for the usage at its end: only a stream stops when the
   connection is closed, and without usage no budget could count.
2. Optional fields are only sent if they were asked for.
3. Parts that the provider wants back are sent back under the provider's names for them.
4. Ids of calls are unique, and in a form that the server accepts. Arguments are always JSON, even
   if a model wrote something else.
5. Images and documents are put beside the user's text; those of tools come after the results.
   Anything else that is not text is refused.

Source: https://platform.openai.com/docs/api-reference/chat/create (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final, assert_never, cast, final

import attrs
import msgspec

from agentpool._manifest.model import MaxTokensField
from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    CompletionRequest,
    Json,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._answer_form import Told, openai_format, told_form
from agentpool.drivers.wire._attachments import chat_parts
from agentpool.drivers.wire._body import encode_body
from agentpool.drivers.wire._call_ids import CHAT_IDS, CallIds, IdForm
from agentpool.drivers.wire._property_keys import with_legal_keys
from agentpool.drivers.wire._provider_parts import Origin, valid_arguments
from agentpool.drivers.wire._text_only import checked_text
from agentpool.drivers.wire._tool_names import legal_name


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    function: _Function
    type: str = "function"
    extra_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[msgspec.Raw] | None
    tool_calls: tuple[_Call, ...] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reasoning: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reasoning_details: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    extra_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Tool(msgspec.Struct, frozen=True):
    function: Mapping[str, object]
    type: str = "function"


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_Message]
    stream_options: Mapping[str, bool] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: str | None = None
    verbosity: str | None = None
    tools: tuple[_Tool, ...] = ()
    response_format: Mapping[str, Json] | None = None
    seed: int | None = None
    random_seed: int | None = None
    cache_prompt: bool | None = None
    # Last, and never the default, so that it is always written.
    stream: bool | None = None


@final
@attrs.frozen(kw_only=True)
class ChatOptions:
    """The settings that a driver adds to a request."""

    model: str
    """The model to ask, unless the request names one."""
    is_openai: bool = False
    """Whether the server is OpenAI itself, which enforces strict forms exactly."""
    max_tokens_field: MaxTokensField = "max_tokens"
    """The name of the field for the answer's limit: OpenAI's newer models refuse the older name,
    which every other server wants."""
    extra: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    """Other fields of the body, sent unchanged."""
    response_format: Mapping[str, Json] | None = None
    """The form that the answer must have. ``None``: any form."""
    seed: int | None = None
    """The seed for random choices, if the request sets none. ``None``: a new one each time."""
    cache_prompt: bool | None = None
    """llama.cpp's field: whether to reuse work on an equal beginning. ``None``: the field is not
    sent."""
    provider: str = ""
    """The provider and model, to find the parts that came from there."""
    call_ids: IdForm = CHAT_IDS
    """The form of call ids that the server accepts."""
    has_schemas: bool = True
    """Whether the server accepts a schema for the answer. If not, the schema is described in words,
    and the request asks for JSON of any kind."""
    told: Told = "never"
    """When to describe the form of an answer in words only, because the server refuses it."""
    is_closed: bool = False
    """Whether the server refuses unknown fields, ``stream_options`` and ``seed`` among them. Such a
    server sends usage without being asked."""
    no_thought: str | None = None
    """If the server requires thoughts: what is sent for an answer without thoughts, which came from
    another model or was cut off. ``None``: the server does not require thoughts."""
    needs_signatures: bool = False
    """Whether the first call of each answer must have Google's signature. A call of a different
    model gets the signature that Google documents for this case."""
    has_files: bool = True
    """Whether a PDF document is sent as a file, as for OpenAI. If not, it is sent as a document."""
    needs_answers: bool = False
    """Whether the server refuses a user message right after the results of calls."""


def encode_request(request: CompletionRequest, options: ChatOptions) -> bytes:
    """Encode *request* as JSON.

    The time grows with the conversation: 7 ms for 10,000 messages. The whole conversation must be
    sent each time anyway.
    """
    told, form = _form_of(request, options)
    messages = [_Message("system", told)] if told else []
    seed = options.seed if request.seed is None else request.seed
    model = request.model or options.model
    origin, ids = Origin(options.provider, model), CallIds(options.call_ids)
    is_newer = options.max_tokens_field == "max_completion_tokens"
    for message in _messages_of(request, origin, ids, has_files=options.has_files):
        if options.needs_answers and messages and message.role == "user":
            messages += [_BRIDGE] if messages[-1].role == "tool" else []
        if options.no_thought is not None and message.role == "assistant":
            message = _with_thought(message, options.no_thought)  # noqa: PLW2901  # the same
        if options.needs_signatures and message.tool_calls:
            message = _signed(message, message.tool_calls)  # noqa: PLW2901  # the same
        messages.append(message)
    return encode_body(
        _Request(
            model=model,
            messages=messages,
            max_tokens=None if is_newer else request.max_tokens,
            max_completion_tokens=request.max_tokens if is_newer else None,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            reasoning_effort=request.reasoning_effort,
            verbosity=request.verbosity,
            tools=tuple(map(_tool_to_wire, _shown_tools(request, options))),
            response_format=form,
            seed=None if options.is_closed else seed,
            random_seed=seed if options.is_closed else None,
            cache_prompt=options.cache_prompt,
            stream=True,
            stream_options=None if options.is_closed else {"include_usage": True},
        ),
        options.extra,
    )


_THOUGHTLESS: Final = (msgspec.UNSET, msgspec.Raw(b'""'))


def _with_thought(message: _Message, no_thought: str) -> _Message:
    if message.reasoning_content not in _THOUGHTLESS:
        return message
    told = msgspec.Raw(msgspec.json.encode(no_thought))
    return msgspec.structs.replace(message, reasoning_content=told)


_FOREIGN_CALL: Final = msgspec.Raw(
    b'{"google":{"thought_signature":"skip_thought_signature_validator"}}'
)
"""The signature for calls that Gemini did not make. Source:
https://ai.google.dev/gemini-api/docs/thought-signatures, vercel/ai#15550 (2026-11)."""


def _signed(message: _Message, calls: Sequence[_Call]) -> _Message:
    if any(call.extra_content is not msgspec.UNSET for call in calls):
        return message
    first = msgspec.structs.replace(calls[0], extra_content=_FOREIGN_CALL)
    return msgspec.structs.replace(message, tool_calls=(first, *calls[1:]))


_BRIDGE: Final = _Message("assistant", "Ok.")
"""The text put between the results of calls and the user's words where one is needed."""


def _form_of(
    request: CompletionRequest, options: ChatOptions
) -> tuple[str, Mapping[str, Json] | None]:
    """Return the system prompt and the ``response_format``."""
    if options.response_format is not None or request.answer_form is None:
        return request.system, options.response_format
    is_told = options.told == "always" or (options.told == "beside_tools" and request.tools)
    if options.has_schemas and not is_told:
        return request.system, openai_format(request.answer_form, is_openai=options.is_openai)
    told = f"{request.system}\n\n{told_form(request.answer_form)}".strip()
    # With tools the answer may be a call, which JSON alone would rule out at some servers.
    return told, None if request.tools or is_told else {"type": "json_object"}


def _messages_of(
    request: CompletionRequest, origin: Origin, ids: CallIds, *, has_files: bool
) -> Iterator[_Message]:
    """Yield the messages. Attachments of tool results follow the last result.

    A result can only be text here, and nothing may come between the results of one answer.
    """
    returned: list[ToolMessage] = []
    for message in request.messages:
        if returned and not isinstance(message, ToolMessage):
            yield _returned(returned, has_files=has_files)
            returned = []
        yield _to_wire(message, origin, ids, has_files=has_files)
        if isinstance(message, ToolMessage) and message.attachments:
            returned.append(message)
    if returned:
        yield _returned(returned, has_files=has_files)


def _returned(results: Sequence[ToolMessage], *, has_files: bool) -> _Message:
    names = ", ".join(result.name for result in results)
    attachments = [one for result in results for one in result.attachments]
    text = f"What the tools returned as files: {names}"
    return _Message("user", chat_parts(text, attachments, has_files=has_files))


def _to_wire(message: ChatMessage, origin: Origin, ids: CallIds, *, has_files: bool) -> _Message:
    match message:
        case UserMessage(text=text, attachments=()):
            return _Message("user", checked_text(text))
        case UserMessage(text=text, attachments=attachments):
            parts = chat_parts(checked_text(text), attachments, has_files=has_files)
            return _Message("user", parts)
        case ToolMessage(content=content, call_id=call_id):
            return _Message("tool", checked_text(content), tool_call_id=ids.of_result(call_id))
        case AssistantMessage():
            return _answer_to_wire(message, origin, ids)
        case _:
            assert_never(message)


def _answer_to_wire(message: AssistantMessage, origin: Origin, ids: CallIds) -> _Message:
    text = message.text
    calls = [
        _Call(ids.of_call(call.call_id), _Function(legal_name(call.name), valid_arguments(call)))
        for call in message.tool_calls
    ]
    # Some servers insist on a text where there are no calls, and others on the key where
    # there are.
    content: str | list[msgspec.Raw] | None = text if text or not calls else None
    fields: dict[str, list[msgspec.Raw]] = {}
    for part in origin.parts_of(message) if message.parts else ():
        data = msgspec.Raw(part.data.encode())
        if part.kind in _MESSAGE_FIELDS:
            fields.setdefault(part.kind, []).append(data)
        elif part.kind == "call.extra_content" and part.call_at < len(calls):
            calls[part.call_at] = msgspec.structs.replace(calls[part.call_at], extra_content=data)
        elif part.kind == "content":
            said = [msgspec.Raw(msgspec.json.encode({"type": "text", "text": text}))]
            content = [data, *(said if text else [])]
    joined = {kind: _joined(pieces) for kind, pieces in fields.items()}
    return _Message("assistant", content, tuple(calls) or msgspec.UNSET, **joined)  # type: ignore[arg-type]  # names of fields


def _joined(pieces: Sequence[msgspec.Raw]) -> msgspec.Raw:
    """Join one field of the pieces of a continued answer: texts or lists."""
    if len(pieces) == 1:
        return pieces[0]
    values = [cast("object", msgspec.json.decode(piece)) for piece in pieces]
    # From the last one that is of another kind on, such as Google's: the newer one counts.
    for kind in (str, list):
        last = list(takewhile(lambda value: isinstance(value, kind), reversed(values)))  # noqa: B023  # used at once
        if last:
            parts = cast("list[str] | list[list[object]]", last[::-1])
            return msgspec.Raw(msgspec.json.encode(_in_a_row(parts)))
    return pieces[-1]


def _in_a_row(parts: list[str] | list[list[object]]) -> object:
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else [one for part in parts for one in part]


_MESSAGE_FIELDS: Final = frozenset(
    {"reasoning_content", "reasoning", "reasoning_details", "extra_content"}
)
"""Fields of a message that are sent beside its text."""


def _shown_tools(request: CompletionRequest, options: ChatOptions) -> Iterable[ToolDefinition]:
    # A gateway passes a schema on, and Anthropic behind it looks at the names in it.
    is_claude = "claude" in (request.model or options.model).lower()
    return map(with_legal_keys, request.tools) if is_claude else request.tools


def _tool_to_wire(tool: ToolDefinition) -> _Tool:
    return _Tool(
        {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    )
