"""The page of the documentation that lists what is read from outside, and what is hard for it.

``python -m tests.growth_page`` writes its table anew; a test compares it with what is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests import test_growth as texts
from tests.drivers.wire import test_growth as wires
from tests.journal import test_growth as journals
from tests.loop import test_growth as loops
from tests.memory import test_word_search as memories
from tests.observe import test_growth as traces
from tests.tools import test_growth as tools

PAGE: Final = Path(__file__).parent.parent / "docs" / "explanation" / "growth.md"

FIRST: Final = "| what reads it | what would be hard | test |"
LAST: Final = "\n\n## What has a size instead"


def rows() -> list[tuple[str, Iterable[str], str]]:
    """Return what reads something from outside, what it is given, and where."""
    return [
        *((name, kinds, "tests/test_growth.py") for name, (_, kinds) in texts.READERS.items()),
        *((name, kinds, "tests/drivers/wire") for name, (_, kinds) in wires.STREAMS.items()),
        ("requests to a provider", wires.REQUESTS, "tests/drivers/wire"),
        ("careless events", ("numbers in quotes", "halves of characters"), "tests/drivers/wire"),
        ("arguments of a call", tools.WRONG, "tests/tools"),
        ("typed answers", tools.TEXTS, "tests/tools"),
        ("thoughts of a whole answer", tools.THOUGHTS, "tests/tools"),
        ("schemas of MCP servers", tools.SCHEMAS, "tests/tools"),
        ("lists and results of MCP servers", tools.ARRIVALS, "tests/tools"),
        ("names of their tools", ("many servers", "names with a hash"), "tests/tools"),
        ("attachments", ("pages of a PDF", "parts of a JPEG"), "tests/tools"),
        *((name, ("in pieces",), "tests/loop") for name in loops.READERS),
        *((name, kinds, "tests/observe") for name, kinds in traces.HARD.items()),
        *((name, kinds, "tests/journal") for name, (_, kinds) in journals.READERS.items()),
        ("words to remember and to recall", memories.MARKS, "tests/memory/test_word_search.py"),
        ("empty lines of streams", ("one, two and four of a kind",), "tests/test_empty_lines.py"),
        ("faulty tables of a manifest", ("17,000 of them",), "tests/manifest/test_manifest.py"),
        ("references in a schema file", ("each names two more",), "tests/cli/test_schema.py"),
    ]  # fmt: skip


def table() -> str:
    """Return the table."""
    lines = [FIRST, "|---|---|---|"]
    lines += [f"| {name} | {', '.join(kinds)} | `{where}` |" for name, kinds, where in rows()]
    return "\n".join(lines)


def written(text: str) -> str:
    """Return the page with its table written anew."""
    before, rest = text.split(FIRST)
    return before + table() + LAST + rest.split(LAST)[1]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
