"""How a streamed answer in OpenAI's Responses becomes a Completion.

Rules, besides those of every wire:

1. Unknown events, items and fields are ignored; a known field of a wrong type is a
   `ProtocolError` that shows what came.
2. Pieces belong together by the id of their item, or else by its place. Some servers change
   the ids, and others have one place for all of their items, or none. Of a call's arguments,
   what is said to be final counts before the pieces, unless it is empty.
3. What came only with the end of an item, or of the answer, is taken from there: some
   servers stream no pieces.
4. A reasoning item is kept as it came, without the id that the server gave it, if there is
   anything in it that can be read again.
5. A failed response is the error that it has; an incomplete one ends for its reason.

Source: https://platform.openai.com/docs/api-reference/responses-streaming (2026-11);
kimi-code#1734, pi#917 and langchain#37625 on GitHub for what servers leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs
import msgspec

from agentpool._messages import Usage
from agentpool.drivers.wire._counted import count_of, counted
from agentpool.drivers.wire._error_body import ErrorBody, is_no_error
from agentpool.drivers.wire._failure import failure_in_body, failure_in_stream
from agentpool.drivers.wire._growing_completion import GrowingCompletion
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
    total_tokens: float | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Text(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    content: list[_Text | None] | None = None
    summary: list[_Text | None] | None = None
    encrypted_content: str | None = None
    result: msgspec.Raw = msgspec.Raw()


class _Why(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    model: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None
    incomplete_details: _Why | str | None = None
    output: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    object: str | None = None
    output_index: int | None = None
    item_id: str | None = None
    delta: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    part: _Text | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()
    response: _Response | None = None
    error: ErrorBody | str | None = None


@final
@attrs.define(eq=False, repr=False)
class _Growing:
    """The part of one item that has arrived."""

    at: int
    """The place that the server gives it."""
    type: str = ""
    call_id: str = ""
    name: str = ""
    pieces: list[str] = attrs.field(factory=list[str])
    final: str = ""
    has_text: bool = False
    has_thoughts: bool = False
    is_done: bool = False


_DECODER: Final = msgspec.json.Decoder(_Event)
_RESPONSE: Final = msgspec.json.Decoder(_Response)
_ITEM: Final = msgspec.json.Decoder(_Item)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

_ENDS: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""What a response can come to."""

