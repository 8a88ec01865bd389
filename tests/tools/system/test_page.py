"""One page of a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool.tools.system._page import MAX_LINE_CHARS, MAX_PAGE_CHARS, Page


def page_of(
    text: str, *, offset: int = 1, limit: int = 2000, column: int = 1, size: int = 7
) -> str:
    """Return a page of *text*, given in pieces of *size* characters."""
    page = Page(offset=offset, limit=limit, column=column)
    for start in range(0, len(text), size):
        page.add(text[start : start + size])
    return page.finish(is_end=True)


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("", "[the file is empty]"),
        ("a", "1\ta"),
        ("a\n", "1\ta"),
        ("a\nb", "1\ta\n2\tb"),
        ("\n\n", "1\t\n2\t"),
        ("a\r\nb\r\n", "1\ta\n2\tb"),
        ("a\rb", "1\ta\rb"),
        ("\r", "1\t"),
        ("a\ufffdb", "1\ta\ufffdb\n[what is not UTF-8 is shown as \ufffd]"),
    ],
)
def test_lines_are_numbered(text: str, page: str) -> None:
    """From 1, with a tab, as the original does it."""
    assert page_of(text) == page
    assert page_of(text, size=1) == page


def test_a_page_says_where_to_go_on() -> None:
    """In the original's words."""
    text = "".join(f"line {n}\n" for n in range(1, 11))
    shown = page_of(text, offset=3, limit=2)
    assert shown == "3\tline 3\n4\tline 4\n[6 more lines, use offset=5 to continue]"
    assert page_of(text, offset=9) == "9\tline 9\n10\tline 10"
    assert page_of(text, offset=11) == "[there is no line 11: the file has 10 lines]"


def test_a_page_without_its_end_says_at_least() -> None:
    """A reader that stopped does not know how much is left."""
    page = Page(offset=1, limit=1, column=1)
    page.add("a\nb\n")
    page.count(3, is_open=True)
    assert page.finish(is_end=False).endswith("[at least 5 more lines, use offset=2 to continue]")


def test_a_long_line_is_cut_between_characters() -> None:
    """A line like a bomb costs a page, and can be read on by columns."""
    text = "é" * (MAX_LINE_CHARS + 5) + "\nnext\n"
    first, second = page_of(text, size=11).split("\n")
    assert first == (
        f"1\t{'é' * MAX_LINE_CHARS}… [5 more characters, use offset=1 and "
        f"column={MAX_LINE_CHARS + 1} to continue]"
    )
    assert second == "2\tnext"
    assert page_of(text, column=MAX_LINE_CHARS + 1) == f"1\t{'é' * 5}\n2\t"


def test_a_line_that_just_fits_is_not_cut() -> None:
    """Its end is not part of it."""
    for end in ("", "\n", "\r\n"):
        assert page_of("a" * MAX_LINE_CHARS + end, size=100) == "1\t" + "a" * MAX_LINE_CHARS


def test_a_page_has_a_bound_whatever_the_lines() -> None:
    """2000 lines of 2000 characters would be four million."""
    text = ("b" * MAX_LINE_CHARS + "\n") * 100
    shown = page_of(text, size=5000)
    assert len(shown) < MAX_PAGE_CHARS + 2 * MAX_LINE_CHARS
    assert shown.endswith("use offset=33 to continue]")


@given(
    st.lists(st.text(st.sampled_from("aé🙂\r"), max_size=5), max_size=8),
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9),
)  # fmt: skip
def test_every_way_to_cut_the_text_gives_the_same_page(
    lines: list[str], offset: int, limit: int, column: int, size: int
) -> None:
    """Pieces end wherever a read ended."""
    text = "\n".join(lines)
    whole = page_of(text, offset=offset, limit=limit, column=column, size=10_000)
    assert page_of(text, offset=offset, limit=limit, column=column, size=size) == whole
    wanted = text.split("\n")[:-1] if text.endswith("\n") or not text else text.split("\n")
    expected = [
        f"{n}\t{line.removesuffix(chr(13))[column - 1 :]}"
        for n, line in enumerate(wanted, 1)
        if offset <= n < offset + limit
    ]
    assert [line for line in whole.split("\n") if not line.startswith("[")] == expected
