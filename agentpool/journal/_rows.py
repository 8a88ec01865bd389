"""Checks the rows of a journal's file as if an attacker had written them.

Rules:

1. A value that does not have the type or size that was written means that the file is damaged.
   SQLite accepts text in a column of numbers; nothing here converts text into numbers.
2. Nothing is unpickled, and no text of the file is run as SQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agentpool._database.transaction import Row, Value
from agentpool._errors import JournalError
from agentpool._journal_records import BEFORE_THE_RUN, JournalRecord, RecordKind

MOST: Final = 2**53
"""The limit for agents, places and fences: more than a pool counts in a century."""

MOST_SECONDS: Final = 1e11
"""The limit for times: the year 5138."""


def record_of(row: Row) -> JournalRecord:
    """Return the record of *row*.

    Raises:
        ValueError: If the row is damaged.
    """
    agent, kind, place, part, digest, body = row
    if not isinstance(body, bytes):
        raise ValueError("a body is not a BLOB")  # noqa: TRY004  # no caller passed it
    return JournalRecord(
        number_of(agent, "agent"),
        RecordKind(kind),
        number_of(place, "place", least=BEFORE_THE_RUN),
        number_of(part, "part"),
        text_of(digest, "digest"),
        body,
    )


def number_of(value: Value, what: str, *, least: int = 0) -> int:
    """Return *value* if it is a valid number.

    Raises:
        ValueError: If *value* is not.
    """
    if isinstance(value, int) and least <= value <= MOST:
        return value
    raise ValueError(f"{what} is {value!r:.60}, not a whole number from {least} to {MOST}")


def text_of(value: Value, what: str) -> str:
    """Return *value* if it is text.

    Raises:
        ValueError: If *value* is not.
    """
    if isinstance(value, str):
        return value
    raise ValueError(f"{what} is {value!r:.60}, not text")


def seconds_of(value: Value, *, most: float = MOST_SECONDS) -> float:
    """Return *value* if it is a valid time in seconds, by default a date since 1970.

    Raises:
        ValueError: If *value* is not.
    """
    if isinstance(value, int | float) and 0 <= value <= most:
        return value
    raise ValueError(f"a time is {value!r:.60}, not a number from 0 to {most:g}")


def damaged(path: Path, error: Exception) -> JournalError:
    """Return the error for a file with invalid contents."""
    return JournalError(f"journal file {str(path)!r} is damaged: {error}; restore it from a copy")
