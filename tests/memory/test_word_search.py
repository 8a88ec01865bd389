"""Which texts fit a query."""

import doctest
import math
import re
import sys
import unicodedata
from collections.abc import Callable

import pytest

from agentpool.memory import _word_search
from agentpool.memory._word_search import MAX_QUERY_WORDS, WordIndex, rarest, scaled, words
from tests.support.growth import assert_linear


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Hello, WORLD! hello", ["hello", "world", "hello"]),
        ("max_tokens=3.5", ["max", "tokens", "3", "5"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("café cafe\u0301", ["cafe", "cafe"]),
        ("istanbul İstanbul ISTANBUL \u0131stanbul", ["istanbul"] * 4),
        ("München Munchen MU\u0308NCHEN", ["munchen"] * 3),
        ("Øre Łódź Ærø þing", ["ore", "lodz", "aero", "thing"]),
        ("ёлка елка", ["елка", "елка"]),
        ("كِتَاب كتاب كتـاب", ["كتاب"] * 3),
        ("שָׁלוֹם שלום", ["שלום", "שלום"]),
        ("แมว", ["แม", "มว"]),
        ("ก", ["ก"]),
        ("GPU는abc", ["gpu", "는", "abc"]),
        ("\uff21\uff22\uff23 \ufb01n", ["abc", "fin"]),  # full width; a ligature
        ("ACME\u2122", ["acmetm"]),
        ("\u212a", ["k"]),  # the Kelvin sign
        ("Ωμέγα ΩΜΈΓΑ", ["ωμεγα", "ωμεγα"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("我喜欢猫", ["我", "喜", "欢", "猫"]),
        ("GPUは速い", ["gpu", "は", "速", "い"]),
        ("한국 말", ["한", "국", "한국", "말"]),
        ("가나 힣", ["가", "나", "가나", "힣"]),  # the first and the last of them
        ("❤️ 🙂 — …", []),
        ("_ __ -", []),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_words_are_what_a_reader_would_call_words(text: str, found: list[str]) -> None:
    """Case, forms and signs make no difference; marks belong to their letter."""
    assert words(text) == found


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("학교", "나는 학교에서 공부한다"),
        ("말", "그 말을 들었다"),
        ("แมว", "ฉันชอบแมวมาก"),
        ("ແມວ", "ຂ້ອຍມັກແມວຫຼາຍ"),
        ("ឆ្មា", "ខ្ញុំចូលចិត្តឆ្មាណាស់"),
        ("ကြောင်", "ငါကြောင်ကြိုက်တယ်"),
        ("istanbul", "İstanbul'da"),
        ("Munchen", "In München"),
        ("resume", "Her résumé is long"),
        ("猫", "我喜欢猫"),
    ],
)
def test_a_word_is_found_where_a_script_does_not_part_it(query: str, text: str) -> None:
    """Or joins particles to it, or writes accents that people leave out."""
    assert set(words(query)) <= set(words(text))


MARKS: dict[str, Callable[[int], str]] = {
    "one mark": lambda n: "a" + "\u0300" * n,
    "two marks": lambda n: "a" + "\u0300\u0323" * n,
    "marks that are two": lambda n: "a" + "\u0344\u0323" * n,
    "marks of another script": lambda n: "\u05d0" + "\u05b0\u05bc" * n,
    "marks that stand alone": lambda n: "\u0f71\u0f72" * n,
    "letters and marks": lambda n: "a\u0323\u0300" * n,
    "ligatures": lambda n: "\ufdfa" * n,
    "Hangul": lambda n: "\uac01" * n,
    "jamo": lambda n: "\u1100\u1161\u11a8" * n,
    "Thai": lambda n: "\u0e41\u0e21\u0e27" * n,
    "signs": lambda n: "—" * n,
    "blanks": lambda n: "é" + " " * n,
    "one word": lambda n: "é" * n,
    "many words": lambda n: "é b_c " * n,
}


@pytest.mark.parametrize("kind", MARKS)
def test_words_are_found_in_proportion(kind: str) -> None:
    """A text of 300,000 marks took 79 seconds, in which nothing else happened."""
    assert_linear(words, MARKS[kind])


def test_marks_are_no_letters() -> None:
    """Which is why a run of them can be cut: all that Unicode puts in order are among them."""
    ordered = (one for one in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(one))
    assert not [one for one in ordered if re.match(r"[\w\s]", one)]


def test_a_text_is_looked_for_by_its_beginning() -> None:
    """And taken apart in steps that cut no word, where there are any."""
    text = "word " * 4000 + "é" * 40_000
    assert len(words(text)) == 4000 + 3
    assert words("x " * 500_000 + "behind") == ["x"] * 500_000
    assert len(rarest(str(number) for number in range(1000))) == 64


def test_the_examples_in_the_docstrings_are_true() -> None:
    """A reader tries them first."""
    assert doctest.testmod(_word_search).failed == 0


def index_of(*texts: str) -> WordIndex:
    """Return an index of *texts*, by their number."""
    index = WordIndex()
    for key, text in enumerate(texts):
        index.add(key, words(text))
    return index


def order(index: WordIndex, query: str) -> list[int]:
    """Return the keys that fit *query*, best first."""
    scores = index.search(words(query))
    return sorted(scores, key=lambda key: -scores[key])


def test_as_many_words_as_may_be_are_looked_for_in_their_order() -> None:
    """Sums depend on it; one more, and the shortest is left out."""
    found = [str(number) for number in range(8, 8 + MAX_QUERY_WORDS)]
    assert rarest(found) == found
    assert rarest([*found, "100"]) == ["100", *found[2:], "8"]


def test_one_common_word_is_enough() -> None:
    """A question in natural language never stands in the text as it is."""
    index = index_of("trio runs tasks", "bread and butter")
    assert order(index, "what is it that trio does?") == [0]
    assert index.search(words("nothing here fits")) == {}
    assert WordIndex().search(words("trio")) == {}


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    """The common ones are in every text, and tell nothing."""
    index = index_of("the the the the", "cold wind blows here", "the sea the cold")
    assert order(index, "the wind") == [1, 0, 2]


def test_words_count_by_their_rarity_as_in_bm25() -> None:
    """The numbers that others know, but for a factor that all have in common."""
    index = index_of("cold wind", "cold rain", "warm bread")
    scores = index.search(words("cold wind"))
    cold, wind = math.log1p(1.5 / 2.5), math.log1p(2.5 / 1.5)
    assert scores[0] / scores[1] == pytest.approx((cold + wind) / cold)


def test_repeating_a_word_helps_less_each_time() -> None:
    """Otherwise a text that says one word over and over fits everything."""
    index = index_of("cold wind blows here", "cold cold cold cold", "warm bread is here")
    assert order(index, "cold wind") == [0, 1]
    assert index.search(words("cold"))[1] < 2 * index.search(words("cold"))[0]


def test_a_long_text_is_marked_down() -> None:
    """A pasted page has every word in it somewhere."""
    index = index_of("cold " + "and so on " * 50, "it is cold")
    assert order(index, "cold") == [1, 0]


def test_a_word_twice_in_the_query_counts_once() -> None:
    """People repeat themselves; it says nothing about the texts."""
    index = index_of("cold wind", "warm bread")
    assert index.search(words("cold cold")) == index.search(words("cold"))


def test_what_was_removed_leaves_no_trace() -> None:
    """To forget means to forget, and scores must not remember either."""
    index = index_of("cold wind", "warm bread")
    index.add(7, words("cold secret water water"))
    index.remove(7)
    assert index.search(words("secret water")) == {}
    assert index.search(words("cold")) == index_of("cold wind", "warm bread").search(words("cold"))
    index.remove(0)
    index.remove(1)
    assert not index._places
    assert not index._lengths
    assert index._total_length == 0


def test_a_text_without_words_can_be_added_and_removed() -> None:
    """An emoji alone is worth remembering, too."""
    index = index_of("🙂", "cold")
    assert order(index, "cold") == [1]
    index.remove(0)
    assert order(index, "cold") == [1]
    only = index_of("🙂")
    assert only.search(words("cold")) == {}


def test_scores_are_scaled_to_the_best() -> None:
    """BM25's own numbers have no upper end."""
    assert scaled([4.0, 1.0]) == [1.0, 0.25]
    assert scaled([]) == []
