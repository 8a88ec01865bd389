"""Separates the thoughts that some models write before their answer from the answer.

Models that run behind plain servers write their thoughts into the text. Rules:

1. Thoughts are at the beginning of the text, between marks such as ``<think>…</think>``. Some
   servers omit the first mark: then the first end mark at the beginning of a line ends the
   thoughts.
2. A mark within an answer is a part of it: an answer may be about marks.
3. Thoughts without an end mark are thoughts to the end, whether they were cut off or the model
   forgot the mark: such an answer has no text, and is asked for again.
4. In a stream, this is done piece by piece: a text that may be a mark is held back until that is
   certain. Thoughts without a first mark cannot be recognized before they end, so if the previous
   answer had such thoughts, the whole text is held back.

Source for rule 3: vLLM's reasoning parsers, which treat a text without an end mark as reasoning
only (docs.vllm.ai/en/latest/features/reasoning_outputs.html, 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from agentpool._base import Live

MARKS: Final = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
)
"""The marks around thoughts: of DeepSeek and Qwen, of others, and of Mistral."""


_LONGEST: Final = max(len(close) for _, close in MARKS)
"""Characters of a line's end and the longest mark behind it, less one."""


def without_thoughts(text: str) -> str:
    r"""Return *text* without the thoughts at its beginning.

    >>> without_thoughts("<think>\nTwo and two.\n</think>\n\n4")
    '4'
    """
    if ">" not in text and "]" not in text:
        return text  # there is no mark in it; looking for each takes as long as the turn
    begin = _skip_spaces(text, 0)
    if (end := _end_of_blocks(text, begin)) > begin:
        return text[end:]
    if (found := _first_end(text)) is None:
        return text
    return text[_end_of_blocks(text, _skip_spaces(text, found[1])) :]


def begins_silently(text: str) -> bool:
    """Return whether *text* begins with thoughts without a start mark."""
    return _mark_at(text, _skip_spaces(text, 0)) is None and without_thoughts(text) != text


@final
class StreamedText(Live):
    """Separates text from thoughts while an answer arrives.

    >>> stream = StreamedText()
    >>> list(stream.feed("<thi")), list(stream.feed("nk>2 + 2</think>4"))
    ([], [('2 + 2', True), ('4', False)])
    """

    holds_back: bool = False
    """Whether thoughts are expected that have no first mark."""
    _held: str = ""
    _before: list[str] = []  # noqa: RUF012  # each has its own
    """The text that is held back and not searched again: blanks, or thoughts without a first
    mark."""
    _has_begun: bool = False
    """Whether that text contains such thoughts."""
    _close: str = ""
    """The mark that ends the arriving thoughts. Empty: no thoughts are arriving."""
    _is_text: bool = False
    _has_thoughts: bool = False
    """Whether there were thoughts. White space after them is dropped."""

    def feed(self, piece: str) -> Iterator[tuple[str, bool]]:
        """Add a piece; yield the part that is certain, and whether it is a thought."""
        if self._is_text:
            yield piece, False
            return
        self._held += piece
        while self._held and not self._is_text:
            before = len(self._held)
            yield from self._in_thoughts() if self._close else self._at_start()
            if len(self._held) == before:
                return

    def end(self) -> Iterator[tuple[str, bool]]:
        """Yield the text that was held back, at the end of the answer."""
        is_thought = bool(self._close)
        text = self._take_all()
        text = text.lstrip() if self._has_thoughts and not is_thought else text
        self._close = ""
        if text:
            yield text, is_thought

    def _take_all(self, end: int | None = None) -> str:
        """Return the text that is held back, up to *end* in its last piece."""
        text = "".join((*self._before, self._held[:end]))
        self._before, self._held = [], ""
        return text

    def _at_start(self) -> Iterator[tuple[str, bool]]:
        if self._has_begun:
            yield from self._after_thoughts()
            return
        begun = self._held.lstrip()
        if not begun:
            # But the last one: it may be the end of a line that has a mark behind it.
            self._before.append(self._held[:-1])
            self._held = self._held[-1:]
            return
        for begin, close in MARKS:
            if begun.startswith(begin):
                self._held, self._close = begun[len(begin) :], close
                self._before = []
                self._has_thoughts = True
                return
        if any(begin.startswith(begun) for begin, _ in MARKS):
            return
        if self.holds_back:
            yield from self._after_thoughts()
            return
        self._is_text = True
        text = self._take_all()
        yield begun if self._has_thoughts else text, False

    def _after_thoughts(self) -> Iterator[tuple[str, bool]]:
        """Look for the end of thoughts without a start mark."""
        if (found := _first_end(self._held)) is not None:
            at, end = found
            rest = self._held[end:]
            thought, self._held = self._take_all(at), rest
            self._has_thoughts, self.holds_back, self._has_begun = True, False, False
            if thought:
                yield thought, True
            return
        # A mark may have begun at the end of it.
        self._has_begun = True
        done = len(self._held) - _LONGEST
        if done > 0:
            self._before.append(self._held[:done])
            self._held = self._held[done:]

    def _in_thoughts(self) -> Iterator[tuple[str, bool]]:
        thought, mark, rest = self._held.partition(self._close)
        if mark:
            self._held, self._close = rest, ""
        else:
            kept = _beginning_at_end(thought, self._close)
            thought, self._held = thought[: len(thought) - kept], thought[len(thought) - kept :]
        if thought:
            yield thought, True


def _beginning_at_end(text: str, mark: str) -> int:
    """Return how many characters of *mark* are at the end of *text*."""
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if mark.startswith(text[-size:])), 0)


def _mark_at(text: str, at: int) -> str | None:
    """Return the mark that ends the thoughts beginning *at*. ``None``: no thoughts begin there."""
    return next((end for begin, end in MARKS if text.startswith(begin, at)), None)


def _first_end(text: str) -> tuple[int, int] | None:
    """Return where the first end mark at the beginning of a line begins, and what comes after."""
    found = [(at, at + 1 + len(end)) for _, end in MARKS if (at := text.find(f"\n{end}")) >= 0]
    return min(found, default=None)


def _end_of_blocks(text: str, at: int) -> int:
    """Return where the answer begins, after all thoughts from *at* on that have a first mark."""
    while (mark := _mark_at(text, at)) is not None:
        close = text.find(mark, at)
        if close < 0:
            return len(text)
        at = _skip_spaces(text, close + len(mark))
    return at


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
