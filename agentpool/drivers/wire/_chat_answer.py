"""An answer in OpenAI's Chat Completions: from the events of its stream to our values.

Rules, besides those of every wire:

1. Unknown fields are ignored. What many servers get wrong is understood: a number that is
   ``null`` or has a point, arguments that are an object, a whole message in the place of a
   piece, an entry of a list that is ``null``. What means nothing is a `ProtocolError` that
   shows what came.
2. An ``error`` ends the stream with the error that it stands for, also without an object
   of its own.
3. Tool calls make the answer `TOOL_USE`, also where the provider says ``stop``.
4. What the model thinks is kept under the name that the server has for it, and goes back
   under that name: DeepSeek and Kimi refuse the next turn without, Gemini one without its
   signatures.
5. The last usage that is whole counts. One of which a half is missing is none.
6. What is no text is refused.

Source: https://platform.openai.com/docs/api-reference/chat-streaming,
https://api-docs.deepseek.com/guides/thinking_mode,
https://ai.google.dev/gemini-api/docs/openai,
https://docs.mistral.ai/capabilities/reasoning and
https://openrouter.ai/docs/use-cases/reasoning-tokens (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import ProtocolError
from agentpool._messages import FinishReason, ProviderPart, Usage
from agentpool.drivers.wire._failure import ErrorBody, failure_in_stream, shown
from agentpool.drivers.wire._growing import Ending, GrowingCompletion
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._text_only import refuse_media

DONE: Final = "[DONE]"
"""The data of the event that ends a stream."""

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
    extra_content: msgspec.Raw = _NOTHING
    # OpenAI's, and that of gateways to models that draw.
    audio: msgspec.Raw = _NOTHING
    images: msgspec.Raw = _NOTHING


class _PromptDetails(msgspec.Struct):
    cached_tokens: float | None = None
    cache_write_tokens: float | None = None


class _AnswerDetails(msgspec.Struct):
    reasoning_tokens: float | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None
    # DeepSeek's.
    prompt_cache_hit_tokens: float | None = None
    # OpenRouter's, in US dollars.
    cost: float | None = None


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    # Moonshot's.
    usage: _Usage | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice | None] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: ErrorBody | str | None = None
    # An error without an object of its own, as vLLM and Mistral write it.
    object: str | None = None
    message: msgspec.Raw = _NOTHING
    type: msgspec.Raw = _NOTHING
    code: msgspec.Raw = _NOTHING


_DECODER: Final = msgspec.json.Decoder(_Chunk)

# Source: https://platform.openai.com/docs/api-reference/chat-streaming,
# https://api-docs.deepseek.com/api/create-chat-completion,
# https://openrouter.ai/docs/api-reference/overview and
# https://ai.google.dev/api/generate-content#FinishReason (2026-11).
_ENDINGS: Final[Mapping[str, FinishReason | Ending]] = {
    "stop": FinishReason.END_TURN,
    "eos": FinishReason.END_TURN,
    "end_turn": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "max_tokens": FinishReason.MAX_TOKENS,
    "model_length": FinishReason.MAX_TOKENS,
    "tool_calls": FinishReason.TOOL_USE,
    "tool_use": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
    "content_filter": Ending.WITHHELD,
    "content_filter: safety": Ending.WITHHELD,
    "safety": Ending.WITHHELD,
    "recitation": Ending.WITHHELD,
    "blocklist": Ending.WITHHELD,
    "prohibited_content": Ending.WITHHELD,
    "spii": Ending.WITHHELD,
    "sensitive": Ending.WITHHELD,
    "refusal": Ending.WITHHELD,
    "error": Ending.BROKEN,
    "network_error": Ending.BROKEN,
    "abort": Ending.BROKEN,
    "insufficient_system_resource": Ending.BROKEN,
    "malformed_function_call": Ending.FAILED,
    "unexpected_tool_call": Ending.FAILED,
    "pause_turn": Ending.PAUSED,
}


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class ChatAccumulator(GrowingCompletion):
    """Puts an answer together from the events of its stream."""

    _counted: _Usage | None = attrs.field(init=False, default=None)
    _named: dict[str, list[str]] = attrs.field(init=False, factory=dict[str, list[str]])
    """What the model thinks, by the server's name for it."""
    _details: list[dict[str, object]] = attrs.field(init=False, factory=list[dict[str, object]])
    """What it thinks in OpenRouter's form."""

    def _endings(self) -> Mapping[str, FinishReason | Ending]:
        return _ENDINGS

    def _usage(self) -> Usage | None:
        return None if self._counted is None else _usage_of(self._counted)

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
            said = "".join(
                str(one.get("text") or one.get("summary") or "") for one in self._details
            )
            data = msgspec.json.encode(self._details)
            thoughts.append(self.origin.part("reasoning_details", data, said))
        return (*thoughts, *self._answer.parts)

    def _cost_usd(self) -> float | None:
        return None if self._counted is None else self._counted.cost

    def _take(self, event: SseEvent, data: str) -> list[str]:
        if data == DONE:
            self._done = True
            return []
        chunk = self._decode(data)
        if chunk.error is not None:
            raise failure_in_stream(chunk.error, secret=self.secret)
        if event.event == "error" or chunk.object == "error":
            error = msgspec.json.decode(data, type=ErrorBody)
            raise failure_in_stream(error, secret=self.secret)
        self._model = chunk.model or self._model
        self._count(chunk.usage)
        return self._take_choices(chunk.choices or ())

    def _decode(self, data: str) -> _Chunk:
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, RecursionError) as exc:  # a ValidationError is one
            what = shown(str(exc), secret=self.secret)
            came = shown(data, secret=self.secret)
            msg = f"an event of the stream is no chat completion chunk ({what}): {came!r}"
            raise ProtocolError(msg) from None  # the cause would show what came in full

    def _count(self, usage: _Usage | None) -> None:
        if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return
        self._counted = usage

    def _take_choices(self, choices: Iterable[_Choice | None]) -> list[str]:
        texts: list[str] = []
        for choice in choices:
            if choice is None or choice.index:  # only one answer was asked for
                continue
            self._count(choice.usage)
            delta = choice.delta or choice.message
            if delta is not None:
                texts += self._take_delta(delta)
            if choice.finish_reason:
                self._finish = choice.finish_reason.lower()
        return texts

    def _take_delta(self, delta: _Delta) -> list[str]:
        texts: list[str] = []
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
        if not (delta.extra_content is delta.audio is delta.images is _NOTHING):
            self._take_rest(delta)
        return texts

    def _take_rest(self, delta: _Delta) -> None:
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
            msg = f"the answer has a piece of the kind {came!r}, and only text is carried"
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
            last = self._details[-1] if self._details else None
            same = ("type", "index", "id")
            if last is not None and all(
                last.get(key) == detail.get(key) or detail.get(key) is None for key in same
            ):
                _grow_detail(last, detail)
            else:
                self._details.append(detail)

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


