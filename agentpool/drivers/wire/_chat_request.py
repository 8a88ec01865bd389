"""A request in OpenAI's Chat Completions: from our values to bytes.

Rules:

1. It always asks for a stream, and for the usage at its end: only a stream stops when the
   connection is closed, and without usage no budget could count.
2. Nothing optional is sent that nobody said.
3. What is no text is refused.

Source: https://platform.openai.com/docs/api-reference/chat/create (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never, final

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
from agentpool.drivers.wire._answer_form import openai_format
from agentpool.drivers.wire._body import encode_body
from agentpool.drivers.wire._text_only import checked_text


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    id: str
    function: _Function
    type: str = "function"


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str
    content: str | None = None
    tool_calls: tuple[_Call, ...] = ()
    tool_call_id: str = ""


class _Tool(msgspec.Struct, frozen=True):
    function: Mapping[str, object]
    type: str = "function"


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_Message]
    stream_options: Mapping[str, bool]
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
    cache_prompt: bool | None = None
    # Last, and never the default, so that it is always written.
    stream: bool | None = None


@final
@attrs.frozen(kw_only=True)
class ChatOptions:
    """What a driver adds to a request."""

    model: str
    """The model to ask, unless the request names one."""
    is_openai: bool = False
    """Whether it is OpenAI itself, which keeps strict forms to the letter."""
    max_tokens_field: MaxTokensField = "max_tokens"
    """What the limit of an answer is called: the newer models of OpenAI refuse the older
    name, which every other server wants."""
    extra: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    """Other fields of the body, as they are."""
    response_format: Mapping[str, Json] | None = None
    """The form that the answer must have. ``None``: any."""
    seed: int | None = None
    """What chance starts from where the request does not say. ``None``: new each time."""
    cache_prompt: bool | None = None
    """llama.cpp's: whether to reuse work on an equal beginning. ``None``: not said."""


def encode_request(request: CompletionRequest, options: ChatOptions) -> bytes:
    """Return the JSON that asks a provider for *request*.

    The time it takes grows with the conversation: 7 ms for 10,000 messages. A provider
    is sent the whole conversation each time, so its bytes are moved anyway.
    """
    system = [_Message("system", request.system)] if request.system else []
    is_newer = options.max_tokens_field == "max_completion_tokens"
    return encode_body(
        _Request(
            model=request.model or options.model,
            messages=system + [_to_wire(message) for message in request.messages],
            max_tokens=None if is_newer else request.max_tokens,
            max_completion_tokens=request.max_tokens if is_newer else None,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            reasoning_effort=request.reasoning_effort,
            verbosity=request.verbosity,
            tools=tuple(map(_tool_to_wire, request.tools)),
            response_format=_response_format(request, options),
            seed=options.seed if request.seed is None else request.seed,
            cache_prompt=options.cache_prompt,
            stream=True,
            stream_options={"include_usage": True},
        ),
        options.extra,
    )


def _response_format(request: CompletionRequest, options: ChatOptions) -> Mapping[str, Json] | None:
    if options.response_format is not None or request.answer_form is None:
        return options.response_format
    return openai_format(request.answer_form, is_openai=options.is_openai)


def _to_wire(message: ChatMessage) -> _Message:
    match message:
        case UserMessage(text=text):
            return _Message("user", checked_text(text))
        case ToolMessage(content=content, call_id=call_id):
            return _Message("tool", checked_text(content), tool_call_id=call_id)
        case AssistantMessage(text=text, tool_calls=tool_calls):
            wired = tuple(
                _Call(one.call_id, _Function(one.name, one.arguments)) for one in tool_calls
            )
            # Some servers insist on a content where there are no calls.
            return _Message("assistant", text if text or not wired else None, wired)
        case _:
            assert_never(message)


def _tool_to_wire(tool: ToolDefinition) -> _Tool:
    return _Tool(
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input_schema,
        }
    )
