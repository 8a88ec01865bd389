"""JSON objects in a text that says more than that."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.tools._find_json import find_objects

OBJECTS = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text() | st.lists(st.none()), max_size=3
)
WORDS = st.text(st.characters(exclude_characters="{"), max_size=20)


@given(st.lists(st.tuples(WORDS, OBJECTS)), WORDS, st.sampled_from([None, 2]))
def test_every_object_is_found_as_it_is_written(
    pairs: list[tuple[str, dict[str, object]]], last: str, indent: int | None
) -> None:
    """Whatever stands between them."""
    written = [json.dumps(value, indent=indent) for _, value in pairs]
    text = "".join(word + one for (word, _), one in zip(pairs, written, strict=True)) + last
    assert list(find_objects(text)) == written


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{x}",
        '{"a": 1',
        '{"a": 1,}',
        '{"a": {"b": 1},}',
        '{"a":' * 100_000,
        '{"a": ' + "9" * 5_000 + "}",
        "{" + " " * 1_000 + '"a": 1}',
    ],
    ids=["none", "brace", "word", "half", "comma", "broken", "deep", "long", "spaces"],
)
def test_what_is_no_object_is_not_found(text: str) -> None:
    """Nor what stands within it: a part would be taken for the whole."""
    assert list(find_objects(text)) == []


def test_other_braces_are_passed_over() -> None:
    """They are in formulas, templates and code."""
    assert list(find_objects('f(x) {return x} {{y}} {  "a": 1}{}')) == ['{  "a": 1}', "{}"]
