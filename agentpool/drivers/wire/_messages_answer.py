"""An answer in Anthropic's Messages: from the events of its stream to our values.

Rules:

1. An answer is whole or it is an error. Text that ended before the model said why it
   stopped is never handed out as an answer (D-05).
2. Unknown events, blocks and fields are ignored; a known field of a wrong type is a
   `ProtocolError` that shows what came.
3. The blocks of an answer are counted together, so its first call may have index 1. A
   block of a kind that we did not ask for (a thought, a server's own tool) is passed over;
   an image is refused.
4. Input tokens count with those read from the cache and those written to it, since all of
   them were sent; the API reports the three apart.

Source: https://docs.claude.com/en/docs/build-with-claude/streaming and
https://docs.claude.com/en/api/handling-stop-reasons (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
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


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Start(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    source: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Start | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


_DECODER: Final = msgspec.json.Decoder(_Event)

_FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": FinishReason.END_TURN,
    "max_tokens": FinishReason.MAX_TOKENS,
    "model_context_window_exceeded": FinishReason.MAX_TOKENS,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "tool_use": FinishReason.TOOL_USE,
}


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class MessageAccumulator:
    """Puts an answer together from the events of its stream."""

    call_id_prefix: str = "call"
    """What the ids of calls without one begin with; unlike in every other answer."""
    secret: str = ""
    """Redacted in every error."""
    _answer: GrowingAnswer = attrs.field(init=False)
    _uses: dict[int, int] = attrs.field(init=False, factory=dict[int, int])
    """Of each block that is a call, the place among the calls."""
    _inputs: dict[int, str] = attrs.field(init=False, factory=dict[int, str])
    """Arguments that came whole, with the beginning of their block."""
    _finish: str | None = attrs.field(init=False, default=None)
    _usage: _Usage = attrs.field(init=False, factory=_Usage)
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
        told = self._decode(event.data)
        if told.error is not None:
            raise failure_in_stream(told.error, secret=self.secret)
        match told.type or event.event:
            case "message_start":
                self._begin(told.message or _Start())
            case "content_block_start":
                return self._begin_block(told.index, told.content_block or _Block())
            case "content_block_delta":
                return self._grow_block(told.index, told.delta or _Delta())
            case "message_delta":
                self._finish = (told.delta and told.delta.stop_reason) or self._finish
                self._count(told.usage)
            case "message_stop":
                self._done = True
            case "error":
                raise failure_in_stream(event.data, secret=self.secret)
            case _:  # a ping, the end of a block, or something newer than this
                pass
        return []

    def finish(self) -> Completion:
        """Return the answer, after the last event.

        Raises:
            NetworkError: If the stream stopped in the middle of the answer.
            BadRequestError: If the provider withheld the rest of the answer.
            ProtocolError: If the answer contradicts itself.
        """
        if self._finish is None:
            if self._done:
                msg = f"the answer ended without a stop_reason, after {self._answer.so_far}"
                raise ProtocolError(msg)
            msg = f"the stream stopped in the middle of the answer, after {self._answer.so_far}"
            raise NetworkError(msg)
        if self._finish == "refusal":
            msg = "the provider's safety filter withheld the answer; change the request"
            raise BadRequestError(msg)
        reason = _FINISH.get(self._finish, FinishReason.END_TURN)
        self._take_whole_inputs()
        tool_calls = self._answer.tool_calls(was_cut=reason is FinishReason.MAX_TOKENS)
        if tool_calls and reason is FinishReason.END_TURN:
            reason = FinishReason.TOOL_USE
        if reason is FinishReason.TOOL_USE and not tool_calls:
            msg = f"the answer ended with {self._finish!r} and has no tool call"
            raise ProtocolError(msg)
        return Completion(self._answer.text, tool_calls, reason, self._counted(), self._model)

    def _decode(self, data: str) -> _Event:
        try:
            return _DECODER.decode(data)
        except msgspec.DecodeError as exc:  # a ValidationError is one
            what = shown(str(exc), secret=self.secret)
            came = shown(data, secret=self.secret)
            msg = f"an event of the stream is none of the Messages API ({what}): {came!r}"
            raise ProtocolError(msg) from None  # the cause would show what came in full

    def _begin(self, start: _Start) -> None:
        self._model = start.model or self._model
        self._count(start.usage)

    def _begin_block(self, index: int, block: _Block) -> list[str]:
        if block.type == "tool_use":
            place = self._uses.setdefault(index, len(self._uses))
            self._answer.add_call(place, call_id=block.id or "", name=block.name or "")
            whole = bytes(block.input).decode()
            if whole not in {"{}", "null"}:
                self._inputs[place] = whole
            return []
        if block.type == "image":
            refuse_media("images", block.source)
        return self._take_text(block.text if block.type == "text" else None)

    def _grow_block(self, index: int, delta: _Delta) -> list[str]:
        place = self._uses.get(index)
        if place is not None and delta.partial_json:
            self._inputs.pop(place, None)
            self._answer.add_call(place, arguments=delta.partial_json)
        return self._take_text(delta.text if delta.type == "text_delta" else None)

    def _take_text(self, text: str | None) -> list[str]:
        texts = [text] if text else []
        self._answer.add_texts(texts)
        return texts

    def _take_whole_inputs(self) -> None:
        # Usually a block begins with {} and its arguments follow; some servers give them
        # at once and nothing follows.
        for place, arguments in self._inputs.items():
            self._answer.add_call(place, arguments=arguments)
        self._inputs.clear()

    def _count(self, usage: _Usage | None) -> None:
        """Take the counts that are there: each one is the count so far, not a part of it."""
        for name in _Usage.__struct_fields__:
            count = getattr(usage, name, None)
            if count is not None:
                setattr(self._usage, name, count)

    def _counted(self) -> Usage | None:
        usage = self._usage
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = usage.cache_read_input_tokens or 0
        written = usage.cache_creation_input_tokens or 0
        return Usage(
            input_tokens=usage.input_tokens + cached + written,
            output_tokens=usage.output_tokens,
            cached_tokens=cached,
        )
