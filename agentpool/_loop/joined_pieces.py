"""Joins the pieces of a continued answer into one text.

Rules:

1. A model that is asked to continue may do so, may repeat the end of what it wrote, or may write
   its whole answer again. The joined text contains nothing twice.
2. A piece is a new answer if its beginning is the same as that of the answer, for at least half of
   the answer so far. Then the new wording replaces the old.
3. Otherwise, if the piece begins with the end of the answer, the longest such text is kept once. A
   short or monotonous match is ignored as chance: two lines of a table may begin alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from typing import Final

from agentpool._messages import ChatMessage, UserMessage

CONTINUE: Final = (
    "Your answer was cut off. Continue exactly where it ended, and repeat nothing of it."
)
"""The request to continue an answer that was cut at ``max_tokens``."""

MIN_RESTART: Final = 8
"""The fewest characters that an answer must have for its beginning to prove anything."""

MIN_OVERLAP: Final = 12
"""Characters that must be the same before they count as a repetition."""

MIN_VARIETY: Final = 6
"""The fewest different characters among these. A line that rules off a table has two or three."""

MAX_OVERLAP: Final = 2_000
"""Characters that are compared. A model that repeats more than that is writing a new answer."""


def goes_on(messages: Sequence[ChatMessage]) -> bool:
    """Return whether *messages* ask the model to continue an answer that was cut off."""
    last = messages[-1] if messages else None
    return isinstance(last, UserMessage) and last.text == CONTINUE


def join_pieces(before: str, piece: str) -> str:
    """Join *before* and the *piece* that continues it into one text.

    >>> join_pieces("The sky is", "The sky is blue because")
    'The sky is blue because'
    >>> join_pieces("It is blue because of", " the air.")
    'It is blue because of the air.'
    """
    if not before:
        return piece
    if len(before) >= MIN_RESTART:
        pairs = zip(before, piece, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: eq(*pair), pairs))
        if 2 * same >= len(before):
            return piece
    return before + piece[_overlap(before, piece) :]


def _overlap(before: str, piece: str) -> int:
    """Return how many characters of *piece* repeat the end of *before*."""
    most = min(len(before), len(piece), MAX_OVERLAP)
    for length in range(most, MIN_OVERLAP - 1, -1):
        if before.endswith(piece[:length]) and len(set(piece[:length])) >= MIN_VARIETY:
            return length
    return 0
