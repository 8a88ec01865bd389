"""An answer in OpenAI's Responses: from the events of its stream to our values.

Rules, besides those of every wire:

1. Unknown events, items and fields are ignored; a known field of a wrong type is a
   `ProtocolError` that shows what came.
2. Pieces belong together by the place of their item. Of a call's arguments, what is said
   to be final counts before the pieces, unless it is empty.
3. What came only with the end of an item, or of the answer, is taken from there: some
   servers stream no pieces.
4. A reasoning item is kept as it came, without the id that the server gave it, if there is
   anything in it that can be read again.
5. A failed response is the error that it has; an incomplete one ends for its reason.

Source: https://platform.openai.com/docs/api-reference/responses-streaming (2026-11);
kimi-code#1734, pi#917 and langchain#37625 on GitHub for what servers leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import ProtocolError
from agentpool._messages import FinishReason, Usage
from agentpool.drivers.wire._failure import ErrorBody, failure_in_stream, shown
from agentpool.drivers.wire._growing import Ending, GrowingCompletion
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._text_only import refuse_media


class _InputDetails(msgspec.Struct):
    cached_tokens: float | None = None
    cache_write_tokens: float | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: float | None = None


class _Usage(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Text(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    content: list[_Text] | None = None
    summary: list[_Text] | None = None
    encrypted_content: str | None = None
    result: msgspec.Raw = msgspec.Raw()


class _Why(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    model: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    error: ErrorBody | None = None
    incomplete_details: _Why | None = None
    output: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    output_index: int | None = None
    delta: msgspec.Raw = msgspec.Raw()
    arguments: str | None = None
    item: msgspec.Raw = msgspec.Raw()
    response: _Response | None = None
    error: ErrorBody | str | None = None


@final
@attrs.define(eq=False, repr=False)
class _Growing:
    """What has come of one item."""

    call_id: str = ""
    name: str = ""
    pieces: list[str] = attrs.field(factory=list[str])
    final: str = ""
    has_text: bool = False
    has_thoughts: bool = False
    is_done: bool = False


_DECODER: Final = msgspec.json.Decoder(_Event)
_ITEM: Final = msgspec.json.Decoder(_Item)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

_ENDINGS: Final[Mapping[str, FinishReason | Ending]] = {
    "completed": FinishReason.END_TURN,
    "max_output_tokens": FinishReason.MAX_TOKENS,
    "max_tokens": FinishReason.MAX_TOKENS,
    "content_filter": Ending.WITHHELD,
    "cancelled": Ending.BROKEN,
    "failed": Ending.BROKEN,
}

_EMPTY: Final = frozenset({"", "{}", "null"})


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class ResponseAccumulator(GrowingCompletion):
    """Puts an answer together from the events of its stream."""

    _items: dict[int, _Growing] = attrs.field(init=False, factory=dict[int, _Growing])
    _counted: _Usage | None = attrs.field(init=False, default=None)

    def _endings(self) -> Mapping[str, FinishReason | Ending]:
        return _ENDINGS

    def _usage(self) -> Usage | None:
        usage = self._counted
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        sent = usage.input_tokens_details or _InputDetails()
        kept = usage.output_tokens_details or _OutputDetails()
        return Usage(
            input_tokens=int(usage.input_tokens),
            output_tokens=int(usage.output_tokens),
            cached_tokens=int(sent.cached_tokens or 0),
            reasoning_tokens=int(kept.reasoning_tokens or 0),
            cache_write_tokens=int(sent.cache_write_tokens or 0),
        )

    def _settle(self) -> None:
        # The place of a call among the calls is that of its item among the items.
        calls = [item for _, item in sorted(self._items.items()) if item.name or item.call_id]
        for index, item in enumerate(calls):
            streamed = "".join(item.pieces)
            arguments = item.final if item.final not in _EMPTY else streamed or item.final
            self._answer.add_call(index, call_id=item.call_id, name=item.name, arguments=arguments)

    def _take(self, event: SseEvent, data: str) -> list[str]:
        if data == "[DONE]":
            self._done = True
            return []
        told = self._decode(data)
        kind = told.type or event.event
        if told.error is not None:
            raise failure_in_stream(told.error, secret=self.secret)
        if kind == "error":
            raise failure_in_stream(self._plain_error(data), secret=self.secret)
        if told.response is not None:
            return self._take_response(kind, told.response)
        item = self._items.setdefault(told.output_index or 0, _Growing())
        match kind:
            case "response.output_item.added":
                self._begin_item(item, told.item)
            case "response.output_item.done":
                return self._end_item(item, told.item)
            case "response.output_text.delta":
                item.has_text = True
                return [text] if (text := _string(told.delta)) else []
            case _:
                self._grow_item(item, kind, told)
        return []

    def _grow_item(self, item: _Growing, kind: str, told: _Event) -> None:
        """Take a piece of an item that is no text."""
        match kind:
            case "response.refusal.delta":
                item.has_text = True
                self._refuse(_string(told.delta))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                item.has_thoughts = True
                self._think(_string(told.delta))
            case "response.function_call_arguments.delta":
                piece = _string(told.delta)
                self._answer.grow(len(piece))
                item.pieces.append(piece)
            case "response.function_call_arguments.done":
                item.final = told.arguments or item.final
            case _:  # the beginning or end of a part, or something newer than this
                pass

    def _decode(self, data: str) -> _Event:
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, RecursionError) as exc:  # a ValidationError is one
            what = shown(str(exc), secret=self.secret)
            came = shown(data, secret=self.secret)
            msg = f"an event of the stream is none of the Responses API ({what}): {came!r}"
            raise ProtocolError(msg) from None  # the cause would show what came in full

    def _plain_error(self, data: str) -> ErrorBody:
        # Its type is that of the event, and says nothing.
        return msgspec.structs.replace(msgspec.json.decode(data, type=ErrorBody), type=None)

    def _take_response(self, kind: str, response: _Response) -> list[str]:
        self._model = response.model or self._model
        self._counted = response.usage or self._counted
        if response.error is not None:
            raise failure_in_stream(response.error, secret=self.secret)
        if kind not in {"response.completed", "response.incomplete", "response.failed"}:
            return []
        why = response.incomplete_details
        self._finish = (why and why.reason) or kind.removeprefix("response.")
        self._done = True
        texts: list[str] = []
        for index, raw in enumerate(response.output or ()):
            texts += self._end_item(self._items.setdefault(index, _Growing()), raw)
        return texts

    def _begin_item(self, item: _Growing, raw: msgspec.Raw) -> None:
        begun = self._item(raw)
        if begun.type == "function_call":
            item.call_id, item.name = begun.call_id or "", begun.name or ""

    def _end_item(self, item: _Growing, raw: msgspec.Raw) -> list[str]:
        """Take what an item has that did not come in pieces."""
        if item.is_done:
            return []
        item.is_done = True
        ended = self._item(raw)
        match ended.type:
            case "function_call":
                item.call_id = item.call_id or ended.call_id or ""
                item.name = item.name or ended.name or ""
                if (ended.arguments or "") not in _EMPTY or not item.final:
                    item.final = ended.arguments or ""
                self._answer.grow(len(item.final))
            case "reasoning":
                self._keep(item, ended, raw)
            case "message" if not item.has_text:
                for part in ended.content or ():
                    if part.refusal:
                        self._refuse(part.refusal)
                return [part.text for part in ended.content or () if part.text]
            case "image_generation_call":
                refuse_media("images", ended.result)
            case _:  # a text that came in pieces, or something newer than this
                pass
        return []

    def _keep(self, item: _Growing, ended: _Item, raw: msgspec.Raw) -> None:
        texts = [one.text for one in (ended.content or ended.summary or ()) if one.text]
        if not item.has_thoughts and texts:
            self._think("".join(texts))
        if not ended.encrypted_content and not ended.content:
            return  # nobody could read it again
        fields = _FIELDS.decode(raw)
        fields.pop("id", None)
        fields.pop("status", None)
        data = msgspec.json.encode(fields)
        self._answer.grow(len(data))
        calls = sum(1 for one in self._items.values() if one.name or one.call_id)
        self._answer.parts.append(
            self.origin.part(
                "item", data, "".join(texts), text_at=self._answer.chars, call_at=calls
            )
        )

    def _item(self, raw: msgspec.Raw) -> _Item:
        if not bytes(raw):
            return _Item()
        try:
            return _ITEM.decode(raw)
        except msgspec.DecodeError as exc:
            came = shown(bytes(raw).decode(errors="replace"), secret=self.secret)
            msg = f"an item of the answer is none of the Responses API ({exc}): {came!r}"
            raise ProtocolError(msg) from None


def _string(raw: msgspec.Raw) -> str:
    """Return a piece of text; empty if it is none, as that of audio."""
    data = bytes(raw)
    return msgspec.json.decode(data, type=str) if data.startswith(b'"') else ""
