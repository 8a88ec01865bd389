"""An answer in Anthropic's Messages: from the events of its stream to our values.

Rules, besides those of every wire:

1. Unknown events, blocks and fields are ignored; a known field of a wrong type is a
   `ProtocolError` that shows what came.
2. The blocks of an answer are counted together, so its first call may have index 1. A
   block of a kind that we did not ask for (a server's own tool) is passed over; an image
   is refused.
3. Thoughts are kept whole, with their signatures, and with their place in the answer. They
   may be empty of words and must go back all the same.
4. Input tokens count with those read from the cache and those written to it, since all of
   them were sent; the API reports the three apart.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming,
https://platform.claude.com/docs/en/api/handling-stop-reasons and
https://platform.claude.com/docs/en/build-with-claude/extended-thinking (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import ProtocolError
from agentpool._messages import FinishReason, ProviderPart, Usage
from agentpool.drivers.wire._failure import ErrorBody, failure_in_stream, shown
from agentpool.drivers.wire._growing import Ending, GrowingCompletion
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._text_only import refuse_media


class _OutputDetails(msgspec.Struct):
    thinking_tokens: float | None = None


class _Usage(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None
    cache_creation_input_tokens: float | None = None
    cache_read_input_tokens: float | None = None
    output_tokens_details: _OutputDetails | None = None


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
    thinking: str | None = None
    signature: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    thinking: str | None = None
    signature: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = 0
    message: _Start | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


@final
@attrs.define(eq=False, repr=False)
class _Thought:
    """A block of thoughts, and where it stands."""

    block: _Block
    text_at: int
    call_at: int
    texts: list[str] = attrs.field(factory=list[str])
    signatures: list[str] = attrs.field(factory=list[str])


_DECODER: Final = msgspec.json.Decoder(_Event)

_ENDINGS: Final[Mapping[str, FinishReason | Ending]] = {
    "end_turn": FinishReason.END_TURN,
    "max_tokens": FinishReason.MAX_TOKENS,
    "model_context_window_exceeded": FinishReason.MAX_TOKENS,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "tool_use": FinishReason.TOOL_USE,
    "refusal": Ending.WITHHELD,
    "pause_turn": Ending.PAUSED,
    # Gateways to other providers write these.
    "error": Ending.BROKEN,
    "content_filter": Ending.WITHHELD,
}


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class MessageAccumulator(GrowingCompletion):
    """Puts an answer together from the events of its stream."""

    _uses: dict[int, int] = attrs.field(init=False, factory=dict[int, int])
    """Of each block that is a call, the place among the calls."""
    _inputs: dict[int, str] = attrs.field(init=False, factory=dict[int, str])
    """Arguments that came whole, with the beginning of their block."""
    _blocks: dict[int, _Thought] = attrs.field(init=False, factory=dict[int, _Thought])
    """Blocks of thoughts, by their index."""
    _counted: _Usage = attrs.field(init=False, factory=_Usage)

    def _endings(self) -> Mapping[str, FinishReason | Ending]:
        return _ENDINGS

    def _settle(self) -> None:
        # Arguments that came whole and were followed by nothing are all there is.
        for index, arguments in self._inputs.items():
            self._answer.add_call(index, arguments=arguments)
        self._inputs.clear()

    def _usage(self) -> Usage | None:
        usage = self._counted
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = int(usage.cache_read_input_tokens or 0)
        written = int(usage.cache_creation_input_tokens or 0)
        details = usage.output_tokens_details or _OutputDetails()
        return Usage(
            input_tokens=int(usage.input_tokens) + cached + written,
            output_tokens=int(usage.output_tokens),
            cached_tokens=cached,
            reasoning_tokens=int(details.thinking_tokens or 0),
            cache_write_tokens=written,
        )

    def _parts(self) -> tuple[ProviderPart, ...]:
        return tuple(self._part_of(thought) for thought in self._blocks.values())

    def _part_of(self, thought: _Thought) -> ProviderPart:
        block, text = thought.block, "".join(thought.texts)
        value: dict[str, object] = {"type": block.type}
        if block.type == "redacted_thinking":
            value["data"] = block.data if bytes(block.data) else ""
        else:
            value["thinking"] = text
            if thought.signatures:
                value["signature"] = "".join(thought.signatures)
        data = msgspec.json.encode(value)
        at = {"text_at": thought.text_at, "call_at": thought.call_at}
        return self.origin.part(block.type, data, text, **at)

    def _take(self, event: SseEvent, data: str) -> list[str]:
        told = self._decode(data)
        if told.error is not None:
            raise failure_in_stream(told.error, secret=self.secret)
        index = told.index or 0
        match told.type or event.event:
            case "message_start":
                start = told.message or _Start()
                self._model = start.model or self._model
                self._count(start.usage)
            case "content_block_start":
                return self._begin_block(index, told.content_block or _Block())
            case "content_block_delta":
                return self._grow_block(index, told.delta or _Delta())
            case "message_delta":
                self._finish = (told.delta and told.delta.stop_reason) or self._finish
                self._count(told.usage)
            case "message_stop":
                self._done = True
            case "error":
                raise failure_in_stream(data, secret=self.secret)
            case _:  # a ping, the end of a block, or something newer than this
                pass
        return []

    def _decode(self, data: str) -> _Event:
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, RecursionError) as exc:  # a ValidationError is one
            what = shown(str(exc), secret=self.secret)
            came = shown(data, secret=self.secret)
            msg = f"an event of the stream is none of the Messages API ({what}): {came!r}"
            raise ProtocolError(msg) from None  # the cause would show what came in full

    def _begin_block(self, index: int, block: _Block) -> list[str]:
        match block.type:
            case "tool_use":
                place = self._uses.setdefault(index, len(self._uses))
                self._answer.add_call(place, call_id=block.id or "", name=block.name or "")
                whole = bytes(block.input).decode()
                if whole not in {"{}", "null", '""'}:
                    self._answer.grow(len(whole))
                    self._inputs[place] = whole
            case "thinking" | "redacted_thinking":
                answer = self._answer
                self._blocks[index] = _Thought(block, answer.chars, answer.call_count)
                answer.grow(len(bytes(block.data)))
                self._grow_thought(index, block.thinking, block.signature)
            case "image":
                refuse_media("images", block.source)
            case "text":
                return [block.text] if block.text else []
            case _:  # a server's own tool, or something newer than this
                pass
        return []

    def _grow_block(self, index: int, delta: _Delta) -> list[str]:
        place = self._uses.get(index)
        if place is not None and delta.partial_json:
            self._inputs.pop(place, None)
            self._answer.add_call(place, arguments=delta.partial_json)
        if index in self._blocks:
            self._grow_thought(index, delta.thinking, delta.signature)
        return [delta.text] if delta.type == "text_delta" and delta.text else []

    def _grow_thought(self, index: int, text: str | None, signature: str | None) -> None:
        thought = self._blocks[index]
        if text:
            self._think(text)
            thought.texts.append(text)
        if signature:
            self._answer.grow(len(signature))
            thought.signatures.append(signature)

    def _count(self, usage: _Usage | None) -> None:
        """Take the counts that are there: each one is the count so far, not a part of it."""
        for name in _Usage.__struct_fields__:
            count = getattr(usage, name, None)
            if count is not None:
                setattr(self._counted, name, count)
