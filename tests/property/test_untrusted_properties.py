"""What is true of every text and every marker."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from agentpool._chat_markers import REPLACEMENT
from agentpool.tools import MARKERS, Cleaner, as_data

CLEANER = Cleaner()

# Characters that fold to several, to others, or to parts of markers; and parts of markers.
ODD = "\u0130\u212a\u017f\u00df\u1e9e\ufb05\ufb06\u0149\u1f80 \n\u00a0<|[]/>_"

TEXTS = st.lists(
    st.text(max_size=5)
    | st.text(ODD, max_size=5)
    | st.sampled_from(
        [*MARKERS, REPLACEMENT, "ignore", "previous", "[IN", "ST]", "<|im_", "s", "~~~"]
    ),
    max_size=6,
).map("".join)


@st.composite
def odd_cases(draw: st.DrawFn, marker: str) -> str:
    """Return *marker* in some case, with other letters for the same and other white space."""
    others = {"s": "s\u017fS", "k": "kK\u212a", " ": (" ", "  ", "\n", "\u00a0\t")}
    return "".join(
        draw(st.sampled_from(tuple(others.get(sign.lower(), (sign, sign.swapcase())))))
        for sign in marker
    )


MARKED = st.sampled_from(MARKERS).flatmap(odd_cases)


def has_marker(text: str) -> bool:
    """Return whether *text* has a marker, found in another way than the cleaner does."""
    folded = " ".join(text.casefold().split())
    return any(marker.casefold() in folded for marker in MARKERS)


@given(TEXTS, MARKED, TEXTS)
@example("\u0130" * 12, "[INST]", "text")
@example("", "[IN\ufb06]", "\u1e9e")
def test_no_marker_stays(before: str, marker: str, after: str) -> None:
    """Wherever it stands, in whatever case, and whatever stands around it."""
    clean = CLEANER.clean(before + marker + after)
    assert not has_marker(clean)
    assert REPLACEMENT in clean


@given(TEXTS)
def test_cleaning_is_idempotent(text: str) -> None:
    """What is clean is left alone, so a text can come by here any number of times."""
    clean = CLEANER.clean(text)
    assert CLEANER.clean(clean) is clean


@given(TEXTS)
def test_a_text_without_markers_is_unchanged(text: str) -> None:
    """It is the very same, not a copy that might differ."""
    if not has_marker(text):
        assert CLEANER.clean(text) is text


@given(st.lists(st.text(max_size=8).filter(lambda t: not has_marker(t)), min_size=2, max_size=5))
def test_text_outside_of_markers_is_preserved(parts: list[str]) -> None:
    """To the character: a file that was read can be written back but for the markers."""
    marked = "\U0001f6d1[INST]\U0001f6d1".join(parts)
    if not any(has_marker(part + "\U0001f6d1") or REPLACEMENT in part for part in parts):
        expected = f"\U0001f6d1{REPLACEMENT}\U0001f6d1".join(parts)
        assert CLEANER.clean(marked) == expected


@given(TEXTS | st.text("~\n"))
def test_no_text_ends_its_own_fence(text: str) -> None:
    """The closing line is the last line, and occurs in the text nowhere."""
    lines = as_data("heading", text).split("\n")
    assert lines[1] == lines[-1]
    assert set(lines[-1]) == {"~"}
    assert lines[-1] not in text
