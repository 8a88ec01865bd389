"""Access to an SQLite file within one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TypeAlias, final

import attrs

Value: TypeAlias = str | int | float | bytes | None
"""What a column can hold."""

Row: TypeAlias = tuple[Value, ...]


@final
@attrs.define(eq=False, repr=False)
class Transaction:
    """Access to the file for a job, inside its thread."""

    _connection: sqlite3.Connection

    def rows(self, sql: str, *values: Value, **named: Value) -> list[Row]:
        """Return the rows that a query finds. *values* are bound in order, or by name."""
        # Not by numbers, as in ``?1``: CPython 3.12.0 to 3.12.3 take those for names.
        return self._connection.execute(sql, named or values).fetchall()

    def insert(self, sql: str, *values: Value) -> int:
        """Insert a row and return its number."""
        number = self._connection.execute(sql, values).lastrowid
        assert number is not None  # noqa: S101  # it was an INSERT
        return number

    def insert_many(self, sql: str, rows: Iterable[Row]) -> None:
        """Insert *rows*."""
        self._connection.executemany(sql, rows)

    def change(self, sql: str, *values: Value) -> int:
        """Run an update or delete and return the number of rows it changed."""
        return self._connection.execute(sql, values).rowcount
