"""A memory in a file that finds fragments by meaning and by words.

Rules:

1. Everything that a search by words finds is found here too. Fragments of similar meaning are found
   as well, down to ``MIN_LIKENESS``.
2. The two rankings are merged by place, since their scores cannot be compared.
3. A vector is a cache. It is made when its scope is first searched after the fragment was added, so
   remembering costs no more than before, and a kill loses no vector for good.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from operator import itemgetter
from pathlib import Path
from typing import Final, cast, final

import msgspec
import trio

from agentpool._checks import expect, expect_arguments
from agentpool._database.database import Database, InFile
from agentpool._database.opening import open_database
from agentpool._database.transaction import Row, Transaction
from agentpool._opening import opening
from agentpool.abc import Fragment, Memory, MemoryHit, MemoryQuery
from agentpool.memory._embedding import Embedder, load_embedder
from agentpool.memory._rows import hits_of
from agentpool.memory._sqlite import MEMORY_FILE, SqliteMemory

MIN_LIKENESS: Final = 0.35
"""The least likeness that means something with this model: unrelated sentences reach 0.33."""

CANDIDATES: Final = 50
"""How many of each ranking are merged: lower places cannot become one of a handful of hits."""

PLACE_OFFSET: Final = 60
"""Softens how much more the first places count than the later ones. The value from the paper.

Source: Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, 2009.
"""

_AT_ONCE: Final = 16
"""Vectors made before other tasks get a turn: about a tenth of a second."""

_WITHOUT_VECTOR: Final = """
SELECT fragments.id, content FROM fragments
JOIN scopes ON scopes.id = fragments.scope
LEFT JOIN vectors ON vectors.fragment = fragments.id
WHERE scopes.name = ? AND vectors.fragment IS NULL ORDER BY fragments.id LIMIT ?
"""

_WITH_VECTOR: Final = """
SELECT fragments.id, content, scopes.name, source, created_at, vector FROM vectors
JOIN fragments ON fragments.id = vectors.fragment
JOIN scopes ON scopes.id = fragments.scope
WHERE scopes.name = :scope
AND (:source IS NULL OR source = :source) AND (:since IS NULL OR created_at >= :since)
ORDER BY created_at DESC, fragments.id DESC
"""


@final
class SemanticMemory(InFile, Memory):
    """A memory that also searches by meaning. Opened by ``open_semantic_memory``."""

    __slots__ = ("_by_words", "_database", "_embedder", "_thread")

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._by_words = SqliteMemory(database)
        self._embedder = embedder
        self._thread = trio.CapacityLimiter(1)

    async def remember(self, fragment: Fragment) -> str:
        """Store *fragment* and return its id.

        Raises:
            UsageError: If it cannot be stored as text or time. Nothing was kept.
            MemoryStoreError: If the file cannot be written. Nothing was kept.

        Cancellation:
            The fragment is kept whole or not at all.
        """
        return await self._by_words.remember(fragment)

    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Return the fragments in the scope that fit *query* in words or meaning, best first.

        Raises:
            MemoryStoreError: If the file cannot be read.

        Cancellation:
            No fragment has changed. The vectors made so far are kept.
        """
        expect(
            query,
            MemoryQuery,
            "query must be a MemoryQuery",
            "write MemoryQuery(text=..., scope=...)",
        )
        if not query.text.strip() or query.limit < 1:
            return await self._by_words.recall(query)
        wide = msgspec.structs.replace(query, limit=max(query.limit, CANDIDATES))
        by_words = await self._by_words.recall(wide)
        by_meaning = await self._find_alike(wide)
        return _joined(by_words, by_meaning, query.limit)

    async def forget(self, fragment_id: str) -> bool:
        """Delete a fragment and its vector for good. Return whether it existed.

        Raises:
            MemoryStoreError: If the file cannot be written. The fragment is still there.

        Cancellation:
            The fragment is there whole, or nothing of it is left.
        """
        return await self._by_words.forget(fragment_id)

    def now(self) -> float:
        """Return the time for a new fragment: Unix time in seconds."""
        return self._by_words.now()

    async def _find_alike(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        await self._make_vectors(query.scope)

        def select(transaction: Transaction) -> list[Row]:
            return transaction.rows(
                _WITH_VECTOR, scope=query.scope, source=query.source, since=query.since
            )

        rows = await self._database.read(select)

        def rank() -> list[Row]:
            vector = self._embedder.embed(query.text)
            vectors = [cast("bytes", row[-1]) for row in rows]
            likenesses = self._embedder.likeness(vector, vectors)
            alike = [
                (*row[:-1], likeness)
                for row, likeness in zip(rows, likenesses, strict=True)
                if likeness >= MIN_LIKENESS
            ]
            # Sorting is stable, also in reverse, and the rows come newest first.
            return sorted(alike, key=itemgetter(-1), reverse=True)[: query.limit]

        return hits_of(await trio.to_thread.run_sync(rank, limiter=self._thread))

    async def _make_vectors(self, scope: str) -> None:  # noqa: ASYNC910  # it reads the file at least once
        while True:
            rows = cast(
                "list[tuple[int, str]]",
                await self._database.read(lambda t: t.rows(_WITHOUT_VECTOR, scope, _AT_ONCE)),
            )
            if not rows:
                return

            def embed(rows: list[tuple[int, str]] = rows) -> list[tuple[int, bytes]]:
                return [(number, self._embedder.embed(content)) for number, content in rows]

            made = await trio.to_thread.run_sync(embed, limiter=self._thread)

            def insert(transaction: Transaction, made: list[tuple[int, bytes]] = made) -> None:
                # Others may have made it meanwhile, or forgotten the fragment.
                sql = (
                    "INSERT OR IGNORE INTO vectors (fragment, vector)"
                    " SELECT id, ? FROM fragments WHERE id = ?"
                )
                for number, vector in made:
                    transaction.change(sql, vector, number)

            await self._database.write(insert)


def _joined(
    by_words: tuple[MemoryHit, ...], by_meaning: tuple[MemoryHit, ...], limit: int
) -> tuple[MemoryHit, ...]:
    scores: dict[str, float] = {}
    fragments: dict[str, Fragment] = {}
    for ranking in (by_words, by_meaning):
        for place, hit in enumerate(ranking, start=1):
            name = hit.fragment.fragment_id
            fragments[name] = hit.fragment
            scores[name] = scores.get(name, 0.0) + 1 / (PLACE_OFFSET + place)
    best = sorted(scores, key=lambda name: -scores[name])[:limit]
    return tuple(MemoryHit(fragments[name], scores[name] / scores[best[0]]) for name in best)


@opening("memory")
@asynccontextmanager
async def open_semantic_memory(path: str | os.PathLike[str]) -> AsyncGenerator[SemanticMemory]:
    """Open the memory in the file at *path* for search by meaning as well as by words.

    ``open_sqlite_memory`` can open the same file. Loads a model of 90 MB that was trained on
    English.

    Raises:
        ImportError: If numpy, tokenizers or safetensors is missing. The error says what to install.
        UsageError: If the weights are missing. The error says what to install.
        MemoryStoreError: If the file cannot be opened, or is a different kind of file.

    Cancellation:
        The file is closed.
    """
    expect_arguments(open_semantic_memory, locals())
    embedder = await trio.to_thread.run_sync(load_embedder)
    async with open_database(Path(path), MEMORY_FILE) as database:
        yield SemanticMemory(database, embedder)
