"""Builds a Completion from a streamed answer in OpenAI's Responses.

Rules, besides those of every wire:

1. Unknown events, items and fields are ignored; a known field of a wrong type is a
   `ProtocolError` that shows what came.
2. Pieces belong to the same item if they have its id, or otherwise its place. Some servers change
   the ids, and others give all items the same place, or none. Final arguments of a call have
   precedence over the pieces, unless they are empty.
3. Content that comes only with the end of an item, or of the answer, is taken from there: some
   servers do not stream pieces.
4. A reasoning item is kept unchanged, except for its id, if the provider can read anything in it
   again.
5. A failed response raises its error; an incomplete one ends with its reason. Its status decides
   which it is, even if the event's name says otherwise.
6. Comments before the answer are told apart from it: see ``_commentary``.

Source: https://platform.openai.com/docs/api-reference/responses-streaming (2026-11);
kimi-code#1734, pi#917 and langchain#37625 on GitHub for what servers leave out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, final

import attrs
import msgspec

from agentpool._messages import Usage
from agentpool.drivers.wire._commentary import COMMENTARY, Phases
from agentpool.drivers.wire._error_body import ErrorBody, is_no_error
from agentpool.drivers.wire._failure import failure_in_body, failure_in_stream
from agentpool.drivers.wire._responses_events import (
    EVENTS,
    FIELDS,
    ITEMS,
    RESPONSES,
    Event,
    InputDetails,
    Item,
    ItemText,
    OutputDetails,
    Response,
    ResponseUsage,
    Why,
    arguments_in,
    parts_of,
    string_in,
)
from agentpool.drivers.wire._sse import SseEvent
from agentpool.drivers.wire._stream_answer import GrowingCompletion
from agentpool.drivers.wire._text_only import refuse_media
from agentpool.drivers.wire._token_counts import count_of, counted


@final
@attrs.define(eq=False, repr=False)
class _Growing:
    """The part of one item that has arrived."""

    at: int
    """The place that the server gives the item."""
    type: str = ""
    call_id: str = ""
    name: str = ""
    pieces: list[str] = attrs.field(factory=lambda: [])
    final: str = ""
    phase: str = ""
    text_at: int | None = None
    """How many characters of text came before the item's own. ``None``: it has no text."""
    has_thoughts: bool = False
    is_labelled: bool = False
    has_refusal: bool = False
    is_done: bool = False
    is_counted: bool = False
    """Whether it has been counted as a call."""


