"""Builds a Completion from a streamed answer in Anthropic's Messages.

Rules, besides those of every wire:

1. Unknown events, blocks and fields are ignored; a known field of a wrong type is a
   `ProtocolError` that shows what came.
2. All blocks of an answer are counted together, so its first call may have index 1. A block of a
   kind that we did not ask for (a server's own tool) is ignored; an image is refused.
3. Thoughts are kept whole, with their signatures and their place in the answer. Thoughts without
   words must be sent back, too. An empty signature counts as a signature if it came as one: servers
   that do not sign send it.
4. The output count at the start of a stream is a placeholder. Without a later count the output is
   unknown.
5. Input tokens include those read from the cache and those written to it, since all were sent; the
   API reports the three separately. Tokens written for an hour cost more, and are also counted
   separately.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming,
https://platform.claude.com/docs/en/api/handling-stop-reasons and
https://platform.claude.com/docs/en/build-with-claude/extended-thinking (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast, final

import attrs
import msgspec

from agentpool._messages import ProviderPart, Usage
from agentpool.drivers.wire._error_body import ErrorBody, is_no_error
from agentpool.drivers.wire._failure import failure_in_body, failure_in_stream
from agentpool.drivers.wire._provider_parts import UNSIGNED
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._stream_answer import GrowingCompletion
from agentpool.drivers.wire._text_only import refuse_media
from agentpool.drivers.wire._token_counts import count_of, counted


class _OutputDetails(msgspec.Struct):
    thinking_tokens: float | None = None


class _Kept(msgspec.Struct):
    ephemeral_5m_input_tokens: float | None = None
    ephemeral_1h_input_tokens: float | None = None


class _Usage(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None
    cache_creation_input_tokens: float | None = None
    cache_read_input_tokens: float | None = None
    cache_creation: _Kept | None = None
    output_tokens_details: _OutputDetails | None = None


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


class _Message(msgspec.Struct):
    """The beginning of an answer, or the whole answer if the server does not stream."""

    model: str | None = None
    usage: _Usage | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: object = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: object = None
    thinking: str | None = None
    signature: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


@final
@attrs.define(eq=False, repr=False)
class _Thought:
    """A block of thoughts, and its position."""

    block: _Block
    text_at: int
    call_at: int
    texts: list[str] = attrs.field(factory=lambda: [])
    signatures: list[str] = attrs.field(factory=lambda: [])


_DECODER: Final = msgspec.json.Decoder(_Event)
_WHOLE: Final = msgspec.json.Decoder(_Message)


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class MessageAccumulator(GrowingCompletion):
    """Builds an answer from the events of its stream."""

    _uses: dict[int, int] = attrs.field(init=False, factory=lambda: {})
    """For each block that is a call, its place among the calls."""
    _begun: set[tuple[int, str]] = attrs.field(init=False, factory=lambda: set())  # noqa: PLW0108  # as for lists
    """Each call that has begun, by index and id."""
    _inputs: dict[int, str] = attrs.field(init=False, factory=lambda: {})
    """Arguments that came complete with the beginning of their block."""
    _thoughts_kept: list[_Thought] = attrs.field(init=False, factory=lambda: [])
    """Blocks of thoughts, in the order in which they began."""
    _growing: dict[int, _Thought] = attrs.field(init=False, factory=lambda: {})
    """The newest block of thoughts for each index."""
    no_event: str = "not one of the Messages API"
    _counted: _Usage = attrs.field(init=False, factory=_Usage)

    def _settle(self) -> None:
        # Arguments that came whole and were followed by nothing are all there is.
        for index, arguments in self._inputs.items():
            self._answer.add_call(index, arguments=arguments)
        self._inputs.clear()

    def _usage(self) -> Usage | None:
        usage = self._counted
        details = usage.output_tokens_details or _OutputDetails()
        times = usage.cache_creation or _Kept()
        an_hour = count_of(times.ephemeral_1h_input_tokens)
        # The two may come without their sum, and what is below zero is unknown.
        sums = (
            count_of(usage.cache_creation_input_tokens),
            count_of(times.ephemeral_5m_input_tokens) + an_hour,
        )
        return counted(
            usage.input_tokens,
            usage.output_tokens,
            cached=count_of(usage.cache_read_input_tokens),
            thought=count_of(details.thinking_tokens),
            kept=max(sums) if min(sums) >= 0 else min(sums),
            kept_an_hour=an_hour,
            has_cached=False,
        )

    def _parts(self) -> tuple[ProviderPart, ...]:
        return tuple(self._part_of(thought) for thought in self._thoughts_kept)

    def _part_of(self, thought: _Thought) -> ProviderPart:
        block, text = thought.block, "".join(thought.texts)
        value: dict[str, object] = {"type": block.type}
        kind = block.type
        if block.type == "redacted_thinking":
            value["data"] = block.data if bytes(block.data) else ""
        else:
            value["thinking"] = text
            if thought.signatures:
                value["signature"] = "".join(thought.signatures)
            elif block.signature is not None:
                kind = UNSIGNED
        data = msgspec.json.encode(value)
        at = {"text_at": thought.text_at, "call_at": thought.call_at}
        return self.origin.part(kind, data, text, **at)

    def _take(self, event: SseEvent, data: str) -> list[str]:
        told = self._read(data, _DECODER)
        if told.error is not None and not is_no_error(told.error):
            raise failure_in_stream(told.error, secret=self.secret)
        index = told.index or 0
        kind = told.type or event.event
        # First, since there is one for each word of an answer.
        if kind == "content_block_delta" and told.delta is not None:
            return self._grow_block(index, told.delta)
        match kind:
            case "message_start":
                return self._begin(told.message or _Message())
            case "message":
                self._done = True
                return self._begin(self._read(data, _WHOLE))
            case "content_block_start":
                return self._begin_block(index, told.content_block or _Block())
            case "message_delta":
                delta = told.delta or _Delta()
                self._end(delta.stop_reason or "")
                self._explain(delta.stop_details)
                self._count(told.usage)
            case "message_stop":
                self._done = True
            case "error":
                failure = failure_in_body(data.encode(), secret=self.secret, is_bare=True)
                raise failure or failure_in_stream(data, secret=self.secret)
            case _:  # a ping, the end of a block, or something newer than this
                pass
        return []

    def _explain(self, details: object) -> None:
        """Keep the explanation of a refusal (pi#8258, 2026-11)."""
        if not isinstance(details, Mapping):
            return
        told = cast("Mapping[str, object]", details)
        if told.get("type", "refusal") != "refusal":
            return
        words = (told.get("category"), told.get("explanation"))
        if said := ": ".join(one for one in words if isinstance(one, str) and one):
            self._refuse(said)

    def _begin(self, message: _Message) -> list[str]:
        self._model = message.model or self._model
        self._count(message.usage)
        self._end(message.stop_reason or "")
        self._explain(message.stop_details)
        if self._finish is None:
            # At the start of a stream this is a placeholder.
            self._counted.output_tokens = None
        blocks = enumerate(message.content or ())
        return [text for index, block in blocks for text in self._begin_block(index, block)]

    def _begin_block(self, index: int, block: _Block) -> list[str]:
        match block.type:
            case "tool_use":
                # By its own place: some servers use one index for all of their blocks.
                self._growing.pop(index, None)
                if (index, block.id or "") in self._begun:
                    return []  # the same once more
                self._begun |= {(index, block.id)} if block.id else set()
                place = self._uses[index] = self._answer.call_count
                self._answer.add_call(place, call_id=block.id or "", name=block.name or "")
                whole = bytes(block.input).decode()
                if whole not in {"{}", "null", '""'}:
                    self._answer.grow(len(whole))
                    self._inputs[place] = whole
            case "thinking" | "redacted_thinking":
                answer = self._answer
                answer.begin_block()
                thought = _Thought(block, answer.chars, answer.call_count)
                self._growing[index] = thought
                self._thoughts_kept.append(thought)
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
        if index in self._growing:
            self._grow_thought(index, delta.thinking, delta.signature)
            if delta.type == "signature_delta":
                self._growing[index].signatures.append("")
        return [delta.text] if delta.type in {"text_delta", ""} and delta.text else []

    def _grow_thought(self, index: int, text: str | None, signature: str | None) -> None:
        thought = self._growing[index]
        if text:
            self._think(text)
            thought.texts.append(text)
        if signature:
            self._answer.grow(len(signature))
            thought.signatures.append(signature)

    def _count(self, usage: _Usage | None) -> None:
        """Store the counts in an event. Each is a total so far, not an increment."""
        if usage is None:
            return
        for name in _COUNTS:
            count: float | None = getattr(usage, name)
            if count is not None:
                known: float | None = getattr(self._counted, name)
                # One below zero stays: it says that nothing is known.
                setattr(self._counted, name, count if known is None else max(count, known))
        self._counted.cache_creation = usage.cache_creation or self._counted.cache_creation
        self._counted.output_tokens_details = (
            usage.output_tokens_details or self._counted.output_tokens_details
        )


_COUNTS: Final = (
    *("input_tokens", "output_tokens"),
    *("cache_creation_input_tokens", "cache_read_input_tokens"),
)
