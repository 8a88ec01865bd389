"""Measure memories: writes per second, and how long a recall takes, beside plain SQLite.

    python benchmarks/memories.py
    python benchmarks/memories.py --fragments 10000 --recalls 500

Plain SQLite is the same table and the same kind of index, used without agentpool: no
thread, no scopes, no words of our own. Both write one fragment per transaction, in turns of
a hundred, and answer the same queries in turn, so that a slow moment is slow for both.
Words are drawn as in a language: the commonest in every tenth place.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from agentpool.abc import Fragment, Memory, MemoryQuery
from agentpool.memory import InMemoryMemory, open_sqlite_memory

WORDS_EACH: Final = 30
VOCABULARY: Final = 20_000
TURN: Final = 100


class Plain:
    """SQLite by hand."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        self._connection = connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, content TEXT)")
        connection.execute(
            "CREATE VIRTUAL TABLE note_index"
            " USING fts5(content, content = 'notes', content_rowid = 'id')"
        )

    def remember(self, content: str) -> None:
        """Keep *content*."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        rowid = execute("INSERT INTO notes (content) VALUES (?)", (content,)).lastrowid
        execute("INSERT INTO note_index (rowid, content) VALUES (?, ?)", (rowid, content))
        execute("COMMIT")

    def recall(self, words: Sequence[str]) -> int:
        """Return how many of five were found."""
        rows = self._connection.execute(
            "SELECT notes.content, bm25(note_index) AS score FROM note_index"
            " JOIN notes ON notes.id = note_index.rowid"
            " WHERE note_index MATCH ? ORDER BY score LIMIT 5",
            (" OR ".join(f'"{word}"' for word in words),),
        ).fetchall()
        return len(rows)


class Dice:
    """Makes texts and queries, the same ones each time."""

    def __init__(self) -> None:
        """Shuffle a vocabulary."""
        self._random = random.Random(7)  # noqa: S311  # the same texts each time
        self._words = [f"w{number:x}" for number in range(VOCABULARY)]
        self._weights = [1 / (rank + 10) for rank in range(VOCABULARY)]

    def words(self, count: int) -> list[str]:
        """Return words as they come in a language."""
        return self._random.choices(self._words, self._weights, k=count)


async def write(memory: Memory, texts: Sequence[str]) -> float:
    """Remember *texts* and return the seconds it took."""
    began = time.perf_counter()
    for text in texts:
        await memory.remember(Fragment(content=text, scope="bench"))
    return time.perf_counter() - began


def write_plain(plain: Plain, texts: Sequence[str]) -> float:
    """Do the same by hand."""
    began = time.perf_counter()
    for text in texts:
        plain.remember(text)
    return time.perf_counter() - began


async def main(fragments: int, recalls: int, folder: Path) -> None:
    """Measure, and print a table."""
    dice, plain = Dice(), Plain(folder / "plain.db")
    in_memory = InMemoryMemory()
    names = ("plain sqlite3", "SqliteMemory", "InMemoryMemory")
    wrote = dict.fromkeys(names, 0.0)
    took: dict[str, list[float]] = {name: [] for name in names}
    async with open_sqlite_memory(folder / "memory.db") as memory:
        for _ in range(0, fragments, TURN):
            texts = [" ".join(dice.words(WORDS_EACH)) for _ in range(TURN)]
            wrote["plain sqlite3"] += write_plain(plain, texts)
            wrote["SqliteMemory"] += await write(memory, texts)
            wrote["InMemoryMemory"] += await write(in_memory, texts)
        # The first search counts the words of all that was written before.
        await in_memory.recall(MemoryQuery(text="w0", scope="bench"))
        for _ in range(recalls):
            words = dice.words(4)
            query = MemoryQuery(text=" ".join(words), scope="bench")
            began = time.perf_counter()
            plain.recall(words)
            took["plain sqlite3"].append(time.perf_counter() - began)
            for name, one in (("SqliteMemory", memory), ("InMemoryMemory", in_memory)):
                began = time.perf_counter()
                await one.recall(query)
                took[name].append(time.perf_counter() - began)
    print(
        f"{fragments:,} fragments of {WORDS_EACH} words in one scope, {recalls} recalls of 4 words"
    )
    print(f"{'':16}{'writes/s':>10}{'recall p50 ms':>15}{'p99 ms':>9}")
    for name in names:
        ranked = statistics.quantiles(took[name], n=100)
        line = f"{fragments / wrote[name]:>10,.0f}{ranked[49] * 1e3:>15.2f}{ranked[98] * 1e3:>9.2f}"
        print(f"{name:16}{line}")
    ratio = wrote["SqliteMemory"] / wrote["plain sqlite3"]
    recall = statistics.median(took["SqliteMemory"]) / statistics.median(took["plain sqlite3"])
    print(f"SqliteMemory / plain sqlite3: {ratio:.2f} per write, {recall:.2f} per recall")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fragments", type=int, default=100_000)
    parser.add_argument("--recalls", type=int, default=1_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        trio.run(main, given.fragments, given.recalls, Path(made))
