"""Collects an answer that arrives in pieces: its text and its tool calls, up to a limit.

1. Pieces of calls come in many forms. Two calls with the same index, or without one, are told apart
   by their ids, their names, and whether the arguments so far are complete.
2. Some servers repeat the arguments so far in each piece, or send all of them again at the end. If
   the joined pieces are not JSON, the last piece counts as the arguments.
3. An answer has a size limit, larger than models write: a server that never ends must not fill the
   memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import ProtocolError
from agentpool._messages import ProviderPart, ToolCall
from agentpool._surrogates import escapes_without_halves
from agentpool.drivers.wire._open_json import OpenJson, is_json

# No provider allows as many calls in one answer; a larger index is a broken stream.
MAX_TOOL_CALLS: Final = 128

MAX_NAME_CHARS: Final = 1_000
"""The longest name of a tool. Offered tools have up to 64 characters; joining a million pieces
would take hours."""

MAX_BLOCKS: Final = 100_000
"""The most thoughts and messages in one answer. Empty ones do not count towards its size."""

# The longest answers on offer (128,000 tokens) are around 0.5 MiB.
MAX_ANSWER_CHARS: Final = 16 << 20


@final
@attrs.define(eq=False, repr=False)
class _GrowingCall:
    call_id: str = ""
    name: str = ""
    pieces: list[str] = attrs.field(factory=lambda: [])
    _json: OpenJson = attrs.field(init=False, factory=OpenJson)

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are complete JSON."""
        return self._json.read(self.pieces)

    def add(self, piece: str) -> None:
        """Append a piece of the arguments."""
        if self.pieces == ["{}"] and piece.lstrip().startswith("{"):
            # "Nothing yet" in the words of some gateways.
            self.pieces.clear()
            self._json = OpenJson()
        self.pieces.append(piece)

    @property
    def arguments(self) -> str:
        """The call's arguments, whether they came in pieces or were repeated in each piece."""
        whole = "".join(self.pieces)
        if len(self.pieces) < 2 or is_json(whole):  # noqa: PLR2004  # a beginning and an end
            return whole
        *before, last = self.pieces
        said = "".join(before)
        is_anew = last == said or all(last.startswith(one) for one in before)
        return last if is_anew and is_json(last) else whole


