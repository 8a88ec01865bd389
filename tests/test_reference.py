"""The pages of the reference list every public name, each on one page and in one group."""

import importlib
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"

FACES = (
    "agentpool",
    "agentpool.drivers",
    "agentpool.tools",
    "agentpool.memory",
    "agentpool.journal",
    "agentpool.observe",
    "agentpool.live",
    "agentpool.testing",
    "agentpool.testing.strategies",
    "agentpool.abc",
)


def listed() -> dict[str, list[str]]:
    """Return the names in the tables of all pages, by the module they are under."""
    found: dict[str, list[str]] = {face: [] for face in FACES}
    for page in REFERENCE.glob("*.md"):
        text = page.read_text("utf-8")
        for face, names in re.findall(r"^\.\. names:: (\S+)\n\n((?: +\S+\n)+)", text, re.MULTILINE):
            found[face] += names.split()
    return found


def home(face: str, name: str) -> object:
    """Return the thing itself, or its value where several modules show one."""
    return getattr(importlib.import_module(face), name)


@pytest.mark.parametrize("face", FACES)
def test_each_name_is_listed_on_the_page_of_a_module_that_shows_it(face: str) -> None:
    """On its own, or on that of another module that has the same thing."""
    everywhere = listed()
    missing = [
        name
        for name in importlib.import_module(face).__all__
        if name not in everywhere[face]
        and name != "strategies"  # a module, and has a part of the page
        and not any(
            name in names and home(other, name) is home(face, name)
            for other, names in everywhere.items()
        )
    ]
    assert missing == []


@pytest.mark.parametrize("face", FACES)
def test_no_name_is_listed_twice_or_unknown(face: str) -> None:
    """A name that went away must leave the page as well."""
    names = listed()[face]
    assert len(set(names)) == len(names)
    assert set(names) <= set(importlib.import_module(face).__all__)
