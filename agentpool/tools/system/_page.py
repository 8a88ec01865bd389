"""Builds one page of a text of any size: numbered lines, cut between characters.

The text comes in pieces, and only the page is kept: a line of a gigabyte costs no more memory than
a line that fits on the page.

Rules:

1. A line ends with a line feed. A carriage return just before the line feed belongs to the line
   end.
2. A line is shown from *column* on, with at most ``MAX_LINE_CHARS`` characters. A note says how
   much is left out, and where to go on.
3. The page ends after *limit* lines or ``MAX_PAGE_CHARS`` characters, whichever is first.
4. Lines after the page are counted for as long as the reader passes more text.
"""

from __future__ import annotations

from typing import Final, final

MAX_PAGE_LINES: Final = 2000
"""The most lines of one page."""

MAX_PAGE_CHARS: Final = 64_000
"""The most characters of one page: some 16,000 tokens, half the window of an average model."""

MAX_LINE_CHARS: Final = 2000
"""The most characters shown of one line. People write shorter lines; minified files are read by
columns."""


@final
class Page:
    """Builds one page from the pieces of a text."""

    def __init__(self, *, offset: int, limit: int, column: int) -> None:
        """Begin a page.

        Args:
            offset: The number of the page's first line, from 1.
            limit: The most lines of the page.
            column: The number of the first shown character of each line, from 1.
        """
        self._offset = offset
        self._limit = limit
        self._skipped = column - 1
        self._shown: list[str] = []
        self._shown_chars = 0
        self._number = 1
        self._line: list[str] = []
        self._line_chars = 0
        self._ends_in_return = False

    @property
    def is_full(self) -> bool:
        """Whether the page is full; further lines are only counted."""
        return len(self._shown) >= self._limit or self._shown_chars >= MAX_PAGE_CHARS

    def add(self, piece: str) -> None:
        """Add the next piece of the text."""
        *ended, rest = piece.split("\n")
        for part in ended:
            self._extend(part)
            self._end_line()
        self._extend(rest)

    def count(self, lines: int, *, is_open: bool) -> None:
        """Count *lines* before or after the page.

        Args:
            lines: How many lines have ended.
            is_open: Whether another line has begun after these.
        """
        self._number += lines
        self._line_chars = int(is_open)

    def finish(self, *, is_end: bool) -> str:
        """Return the page.

        Args:
            is_end: Whether the text ends here. If not, there may be more lines.
        """
        at_least = "" if is_end else "at least "
        if self._line_chars:
            self._end_line(at_least)
        total = self._number - 1
        if not self._shown:
            if total == 0:
                return "[the file is empty]"
            return f"[there is no line {self._offset}: the file has {total} lines]"
        last = self._offset + len(self._shown) - 1
        lines = list(self._shown)
        if any("\ufffd" in line for line in lines):
            lines.append("[what is not UTF-8 is shown as \ufffd]")
        if total > last:
            more = total - last
            lines.append(f"[{at_least}{more} more lines, use offset={last + 1} to continue]")
        return "\n".join(lines)

    def _extend(self, part: str) -> None:
        if part:
            start = max(0, self._skipped - self._line_chars)
            stop = self._skipped + MAX_LINE_CHARS - self._line_chars
            if stop > start and self._offset <= self._number and not self.is_full:
                self._line.append(part[start:stop])
            self._line_chars += len(part)
            self._ends_in_return = part.endswith("\r")

    def _end_line(self, at_least: str = "") -> None:
        if self._offset <= self._number and not self.is_full:
            chars = max(0, self._line_chars - self._ends_in_return - self._skipped)
            text = "".join(self._line)[:chars]
            if chars > len(text):
                text += (
                    f"… [{at_least}{chars - len(text)} more characters, use "
                    f"offset={self._number} and column={self._skipped + len(text) + 1} to continue]"
                )
            self._shown.append(f"{self._number}\t{text}")
            self._shown_chars += len(text) + 1
        self._number += 1
        self._line.clear()
        self._line_chars = 0
        self._ends_in_return = False
