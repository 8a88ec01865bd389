"""Joins the chunks of an HTTP/1.1 body that arrived together, so that h11 reads one and not many.

A model's server sends each token in its own chunk. For h11, a chunk is more work than its token is
for all the other code.

Rules:

1. The joined bytes mean the same as those that came: the same body, the same trailer, the same
   errors.
2. Only whole chunks in the plainest form are joined: digits, line end, data, line end. Everything
   else is passed on unchanged, and h11 judges it.
3. Nothing is held back.
"""

from __future__ import annotations

import re
from typing import Final, final

# Seven digits are 256 MiB, more than one read brings.
_HEADER: Final = re.compile(rb"([0-9a-fA-F]{1,7})\r\n")

_LINE_END: Final = b"\r\n"


@final
class ChunkJoiner:
    """Joins the chunks of one body."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: int | None = 0
        """Bytes until the next chunk begins. ``None``: unknown, so nothing more is joined."""

    def join(self, data: bytes) -> bytes:
        """Return *data*, the next part of the body, with the whole chunks in it as one."""
        first = self._left
        if first is None:
            return data
        size = len(data)
        if first > size:
            self._left = first - size
            return data
        pieces: list[bytes] = []
        at = first
        while (header := _HEADER.match(data, at)) is not None:
            begin = header.end()
            end = begin + int(header[1], 16)
            after = end + len(_LINE_END)
            if begin == end or after > size or data[end:after] != _LINE_END:
                # The last chunk, one that is not whole, or none at all.
                self._left = after - size if begin < end and after > size else None
                break
            pieces.append(data[begin:end])
            at = after
        else:
            self._left = 0 if at == size else None
        if len(pieces) <= 1:
            return data
        joined = b"".join(pieces)
        return b"%b%x\r\n%b\r\n%b" % (data[:first], len(joined), joined, data[at:])
