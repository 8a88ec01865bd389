"""Which texts fit a query."""

import doctest

import pytest

from agentpool.memory import _rank
from agentpool.memory._rank import WordIndex, scaled, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Hello, WORLD! hello", ["hello", "world", "hello"]),
        ("max_tokens=3.5", ["max", "tokens", "3", "5"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("café cafe\u0301", ["café", "café"]),
        ("\uff21\uff22\uff23 \ufb01n", ["abc", "fin"]),  # full width; a ligature
        ("ACME\u2122", ["acmetm"]),
        ("\u212a", ["k"]),  # the Kelvin sign
        ("Ωμέγα ΩΜΈΓΑ", ["ωμέγα", "ωμέγα"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("我喜欢猫", ["我", "喜", "欢", "猫"]),
        ("GPUは速い", ["gpu", "は", "速", "い"]),
        ("한국어 말", ["한국어", "말"]),
        ("❤️ 🙂 — …", []),
        ("_ __ -", []),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_words_are_what_a_reader_would_call_words(text: str, found: list[str]) -> None:
    """Case, forms and signs make no difference; marks belong to their letter."""
    assert words(text) == found


def test_the_examples_in_the_docstrings_are_true() -> None:
    """A reader tries them first."""
    assert doctest.testmod(_rank).failed == 0


def index_of(*texts: str) -> WordIndex:
    """Return an index of *texts*, by their number."""
    index = WordIndex()
    for key, text in enumerate(texts):
        index.add(key, text)
    return index


def order(index: WordIndex, query: str) -> list[int]:
    """Return the keys that fit *query*, best first."""
    scores = index.search(query)
    return sorted(scores, key=lambda key: -scores[key])


def test_one_common_word_is_enough() -> None:
    """M-01: a question in natural language never stands in the text as it is."""
    index = index_of("trio runs tasks", "bread and butter")
    assert order(index, "what is it that trio does?") == [0]
    assert index.search("nothing here fits") == {}
    assert WordIndex().search("trio") == {}


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    """The common ones are in every text, and tell nothing."""
    index = index_of("the the the the", "cold wind blows here", "the sea the cold")
    assert order(index, "the wind") == [1, 0, 2]


def test_repeating_a_word_helps_less_each_time() -> None:
    """Otherwise a text that says one word over and over fits everything."""
    index = index_of("cold wind blows here", "cold cold cold cold", "warm bread is here")
    assert order(index, "cold wind") == [0, 1]
    assert index.search("cold")[1] < 2 * index.search("cold")[0]


def test_a_long_text_is_marked_down() -> None:
    """A pasted page has every word in it somewhere."""
    index = index_of("cold " + "and so on " * 50, "it is cold")
    assert order(index, "cold") == [1, 0]


def test_a_word_twice_in_the_query_counts_once() -> None:
    """People repeat themselves; it says nothing about the texts."""
    index = index_of("cold wind", "warm bread")
    assert index.search("cold cold") == index.search("cold")


def test_what_was_removed_leaves_no_trace() -> None:
    """To forget means to forget, and scores must not remember either."""
    index = index_of("cold wind", "warm bread")
    index.add(7, "cold secret water water")
    index.remove(7, "cold secret water water")
    assert index.search("secret water") == {}
    assert index.search("cold") == index_of("cold wind", "warm bread").search("cold")
    index.remove(0, "cold wind")
    index.remove(1, "warm bread")
    assert not index._places
    assert not index._lengths
    assert index._total_length == 0


def test_a_text_without_words_can_be_added_and_removed() -> None:
    """An emoji alone is worth remembering, too."""
    index = index_of("🙂", "cold")
    assert order(index, "cold") == [1]
    index.remove(0, "🙂")
    assert order(index, "cold") == [1]
    only = index_of("🙂")
    assert only.search("cold") == {}


def test_scores_are_scaled_to_the_best() -> None:
    """BM25's own numbers have no upper end."""
    assert scaled([4.0, 1.0]) == [1.0, 0.25]
    assert scaled([]) == []
