"""JSON answers as a table, with each value looked up in the text that it came from.

A model that extracts data from a text may write values that are not in the text. Such a value is
not always wrong: a date, for example, may be written in a different way. These values are marked,
so that a person knows where to look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, final

import attrs

from agentpool.drivers import Json
from agentpool.tools import printable

MARK: Final = " (?)"
"""The mark after a value that is not in the text."""

FOOTNOTE: Final = "(?) is not in the text, word for word"

MAX_CELL_CHARS: Final = 40
"""The most characters of a value. Longer values are cut; ``--json`` shows whole values."""

Answer: TypeAlias = Mapping[str, Json]


@final
@attrs.frozen
class Row:
    """One line of the table."""

    label: str
    """The name of the input."""
    answer: Answer | None
    """The answer. ``None``: there is no answer."""
    note: str = ""
    """The text to show if there is no answer."""
    missing: frozenset[str] = frozenset()
    """The keys whose values are not in the text."""


def missing_in(text: str, answer: Answer) -> frozenset[str]:
    """Return the keys of *answer* with a text or a number that does not occur in *text*.

    Only letters and digits count, and their case does not matter.

    >>> sorted(missing_in("By H. G. Wells, 1895.", {"by": "H.G. Wells", "year": 1896}))
    ['year']
    """
    plain = _plain(text)
    return frozenset(
        key
        for key, value in answer.items()
        if any(_plain(leaf) not in plain for leaf in _leaves(value))
    )


def lines_of(rows: Sequence[Row], *, names: Sequence[str]) -> list[str]:
    """Return the lines of a table: one row per name, one column per key."""
    keys = list(dict.fromkeys(key for row in rows for key in row.answer or ()))
    table = [
        ["", *keys],
        *([name, *_cells(row, keys)] for name, row in zip(names, rows, strict=True)),
    ]
    shown = [[_cut(printable(cell)) for cell in line] for line in table]
    wide = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, wide, strict=True)).rstrip()
        for line in shown
    ]
    return [*lines, FOOTNOTE] if any(row.missing for row in rows) else lines


def _cells(row: Row, keys: Sequence[str]) -> Iterator[str]:
    if row.answer is None:
        # The whole line says why, from the first column on.
        yield from (row.note, *("" for _ in keys[1:])) if keys else ()
        return
    for key in keys:
        value = row.answer.get(key)
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        yield _cut(text) + (MARK if key in row.missing else "")


def _cut(text: str) -> str:
    most = MAX_CELL_CHARS + len(MARK)
    return text if len(text) <= most else text[: MAX_CELL_CHARS - 1] + "…"


def _leaves(value: Json) -> Iterator[str]:
    match value:
        case bool() | None:
            pass
        case str() | int() | float():
            yield str(value)
        case Mapping():
            for one in value.values():
                yield from _leaves(one)
        case _:
            for one in value:
                yield from _leaves(one)


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