@final
@attrs.define(eq=False, repr=False)
class GrowingAnswer:
    """The part of one answer that has arrived."""

    call_id_prefix: str
    """The beginning of new ids, for calls without one. It differs in every answer."""
    parts: list[ProviderPart] = attrs.field(init=False, factory=lambda: [])
    """The parts that the provider wants back."""
    _texts: list[str] = attrs.field(init=False, factory=lambda: [])
    _calls: list[_GrowingCall] = attrs.field(init=False, factory=lambda: [])
    _places: dict[int, int] = attrs.field(init=False, factory=lambda: {})
    """The place of the newest call for each index that the server uses."""
    _chars: int = attrs.field(init=False, default=0)
    _size: int = attrs.field(init=False, default=0)
    _blocks: int = attrs.field(init=False, default=0)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def chars(self) -> int:
        """The length of the text so far."""
        return self._chars

    @property
    def call_count(self) -> int:
        """The number of calls so far."""
        return len(self._calls)

    @property
    def size(self) -> int:
        """The length of everything so far: text, thoughts, calls."""
        return self._size

    @property
    def so_far(self) -> str:
        """How much has arrived, in words, for errors."""
        return f"{self._chars} characters and {len(self._calls)} tool calls"

    @property
    def has_whole_calls(self) -> bool:
        """Whether there are calls, and all of them are complete."""
        return bool(self._calls) and all(call.name and call.is_whole for call in self._calls)

    def add_texts(self, texts: Sequence[str]) -> None:
        """Append pieces of text.

        Raises:
            ProtocolError: If the answer becomes too long.
        """
        chars = len(texts[0]) if len(texts) == 1 else sum(map(len, texts))
        self._chars += chars
        self._size += chars
        if self._size > MAX_ANSWER_CHARS:
            self.grow(0)
        self._texts += texts

    def add_call(
        self, index: int | None, *, call_id: str = "", name: str = "", arguments: str = ""
    ) -> int:
        """Add a piece of a call and return the call's index. Empty parts change nothing.

        Args:
            index: The server's number of the call. ``None``: it sends none.
            call_id: The call's id, which may be repeated with each piece.
            name: The tool's name, or a piece of it.
            arguments: A piece of the arguments.

        Raises:
            ProtocolError: If the index is too large (nothing is allocated for it), or the answer or
                a name becomes too long.
        """
        if index is not None and index not in range(MAX_TOOL_CALLS):
            msg = f"tool call index {index} is not in 0..{MAX_TOOL_CALLS - 1}"
            raise ProtocolError(msg)
        place = self._place_of(index, call_id, name, arguments)
        if place == len(self._calls):
            self.check_call_count(place + 1)
            self._calls.append(_GrowingCall())
        if index is not None:
            self._places[index] = place
        growing = self._calls[place]
        growing.call_id = growing.call_id or call_id
        # Some servers repeat the name with every piece.
        if name != growing.name:
            growing.name += name
        if len(growing.name) > MAX_NAME_CHARS:
            msg = f"the name of tool call {place} is longer than {MAX_NAME_CHARS} characters"
            raise ProtocolError(msg)
        if arguments:
            growing.add(arguments)
        self.grow(len(name) + len(arguments))
        return place

    def tool_calls(self, *, was_cut: bool) -> tuple[ToolCall, ...]:
        """Return the calls in the order in which they began.

        Args:
            was_cut: Whether the answer ran into ``max_tokens``. Missing arguments are then
                lost; otherwise they mean that the tool has no parameters.

        Raises:
            ProtocolError: If a call has no name.
        """
        calls: list[ToolCall] = []
        for index, growing in enumerate(self._calls):
            if not growing.name:
                msg = f"tool call {index} of the answer has no name"
                raise ProtocolError(msg)
            call_id = growing.call_id or f"{self.call_id_prefix}-{index}"
            # A server that reads them when they are sent back would refuse half a character.
            arguments = escapes_without_halves(_object_in(growing.arguments))
            calls.append(ToolCall(call_id, growing.name, arguments or ("" if was_cut else "{}")))
        return tuple(calls)

    def check_call_count(self, count: int) -> None:
        """Raise if *count* calls are too many for an answer.

        Raises:
            ProtocolError: If there are too many.
        """
        if count > MAX_TOOL_CALLS:
            raise ProtocolError(f"the answer has more than {MAX_TOOL_CALLS} tool calls")

    def begin_block(self) -> None:
        """Count a block of thoughts, or a message.

        Raises:
            ProtocolError: If there are too many.
        """
        self._blocks += 1
        if self._blocks > MAX_BLOCKS:
            raise ProtocolError(f"the answer has more than {MAX_BLOCKS} blocks")

    def grow(self, chars: int) -> None:
        """Count what has arrived, and raise if it is too much.

        Raises:
            ProtocolError: If the answer becomes too long.
        """
        self._size += chars
        if self._size > MAX_ANSWER_CHARS:
            msg = f"the answer is longer than {MAX_ANSWER_CHARS} characters"
            raise ProtocolError(msg)

    def _place_of(self, index: int | None, call_id: str, name: str, arguments: str) -> int:
        """Return the index of the call that a piece belongs to; for a new call, the call count."""
        new = len(self._calls)
        if index is not None:
            place = self._places.get(index, new)
        elif call_id:
            # By its id: some servers repeat it with each piece, others only begin with it.
            known = (i for i, call in enumerate(self._calls) if call.call_id == call_id)
            return next(known, new)
        else:
            place = max(new - 1, 0)
        if place == new or not name:
            return place
        call = self._calls[place]
        # A name begins another call where the id is another one, or where the call before
        # has all that it needs. Without either, the server repeats itself.
        if call_id and call.call_id:
            # A few have another id for each piece.
            goes_on = bool(call.pieces) and not call.is_whole and not _begins_object(arguments)
            return place if goes_on or call_id == call.call_id else new
        is_other = bool(arguments) and call.is_whole
        if index is None:
            is_other = is_other or name != call.name
        return new if is_other else place


def _object_in(arguments: str) -> str:
    """Return *arguments* without quotes around them, or ``{}`` if they say that there are none."""
    bare = arguments.strip()
    # "null" is how some models say that a tool has no parameters, and an empty list how PHP
    # writes an empty object.
    if bare in {"null", "[]", '""'}:
        return "{}"
    if not bare.startswith('"'):
        return arguments
    try:
        inner = msgspec.json.decode(bare, type=str)
    except msgspec.DecodeError:
        return arguments
    return inner if _begins_object(inner) and is_json(inner) else arguments


def _begins_object(text: str) -> bool:
    return not text or text.lstrip().startswith("{")