_EMPTY: Final = frozenset({"", "{}", "null"})


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class ResponseAccumulator(GrowingCompletion):
    """Builds an answer from the events of its stream."""

    no_event: str = "none of the Responses API"
    _items: list[_Growing] = attrs.field(init=False, factory=list[_Growing])
    _by_id: dict[str, _Growing] = attrs.field(init=False, factory=dict[str, _Growing])
    _by_place: dict[int, _Growing] = attrs.field(init=False, factory=dict[int, _Growing])
    """Of each place, the newest item."""
    _counted: _Usage | None = attrs.field(init=False, default=None)

    def _usage(self) -> Usage | None:
        usage = self._counted
        if usage is None:
            return None
        sent = usage.input_tokens_details or _InputDetails()
        kept = usage.output_tokens_details or _OutputDetails()
        return counted(
            usage.input_tokens,
            usage.output_tokens,
            cached=count_of(sent.cached_tokens),
            thought=count_of(kept.reasoning_tokens),
            kept=count_of(sent.cache_write_tokens),
            total=usage.total_tokens,
        )

    def _settle(self) -> None:
        # The place of a call among the calls is that of its item among the items.
        items = sorted(self._items, key=lambda item: item.at)
        for index, item in enumerate(one for one in items if one.name or one.call_id):
            streamed = "".join(item.pieces)
            arguments = item.final if item.final not in _EMPTY else streamed or item.final
            self._answer.add_call(index, call_id=item.call_id, name=item.name, arguments=arguments)

    def _take(self, event: SseEvent, data: str) -> list[str]:
        told = self._read(data, _DECODER)
        kind = (told.type or event.event).removeprefix("response.")
        if told.error is not None and not is_no_error(told.error):
            raise failure_in_body(data.encode(), secret=self.secret) or failure_in_stream(
                told.error, secret=self.secret
            )
        if kind == "error":
            raise failure_in_stream(self._plain_error(data), secret=self.secret)
        if told.response is not None or kind in _ENDS:
            return self._take_response(kind, told.response or _Response())
        if told.object == "response":  # all of it, at a server that does not stream
            whole = self._read(data, _RESPONSE)
            return self._take_response(whole.status or "completed", whole)
        match kind:
            case "output_item.added":
                self._begin_item(told)
            case "output_item.done":
                ended = self._item(told.item)
                return self._end_item(self._place_of(told, ended, ends=True), ended, told.item)
            case "output_text.delta":
                item = self._place_of(told)
                item.has_text = True
                return [text] if (text := _string(told.delta)) else []
            case _:
                return self._grow_item(kind, told)
        return []

    def _grow_item(self, kind: str, told: _Event) -> list[str]:
        """Append a piece of an item that is not text."""
        match kind:
            case "output_text.done" | "content_part.done" | "refusal.done":
                return self._end_part(self._place_of(told), told)
            case "refusal.delta":
                self._place_of(told).has_text = True
                self._refuse(_string(told.delta))
            case "reasoning_summary_text.delta" | "reasoning_text.delta":
                self._place_of(told).has_thoughts = True
                self._think(_string(told.delta))
            case "function_call_arguments.delta":
                piece = _string(told.delta)
                self._answer.grow(len(piece))
                self._place_of(told).pieces.append(piece)
            case "function_call_arguments.done":
                item = self._place_of(told)
                item.final = _arguments(told.arguments) or item.final
            case _:  # the beginning of a part, or something newer than this
                pass
        return []

    def _end_part(self, item: _Growing, told: _Event) -> list[str]:
        part = told.part or _Text()
        text = _string(told.text) or (part.text if part.type == "output_text" else "") or ""
        refusal = _string(told.refusal) or part.refusal or ""
        if item.has_text or not (text or refusal):
            return []
        item.has_text = True
        if refusal:
            self._refuse(refusal)
        return [text] if text else []

    def _place_of(self, told: _Event, item: _Item | None = None, *, ends: bool = False) -> _Growing:
        """Return the item that an event is about; a new one, if it is about none that is there.

        Args:
            told: The event.
            item: What it says of the item. ``None``: nothing.
            ends: Whether it is the item's last one.
        """
        name = (item and item.id) or told.item_id or ""
        if name in self._by_id:
            return self._by_id[name]
        growing = self._near(told.output_index)
        if item is not None:
            is_other = growing is not None and _is_other(growing, item)
            # An item that ends goes on with one that began; one that begins is another.
            if growing is not None and (growing.is_done or is_other or (growing.type and not ends)):
                growing = None
        if growing is None:
            growing = _Growing(len(self._items) if told.output_index is None else told.output_index)
            self._items.append(growing)
        if name:
            self._by_id[name] = growing
        self._by_place[growing.at if told.output_index is not None else -1] = growing
        return growing

    def _near(self, place: int | None) -> _Growing | None:
        return self._by_place.get(-1 if place is None else place)

    def _plain_error(self, data: str) -> ErrorBody:
        # Its type is that of the event, and says nothing.
        return msgspec.structs.replace(msgspec.json.decode(data, type=ErrorBody), type=None)

    def _take_response(self, kind: str, response: _Response) -> list[str]:
        self._model = response.model or self._model
        self._counted = response.usage or self._counted
        if response.error is not None and not is_no_error(response.error):
            raise failure_in_stream(response.error, secret=self.secret)
        if kind not in _ENDS:
            return []
        why = response.incomplete_details
        self._end((why.reason if isinstance(why, _Why) else why) or kind)
        self._done = True
        return self._take_output(response.output or ())

    def _take_output(self, output: Sequence[msgspec.Raw]) -> list[str]:
        """Take what came with the end of the answer alone.

        An item is known by its id, or else by its turn among those of its type.
        """
        texts: list[str] = []
        begun = {
            kind: [one for one in self._items if one.type == kind]
            for kind in {one.type for one in self._items}
        }
        for index, raw in enumerate(output):
            ended = self._item(raw)
            alike = begun.get(ended.type) or []
            known = self._by_id.get(ended.id or "")
            if known is None and alike:
                known = alike[0]
            if known is not None and known in alike:
                alike.remove(known)
            if known is None:
                known = _Growing(index)
                self._items.append(known)
            texts += self._end_item(known, ended, raw)
        return texts

    def _begin_item(self, told: _Event) -> None:
        begun = self._item(told.item)
        item = self._place_of(told, begun)
        item.type = begun.type
        if begun.type == "function_call":
            item.call_id, item.name = begun.call_id or "", begun.name or ""

    def _end_item(self, item: _Growing, ended: _Item, raw: msgspec.Raw) -> list[str]:
        """Take over the fields of an item that did not come in pieces."""
        if item.is_done:
            return []
        item.is_done, item.type = True, ended.type
        match ended.type:
            case "function_call":
                item.call_id = item.call_id or ended.call_id or ""
                item.name = item.name or ended.name or ""
                arguments = _arguments(ended.arguments)
                if arguments not in _EMPTY or not item.final:
                    item.final = arguments
                self._answer.grow(len(item.final))
            case "reasoning":
                self._keep(item, ended, raw)
            case "message" if not item.has_text:
                item.has_text = True
                for part in _parts_of(ended.content):
                    if part.refusal:
                        self._refuse(part.refusal)
                return [part.text for part in _parts_of(ended.content) if part.text]
            case "image_generation_call":
                refuse_media("images", ended.result)
            case _:  # a text that came in pieces, or something newer than this
                pass
        return []

    def _keep(self, item: _Growing, ended: _Item, raw: msgspec.Raw) -> None:
        told = _parts_of(ended.content or ended.summary)
        texts = [one.text for one in told if one.text]
        if not item.has_thoughts and texts:
            self._think("".join(texts))
        if not ended.encrypted_content and not ended.content:
            return  # nobody could read it again
        fields = _FIELDS.decode(raw)
        fields.pop("id", None)
        fields.pop("status", None)
        if not bytes(fields.get("summary", msgspec.Raw())).startswith(b"["):
            # It must be a list, whatever came in its place.
            said = [{"type": "summary_text", "text": one} for one in texts]
            fields["summary"] = msgspec.Raw(msgspec.json.encode(said))
        data = msgspec.json.encode(fields)
        self._answer.grow(len(data))
        calls = sum(1 for one in self._items if one.name or one.call_id)
        self._answer.parts.append(
            self.origin.part(
                "item", data, "".join(texts), text_at=self._answer.chars, call_at=calls
            )
        )

    def _item(self, raw: msgspec.Raw) -> _Item:
        data = bytes(raw).decode()
        return self._read(data, _ITEM) if data else _Item()


def _is_other(growing: _Growing, item: _Item) -> bool:
    """Return whether what has begun is of another kind, or another call."""
    is_kind = bool(growing.type) and growing.type != item.type
    return is_kind or bool(growing.call_id and item.call_id and growing.call_id != item.call_id)


def _parts_of(content: Sequence[_Text | None] | None) -> Sequence[_Text]:
    return [part for part in content or () if part is not None]


def _string(raw: msgspec.Raw) -> str:
    """Return a piece of text; empty if it is something else, such as audio."""
    data = bytes(raw)
    return msgspec.json.decode(data, type=str) if data.startswith(b'"') else ""


def _arguments(raw: msgspec.Raw) -> str:
    """Return arguments as text, which a few servers send as the object itself."""
    data = bytes(raw)
    return data.decode() if data.startswith(b"{") else _string(raw)
