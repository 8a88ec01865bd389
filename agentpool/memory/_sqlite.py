"""A memory in an SQLite file, which several processes may share.

Rules:

1. A recall returns only fragments of its scope. Scores are FTS5's BM25, which counts how rare a
   word is in the whole file: other scopes may change the order of hits, but never which hits are
   found.
2. Words are those of `agentpool.memory._word_search`, so both memories find the same. They are
   stored beside the content: to remove a text, the index needs the words with which it was added,
   and a different version of Python may split it into different words.
3. Ids are never used again.
4. When ``remember`` returns, the fragment has been handed to the system: a kill loses nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

import trio

from agentpool._checks import expect, expect_arguments
from agentpool._database.database import Database, InFile
from agentpool._database.opening import open_database
from agentpool._database.transaction import Row, Transaction, Value
from agentpool._errors import MemoryStoreError, UsageError
from agentpool._file_kind import FileKind
from agentpool._needs_trio import check_trio
from agentpool._opening import opening
from agentpool.abc import Fragment, Memory, MemoryHit, MemoryQuery
from agentpool.memory._rows import ScopeSummary, hits_of, summary_of
from agentpool.memory._split_words import words_of
from agentpool.memory._word_search import rarest, words

_ID: Final = re.compile(r"mem-([1-9][0-9]{0,17})", re.ASCII)
"""The ids that ``remember`` returns. The bound is that of SQLite's integers."""

MIGRATIONS: Final = (
    """\
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE fragments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope INTEGER NOT NULL REFERENCES scopes,
    content TEXT NOT NULL,
    source TEXT NOT NULL,
    created_at REAL NOT NULL,
    words TEXT NOT NULL
);

CREATE INDEX newest ON fragments (scope, created_at, id);

CREATE VIRTUAL TABLE word_index USING fts5(
    scope, words, content = 'fragments', content_rowid = 'id', tokenize = 'ascii'
);

CREATE TRIGGER fragment_added AFTER INSERT ON fragments BEGIN
    INSERT INTO word_index (rowid, scope, words) VALUES (new.id, new.scope, new.words);
END;

CREATE TRIGGER fragment_forgotten AFTER DELETE ON fragments BEGIN
    INSERT INTO word_index (word_index, rowid, scope, words)
    VALUES ('delete', old.id, old.scope, old.words);
END;

""",
    """\
CREATE TABLE vectors (
    fragment INTEGER PRIMARY KEY REFERENCES fragments ON DELETE CASCADE,
    vector BLOB NOT NULL
);

""",
    """\
UPDATE fragments SET words = agentpool_words(content);

INSERT INTO word_index (word_index) VALUES ('rebuild');

""",
)
"""The scripts for formats 1, 2, 3, … of the file. A released script never changes: each change of
the format adds one.

The index holds the words as our own rules split them, joined by spaces, at which its ``ascii``
tokenizer splits them again. The scope is a word in a separate column, so that searching one scope
does not read the others. Vectors exist from the first search by meaning on, and are deleted with
their fragment. Format 3 splits words anew: without accents, and in more scripts.
"""


def _indexed(content: str) -> str:
    """Return the words of *content* as the file stores them."""
    return " ".join(words(content))


MEMORY_FILE: Final = FileKind(
    "memory", MemoryStoreError, MIGRATIONS, functions={"agentpool_words": _indexed}
)
"""What `open_sqlite_memory` opens."""

_NEWEST: Final = """
SELECT fragments.id, content, scopes.name, source, created_at, 1.0
FROM fragments JOIN scopes ON scopes.id = fragments.scope
WHERE (:scope IS NULL OR scopes.name = :scope)
AND (:source IS NULL OR source = :source) AND (:since IS NULL OR created_at >= :since)
ORDER BY created_at DESC, fragments.id DESC LIMIT :limit
"""

# The scope's own column has no weight: every hit has its word.
_BEST: Final = """
SELECT fragments.id, content, scopes.name, source, created_at,
       -bm25(word_index, 0.0, 1.0) AS score
FROM word_index
JOIN fragments ON fragments.id = word_index.rowid
JOIN scopes ON scopes.id = fragments.scope
WHERE word_index MATCH :match
AND (:source IS NULL OR source = :source) AND (:since IS NULL OR created_at >= :since)
ORDER BY score DESC, created_at DESC, fragments.id DESC LIMIT :limit
"""


