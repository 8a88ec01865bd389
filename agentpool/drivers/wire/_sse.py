r"""A parser of server-sent events that accepts bytes in any pieces.

Rules:

1. Bytes are split into lines first and decoded afterwards, so a character in two pieces stays one
   character. Lines end with LF, CR or CRLF. A byte that belongs to no character is decoded as
   Python's half for it, ``\udc80`` to ``\udcff``: a server may have cut a character in two.
2. A byte-order mark at the very beginning is dropped. A line with ``:`` in front is a
   comment. One space after the colon of a field is dropped.
3. ``data`` lines of one event are joined with LF. An empty line ends the event; an event without
   any ``data`` is ignored. The lines after the last empty one may be a complete event: ``end``
   returns it.
4. Only ``event`` and ``data`` are kept. There is no reconnecting here, so ``id`` and ``retry`` are
   ignored.
5. Lines and events have a maximum size. A server that never ends a line must not fill the memory.
6. The first lines that are not fields are kept, since some servers write plain errors into a
   stream.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

import attrs
import msgspec

from agentpool._errors import ProtocolError

# A chunk of a chat completion is under 1 KiB. The last event of a response has all of the answer
# in it once more, and the instructions, with six bytes for a character: 128,000 tokens written
# and a million sent are 12 MiB at most.
MAX_LINE_BYTES: Final = 16 << 20
MAX_EVENT_BYTES: Final = 16 << 20

# An error is a few hundred bytes.
_MAX_STRAY_BYTES: Final = 64 * 1024

_FIELDS: Final = frozenset({b"id", b"retry"})

_BOM: Final = b"\xef\xbb\xbf"

# Two ends of lines are one empty line. More of them mean nothing, and are passed over at once.
_EMPTY_LINES: Final = re.compile(rb"\n{3,}")

_BEGINNINGS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


def begins_stream(first: bytes) -> bool:
    """Return whether *first* begins like a stream of events, whatever the headers say."""
    return first.lstrip().startswith(_BEGINNINGS)


def may_begin_stream(first: bytes) -> bool:
    """Return whether *first* is too short to say whether a stream of events begins with it."""
    begun = first.lstrip()
    return begun not in _BEGINNINGS and any(one.startswith(begun) for one in _BEGINNINGS)


@final
class SseEvent(msgspec.Struct, frozen=True):
    """One event of a stream."""

    data: str
    """The lines of data, joined with LF."""
    event: str = ""
    """The event's type. Empty: the server named none."""


@final
@attrs.define(eq=False, repr=False)
class SseParser:
    r"""Splits a stream into events.

    >>> parser = SseParser()
    >>> parser.feed(b"data: on"), parser.feed(b"e\n\n")
    ([], [SseEvent(data='one', event='')])
    """

    _max_line_bytes: int = MAX_LINE_BYTES
    _max_event_bytes: int = MAX_EVENT_BYTES
    _partial: bytearray = attrs.field(init=False, factory=bytearray)
    _after_cr: bool = attrs.field(init=False, default=False)
    _at_start: bool = attrs.field(init=False, default=True)
    _event: str = attrs.field(init=False, default="")
    _data: list[str] = attrs.field(init=False, factory=lambda: [])
    _event_bytes: int = attrs.field(init=False, default=0)
    _stray: bytearray = attrs.field(init=False, factory=bytearray)

    @property
    def stray(self) -> bytes:
        """The lines so far that are not event fields."""
        return bytes(self._stray)

    def end(self) -> SseEvent | None:
        """Return the last event if the stream ended without an empty line; it may be complete.

        Raises:
            ProtocolError: As in ``feed``.
        """
        found = self.feed(b"\n\n")
        return found[0] if found else None

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Process the next piece of the stream and return the events that it completed.

        Raises:
            ProtocolError: If a line is too long, or an event too large.
        """
        if self._after_cr and piece:
            # The CR has already ended its line; its LF, if it comes, ends no other.
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n\n\n" in piece:
            piece = _EMPTY_LINES.sub(b"\n\n", piece)
        if self._partial:
            self._partial += piece
            if b"\n" not in piece:
                self._check_line(len(self._partial))
                return []
            piece = bytes(self._partial)
            self._partial.clear()
        *blocks, rest = piece.split(b"\n\n")
        events = self._take_blocks(blocks) if blocks else []
        if b"\n" in rest:
            *lines, rest = rest.split(b"\n")
            events += self._take_lines(lines)
        self._check_line(len(rest))
        self._partial += rest
        return events

    def _take_blocks(self, blocks: Iterable[bytes]) -> list[SseEvent]:
        """Process lines, the last of which is empty."""
        events: list[SseEvent] = []
        is_between = not (self._at_start or self._data or self._event)
        named, event = b"", ""  # the name that came last, and what it says
        largest = min(self._max_line_bytes, self._max_event_bytes - 1)
        for block in blocks:
            name, _, data = block.rpartition(b"\n")
            # Nearly all events are one line of data, some with their name before it. These
            # cost as little as they can: there is one for each word of an answer.
            is_plain = is_between and len(block) <= largest and data.startswith(b"data: ")
            if is_plain and not name:
                events.append(SseEvent(data[6:].decode("utf-8", "surrogateescape")))
            elif is_plain and name == named:
                events.append(SseEvent(data[6:].decode("utf-8", "surrogateescape"), event))
            elif is_plain and name.startswith(b"event: ") and b"\n" not in name:
                named, event = name, name[7:].decode("utf-8", "replace")
                events.append(SseEvent(data[6:].decode("utf-8", "surrogateescape"), event))
            else:
                events += self._take_lines((*block.split(b"\n"), b""))
                is_between = True
        return events

    def _take_lines(self, lines: Iterable[bytes]) -> list[SseEvent]:
        found = (self._take_line(line) for line in lines)
        return [event for event in found if event is not None]

    def _take_line(self, line: bytes) -> SseEvent | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._end_event() if self._data or self._event else None
        self._check_line(len(line))
        if line.startswith(b":"):
            return None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            # With the end of the line: lines without a value take room as well.
            self._event_bytes += len(value) + 1
            if self._event_bytes > self._max_event_bytes:
                msg = f"an event of the stream is larger than {self._max_event_bytes} bytes"
                raise ProtocolError(msg)
            self._data.append(value.decode(errors="surrogateescape"))
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name not in _FIELDS and len(self._stray) < _MAX_STRAY_BYTES:
            self._stray += line + b"\n"
        return None

    def _end_event(self) -> SseEvent | None:
        event = SseEvent("\n".join(self._data), self._event) if self._data else None
        self._data.clear()
        self._event = ""
        self._event_bytes = 0
        return event

    def _check_line(self, size: int) -> None:
        if size > self._max_line_bytes:
            msg = f"a line of the stream is longer than {self._max_line_bytes} bytes"
            raise ProtocolError(msg)
