r"""Rejoins characters that a server split between two events of a stream.

JSON writes a character such as an emoji as two escapes, ``\ud83d\ude00``, and servers that cut
texts by such units may send one of them alone. Alone it is not a character, and no encoder accepts
it. Other servers cut the bytes of a character, which the parser of the stream passes on as halves
of a different kind. Rules:

1. A first half at the end of a piece waits for the next piece in the same place. If that begins
   with the second half, both become the character. The same goes for the first bytes.
2. Every other half, and every byte that belongs to no character, becomes U+FFFD, the replacement
   character. A half at which an answer was cut becomes one, too.

Source: RFC 8259 section 8.2 for what JSON says of halves, Unicode 16 section 3.9 for the mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, TypeAlias, cast, final

import attrs

from agentpool._surrogates import escapes_without_halves

Path: TypeAlias = tuple[str | int, ...]
"""The path to a text in an event."""

_MARK: Final = "\ufffd"

_FIRST: Final = re.compile(r"[\ud800-\udbff]\Z")

_FIRST_BYTES: Final = re.compile(
    r"[\udcc2-\udcdf]\Z|[\udce0-\udcef][\udc80-\udcbf]?\Z|[\udcf0-\udcf4][\udc80-\udcbf]{0,2}\Z"
)
"""Matches the beginning of a character of two, three or four bytes."""

_BYTES: Final = re.compile(r"[\udc80-\udcff]+")

_ENDS: Final = re.compile(r'"finish_reason"\s*:\s*"\w')
"""Matches an event after which no text comes."""


@final
@attrs.define(eq=False, repr=False)
class Halves:
    """Joins the surrogate halves in the events of one stream."""

    half: str = attrs.field(init=False, default="")
    """The first half, or the first bytes, that wait for the rest. Empty: nothing waits."""
    _place: Path = attrs.field(init=False, default=())
    """The path to the text of the half."""
    _event: object = attrs.field(init=False, default=None)
    """The event of the half, with U+FFFD in place of its text."""

    def concern(self, data: str) -> bool:
        """Return whether *data*, an event, contains a half or follows one."""
        if self.half:
            return True
        return escapes_without_halves(data) != data or _has_bytes(data)

    def mend(self, data: str) -> list[str]:
        """Return the event *data* without halves, after the event of a lone half, if any."""
        has_bytes = _has_bytes(data) or _has_bytes(self.half)
        try:
            event: object = json.loads(data, strict=False)
        except (ValueError, RecursionError):  # the wire says what is wrong with it
            return [*self.end(), without_bytes(data)]
        before = self._join(event)
        if not self.half and _ENDS.search(data) is None:
            self._take_half(event, _FIRST_BYTES if has_bytes else _FIRST)
        if has_bytes:
            for place, text in tuple(_texts(event)):
                _put(event, place, without_bytes(text))
        return [*before, _written(event)]

    def end(self) -> list[str]:
        """Return the event for a half whose other half never came."""
        found = [_written(self._event)] if self.half else []
        self.half, self._event = "", None
        return found

    def _join(self, event: object) -> list[str]:
        """Put the waiting half before its text in *event*. Return an event to send before it."""
        text = _at(event, self._place) if _type_of(event) == _type_of(self._event) else None
        if not self.half or text == "" or _type_of(event) == "ping":
            return []
        if not isinstance(text, str):
            return self.end()
        _put(event, self._place, self.half + text)
        self.half, self._event = "", None
        return []

    def _take_half(self, event: object, first: re.Pattern[str]) -> None:
        """Remove the half that the pattern *first* finds at the end of a text in *event*."""
        for place, text in _texts(event):
            found = first.search(text) if "delta" in place else None
            if found is not None:
                self.half, self._place = found[0], place
                _put(event, place, _MARK)
                self._event = json.loads(json.dumps(event))
                _put(event, place, text[: found.start()])
                return


def without_bytes(text: str) -> str:
    """Return *text* with written-out bytes replaced by their characters, or by U+FFFD."""
    return _BYTES.sub(_character, text) if _has_bytes(text) else text


def _has_bytes(text: str) -> bool:
    return not text.isascii() and _BYTES.search(text) is not None


def _character(found: re.Match[str]) -> str:
    return found[0].encode(errors="surrogateescape").decode(errors="replace")


def _type_of(event: object) -> object:
    return _at(event, ("type",))


def _at(value: object, place: Path) -> object:
    """Return the value at the path *place* in *value*. ``None``: there is none."""
    for key in place:
        try:
            value = cast("dict[str | int, object]", value)[key]
        except (LookupError, TypeError):
            return None
    return value


def _put(value: object, place: Path, text: str) -> None:
    *way, last = place
    cast("dict[str | int, object]", _at(value, tuple(way)))[last] = text


def _written(event: object) -> str:
    """Return *event* as JSON, with matching halves joined, and U+FFFD for each other half."""
    return escapes_without_halves(json.dumps(event))


def _texts(value: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield all texts in *value* with their paths."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, one in cast("dict[str, object]", value).items():
                yield from _texts(one, (*path, key))
        case list():
            for index, one in enumerate(cast("list[object]", value)):
                yield from _texts(one, (*path, index))
        case _:
            pass
