"""A request in Anthropic's Messages: from our values to bytes.

Rules:

1. It always asks for a stream: only a stream stops when the connection is closed.
2. Nothing optional is sent that nobody said. A limit must be said.
3. What the user's side says in a row is one message, with the results of calls first, as
   the API wants it. An answer in several pieces is one message as well.
4. Arguments that a model wrote are sent back as they came. Those that are no JSON object
   cannot be; they are sent as the text that they are, under one key.
5. What is no text is refused.

Source: https://platform.claude.com/docs/en/api/messages (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, assert_never, final

import attrs
import msgspec

from agentpool._errors import BadRequestError
from agentpool._messages import (
    ANSWER_TOKENS,
    AssistantMessage,
    ChatMessage,
    CompletionRequest,
    Json,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._answer_form import anthropic_format, told_form
from agentpool.drivers.wire._body import encode_body
from agentpool.drivers.wire._text_only import checked_text

MAX_TEMPERATURE: Final = 1.0
"""The upper end here; ours is 2.0, and what is above this end is sent as this end."""

INVALID_ARGUMENTS: Final = "arguments_that_are_no_object"
"""The key under which arguments go back that are no JSON object."""

# An id as the API takes it, and not as we make one.
_GOOD_ID: Final = re.compile(r"(?!hex-)[a-zA-Z0-9_-]+")


class _Text(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class _ToolUse(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class _ToolResult(
    msgspec.Struct, frozen=True, tag_field="type", tag="tool_result", omit_defaults=True
):
    tool_use_id: str
    content: str = ""
    is_error: bool = False


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: list[_Text | _ToolUse | _ToolResult]


class _Tool(msgspec.Struct, frozen=True):
    name: str
    description: str
    input_schema: Mapping[str, object]


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_Message]
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: tuple[str, ...] = ()
    system: str = ""
    tools: tuple[_Tool, ...] = ()
    output_config: Mapping[str, Json] | None = None
    # Last, and never the default, so that it is always written.
    stream: bool | None = None


@final
@attrs.frozen(kw_only=True)
class MessageOptions:
    """What a driver adds to a request."""

    model: str
    """The model to ask, unless the request names one."""
    answer_limit: int | None = None
    """The most tokens that the model may write. ``None``: unknown."""
    extra: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    """Other fields of the body, as they are."""


def encode_request(request: CompletionRequest, options: MessageOptions) -> bytes:
    """Return the JSON that asks the API for *request*.

    Raises:
        BadRequestError: If it has something that the API does not know, such as a seed.
    """
    _refuse_unknown(request)
    form, system = request.answer_form, request.system
    output_config = None if form is None else anthropic_format(form)
    if form is not None and output_config is None:
        system = f"{system}\n\n{told_form(form)}".strip()
    temperature = request.temperature
    return encode_body(
        _Request(
            model=request.model or options.model,
            messages=_to_wire(request.messages),
            max_tokens=_max_tokens(request, options),
            temperature=None if temperature is None else min(temperature, MAX_TEMPERATURE),
            top_p=request.top_p,
            stop_sequences=request.stop,
            system=system,
            tools=tuple(_Tool(t.name, t.description, t.input_schema) for t in request.tools),
            output_config=output_config,
            stream=True,
        ),
        options.extra,
    )


def _refuse_unknown(request: CompletionRequest) -> None:
    for name in ("seed", "verbosity"):
        if getattr(request, name) is not None:
            msg = f"the Messages API knows no {name}; leave model.{name} out"
            raise BadRequestError(msg)


def _max_tokens(request: CompletionRequest, options: MessageOptions) -> int:
    """Return the limit, which the API wants said. It covers what the model thinks."""
    if request.max_tokens is not None:
        return request.max_tokens
    if options.answer_limit is not None:
        return options.answer_limit
    thinking = options.extra.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return ANSWER_TOKENS + (budget if isinstance(budget, int) else 0)


def _to_wire(messages: Sequence[ChatMessage]) -> list[_Message]:
    wired: list[_Message] = []
    for message in messages:
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        if not wired or wired[-1].role != role:
            wired.append(_Message(role, []))
        wired[-1].content.extend(_blocks_of(message))
    # An answer without text or calls has no block, and an empty message is refused.
    return [_results_first(message) for message in wired if message.content]


def _blocks_of(message: ChatMessage) -> list[_Text | _ToolUse | _ToolResult]:
    match message:
        case UserMessage(text=text):
            return [_Text(checked_text(text))]
        case ToolMessage(call_id=call_id, content=content, is_error=is_error):
            return [_ToolResult(_legal(call_id), checked_text(content), is_error)]
        case AssistantMessage(text=text, tool_calls=tool_calls):
            calls = [_ToolUse(_legal(c.call_id), c.name, _arguments_of(c)) for c in tool_calls]
            # White space alone is refused as well.
            return [_Text(text), *calls] if text.strip() else list(calls)
        case _:
            assert_never(message)


def _results_first(message: _Message) -> _Message:
    message.content.sort(key=lambda block: not isinstance(block, _ToolResult))
    return message


def _legal(call_id: str) -> str:
    # A conversation may have begun with another provider, whose ids have dots and colons.
    # Two of them never become one, or a result would be that of another call.
    if _GOOD_ID.fullmatch(call_id):
        return call_id
    return f"hex-{call_id.encode(errors='surrogatepass').hex()}"


def _arguments_of(call: ToolCall) -> msgspec.Raw:
    try:
        _OBJECT.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return msgspec.Raw(msgspec.json.encode({INVALID_ARGUMENTS: call.arguments}))
    return msgspec.Raw(call.arguments.encode())


_OBJECT: Final = msgspec.json.Decoder(dict[str, object])
