"""The format of an SQLite file: recognized, checked, and migrated to the newest version.

Rules:

1. The kind of a file is checked before anything else. Nothing is written to another program's file,
   and no statement is run on tables that differ from those of our own migrations: a view in the
   place of a table could take for ever.
2. A file of a newer format is refused and stays unchanged. Each migration is done whole or not at
   all.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from agentpool._database.database import Database
from agentpool._database.transaction import Transaction, Value
from agentpool._file_kind import FileKind

APPLICATION_ID: Final = 0x61676E70
"""Marks a file as agentpool's: the bytes ``agnp``. Files of the first versions have 0."""


def add_functions(connection: sqlite3.Connection, kind: FileKind) -> None:
    """Let the SQL of *connection* call the functions of *kind*."""
    for name, function in kind.functions.items():
        connection.create_function(name, 1, function, deterministic=True)


def _version(transaction: Transaction) -> int:
    ((number,),) = transaction.rows("PRAGMA user_version")
    return int(number or 0)


def _schema(transaction: Transaction) -> dict[tuple[Value, Value], Value]:
    """Return the SQL of every table and index in the file, by type and name."""
    # SQLite's own, such as sqlite_sequence, come and go. How the tables behind an index of
    # words are written differs from one version of SQLite to the next.
    return {
        (kind, name): None if str(name).startswith("word_index_") else sql
        for kind, name, sql in transaction.rows("SELECT type, name, sql FROM sqlite_schema")
        if not str(name).startswith("sqlite_")
    }


def look(transaction: Transaction, *, kind: FileKind, path: Path) -> int:
    """Return the version of the file's format. 0: the file is empty.

    Raises:
        AgentPoolError: The kind's error, if another program or a later version wrote the file.
    """
    found = _version(transaction)
    ((number,),) = transaction.rows("PRAGMA application_id")
    if number in {0, APPLICATION_ID} and found > len(kind.migrations):
        raise kind.error(
            f"{str(path)!r} was written by a later version: it has format {found}, and "
            f"this one knows {len(kind.migrations)}; upgrade trio-agentpool"
        )
    if number not in {0, APPLICATION_ID} or _schema(transaction) != _schema_of(kind, found):
        raise kind.error(
            f"{str(path)!r} is not a {kind.name}: another program made or changed its tables, "
            "and nothing was changed now; name another file"
        )
    return found


def _schema_of(kind: FileKind, version: int) -> dict[tuple[Value, Value], Value]:
    """Return the tables and indexes that a file of that format has."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        add_functions(connection, kind)
        fresh = Transaction(connection)
        for script in kind.migrations[:version]:
            _run_script(fresh, script)
        return _schema(fresh)


def _run_script(transaction: Transaction, script: str) -> None:
    for statement in filter(str.strip, script.split(";\n\n")):
        transaction.change(statement)


async def migrate(database: Database, kind: FileKind) -> None:
    """Create the tables in an empty file, or migrate an older file to the newest format.

    Raises:
        AgentPoolError: The kind's error, if it cannot be written.

    Cancellation:
        Each migration is done whole or not at all.
    """
    migrations = kind.migrations

    def change(transaction: Transaction) -> None:
        # Looked at again inside: another process may have been here in between.
        first = _version(transaction)
        transaction.change(f"PRAGMA application_id = {APPLICATION_ID}")
        for number, script in enumerate(migrations[first:], start=first + 1):
            _run_script(transaction, script)
            transaction.change(f"PRAGMA user_version = {number}")

    if await database.read(_version) < len(migrations):
        await database.write(change)
