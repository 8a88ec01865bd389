"""Reads the rows of a memory's file as values, since SQLite stores any type anywhere."""

from __future__ import annotations

from typing import final

import attrs

from agentpool._database.transaction import Row
from agentpool._errors import MemoryStoreError
from agentpool.abc import Fragment, MemoryHit
from agentpool.memory._word_search import scaled


@final
@attrs.frozen
class ScopeSummary:
    """One scope of a memory's file, in numbers."""

    scope: str
    """The scope's name."""
    fragments: int
    """How many fragments it has."""
    newest_at: float
    """When the newest fragment was made, on the clock of the fragments."""


def hits_of(rows: list[Row]) -> tuple[MemoryHit, ...]:
    """Convert rows of number, content, scope, source, time and score into hits."""
    found = [_checked(row) for row in rows]
    scores = scaled([row[-1] for row in found])
    return tuple(
        MemoryHit(
            Fragment(
                content=content,
                scope=scope,
                source=source,
                fragment_id=f"mem-{number}",
                created_at=created_at,
            ),
            score,
        )
        for (number, content, scope, source, created_at, _), score in zip(
            found, scores, strict=True
        )
    )


def _checked(row: Row) -> tuple[int, str, str, str, float, float]:
    """Return *row* if its types fit a fragment.

    Raises:
        MemoryStoreError: If the row is damaged.
    """
    match row:
        case (
            int(number), str(content), str(scope), str(source),
            (float() | int()) as created_at, (float() | int()) as score,
        ):  # fmt: skip
            return number, content, scope, source, float(created_at), float(score)
        case _:
            raise MemoryStoreError(
                f"the memory has a fragment {row[0]!r:.40} that is not valid; the file is damaged, "
                "restore it from a copy"
            )


def summary_of(row: Row) -> ScopeSummary:
    """Convert a row of name, count and newest time into a scope's summary.

    Raises:
        MemoryStoreError: If the row is damaged.
    """
    match row:
        case str(name), int(count), (float() | int()) as newest_at:
            return ScopeSummary(name, count, float(newest_at))
        case _:
            raise MemoryStoreError(
                f"the memory has a scope {row[0]!r:.40} that is not valid; the file is damaged, "
                "restore it from a copy"
            )
