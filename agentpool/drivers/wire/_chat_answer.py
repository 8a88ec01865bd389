"""An answer in OpenAI's Chat Completions: from the events of its stream to our values.

Rules:

1. An answer is whole or it is an error. Text that ended before the model said why it
   stopped is never handed out as an answer (D-05).
2. Unknown fields are ignored; a known field of a wrong type is a `ProtocolError` that
   shows what came.
3. An ``error`` object ends the stream with the error that it stands for.
4. Pieces of one tool call belong together by their index. A piece without arguments
   changes nothing; an index beyond the bound is refused, so nothing is allocated for it.
5. Tool calls make the answer `TOOL_USE`, also where the provider says ``stop``.
6. A call without an id gets one, so that its result can name it.
7. What is no text is refused.

Source: https://platform.openai.com/docs/api-reference/chat-streaming (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import BadRequestError, NetworkError, ProtocolError
from agentpool._messages import (
    Completion,
    FinishReason,
    Usage,
)
from agentpool.drivers.wire._failure import ErrorBody, failure_in_stream, shown
from agentpool.drivers.wire._growing import GrowingAnswer
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._text_only import refuse_media

DONE: Final = "[DONE]"
"""The data of the event that ends a stream."""


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