@final
class SqliteMemory(InFile, Memory):
    """A memory in an SQLite file. Opened by ``open_sqlite_memory``."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remember(self, fragment: Fragment) -> str:
        """Store *fragment* and return its id.

        Raises:
            UsageError: If it cannot be stored as text or time. Nothing was kept.
            MemoryStoreError: If the file cannot be written. Nothing was kept.

        Cancellation:
            The fragment is kept whole or not at all.
        """
        expect(
            fragment,
            Fragment,
            "fragment must be a Fragment",
            "write Fragment(content=..., scope=...)",
        )
        _check(fragment)
        indexed = " ".join(await words_of(fragment.content))

        def insert(transaction: Transaction) -> int:
            transaction.change("INSERT OR IGNORE INTO scopes (name) VALUES (?)", fragment.scope)
            return transaction.insert(
                "INSERT INTO fragments (scope, content, source, created_at, words)"
                " SELECT id, ?, ?, ?, ? FROM scopes WHERE name = ?",
                fragment.content,
                fragment.source,
                fragment.created_at,
                indexed,
                fragment.scope,
            )

        return f"mem-{await self._database.write(insert)}"

    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Return the fragments in the scope that fit *query*, best first.

        Raises:
            MemoryStoreError: If the file cannot be read.

        Cancellation:
            Nothing has changed.
        """
        expect(
            query,
            MemoryQuery,
            "query must be a MemoryQuery",
            "write MemoryQuery(text=..., scope=...)",
        )
        return await self._find(
            query.text, query.scope, query.limit, source=query.source, since=query.since
        )

    async def search(
        self, text: str, *, scope: str | None = None, limit: int = 20
    ) -> tuple[MemoryHit, ...]:
        """Search the whole file for *text*, best first. Meant for the file's owner, not for agents.

        Args:
            text: Words to look for. Empty: the newest fragments.
            scope: The scope to search. ``None``: every scope.
            limit: The most fragments to return.

        Raises:
            MemoryStoreError: If the file cannot be read.

        Cancellation:
            Nothing has changed.
        """
        expect_arguments(SqliteMemory.search, locals())
        return await self._find(text, scope, limit)

    async def _find(
        self,
        text: str,
        scope: str | None,
        limit: int,
        *,
        source: str | None = None,
        since: float | None = None,
    ) -> tuple[MemoryHit, ...]:
        wanted = rarest(await words_of(text))
        if limit < 1 or (text.strip() and not wanted) or not _is_text(scope or ""):
            return ()

        def select(transaction: Transaction) -> list[Row]:
            if not wanted:
                return transaction.rows(
                    _NEWEST, scope=scope, source=source, since=since, limit=limit
                )
            match = " OR ".join(f'"{word}"' for word in wanted)
            match = f"words : ({match})"
            if scope is not None:
                numbers = transaction.rows("SELECT id FROM scopes WHERE name = ?", scope)
                if not numbers:
                    return []
                match = f'scope : "{numbers[0][0]!r}" AND {match}'
            return transaction.rows(_BEST, match=match, source=source, since=since, limit=limit)

        return hits_of(await self._database.read(select))

    async def forget(self, fragment_id: str) -> bool:
        """Delete a fragment for good. Return whether it existed.

        Raises:
            MemoryStoreError: If the file cannot be written. The fragment is still there.

        Cancellation:
            The fragment is there whole, or nothing of it is left.
        """
        expect(fragment_id, str, "fragment_id must be a str", "pass what remember() returned")
        parts = _ID.fullmatch(fragment_id)
        if parts is None:
            await trio.lowlevel.checkpoint()
            return False
        sql, number = "DELETE FROM fragments WHERE id = ?", int(parts[1])
        return await self._delete(sql, number) == 1

    async def forget_scope(self, scope: str) -> int:
        """Delete every fragment of *scope* for good. Return how many there were.

        Raises:
            MemoryStoreError: If the file cannot be written. The fragments are still there.

        Cancellation:
            Either all fragments are there or none.
        """
        expect_arguments(SqliteMemory.forget_scope, locals())
        sql = "DELETE FROM fragments WHERE scope = (SELECT id FROM scopes WHERE name = ?)"
        return await self._delete(sql, scope)

    async def _delete(self, sql: str, value: Value) -> int:
        def delete(transaction: Transaction) -> int:
            count = transaction.change(sql, value)
            if count:
                empty = "DELETE FROM scopes WHERE id NOT IN (SELECT scope FROM fragments)"
                transaction.change(empty)
            return count

        return await self._database.write(delete)

    def now(self) -> float:
        """Return the time for a new fragment: Unix time in seconds."""
        return datetime.now(UTC).timestamp()

    async def scopes(self) -> tuple[ScopeSummary, ...]:
        """Return a summary of every scope that has fragments, by name.

        Raises:
            MemoryStoreError: If the file cannot be read.

        Cancellation:
            Nothing has changed.
        """

        def select(transaction: Transaction) -> list[Row]:
            return transaction.rows(
                "SELECT name, count(*), max(created_at) FROM fragments"
                " JOIN scopes ON scopes.id = fragments.scope GROUP BY name ORDER BY name"
            )

        return tuple(summary_of(row) for row in await self._database.read(select))

    async def compact(self) -> None:
        """Remove deleted fragments and their index entries from the file.

        It takes as long as writing the whole file anew.

        Raises:
            MemoryStoreError: If the file cannot be written.

        Cancellation:
            Some of it may be done; no fragment is lost.
        """
        await self._database.command("INSERT INTO word_index (word_index) VALUES ('optimize')")
        await self._database.command("VACUUM")
        await self._database.command("PRAGMA wal_checkpoint(TRUNCATE)")


@opening("memory")
@asynccontextmanager
async def open_sqlite_memory(
    path: str | os.PathLike[str], *, read_only: bool = False
) -> AsyncGenerator[SqliteMemory]:
    """Open the memory in the file at *path*; create it if it is missing.

    Several processes may have it open at the same time. Pass it to ``open_pool(memory=...)``, and
    give agents a ``memory_scope`` whose fragments they are to find in later runs. Only its owner
    can read a new file.

    Args:
        path: The file.
        read_only: Whether to read only: no file is created or changed.

    Raises:
        MemoryStoreError: If the file cannot be opened, or is a different kind of file.

    Cancellation:
        The file is closed.
    """
    expect_arguments(open_sqlite_memory, locals())
    check_trio("open_sqlite_memory")
    async with open_database(Path(path), MEMORY_FILE, read_only=read_only) as database:
        yield SqliteMemory(database)


def _check(fragment: Fragment) -> None:
    for name in ("content", "scope", "source"):
        text: str = getattr(fragment, name)
        if not _is_text(text):
            raise UsageError(
                f"{name} of a fragment must be text that UTF-8 can write, got {text!r:.80}; "
                "leave out lone surrogates and NUL"
            )
    if not math.isfinite(fragment.created_at):
        raise UsageError(
            f"created_at must be a time in seconds, got {fragment.created_at!r}; take it from now()"
        )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
