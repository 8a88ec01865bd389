"""Builds a Completion from a streamed answer in Chat Completions.

Rules, besides those of every wire:

1. Unknown fields are ignored. Common mistakes of servers are understood: a number that is ``null``
   or has a point, arguments that are an object, a whole message in place of a piece, an entry of a
   list that is ``null``. Anything that cannot be understood is a `ProtocolError` that shows it.
2. An ``error`` ends the stream with the error that it describes, even if it is not an object.
3. Tool calls make the answer `TOOL_USE`, even where the provider says ``stop``.
4. Thoughts are kept under the server's name for them, and sent back under that name: DeepSeek and
   Kimi refuse the next turn if thoughts are missing, and Gemini if its signatures are.
5. The last complete usage counts. A usage with input or output missing is ignored.
6. Anything but text is refused.

Source: https://platform.openai.com/docs/api-reference/chat-streaming,
https://api-docs.deepseek.com/guides/thinking_mode,
https://ai.google.dev/gemini-api/docs/openai,
https://docs.mistral.ai/capabilities/reasoning and
https://openrouter.ai/docs/use-cases/reasoning-tokens (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import ProtocolError
from agentpool._messages import ProviderPart, Usage
from agentpool.drivers.wire._chat_usage import ChatUsage
from agentpool.drivers.wire._error_body import ErrorBody, is_no_error
from agentpool.drivers.wire._failure import failure_in_body, failure_in_stream, shown
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._stream_answer import GrowingCompletion
from agentpool.drivers.wire._text_only import refuse_media
from agentpool.drivers.wire._thought_details import ThoughtDetails, said_in

_NOTHING: Final = msgspec.Raw()


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = _NOTHING


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | int | None = None
    function: _Function | None = None
    extra_content: msgspec.Raw = _NOTHING


class _Piece(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    thinking: msgspec.Raw = _NOTHING


class _Delta(msgspec.Struct):
    content: str | list[_Piece | None] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: msgspec.Raw = _NOTHING
    reasoning_details: list[dict[str, object]] | None = None
    tool_calls: list[_Call | None] | None = None
    # The older form of a call.
    function_call: _Function | None = None
    extra_content: msgspec.Raw = _NOTHING
    # OpenAI's, and that of gateways to models that draw.
    audio: msgspec.Raw = _NOTHING
    images: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    # Moonshot's.
    usage: ChatUsage | None = None
    # OpenRouter's.
    error: ErrorBody | str | None = None


class _Groq(msgspec.Struct):
    usage: ChatUsage | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice | None] | None = None
    usage: ChatUsage | None = None
    x_groq: _Groq | None = None
    model: str | None = None
    error: ErrorBody | str | None = None
    # An error without an object of its own, as vLLM and Mistral write it.
    object: str | None = None
    message: msgspec.Raw = _NOTHING
    type: msgspec.Raw = _NOTHING
    code: msgspec.Raw = _NOTHING


_DECODER: Final = msgspec.json.Decoder(_Chunk)


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class ChatAccumulator(GrowingCompletion):
    """Builds an answer from the events of its stream."""

    no_event: str = "not a chat completion chunk"
    _counted: Usage | None = attrs.field(init=False, default=None)
    _cost: float | None = attrs.field(init=False, default=None)
    _named: dict[str, list[str]] = attrs.field(init=False, factory=lambda: {})
    """The thoughts, under the server's names for them."""
    _details: ThoughtDetails = attrs.field(init=False, factory=ThoughtDetails)
    """The thoughts in OpenRouter's form."""

    def _usage(self) -> Usage | None:
        return self._counted

    def _parts(self) -> tuple[ProviderPart, ...]:
        thoughts: list[ProviderPart] = []
        for name, pieces in self._named.items():
            said = "".join(pieces)
            if name == "content":
                text = [{"type": "text", "text": said}]
                data = msgspec.json.encode({"type": "thinking", "thinking": text})
            elif name == "reasoning" and self._details:
                continue  # the details say the same, with signatures
            else:
                data = msgspec.json.encode(said)
            thoughts.append(self.origin.part(name, data, said))
        if self._details:
            details = self._details.whole()
            data = msgspec.json.encode(details)
            thoughts.append(self.origin.part("reasoning_details", data, said_in(details)))
        return (*thoughts, *self._answer.parts)

    def _cost_usd(self) -> float | None:
        return self._cost

    def _take(self, event: SseEvent, data: str) -> list[str]:
        chunk = self._read(data, _DECODER)
        if chunk.error is not None and not is_no_error(chunk.error):
            raise failure_in_stream(chunk.error, secret=self.secret)
        if event.event == "error" or chunk.object == "error":
            error = msgspec.json.decode(data, type=ErrorBody)
            raise failure_in_stream(error, secret=self.secret)
        self._model = chunk.model or self._model
        usage = chunk.usage or (chunk.x_groq and chunk.x_groq.usage)
        if usage:
            self._count(usage)
        if chunk.choices:
            return self._take_choices(chunk.choices)
        if chunk.choices is None and not usage:
            # Nothing that belongs to an answer: an error in other words, or a sign of life.
            failure = failure_in_body(data.encode(), secret=self.secret, is_bare=True)
            if failure is not None:
                raise failure
        return []

    def _count(self, usage: ChatUsage) -> None:
        found = usage.counted()
        if found is not None:
            self._counted = found
        cost = usage.price()
        self._cost = cost if cost is not None else self._cost

    def _take_choices(self, choices: Iterable[_Choice | None]) -> list[str]:
        texts: list[str] = []
        for choice in choices:
            if choice is None or choice.index:  # only one answer was asked for
                continue
            if choice.error is not None and not is_no_error(choice.error):
                raise failure_in_stream(choice.error, secret=self.secret)
            if choice.usage is not None:
                self._count(choice.usage)
            if choice.delta is not None:
                texts += self._take_delta(choice.delta)
            elif choice.message is not None:
                texts += self._take_delta(self._missing(choice.message))
            if choice.finish_reason:
                self._end(choice.finish_reason)
        return texts

    def _missing(self, message: _Delta) -> _Delta:
        """Return the part of a complete message that has not arrived in pieces."""
        answer = self._answer
        if not answer.chars and not answer.call_count:
            return message
        content = None if answer.chars else message.content
        calls = None if answer.call_count else message.tool_calls
        return _Delta(content=content, refusal=message.refusal, tool_calls=calls)

    def _take_delta(self, delta: _Delta) -> list[str]:
        texts: list[str] = []
        has_thoughts = delta.reasoning_content is not None or delta.reasoning is not _NOTHING
        if has_thoughts or delta.reasoning_details:
            self._take_thoughts(delta)
        if isinstance(delta.content, str):
            texts += [delta.content] if delta.content else []
        elif delta.content is not None:
            for piece in delta.content:
                if piece is not None:
                    texts += self._take_piece(piece)
        if delta.refusal:
            self._refuse(delta.refusal)
        for call in delta.tool_calls or ():
            if call is not None:
                self._take_call(call)
        # By identity: most pieces have none of these, and are looked at one by one.
        if delta.function_call is not None or not (
            delta.extra_content is delta.audio is delta.images is _NOTHING
        ):
            self._take_rest(delta)
        return texts

    def _take_rest(self, delta: _Delta) -> None:
        if delta.function_call is not None:
            self._take_call(_Call(index=0, function=delta.function_call))
        if _is_something(delta.extra_content):
            self._keep("extra_content", bytes(delta.extra_content))
        refuse_media("audio", delta.audio)
        refuse_media("images", delta.images)

    def _take_piece(self, piece: _Piece) -> list[str]:
        if piece.type == "thinking":
            thought = _text_of(piece.thinking)
            self._think(thought)
            self._grow_thought("content", thought)
            return []
        if piece.type not in {"text", "output_text"}:
            came = shown(piece.type, secret=self.secret)
            msg = f"the answer has a piece of the kind {came!r}, but only text is supported"
            raise ProtocolError(msg)
        return [piece.text] if piece.text else []

    def _take_thoughts(self, delta: _Delta) -> None:
        said = delta.reasoning_content
        if said:
            self._think(said)
            self._grow_thought("reasoning_content", said)
        elif said is not None:
            self._named.setdefault("reasoning_content", [])
        if delta.reasoning_details:
            self._take_details(delta.reasoning_details)
        elif delta.reasoning is not _NOTHING and (text := _text_of(delta.reasoning)):
            if not said:
                self._think(text)
            self._grow_thought("reasoning", text)

    def _grow_thought(self, name: str, text: str) -> None:
        self._named.setdefault(name, []).append(text)

    def _take_details(self, details: Iterable[dict[str, object]]) -> None:
        for detail in details:
            for key in ("text", "summary"):
                if isinstance(said := detail.get(key), str):
                    self._think(said)
            if self._details.take(detail):
                self._answer.begin_block()
                self._answer.grow(len(msgspec.json.encode(detail)))
            elif isinstance(hidden := detail.get("data"), str):
                self._answer.grow(len(hidden))

    def _keep(self, kind: str, data: bytes, *, call_at: int = 0) -> None:
        answer = self._answer
        answer.grow(len(data))
        part = self.origin.part(kind, data, text_at=answer.chars, call_at=call_at)
        answer.parts.append(part)

    def _take_call(self, call: _Call) -> None:
        function = call.function or _Function()
        place = self._answer.add_call(
            call.index,
            call_id="" if call.id is None else str(call.id),
            name=function.name or "",
            arguments=_arguments_of(function.arguments),
        )
        if _is_something(call.extra_content):
            self._keep("call.extra_content", bytes(call.extra_content), call_at=place)


def _is_something(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in {b"", b"null", b"{}", b"[]", b'""'}


def _text_of(raw: msgspec.Raw) -> str:
    """Return the text of a thought: a string, or a list of text pieces."""
    try:
        value = msgspec.json.decode(raw, type=str | list[_Piece])
    except msgspec.DecodeError:
        return ""
    return value if isinstance(value, str) else "".join(piece.text or "" for piece in value)


def _arguments_of(raw: msgspec.Raw) -> str:
    """Return arguments as text; a few servers send them as an object."""
    data = bytes(raw)
    if data in {b"", b"null"}:
        return ""
    return msgspec.json.decode(data, type=str) if data.startswith(b'"') else data.decode()