def _grow_detail(last: dict[str, object], more: Mapping[str, object]) -> None:
    """Add a piece of a thought to the one that it goes on with."""
    for key, value in more.items():
        before = last.get(key)
        if key in {"text", "summary", "data"} and isinstance(before, str):
            last[key] = before + value if isinstance(value, str) else before
        elif value is not None:
            last[key] = value


def _is_something(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in {b"", b"null", b"{}", b"[]", b'""'}


def _text_of(raw: msgspec.Raw) -> str:
    """Return the text in a thought: a string, or a list of pieces of text."""
    try:
        value = msgspec.json.decode(raw, type=str | list[_Piece])
    except msgspec.DecodeError:
        return ""
    return value if isinstance(value, str) else "".join(piece.text or "" for piece in value)


def _arguments_of(raw: msgspec.Raw) -> str:
    """Return arguments as text, which a few servers send as the object itself."""
    data = bytes(raw)
    if data in {b"", b"null"}:
        return ""
    return msgspec.json.decode(data, type=str) if data.startswith(b'"') else data.decode()


def _usage_of(usage: _Usage) -> Usage:
    sent = usage.prompt_tokens_details or _PromptDetails()
    kept = usage.completion_tokens_details or _AnswerDetails()
    return Usage(
        input_tokens=int(usage.prompt_tokens or 0),
        output_tokens=int(usage.completion_tokens or 0),
        cached_tokens=int(sent.cached_tokens or usage.prompt_cache_hit_tokens or 0),
        reasoning_tokens=int(kept.reasoning_tokens or 0),
        cache_write_tokens=int(sent.cache_write_tokens or 0),
    )
