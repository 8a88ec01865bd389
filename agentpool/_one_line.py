r"""Shows outside text to people on one line, without control sequences.

In a text that a person needs for a decision, invisible characters are shown as escapes, and a long
run of blanks as its length. A long text is shortened. So nothing in it can push another line off
the screen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

from agentpool._checks import expect_arguments

MAX_NAME_CHARS: Final = 60
"""The limit for an agent's name that a model chose, so that it fits on a line with the
request."""

# What str.isprintable() takes and no font shows: fillers, blanks that are not spaces, joiners,
# selectors of a variant, vowels that are not written.
_UNSEEN: Final = (
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U0001d159\U00016fe4\U000e0100-\U000e01ef]"
)
_MAX_MARKS: Final = 6
"""The most combining marks on one letter: no script has more, and a taller stack would reach other
lines."""

_LONG_BLANK: Final = r" {4,}"


@cache
def _unseen() -> re.Pattern[str]:
    return re.compile(_UNSEEN)


def is_unseen(sign: str) -> bool:
    r"""Return whether the character *sign* is invisible or controls the display.

    >>> is_unseen("\u3164"), is_unseen("\x1b"), is_unseen(" ")
    (True, True, False)
    """
    return not sign.isprintable() or _unseen().match(sign) is not None


def printable(text: str) -> str:
    r"""Return *text* on one line, without control sequences.

    >>> printable("a\x1b[2Jb\n c")
    'a [2Jb c'
    """
    if type(text) is not str:
        expect_arguments(printable, locals())
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def visible_lines(text: str) -> str:
    r"""Return *text* with its lines, and with unprintable characters written as escapes.

    >>> visible_lines("a\x1b[2J\n  b")
    'a\\x1b[2J\n  b'
    """
    return "".join(c if c.isprintable() or c == "\n" else _written(c) for c in text)


def one_line(text: str, limit: int | None = None) -> str:
    r"""Return *text* on one line with everything visible, for a person's decision.

    Args:
        text: What a model or a server wrote.
        limit: How many characters to keep at most. ``None``: all.

    >>> one_line("a\n\x1b[2J\u3164" + " " * 2000 + "b")
    'a\\n\\x1b[2J\\u3164[2000 blanks]b'
    >>> one_line("a long name", 6)
    'a long…'
    """
    if type(text) is not str or limit is not None:
        expect_arguments(one_line, locals())
    cut = text if limit is None else text[: limit + 1]
    shown = re.sub(
        _LONG_BLANK, lambda blank: f"[{len(blank[0])} blanks]", "".join(_each_written(cut))
    )
    return shown if limit is None or len(shown) <= limit else f"{shown[:limit]}…"


def _each_written(text: str) -> Iterator[str]:
    marks = 0
    for sign in text:
        is_mark = not sign.isascii() and unicodedata.category(sign).startswith("M")
        marks = marks + 1 if is_mark else 0
        yield _written(sign) if marks > _MAX_MARKS or is_unseen(sign) else sign


def _written(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
