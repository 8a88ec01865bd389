"""What a model thought aloud at the beginning of its answer, told apart from the answer.

Models that run behind plain servers write their thoughts into the text. Rules:

1. Thoughts begin the text, in marks such as ``<think>…</think>``. Some servers write the
   first mark themselves: then the last one, at the beginning of a line, ends the thoughts.
2. A mark within an answer is a part of it: an answer may be about marks.
3. Thoughts that were cut off are thoughts. Where the model ended its answer and never closed
   the mark, the text stays as it is: nothing else would be left of it.
"""

from __future__ import annotations

from typing import Final

MARKS: Final = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
)
"""What begins and ends thoughts: DeepSeek's and Qwen's, those of others, and Mistral's."""


def without_thoughts(text: str, *, was_cut: bool = False) -> str:
    r"""Return the answer in *text*.

    >>> without_thoughts("<think>\nTwo and two.\n</think>\n\n4")
    '4'

    Args:
        text: What the model wrote.
        was_cut: Whether it would have gone on.
    """
    if ">" not in text and "]" not in text:
        return text  # there is no mark in it; looking for each takes as long as the turn
    begin = end = _skip_spaces(text, 0)
    while (mark := _mark_at(text, end)) is not None:
        close = text.find(mark, end)
        if close < 0:
            return "" if was_cut else text[end:]
        end = _skip_spaces(text, close + len(mark))
    if end > begin:
        return text[end:]
    for _, mark in MARKS:
        close = text.find(f"\n{mark}")
        if close >= 0:
            return text[close + 1 + len(mark) :].lstrip()
    return text


def _mark_at(text: str, at: int) -> str | None:
    """Return what ends the thoughts that begin *at*. ``None``: none begin there."""
    return next((end for begin, end in MARKS if text.startswith(begin, at)), None)


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