_ENDS: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""The ways in which a response can end."""

_EMPTY: Final = frozenset({"", "{}", "null"})


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class ResponseAccumulator(GrowingCompletion):
    """Builds an answer from the events of its stream."""

    no_event: str = "not one of the Responses API"
    _items: list[_Growing] = attrs.field(init=False, factory=lambda: [])
    _by_id: dict[str, _Growing] = attrs.field(init=False, factory=lambda: {})
    _by_place: dict[int, _Growing] = attrs.field(init=False, factory=lambda: {})
    """The newest item at each place."""
    _counted: ResponseUsage | None = attrs.field(init=False, default=None)
    _calls: int = attrs.field(init=False, default=0)
    _phases: Phases = attrs.field(init=False)
    _comment: _Growing | None = attrs.field(init=False, default=None)
    """The comment that is arriving."""

    def __attrs_post_init__(self) -> None:
        """Start without messages."""
        super().__attrs_post_init__()  # slots make it another class
        self._phases = Phases(self._answer.parts, self.origin)

    def _usage(self) -> Usage | None:
        usage = self._counted
        if usage is None:
            return None
        sent = usage.input_tokens_details or InputDetails()
        kept = usage.output_tokens_details or OutputDetails()
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
        told = self._read(data, EVENTS)
        kind = (told.type or event.event).removeprefix("response.")
        if told.error is not None and not is_no_error(told.error):
            raise failure_in_body(data.encode(), secret=self.secret) or failure_in_stream(
                told.error, secret=self.secret
            )
        if kind == "error":
            raise failure_in_stream(self._plain_error(data), secret=self.secret)
        if told.response is not None or kind in _ENDS:
            return self._take_response(kind, told.response or Response())
        if told.object == "response":  # all of it, at a server that does not stream
            whole = self._read(data, RESPONSES)
            return self._take_response(whole.status or "completed", whole)
        match kind:
            case "output_item.added":
                return self._begin_item(told)
            case "output_item.done":
                ended = self._item(told.item)
                return self._end_item(self._place_of(told, ended, ends=True), ended, told.item)
            case "output_text.delta":
                return self._say(self._place_of(told), string_in(told.delta))
            case _:
                return self._grow_item(kind, told)

    def _grow_item(self, kind: str, told: Event) -> list[str]:
        """Append a piece of an item that is not text."""
        match kind:
            case "output_text.done" | "content_part.done" | "refusal.done":
                return self._end_part(self._place_of(told), told)
            case "refusal.delta":
                item = self._place_of(told)
                self._begin_text(item)
                self._refuse_in(item, string_in(told.delta))
            case "reasoning_summary_text.delta" | "reasoning_text.delta":
                self._place_of(told).has_thoughts = True
                self._think(string_in(told.delta))
            case "function_call_arguments.delta":
                piece = string_in(told.delta)
                self._answer.grow(len(piece))
                self._place_of(told).pieces.append(piece)
            case "function_call_arguments.done":
                item = self._place_of(told)
                item.final = arguments_in(told.arguments) or item.final
            case _:  # the beginning of a part, or something newer than this
                pass
        return []

    def _end_part(self, item: _Growing, told: Event) -> list[str]:
        part = told.part or ItemText()
        text = string_in(told.text) or (part.text if part.type == "output_text" else "") or ""
        refusal = string_in(told.refusal) or part.refusal or ""
        if refusal and not item.has_refusal:
            self._refuse_in(item, refusal)
        if item.text_at is not None or not (text or refusal):
            return []
        return self._say(item, text)

    def _refuse_in(self, item: _Growing, text: str) -> None:
        item.has_refusal = True
        self._refuse(text)

    def _begin_text(self, item: _Growing) -> None:
        if item.text_at is None:
            item.text_at = self._phases.said

    def _say(self, item: _Growing, text: str) -> list[str]:
        """Return the *text* of a message, unless it is held back."""
        self._begin_text(item)
        if item.phase == COMMENTARY:
            self._comment = item
            self._answer.grow(len(text))
            item.pieces.append(text)
            return []
        self._end_comment()
        if thoughts := self._phases.say(text):
            self._think(thoughts)
        return [text] if text else []

    def _place_of(self, told: Event, item: Item | None = None, *, ends: bool = False) -> _Growing:
        """Return the item that an event belongs to; if there is none, return a new item.

        Args:
            told: The event's data.
            item: The item as the event describes it. ``None``: the event does not describe it.
            ends: Whether it is the item's last event.
        """
        name = (item and item.id) or told.item_id or ""
        growing = self._near(told.output_index)
        named = self._by_id.get(name)
        # Two items may have one id; then their places tell them apart.
        begins = item is not None and not ends
        is_elsewhere = named is not None and told.output_index not in {None, named.at}
        if named is not None and not (is_elsewhere and (begins or growing is not None)):
            return named
        if item is not None:
            is_other = growing is not None and _is_other(growing, item)
            # An item that ends goes on with one that began; one that begins is another.
            if growing is not None and (growing.is_done or is_other or (growing.type and not ends)):
                growing = None
        if growing is None:
            growing = _Growing(len(self._items) if told.output_index is None else told.output_index)
            self._add(growing)
        if name:
            self._by_id[name] = growing
        self._by_place[growing.at if told.output_index is not None else -1] = growing
        return growing

    def _add(self, item: _Growing) -> None:
        self._answer.begin_block()
        self._items.append(item)

    def _near(self, place: int | None) -> _Growing | None:
        return self._by_place.get(-1 if place is None else place)

    def _plain_error(self, data: str) -> ErrorBody:
        # Its type is that of the event, and says nothing.
        return msgspec.structs.replace(msgspec.json.decode(data, type=ErrorBody), type=None)

    def _take_response(self, kind: str, response: Response) -> list[str]:
        self._model = response.model or self._model
        self._counted = response.usage or self._counted
        if response.error is not None and not is_no_error(response.error):
            raise failure_in_stream(response.error, secret=self.secret)
        if kind not in _ENDS:
            return []
        why = response.incomplete_details
        # Of an event that says no more than that it was the last one.
        status = (response.status if kind == "completed" else None) or kind
        self._end((why.reason if isinstance(why, Why) else why) or status)
        self._done = True
        texts = self._take_output(response.output or ())
        for item in self._items:
            if item.phase:
                self._label(item)
        return [*texts, *self._phases.as_text()]

    def _take_output(self, output: Sequence[msgspec.Raw]) -> list[str]:
        """Handle the output that came only at the end of the answer.

        An item is identified by its id, or otherwise by its position among the items of its type.
        """
        texts: list[str] = []
        none_left: OrderedDict[int, _Growing] = OrderedDict()
        begun: dict[str, OrderedDict[int, _Growing]] = {}
        for one in self._items:
            begun.setdefault(one.type, OrderedDict())[id(one)] = one
        for index, raw in enumerate(output):
            ended = self._item(raw)
            alike = begun.get(ended.type, none_left)
            known = self._by_id.get(ended.id or "") or next(iter(alike.values()), None)
            if known is not None:
                alike.pop(id(known), None)
            else:
                known = _Growing(index)
                self._add(known)
            texts += self._end_item(known, ended, raw)
        return texts

    def _begin_item(self, told: Event) -> list[str]:
        begun = self._item(told.item)
        item = self._place_of(told, begun)
        item.type = begun.type
        if begun.type != "function_call":
            item.phase = begun.phase or ""
            return []
        item.call_id, item.name = begun.call_id or "", begun.name or ""
        self._note_call(item)
        self._end_comment()
        return self._phases.as_text()

    def _end_item(self, item: _Growing, ended: Item, raw: msgspec.Raw) -> list[str]:
        """Copy the fields that did not arrive in pieces from the finished item."""
        if item.is_done:
            return []
        item.is_done, item.type = True, ended.type
        match ended.type:
            case "function_call":
                item.call_id = item.call_id or ended.call_id or ""
                item.name = item.name or ended.name or ""
                self._note_call(item)
                arguments = arguments_in(ended.arguments)
                if arguments not in _EMPTY or not item.final:
                    item.final = arguments
                self._answer.grow(len(item.final))
            case "reasoning":
                self._keep(item, ended, raw)
            case "message":
                return self._end_message(item, ended)
            case "image_generation_call":
                refuse_media("images", ended.result)
            case _:  # something newer than this
                pass
        return []

    def _end_message(self, item: _Growing, ended: Item) -> list[str]:
        texts: list[str] = []
        parts, is_refused = parts_of(ended.content), item.has_refusal
        for refusal in (one.refusal for one in parts if one.refusal and not is_refused):
            self._refuse_in(item, refusal)
        if item.text_at is None:
            item.phase = item.phase or ended.phase or ""
            for part in parts:
                texts += self._say(item, part.text or "")
        if item.phase != COMMENTARY:
            item.phase = ended.phase or item.phase
        self._label(item)
        return texts

    def _end_comment(self) -> None:
        """Treat the comment so far as complete, because something else has begun."""
        if self._comment is not None:
            self._label(self._comment)
            self._comment = None

    def _label(self, item: _Growing) -> None:
        if item.is_labelled:
            return
        item.is_labelled = True
        if item.pieces:
            self._phases.hold("".join(item.pieces), self._calls)
        elif item.text_at is not None:
            self._phases.label(item.phase, item.text_at)

    def _note_call(self, item: _Growing) -> None:
        if not item.is_counted and (item.name or item.call_id):
            item.is_counted = True
            self._calls += 1
            self._answer.check_call_count(self._calls)

    def _keep(self, item: _Growing, ended: Item, raw: msgspec.Raw) -> None:
        told = parts_of(ended.content or ended.summary)
        texts = [one.text for one in told if one.text]
        if not item.has_thoughts and texts:
            self._think("".join(texts))
        if not ended.encrypted_content and not ended.content:
            return  # it could not be read again
        fields = FIELDS.decode(raw)
        fields.pop("id", None)
        fields.pop("status", None)
        if not bytes(fields.get("summary", msgspec.Raw())).startswith(b"["):
            # It must be a list, whatever came in its place.
            said = [{"type": "summary_text", "text": one} for one in texts]
            fields["summary"] = msgspec.Raw(msgspec.json.encode(said))
        data = msgspec.json.encode(fields)
        self._answer.grow(len(data))
        place, calls = self._phases.said, self._calls
        part = self.origin.part("item", data, "".join(texts), text_at=place, call_at=calls)
        self._answer.parts.append(part)

    def _item(self, raw: msgspec.Raw) -> Item:
        data = bytes(raw).decode()
        return self._read(data, ITEMS) if data else Item()


def _is_other(growing: _Growing, item: Item) -> bool:
    """Return whether a newly begun item is of a different kind, or is a different call."""
    is_kind = bool(growing.type) and growing.type != item.type
    return is_kind or bool(growing.call_id and item.call_id and growing.call_id != item.call_id)
