"""Pieces of one answer: joined, and nothing said twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool._loop.joined_pieces import MAX_OVERLAP, join_pieces

TABLE = "| a | b |\n|---|---|"


@pytest.mark.parametrize(
    ("before", "piece", "whole"),
    [
        ("", "all of it", "all of it"),
        ("The sky is blue because", " of the air.", "The sky is blue because of the air."),
        ("The sky is", "The sky is blue because", "The sky is blue because"),
        ("The sky is blue because", "The sky is blue.", "The sky is blue."),
        ("First this, then that, and", "then that, and more", "First this, then that, and more"),
        ("hel", "lo", "hello"),  # one letter is chance
        ("a", "apple", "aapple"),  # so short an answer says nothing
        ("x = 1\n            ", "            y = 2", "x = 1\n                        y = 2"),
        (TABLE, "|---|---|\n| 1 | 2 |", TABLE + "|---|---|\n| 1 | 2 |"),
        ('{"n": 1}\n{"n": 2}\n', '{"n": 3}', '{"n": 1}\n{"n": 2}\n{"n": 3}'),
    ],
)
def test_pieces(before: str, piece: str, whole: str) -> None:
    """Going on, saying the end again, beginning anew; and what only looks like it."""
    assert join_pieces(before, piece) == whole


@given(st.text(), st.text())
def test_no_letter_is_made_up_or_lost_at_the_end(before: str, piece: str) -> None:
    """The whole ends with the piece, or with what the piece repeats."""
    whole = join_pieces(before, piece)
    assert whole.endswith(piece) or before.endswith(piece)
    assert whole == piece or whole.startswith(before)


@given(st.text(alphabet="abcdefghijklmnop", min_size=40), st.integers(12, 19))
def test_an_end_that_is_said_again_is_said_once(before: str, length: int) -> None:
    """As far as the repeated part has some variety."""
    end = before[-length:]
    if len(set(end)) >= 6:
        whole = join_pieces(before, end + " and more")
        assert whole in {before + " and more", end + " and more"}


def test_a_long_answer_is_joined_at_once() -> None:
    """What is compared has a bound, however long the pieces are."""
    before = "".join(f"line {n} " for n in range(200_000))
    again = before[-MAX_OVERLAP:]
    assert join_pieces(before, again + "end") == before + "end"
    assert join_pieces(before, before + "end") == before + "end"
