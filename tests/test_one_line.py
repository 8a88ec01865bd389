"""Text from outside on one line, for people: nothing in it is unseen, and it reaches no other."""

from __future__ import annotations

import pytest

from agentpool._one_line import one_line

UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180e\u180f\u200b\u200d\u202e\u2060"
    "\u2064\u206f\u2800\u3164\ufe00\ufe0f\ufeff\uffa0\ufff9\U0001d159\U0001d173\U00016fe4"
    "\U000e0001\U000e0041\U000e0100\U000e01ef"
)


@pytest.mark.parametrize("mark", ["\u0300", "\u0489", "\u0e47", "\u20dd", "\U0001e8d0"])
def test_a_heap_of_marks_is_written_out(mark: str) -> None:
    """It would be drawn over the lines above, which a person decides by."""
    heap = "a" + mark * 50
    shown = one_line(heap)
    assert shown.count(mark) == 6
    assert shown.endswith(mark.encode("unicode_escape").decode() * 2)
    assert (
        one_line(("e\u0323\u0302" + "\u0f40\u0f90\u0f71\u0f72") * 9)
        == ("e\u0323\u0302" + "\u0f40\u0f90\u0f71\u0f72") * 9
    )


@pytest.mark.parametrize("sign", UNSEEN, ids=ascii)
def test_what_no_font_shows_is_written_out(sign: str) -> None:
    """Some of it counts as printable, and some as a letter."""
    assert sign not in one_line(f"a{sign}b")
    assert one_line(f"a{sign}b") == f"a{sign.encode('unicode_escape').decode()}b"
