"""Which texts fit a query: by their words, with BM25.

Rules:

1. A word is a run of letters, digits and the marks on them, without regard to case and to
   compatibility forms. What joins words in code (``_``, ``-``, ``.``) parts them here.
   Chinese and Japanese are written without spaces: there every character is a word.
2. A text fits if it has one word of the query. How well is told by BM25: rare words count
   more, repeated ones less each time, long texts less.
3. Scores are scaled so that the best hit of a recall has 1.0: BM25's own numbers have no
   upper end and mean nothing between two recalls.
4. The index holds what it was given and did not take out again, and nothing else.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Final, final

import attrs

SATURATION: Final = 1.2
"""BM25's k1: how soon more of the same word stops to count. Robertson's and Lucene's value,
for short texts as for long ones: the third mention is worth little."""

LENGTH_WEIGHT: Final = 0.75
"""BM25's b: how much long texts are marked down, 0 not at all, 1 in proportion. Robertson's
and Lucene's value. Lower, and a pasted page wins over a note by its sheer number of words."""

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = re.compile(r"[^\W_]")


def words(text: str) -> list[str]:
    """Return the words of *text*, in order, with repetitions.

    >>> words("The CAFÉ's max_tokens: 猫です")
    ['the', 'café', 's', 'max', 'tokens', '猫', 'で', 'す']
    """
    text = text.casefold()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    # Full-width letters, ligatures, é in one code point or in two: NFKC makes them one.
    # Twice, because it can bring forth a capital (™ is TM), and casefold a loose mark.
    text = unicodedata.normalize("NFKC", text).casefold()
    parted = _between().sub(_part, unicodedata.normalize("NFKC", text))
    # A mark without a letter (as in many emoji) is not a word.
    return [word for word in parted.split() if _LETTER.search(word)]


@cache
def _between() -> re.Pattern[str]:
    # Made when it is needed: it takes 5 ms, and most texts are ASCII.
    return re.compile(rf"[\W_]|(?<=[{_NO_SPACES}])|(?=[{_NO_SPACES}])")


def _part(between: re.Match[str]) -> str:
    """Keep the marks that belong to a letter; Hindi and Thai write vowels so."""
    found = between[0]
    return found if found and unicodedata.category(found).startswith("M") else " "


def _new_places() -> defaultdict[str, dict[int, int]]:
    return defaultdict(dict)


@final
@attrs.define(eq=False, repr=False)
class WordIndex:
    """The words of many texts, and in which of them each word is."""

    # By word, then by the text's key: how often it is there.
    _places: defaultdict[str, dict[int, int]] = attrs.field(factory=_new_places)
    # By the text's key: its number of words.
    _lengths: dict[int, int] = attrs.field(factory=dict[int, int])
    _total_length: int = 0

    def add(self, key: int, text: str) -> None:
        """Take in *text* under *key*, which is new."""
        counts = Counter(words(text))
        for word, count in counts.items():
            self._places[word][key] = count
        length = counts.total()
        self._lengths[key] = length
        self._total_length += length

    def remove(self, key: int, text: str) -> None:
        """Take out the *text* that was added under *key*, and every trace of it."""
        for word in set(words(text)):
            places = self._places[word]
            del places[key]
            if not places:
                del self._places[word]
        self._total_length -= self._lengths.pop(key)

    def search(self, text: str) -> dict[int, float]:
        """Return the keys of the texts that have a word of *text*, with BM25's scores."""
        scores: dict[int, float] = {}
        how_many = len(self._lengths)
        # In the order of the query, each word once: sums of floats depend on the order.
        for word in dict.fromkeys(words(text)):
            places = self._places.get(word)
            if places is None:
                continue
            rarity = math.log1p((how_many - len(places) + 0.5) / (len(places) + 0.5))
            mean_length = self._total_length / how_many
            for key, count in places.items():
                relative = self._lengths[key] / mean_length
                drag = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * relative)
                gain = rarity * count * (SATURATION + 1) / (count + drag)
                scores[key] = scores.get(key, 0.0) + gain
        return scores


def scaled(scores: Sequence[float]) -> list[float]:
    """Return *scores*, best first, so that the best of them is 1.0."""
    return [score / scores[0] for score in scores]
