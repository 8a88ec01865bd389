"""Encodes a CompletionRequest for Anthropic's Messages.

Rules:

1. Every request asks for a stream: only a stream stops when the connection is closed.
2. Optional fields are only sent if they were asked for. A limit is required; it includes thoughts.
3. Consecutive messages of the user's side become one message, with the results of calls first, as
   the API requires. An answer in several pieces becomes one message as well.
4. Arguments that a model wrote are sent back unchanged. If they are not a JSON object, they are
   sent as a text under a single key. A name that the API refuses is sent as the most similar one
   that it accepts.
5. Thoughts with their signatures are sent back, in their place, to the model that they came from. A
   thought with a missing signature is left out.
6. Marks for the provider's cache are put after the tools, the system prompt and the last two turns
   of the user's side, so that the whole beginning is read at a tenth of its price. A user's own
   ``cache_control`` sets the form of these marks, such as for an hour, but adds no mark.
7. Anything but text is refused. Arguments of tools whose names the API refuses are described in
   words.

Source: https://platform.claude.com/docs/en/api/messages,
https://platform.claude.com/docs/en/build-with-claude/prompt-caching,
https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking and
https://platform.claude.com/docs/en/build-with-claude/effort (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, assert_never, cast, final

import attrs
import msgspec

from agentpool._errors import BadRequestError
from agentpool._manifest.request_settings import thinking_budget
from agentpool._messages import (
    ANSWER_TOKENS,
    AssistantMessage,
    ChatMessage,
    CompletionRequest,
    Json,
    ProviderPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.drivers.wire._answer_form import anthropic_format, told_form
from agentpool.drivers.wire._attachments import MessagesFile, messages_blocks
from agentpool.drivers.wire._body import encode_body
from agentpool.drivers.wire._call_ids import MESSAGES_IDS, CallIds
from agentpool.drivers.wire._claude_thinking import claude_effort, claude_thinking
from agentpool.drivers.wire._property_keys import with_legal_keys
from agentpool.drivers.wire._provider_parts import (
    UNSIGNED,
    Origin,
    Piece,
    in_order,
    valid_arguments,
)
from agentpool.drivers.wire._text_only import checked_text
from agentpool.drivers.wire._tool_names import legal_name

MAX_TEMPERATURE: Final = 1.0
"""The highest temperature of this API. Ours goes up to 2.0; higher values are sent as 1.0."""

EPHEMERAL: Final[Mapping[str, Json]] = {"type": "ephemeral"}
"""The cache mark: the provider keeps everything before it for five minutes."""

MARKED_TURNS: Final = 2
"""How many turns of the user's side are marked: the newest is written to the cache, the one before
is read from it. With tools and system prompt this makes four marks, the most that the API
accepts."""


class _Text(msgspec.Struct, frozen=True, tag_field="type", tag="text", omit_defaults=True):
    text: str
    cache_control: Mapping[str, Json] | None = None


class _ToolUse(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class _ToolResult(
    msgspec.Struct, frozen=True, tag_field="type", tag="tool_result", omit_defaults=True
):
    tool_use_id: str
    content: str | list[_Text | MessagesFile] = ""
    is_error: bool = False
    cache_control: Mapping[str, Json] | None = None


_Block: TypeAlias = _Text | _ToolUse | _ToolResult | MessagesFile | msgspec.Raw


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: list[_Block]


class _Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    description: str
    input_schema: Mapping[str, object]
    cache_control: Mapping[str, Json] | None = None


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    messages: list[_Message]
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: tuple[str, ...] = ()
    system: str | tuple[_Text, ...] = ""
    tools: tuple[_Tool, ...] = ()
    thinking: Mapping[str, Json] | None = None
    output_config: Mapping[str, Json] | None = None
    # Last, and never the default, so that it is always written.
    stream: bool | None = None


@final
@attrs.frozen(kw_only=True)
class MessageOptions:
    """The settings that a driver adds to a request."""

    model: str
    """The model to ask, unless the request names one."""
    max_output_tokens: int | None = None
    """The most tokens that the model can write. ``None``: unknown."""
    cache: bool = True
    """Whether the provider may cache the request, so that the next one costs less."""
    provider: str = ""
    """The provider and model, to find the parts that came from there."""
    extra: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    """Other fields of the body, sent unchanged."""

    @property
    def mark(self) -> Mapping[str, Json] | None:
        """The cache mark to use: the user's, or the usual one. ``None``: the cache is off.

        The API accepts at most four marks, and marks for an hour only before those for five
        minutes: a user's mark in addition to ours would be one too many, and would follow shorter
            ones.
        """
        if not self.cache:
            return None
        own = self.extra.get("cache_control")
        return own if isinstance(own, Mapping) else EPHEMERAL


def encode_request(request: CompletionRequest, options: MessageOptions) -> bytes:
    """Encode *request* as JSON.

    Raises:
        BadRequestError: If it has a field that the API does not know, such as a seed.
    """
    _refuse_unknown(request)
    # A block of white space alone is refused.
    form, system = request.answer_form, request.system if request.system.strip() else ""
    limit = _max_tokens(request, options)
    config = _output_config(request, options)
    if form is not None and "format" not in config:
        system = f"{system}\n\n{told_form(form)}".strip()
    temperature, model = request.temperature, request.model or options.model
    tools = tuple(
        _Tool(t.name, t.description, t.input_schema) for t in map(with_legal_keys, request.tools)
    )
    extra = {key: one for key, one in options.extra.items() if key not in _MERGED}
    mark, origin = options.mark, Origin(options.provider, model)
    if mark is not None:
        extra.pop("cache_control", None)  # its form is that of each of our marks
    thinking = claude_thinking(
        model, request.reasoning_effort, options.extra.get("thinking"), limit
    )
    if thinking is not None and thinking.get("type") == "enabled":
        thinking = thinking if _begins_with_thoughts(request.messages, origin) else None
    return encode_body(
        _Request(
            model=model,
            messages=_to_wire(request.messages, origin, options),
            max_tokens=limit,
            temperature=None if temperature is None else min(temperature, MAX_TEMPERATURE),
            top_p=request.top_p,
            stop_sequences=request.stop,
            system=(_Text(system, mark),) if system and mark is not None else system,
            tools=(*tools[:-1], _marked(tools[-1], mark)) if tools else tools,
            thinking=thinking,
            output_config=config or None,
            stream=True,
        ),
        extra,
    )


_MERGED: Final = frozenset({"thinking", "output_config"})
"""Fields that both a user and this wire may set, so they are merged."""


def _output_config(request: CompletionRequest, options: MessageOptions) -> dict[str, Json]:
    """Return the answer's form, the effort, and the user's own fields, merged."""
    own = options.extra.get("output_config")
    config = dict(own) if isinstance(own, Mapping) else {}
    form = None if request.answer_form is None else anthropic_format(request.answer_form)
    config.update(form or {})
    effort = claude_effort(request.model or options.model, request.reasoning_effort)
    if effort is not None:
        config["effort"] = effort
    return config


def _refuse_unknown(request: CompletionRequest) -> None:
    for name in ("seed", "verbosity"):
        if getattr(request, name) is not None:
            msg = f"the Messages API has no {name}; leave model.{name} out"
            raise BadRequestError(msg)


def _max_tokens(request: CompletionRequest, options: MessageOptions) -> int:
    """Return the limit, which the API requires. It includes thoughts.

    Raises:
        BadRequestError: If thoughts could take the whole limit, which the API refuses.
    """
    budget = thinking_budget(options.extra)
    known = request.max_tokens, options.max_output_tokens, ANSWER_TOKENS + budget
    limit = next(one for one in known if one is not None)
    if limit <= budget:
        msg = (
            f"max_tokens ({limit}) must be more than options.thinking.budget_tokens ({budget}), "
            "as thoughts are a part of the answer; increase model.max_tokens, or lower the budget"
        )
        raise BadRequestError(msg)
    return limit


def _begins_with_thoughts(messages: Sequence[ChatMessage], origin: Origin) -> bool:
    """Return whether the current loop of calls, if any, began with this model's thoughts.

    With a budget for thoughts, the API refuses a loop that another model (in a fallback) began.
    Source: Anthropic's page on extended thinking, "toggling thinking modes" (2026-11).
    """
    first: AssistantMessage | None = None
    for message in reversed(messages):
        if isinstance(message, UserMessage):
            break
        if isinstance(message, AssistantMessage):
            first = message
    if first is None or not first.tool_calls:
        return True
    thoughts = (one for one in origin.parts_of(first) if one.kind in _THOUGHTS)
    return any(not (one.text_at or one.call_at or _is_unsigned(one)) for one in thoughts)


_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})


def _to_wire(
    messages: Sequence[ChatMessage], origin: Origin, options: MessageOptions
) -> list[_Message]:
    wired: list[_Message] = []
    ids = CallIds(MESSAGES_IDS)
    for message in messages:
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        if not wired or wired[-1].role != role:
            wired.append(_Message(role, []))
        wired[-1].content.extend(_blocks_of(message, origin, ids))
    # An answer without text or calls has no block, and an empty message is refused.
    sent = [_results_first(message) for message in wired if message.content]
    if options.mark is not None:
        _mark_turns(sent, options.mark)
    return sent


def _blocks_of(message: ChatMessage, origin: Origin, ids: CallIds) -> list[_Block]:
    match message:
        case UserMessage(text=text, attachments=attachments):
            # The API's advice is to show first and to ask then.
            shown = messages_blocks(attachments)
            is_silent = bool(shown) and not text.strip()
            return [*shown] if is_silent else [*shown, _Text(checked_text(text))]
        case ToolMessage(call_id=call_id, content=content, is_error=is_error):
            told = checked_text(content)
            return [_ToolResult(ids.of_result(call_id), _with_files(told, message), is_error)]
        case AssistantMessage():
            parts = [one for one in origin.parts_of(message) if not _is_unsigned(one)]
            blocks = (_block_of(piece, ids) for piece in in_order(message, tuple(parts)))
            return [block for block in blocks if block is not None]
        case _:
            assert_never(message)


def _is_unsigned(part: ProviderPart) -> bool:
    """Return whether *part* is a thought whose signature is missing.

    The answer was cut, or a gateway lost the signature: the API would refuse the whole request.
    Servers other than Anthropic's do not sign, and DeepSeek's wants such thoughts back.
    """
    if part.kind != "thinking":
        return part.kind == UNSIGNED
    signs = "claude" in part.model.lower() or part.provider.endswith(".anthropic.com")
    return signs and '"signature":' not in part.data


def _with_files(text: str, message: ToolMessage) -> str | list[_Text | MessagesFile]:
    if not message.attachments:
        return text
    told = [_Text(text)] if text.strip() else []  # one of white space alone is refused
    return [*told, *messages_blocks(message.attachments)]


def _block_of(piece: Piece, ids: CallIds) -> _Block | None:
    match piece:
        case str():
            # White space alone is refused.
            return _Text(piece) if piece.strip() else None
        case ToolCall():
            arguments = msgspec.Raw(valid_arguments(piece).encode())
            return _ToolUse(ids.of_call(piece.call_id), legal_name(piece.name), arguments)
        case ProviderPart():
            return msgspec.Raw(piece.data.encode())
        case _:
            assert_never(piece)


def _results_first(message: _Message) -> _Message:
    if message.role == "user":
        message.content.sort(key=lambda block: not isinstance(block, _ToolResult))
    return message


def _mark_turns(messages: Sequence[_Message], mark: Mapping[str, Json]) -> None:
    """Mark the newest user turns for the provider's cache."""
    turns = [message for message in messages if message.role == "user"]
    for turn in turns[-MARKED_TURNS:]:
        # The user's side has nothing else.
        last = cast("_Text | _ToolResult | MessagesFile", turn.content[-1])
        turn.content[-1] = msgspec.structs.replace(last, cache_control=mark)


def _marked(tool: _Tool, mark: Mapping[str, Json] | None) -> _Tool:
    return msgspec.structs.replace(tool, cache_control=mark)
