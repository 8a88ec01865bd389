"""Search by words: BM25 over the texts of a memory.

Rules:

1. A word is a run of letters, digits and the marks on them. Case, compatibility forms and accents
   do not matter (``é`` is ``e``, ``ø`` is ``o``, and ``i`` with or without its dot). The signs that
   join words in code (``_``, ``-``, ``.``) separate them here. Some scripts put no space between
   words, so these count as words there:
   - Chinese and Japanese: each character;
   - Korean, which joins particles to nouns: each syllable, and each two neighbouring ones;
   - Thai, Lao, Khmer and Burmese: each two neighbouring signs.
2. A text fits if it has one word of the query. BM25 decides how well: rare words count more, each
   repetition counts less, and long texts count less.
3. Scores are scaled so that the best hit of a recall has 1.0: BM25's own numbers have no upper
   limit and cannot be compared between recalls.
4. The index holds the texts that were added and not removed, and nothing else.
5. Texts come from outside and may have any length. Splitting one takes time in proportion to its
   length, in short steps, and other threads run between the steps; a text longer than ``MAX_CHARS``
   is found only by its beginning.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Final, final

import attrs

SATURATION: Final = 1.2
"""BM25's k1: how soon repetitions of a word stop counting. Robertson's and Lucene's value, for
texts of any length: the third mention is worth little."""

LENGTH_WEIGHT: Final = 0.75
"""BM25's b: how much long texts are marked down: 0 not at all, 1 in proportion to their length.
Robertson's and Lucene's value. With a lower value, a pasted page would beat a note by its sheer
number of words."""

MAX_CHARS: Final = 1_000_000
"""How much of a text is indexed: a long book. The rest is kept, but not searched."""

MAX_QUERY_WORDS: Final = 64
"""The most words of a query that are searched for. Of a longer query, the longest words are taken,
which are the rarest: with all words of a whole document, every fragment would fit."""

STEP_CHARS: Final = 16_384
"""How many characters are split in one call into C, during which no other thread can run."""

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = re.compile(r"[^\W_]")

# Unicode's stream-safe text has no more than 30 marks in a row. To put more of them in order
# takes time that grows with their square, and they are not written. Marks are not letters.
_MARKS_IN_A_ROW = re.compile(r"([^\w\s\x00-\x7f]{30})[^\w\s\x00-\x7f]+")

# Accents; the points of Hebrew; the vowel signs of Arabic, and what only stretches a word.
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]+"
)
_ALSO = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th",
     "ħ": "h"}
)  # fmt: skip

_SYLLABLES = "\uac00-\ud7a3"
_JOINED = re.compile(f"[{_SYLLABLES}]+|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")


def words(text: str) -> list[str]:
    """Return the words of *text* in order, with repetitions.

    >>> words("The CAFÉ's max_tokens: 猫です")
    ['the', 'cafe', 's', 'max', 'tokens', '猫', 'で', 'す']
    >>> words("학교에서")
    ['학', '교', '에', '서', '학교', '교에', '에서']
    """
    found: list[str] = []
    at, end = 0, min(len(text), MAX_CHARS)
    while at < end:
        step = text[at : min(at + STEP_CHARS, end)]
        if at + len(step) < end:
            # Between two words, where there is such a place.
            step = step[: max(step.rfind(" "), step.rfind("\n")) + 1] or step
        at += len(step)
        found += _words_of_step(step)
    return found


def rarest(found: Iterable[str]) -> list[str]:
    """Choose the words to search for from those *found* in a query."""
    distinct = list(dict.fromkeys(found))
    if len(distinct) > MAX_QUERY_WORDS:
        distinct.sort(key=len, reverse=True)
    return distinct[:MAX_QUERY_WORDS]


def _words_of_step(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORD.findall(text.casefold())
    text = _MARKS_IN_A_ROW.sub(r"\1", text).casefold()
    # Full-width letters, ligatures, é in one code point or in two: all in their parts. Twice,
    # because that can bring forth a capital (™ is TM), and casefold a loose mark.
    text = unicodedata.normalize("NFKD", text).casefold()
    text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    parted = _between().sub(_part, unicodedata.normalize("NFC", text).translate(_ALSO))
    # A mark without a letter (as in many emoji) is not a word.
    return [one for word in parted.split() if _LETTER.search(word) for one in _unjoined(word)]


def _unjoined(word: str) -> Iterator[str]:
    at = 0
    for run in _JOINED.finditer(word):
        if run.start() > at:
            yield word[at : run.start()]
        signs, at = run[0], run.end()
        if len(signs) == 1 or "\uac00" <= signs[0] <= "\ud7a3":
            yield from signs
        yield from map("".join, pairwise(signs))
    if at < len(word):
        yield word[at:]


@cache
def _between() -> re.Pattern[str]:
    # Made when it is needed: it takes 5 ms, and most texts are ASCII.
    return re.compile(rf"[\W_]|(?<=[{_NO_SPACES}])|(?=[{_NO_SPACES}])")


def _part(between: re.Match[str]) -> str:
    """Keep a combining mark that belongs to its letter, such as Hindi and Thai vowel signs."""
    found = between[0]
    return found if found and unicodedata.category(found).startswith("M") else " "


def _new_places() -> defaultdict[str, dict[int, int]]:
    return defaultdict(dict)


@final
@attrs.define(eq=False, repr=False)
class WordIndex:
    """The words of many texts, and which texts contain each word."""

    # By word, then by the text's key: how often it is there.
    _places: defaultdict[str, dict[int, int]] = attrs.field(factory=_new_places)
    # By the text's key: its number of words.
    _lengths: dict[int, int] = attrs.field(factory=dict[int, int])
    _total_length: int = 0
    # By the text's key: its words, so that it need not be taken apart again to go.
    _words: dict[int, tuple[str, ...]] = attrs.field(factory=dict[int, tuple[str, ...]])

    def add(self, key: int, found: Iterable[str]) -> None:
        """Add a text with the words *found* under a new *key*."""
        counts = Counter(found)
        self._words[key] = tuple(counts)
        for word, count in counts.items():
            self._places[word][key] = count
        length = counts.total()
        self._lengths[key] = length
        self._total_length += length

    def remove(self, key: int) -> None:
        """Remove the text that was added under *key*."""
        for word in self._words.pop(key):
            places = self._places[word]
            del places[key]
            if not places:
                del self._places[word]
        self._total_length -= self._lengths.pop(key)

    def search(self, wanted: Iterable[str]) -> dict[int, float]:
        """Return the keys of texts that contain a word of *wanted*, with BM25 scores."""
        scores: dict[int, float] = {}
        how_many = len(self._lengths)
        # In the order of the query, each word once: sums of floats depend on the order.
        for word in dict.fromkeys(wanted):
            places = self._places.get(word)
            if places is None:
                continue
            rarity = math.log1p((how_many - len(places) + 0.5) / (len(places) + 0.5))
            mean_length = self._total_length / how_many
            for key, count in places.items():
                relative = self._lengths[key] / mean_length
                drag = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * relative)
                gain = rarity * count / (count + drag)
                scores[key] = scores.get(key, 0.0) + gain
        return scores


def scaled(scores: Sequence[float]) -> list[float]:
    """Return *scores*, best first, scaled so that the best is 1.0."""
    return [score / scores[0] for score in scores]
