"""OpenAI Chat Completions: a request to bytes, and a stream of events to an answer.

Rules:

1. A request always asks for a stream, and for the usage at its end: only a stream stops
   when the connection is closed, and without usage no budget could count.
2. An answer is whole or it is an error. Text that ended before the model said why it
   stopped is never handed out as an answer (D-05).
3. Unknown fields are ignored; a known field of a wrong type is a `ProtocolError` that
   shows what came.
4. An ``error`` object ends the stream with the error that it stands for.
5. Pieces of one tool call belong together by their index. A piece without arguments
   changes nothing; an index beyond the bound is refused, so nothing is allocated for it.
6. Tool calls make the answer `TOOL_USE`, also where the provider says ``stop``.
7. A call without an id gets one, so that its result can name it.
8. What is no text is refused, in a request and in an answer.

Source: https://platform.openai.com/docs/api-reference/chat/create and
https://platform.openai.com/docs/api-reference/chat-streaming (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, assert_never, cast, final

import attrs
import msgspec

from agentpool._errors import BadRequestError, NetworkError, ProtocolError
from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    Completion,
    CompletionRequest,
    FinishReason,
    Json,
    ToolDefinition,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentpool.drivers.wire._answer_form import openai_format
from agentpool.drivers.wire._failure import ErrorBody, failure_in_stream, shown
from agentpool.drivers.wire._growing import GrowingAnswer
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._text_only import checked_text, refuse_media

DONE: Final = "[DONE]"
"""The data of the event that ends a stream."""


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
    temperature: float
    stream_options: Mapping[str, bool]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
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
    """Whether it is OpenAI itself: its newer models refuse ``max_tokens``, which every
    other server wants."""
    response_format: Mapping[str, Json] | None = None
    """The form that the answer must have. ``None``: any."""
    seed: int | None = None
    """What chance starts from. ``None``: something new each time."""
    cache_prompt: bool | None = None
    """llama.cpp's: whether to reuse work on an equal beginning. ``None``: not said."""


def encode_request(request: CompletionRequest, options: ChatOptions) -> bytes:
    """Return the JSON that asks a provider for *request*.

    The time it takes grows with the conversation: 7 ms for 10,000 messages. A provider
    is sent the whole conversation each time, so its bytes are moved anyway.
    """
    system = [_Message("system", request.system)] if request.system else []
    return _ENCODER.encode(
        _Request(
            model=request.model or options.model,
            messages=system + [_to_wire(message) for message in request.messages],
            max_tokens=None if options.is_openai else request.max_tokens,
            max_completion_tokens=request.max_tokens if options.is_openai else None,
            temperature=request.temperature,
            tools=tuple(map(_tool_to_wire, request.tools)),
            response_format=_response_format(request, options),
            seed=options.seed,
            cache_prompt=options.cache_prompt,
            stream=True,
            stream_options={"include_usage": True},
        )
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


def _plain(value: object) -> object:
    # Schemas may be read-only mappings and sequences, which msgspec does not know.
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    msg = f"not JSON: {type(value).__name__}"
    raise NotImplementedError(msg)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain)


class _FunctionPiece(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPiece(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionPiece | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallPiece] | None = None
    # OpenAI's, and that of gateways to models that draw.
    audio: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _AnswerDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: ErrorBody | str | None = None


_DECODER: Final = msgspec.json.Decoder(_Chunk)

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
}


@final
@attrs.define(eq=False, kw_only=True)
class ChatAccumulator:
    """Puts an answer together from the events of its stream."""

    call_id_prefix: str = "call"
    """What the ids of calls without one begin with; unlike in every other answer."""
    secret: str = attrs.field(default="", repr=False)
    """Redacted in every error."""
    _answer: GrowingAnswer = attrs.field(init=False)
    _finish: str | None = attrs.field(init=False, default=None)
    _usage: Usage | None = attrs.field(init=False, default=None)
    _model: str | None = attrs.field(init=False, default=None)
    _done: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing."""
        self._answer = GrowingAnswer(self.call_id_prefix)

    @property
    def done(self) -> bool:
        """Whether the stream has said that nothing more comes."""
        return self._done

    def feed(self, event: SseEvent) -> list[str]:
        """Take the next event and return the pieces of text in it.

        Raises:
            DriverError: If the event is an error of the provider's.
            ProtocolError: If it is nothing that this wire knows, or too much.
        """
        if self._done:
            return []
        if event.data == DONE:
            self._done = True
            return []
        chunk = self._decode(event.data)
        if chunk.error is not None:
            raise failure_in_stream(chunk.error, secret=self.secret)
        if event.event == "error":
            raise failure_in_stream(event.data, secret=self.secret)
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = _usage_of(chunk.usage)
        return self._take_choices(chunk.choices or ())

    def finish(self) -> Completion:
        """Return the answer, after the last event.

        Raises:
            NetworkError: If the stream stopped in the middle of the answer.
            BadRequestError: If the provider withheld the rest of the answer.
            ProtocolError: If the answer contradicts itself.
        """
        if self._finish is None:
            if self._done:
                msg = f"the answer ended without a finish_reason, after {self._answer.so_far}"
                raise ProtocolError(msg)
            msg = f"the stream stopped in the middle of the answer, after {self._answer.so_far}"
            raise NetworkError(msg)
        if self._finish == "content_filter":
            msg = "the provider's content filter withheld the answer; change the request"
            raise BadRequestError(msg)
        tool_calls = self._answer.tool_calls(was_cut=self._finish == "length")
        reason = _FINISH.get(self._finish, FinishReason.END_TURN)
        if tool_calls and reason is FinishReason.END_TURN:
            reason = FinishReason.TOOL_USE
        if reason is FinishReason.TOOL_USE and not tool_calls:
            msg = f"the answer ended with {self._finish!r} and has no tool call"
            raise ProtocolError(msg)
        return Completion(self._answer.text, tool_calls, reason, self._usage, self._model)

    def _decode(self, data: str) -> _Chunk:
        try:
            return _DECODER.decode(data)
        except msgspec.DecodeError as exc:  # a ValidationError is one
            what = shown(str(exc), secret=self.secret)
            came = shown(data, secret=self.secret)
            msg = f"an event of the stream is no chat completion chunk ({what}): {came!r}"
            raise ProtocolError(msg) from None  # the cause would show what came in full

    def _take_choices(self, choices: Iterable[_Choice]) -> list[str]:
        texts: list[str] = []
        for choice in choices:
            if choice.index != 0:  # only one answer was asked for
                continue
            if choice.delta is not None:
                pieces = (choice.delta.content, choice.delta.refusal)
                texts += [piece for piece in pieces if piece]
                for piece in choice.delta.tool_calls or ():
                    self._take_call(piece)
                refuse_media("audio", choice.delta.audio)
                refuse_media("images", choice.delta.images)
            self._finish = choice.finish_reason or self._finish
        self._answer.add_texts(texts)
        return texts

    def _take_call(self, piece: _CallPiece) -> None:
        index = piece.index
        if index is None:
            # Some servers leave the index out: an id begins a call, its lack goes on.
            last = self._answer.last_index
            index = last + 1 if piece.id or last < 0 else last
        function = piece.function or _FunctionPiece()
        self._answer.add_call(
            index,
            call_id=piece.id or "",
            name=function.name or "",
            arguments=function.arguments or "",
        )


def _usage_of(usage: _Usage) -> Usage:
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    kept = usage.completion_tokens_details
    reasoning = kept and kept.reasoning_tokens
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=cached or 0,
        reasoning_tokens=reasoning or 0,
    )
