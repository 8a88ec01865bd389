"""Finds out whether a JSON text that arrives in pieces is whole, reading each piece once.

Reading the whole text again with each piece would take quadratic time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, final

import attrs
import msgspec

from agentpool._surrogates import escapes_without_halves

_SIGNS: Final = re.compile(r'[][{}"]|\\.?', re.DOTALL)

_MOST_PLAIN: Final = 1_000
"""The longest number or word: a longer text is neither."""


@final
@attrs.define(eq=False, repr=False)
class OpenJson:
    """The state of a JSON text so far."""

    is_whole: bool = attrs.field(init=False, default=False)
    """Whether the text so far is complete JSON."""
    _read: int = attrs.field(init=False, default=0)
    """How many pieces were read."""
    _chars: int = attrs.field(init=False, default=0)
    _depth: int = attrs.field(init=False, default=0)
    _is_text: bool = attrs.field(init=False, default=False)
    _has_opened: bool = attrs.field(init=False, default=False)
    """Whether it is an object, a list or a string, whose ends are marked."""
    _is_escaped: bool = attrs.field(init=False, default=False)
    _is_closed: bool = attrs.field(init=False, default=False)
    """Whether that end was reached, so that nothing may follow."""

    def read(self, pieces: Sequence[str]) -> bool:
        """Read those of *pieces* that are new. Return whether all pieces together are JSON."""
        for place in range(self._read, len(pieces)):
            self._take(pieces, place)
        self._read = len(pieces)
        return self.is_whole

    def _take(self, pieces: Sequence[str], place: int) -> None:
        piece = pieces[place]
        self._chars += len(piece)
        if self._is_closed:
            self.is_whole = self.is_whole and not piece.strip()
            return
        self._look_at(piece)
        self._is_closed = self._has_opened and not self._is_text and not self._depth
        is_plain = not self._has_opened and self._chars <= _MOST_PLAIN
        self.is_whole = (self._is_closed or is_plain) and is_json("".join(pieces[: place + 1]))

    def _look_at(self, piece: str) -> None:
        """Count the brackets and quotes in *piece*."""
        start, self._is_escaped = int(self._is_escaped), False
        for found in _SIGNS.finditer(piece, start):
            sign = found[0]
            if sign[0] == "\\":
                self._is_escaped = len(sign) == 1
            elif sign == '"':
                self._is_text, self._has_opened = not self._is_text, True
            elif not self._is_text:
                self._depth += 1 if sign in "[{" else -1
                self._has_opened = True


def is_json(text: str) -> bool:
    """Return whether *text* is JSON, apart from halves of characters."""
    try:
        msgspec.json.decode(escapes_without_halves(text))
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
    return True
