"""What a memory in a file does beyond the contract: it lasts, is shared, and says what is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from agentpool import AgentManifest, Capability, CapabilityKind, SpawnConfig, UsageError, open_pool
from agentpool._database.opening import open_database
from agentpool._database.transaction import Row, Transaction
from agentpool._file_kind import FileKind
from agentpool.abc import Fragment, Memory, MemoryQuery
from agentpool.drivers import ScriptedDriver
from agentpool.memory import (
    InMemoryMemory,
    MemoryStoreError,
    ScopeSummary,
    SqliteMemory,
    _sqlite,
    open_sqlite_memory,
)
from agentpool.memory._sqlite import MIGRATIONS
from agentpool.memory._word_search import MAX_QUERY_WORDS
from agentpool.testing import cancel_everywhere, simulate

MEMORY = Capability(CapabilityKind.MEMORY)


def memory_file(migrations: Sequence[str]) -> FileKind:
    """Return a kind of file with formats of its own."""
    return FileKind("memory", MemoryStoreError, migrations)


async def keep(memory: SqliteMemory, content: str, *, scope: str = "mine", at: float = 0.0) -> str:
    """Remember *content*."""
    return await memory.remember(Fragment(content=content, scope=scope, created_at=at))


async def contents(memory: SqliteMemory, text: str, *, scope: str = "mine") -> list[str]:
    """Return what *text* recalls, best first."""
    hits = await memory.recall(MemoryQuery(text=text, scope=scope, limit=10_000))
    return [hit.fragment.content for hit in hits]


# --- it lasts


async def test_fragments_and_ids_outlast_the_process(tmp_path: Path) -> None:
    """And an id that was forgotten is not given out by the next one either."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as memory:
        assert memory.path == path
        first = await keep(memory, "the sea is cold")
        last = await keep(memory, "forgotten")
        assert await memory.forget(last)
    async with open_sqlite_memory(str(path)) as memory:
        assert await contents(memory, "sea") == ["the sea is cold"]
        assert await keep(memory, "the sea is warm") not in {first, last}


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """The log is written back, and the file can be moved like any other."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as memory:
        await keep(memory, "sea")
    assert names(tmp_path) == ["memory.db"]


async def test_agents_of_one_scope_remember_across_pools(tmp_path: Path) -> None:
    """Shared on purpose, by its name; without it an agent's fragments are its own."""
    manifest = AgentManifest(capabilities=(MEMORY,))
    asked: list[str] = []
    for scope in ("team", "team", None):
        driver = ScriptedDriver(["The key is under the mat."])
        async with (
            open_sqlite_memory(tmp_path / "memory.db") as memory,
            open_pool(driver, memory=memory) as pool,
        ):
            config = SpawnConfig(manifest, "Where is the key?", memory_scope=scope)
            (await (await pool.spawn(config)).wait()).unwrap()
        asked.append("".join(str(m) for m in driver.requests[0].messages))
    assert ["under the mat" in text for text in asked] == [False, True, False]


async def test_new_fragments_have_unix_time(tmp_path: Path) -> None:
    """Trio's clock begins anew with each run: after a restart, old would be newer than new."""
    async with open_sqlite_memory(tmp_path / "memory.db") as memory:
        assert abs(memory.now() - time.time()) < 3600


CHILD = """
import sys, trio
from agentpool.abc import Fragment
from agentpool.memory import open_sqlite_memory

async def main():
    async with open_sqlite_memory(sys.argv[1]) as memory:
        for number in range(int(sys.argv[3])):
            content = f"{sys.argv[2]} number {number}"
            await memory.remember(Fragment(content=content, scope="mine"))
            print(number, flush=True)

trio.run(main)
"""


def start_writer(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    """Start a process that remembers *count* fragments, and says so after each."""
    words = [sys.executable, "-c", CHILD, str(path), name, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def check_integrity(path: Path) -> None:
    """Let SQLite and FTS5 look over the whole file."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # Compares the index with the table, and raises where they differ.
    connection.execute("INSERT INTO word_index (word_index, rank) VALUES ('integrity-check', 1)")
    connection.close()


async def test_a_kill_in_the_middle_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    """Kill -9 among a thousand writes: what was answered is there, and at most one more."""
    path = tmp_path / "memory.db"
    with start_writer(path, "whale", 1_000) as writer:
        assert writer.stdout is not None
        for _ in range(200):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        rest = [int(line) for line in writer.stdout if line.endswith(b"\n")]
        acknowledged = max([acknowledged, *rest])
    async with open_sqlite_memory(path) as memory:
        found = await contents(memory, "whale")
        assert acknowledged + 1 <= len(found) <= acknowledged + 2
        assert {f"whale number {n}" for n in range(acknowledged + 1)} <= set(found)
        assert await keep(memory, "life goes on")
    check_integrity(path)


async def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """Each waits for the others, and nothing is lost."""
    path = tmp_path / "memory.db"
    writers = [start_writer(path, name, 100) for name in ("whale", "shark", "squid")]
    async with open_sqlite_memory(path) as memory:
        for number in range(100):
            await keep(memory, f"mine number {number}")
        for writer in writers:
            assert await trio.to_thread.run_sync(writer.communicate)
            assert writer.returncode == 0
        for name in ("whale", "shark", "squid", "mine"):
            assert len(await contents(memory, name)) == 100
    check_integrity(path)


# --- long queries, and what is looked after


async def test_a_whole_document_can_be_a_query(tmp_path: Path) -> None:
    """Of very many words the longest count; an agent's query may be a book."""
    async with open_sqlite_memory(tmp_path / "memory.db") as memory:
        await keep(memory, "hippopotamus")
        await keep(memory, "a b c")
        filler = " ".join(f"w{number}" for number in range(5_000))
        assert await contents(memory, f"a b c {filler} hippopotamus") == ["hippopotamus"]
        short = " ".join(["a", *(f"w{n}" for n in range(MAX_QUERY_WORDS - 1))])
        assert await contents(memory, short) == ["a b c"]


async def test_the_owner_of_a_file_sees_every_scope(tmp_path: Path) -> None:
    """By scope, by words over all scopes, newest first without words."""
    async with open_sqlite_memory(tmp_path / "memory.db") as memory:
        assert await memory.scopes() == ()
        await keep(memory, "the sea", scope="b", at=1.0)
        await keep(memory, "the north sea", scope="a", at=3.0)
        await keep(memory, "bread", scope="a", at=2.0)
        assert await memory.scopes() == (ScopeSummary("a", 2, 3.0), ScopeSummary("b", 1, 1.0))
        everywhere = [hit.fragment.content for hit in await memory.search("sea")]
        assert sorted(everywhere) == ["the north sea", "the sea"]
        newest = [hit.fragment.content for hit in await memory.search("", limit=2)]
        assert newest == ["the north sea", "bread"]
        assert [h.fragment.content for h in await memory.search("sea", scope="b")] == ["the sea"]
        assert await memory.forget_scope("a") == 2
        assert await memory.forget_scope("a") == 0
        assert await memory.scopes() == (ScopeSummary("b", 1, 1.0),)


async def test_what_was_forgotten_is_not_in_the_file(tmp_path: Path) -> None:
    """After compact() not even its words are: neither in the index nor in the log."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as memory:
        for number in range(50):
            await keep(memory, f"harmless note {number}")
        secret = await keep(memory, "the password is xylophone1234")
        assert await memory.forget(secret)
        await memory.compact()
        assert not in_any_file(tmp_path, b"xylophone1234")
        assert len(await contents(memory, "harmless")) == 50


def names(folder: Path) -> list[str]:
    """Return the names of the files in *folder*."""
    return [file.name for file in folder.iterdir()]


def in_any_file(folder: Path, text: bytes) -> bool:
    """Return whether a file of *folder* has *text* in it."""
    return any(text in file.read_bytes() for file in folder.iterdir())


# --- cancellation


async def test_a_cancelled_recall_stops_the_search(tmp_path: Path) -> None:
    """The statement is interrupted, and the next call finds the file free."""
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    async with open_database(tmp_path / "x.db", memory_file(())) as database:
        with trio.move_on_after(0.05) as scope:
            await database.read(lambda transaction: transaction.rows(endless))
        assert scope.cancelled_caught
        assert await database.read(lambda transaction: transaction.rows("SELECT 1")) == [(1,)]


async def test_a_cancelled_write_changes_nothing(tmp_path: Path) -> None:
    """The rows before the endless statement are not kept either."""

    def write(transaction: Transaction) -> None:
        transaction.change("CREATE TABLE t (i)")
        transaction.change(
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i FROM n"
        )

    async with open_database(tmp_path / "x.db", memory_file(())) as database:
        with trio.move_on_after(0.05) as scope:
            await database.write(write)
        assert scope.cancelled_caught
        tables = await database.read(lambda t: t.rows("SELECT name FROM sqlite_master"))
        assert tables == []


async def test_a_call_that_is_cancelled_before_its_statement_ends(tmp_path: Path) -> None:
    """An interruption that finds no statement is not lost: the next statement asks."""
    has_begun, may_go_on = threading.Event(), threading.Event()

    def think_first(transaction: Transaction) -> list[Row]:
        has_begun.set()
        may_go_on.wait()
        return transaction.rows(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        )

    async with open_database(tmp_path / "x.db", memory_file(())) as database:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.write, think_first)
                await trio.to_thread.run_sync(has_begun.wait)
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                    may_go_on.set()
        assert scope.cancelled_caught
        assert await database.write(lambda transaction: transaction.rows("SELECT 1")) == [(1,)]


async def test_who_waits_for_a_turn_interrupts_nobody(tmp_path: Path) -> None:
    """A call that is cancelled in the queue must not end the one that runs."""

    def slow(transaction: Transaction) -> int:
        return len(
            transaction.rows(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
                " SELECT i FROM n"
            )
        )

    kind = memory_file(())
    async with open_database(tmp_path / "x.db", kind) as database, trio.open_nursery() as nursery:
        counts: list[int] = []

        async def run_slow() -> None:
            counts.append(await database.read(slow))

        nursery.start_soon(run_slow)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await database.read(slow)
        with trio.move_on_after(0.001):
            await database.read(slow)
    assert counts == [300_000]


def test_cancelled_anywhere_nothing_leaks_and_nothing_is_half(tmp_path: Path) -> None:
    """At every checkpoint: the file is closed, whole, and has the fragment or has not."""
    paths: list[Path] = []

    async def scenario() -> None:
        path = tmp_path / f"{len(paths)}.db"
        paths.append(path)
        async with open_sqlite_memory(path) as memory:
            await keep(memory, "the sea")
            await keep(memory, "the north sea")
            await contents(memory, "sea")
            await memory.forget("mem-1")

    cancel_everywhere(scenario)
    assert len(paths) > 10
    for path in paths:
        if path.exists() and path.stat().st_size:
            connection = sqlite3.connect(path)
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()


# --- bad input


def test_a_locked_file_is_waited_for_and_then_said(tmp_path: Path) -> None:
    """Half a minute, and nothing has changed."""
    simulate(meet_a_locked_file, tmp_path / "memory.db")


async def meet_a_locked_file(path: Path) -> None:
    """Write while another program holds the file, and once more when it has let go."""
    async with open_sqlite_memory(path) as memory:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(MemoryStoreError, match=r"memory\.db.*locked; process \d+ .* has held"):
            await keep(memory, "sea")
        assert trio.current_time() >= 30.0
        assert await contents(memory, "sea") == []  # who only reads is kept by nobody
        holder.execute("ROLLBACK")
        holder.close()
        await keep(memory, "sea")
        assert await contents(memory, "sea") == ["sea"]


async def test_a_lock_that_is_let_go_costs_nothing(tmp_path: Path) -> None:
    """Whoever waits goes on when the other is done."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as memory:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, memory, "sea")
            await trio.testing.wait_all_tasks_blocked()
            holder.execute("COMMIT")
            holder.close()
        assert await contents(memory, "sea") == ["sea"]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: path.write_bytes(b"I am no database at all, " * 100), "not a memory"),
        (lambda path: path.mkdir(), "it must be a regular file, not a folder"),
        (lambda path: path.parent.rmdir(), "its folder must exist"),
    ],
    ids=["another file", "a folder", "no folder"],
)
async def test_what_is_no_memory_is_said(tmp_path: Path, prepare: object, said: str) -> None:
    """The file, what is wrong with it, and what to do."""
    path = tmp_path / "folder" / "memory.db"
    path.parent.mkdir()
    prepare(path)  # type: ignore[operator]  # a function of the table above
    with pytest.raises(MemoryStoreError, match=rf"memory\.db.*{said}"):
        async with open_sqlite_memory(path):
            pytest.fail("it was opened")


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """To write into a format that one does not know would damage it."""
    path = tmp_path / "memory.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(MemoryStoreError, match="later version: it has format 99"):
        async with open_sqlite_memory(path):
            pytest.fail("it was opened")


async def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    """Not a traceback of SQLite's, and not an empty answer."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as memory:
        for number in range(300):
            await keep(memory, f"sea {number} " * 20)
    whole = bytearray(path.read_bytes())
    for page in range(3, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 200] = os.urandom(200)
    path.write_bytes(whole)

    async def look() -> None:
        async with open_sqlite_memory(path) as memory:
            await contents(memory, "sea")
            await contents(memory, "")

    with pytest.raises(MemoryStoreError, match="damaged"):
        await look()


async def test_damage_that_sqlite_cannot_put_into_words_is_said(tmp_path: Path) -> None:
    """Its message has a name out of the file that is not text, so not even that can be read."""
    path = tmp_path / "memory.db"
    async with open_sqlite_memory(path) as memory:
        await keep(memory, "sea")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE', "
            "name = CAST(x'66ff' AS TEXT) WHERE name = 'fragments'"
        )
    with pytest.raises(MemoryStoreError, match=r"memory\.db' .* is damaged, restore it"):
        async with open_sqlite_memory(path):
            pytest.fail("it was opened")


@pytest.mark.parametrize(
    "fragment",
    [
        Fragment(content="\ud800", scope="mine"),
        Fragment(content="x", scope="\udfff"),
        Fragment(content="x", scope="mine", created_at=float("nan")),
        Fragment(content="x", scope="mine", created_at=float("inf")),
    ],
)
async def test_what_cannot_be_stored_is_refused(tmp_path: Path, fragment: Fragment) -> None:
    """With a reason, and nothing has changed."""
    async with open_sqlite_memory(tmp_path / "memory.db") as memory:
        with pytest.raises(UsageError, match="must be"):
            await memory.remember(fragment)
        assert await memory.scopes() == ()
        assert await contents(memory, "x", scope="\udfff") == []


# --- formats


async def test_each_migration_runs_once_and_in_order(tmp_path: Path) -> None:
    """Whatever the file has had before."""
    first = "CREATE TABLE t (i);\n\nINSERT INTO t VALUES (1);\n\n"
    steps = (first, "INSERT INTO t VALUES (2);\n\n")
    for known in (steps[:1], steps, steps):
        async with open_database(tmp_path / "x.db", memory_file(known)):
            pass
    async with open_database(tmp_path / "x.db", memory_file(steps)) as database:
        assert await database.read(lambda t: t.rows("SELECT i FROM t")) == [(1,), (2,)]


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Also what its first statements did."""
    async with open_database(tmp_path / "x.db", memory_file(("CREATE TABLE t (i);\n\n",))):
        pass
    broken = ("CREATE TABLE t (i);\n\n", "INSERT INTO t VALUES (1);\n\nNONSENSE;\n\n")
    with pytest.raises(MemoryStoreError, match="syntax error"):
        async with open_database(tmp_path / "x.db", memory_file(broken)):
            pytest.fail("it was opened")
    async with open_database(tmp_path / "x.db", memory_file(broken[:1])) as database:
        assert await database.read(lambda t: t.rows("SELECT i FROM t")) == []


async def test_two_that_open_a_new_file_at_once_make_it_once(tmp_path: Path) -> None:
    """The second finds the tables there."""

    async def open_it(names: list[str], name: str) -> None:
        async with open_sqlite_memory(tmp_path / "memory.db") as memory:
            await keep(memory, name)
            names.append(name)

    names: list[str] = []
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(open_it, names, f"n{number}")
    assert len(names) == 4


def test_released_formats_do_not_change() -> None:
    """A file that was written yesterday must be understood tomorrow."""
    released = ["c949198015638253", "b29323d63e595338", "be202c84a5cf4a57"]
    assert [hashlib.sha256(m.encode()).hexdigest()[:16] for m in MIGRATIONS] == released


def test_sqlite_is_loaded_only_when_it_is_asked_for() -> None:
    """The door is shut until somebody comes."""
    code = "import agentpool.memory, sys; print('sqlite3' in sys.modules)"
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    words: Sequence[str] = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "False\n"


def test_no_statement_numbers_its_values() -> None:
    """CPython 3.12.0 to 3.12.3 take ``?1`` for a name, and warn where values come in order."""
    rooms = sorted(Path(_sqlite.__file__).parent.glob("*.py"))
    assert rooms
    assert not [room.name for room in rooms if re.search(r"[\s(=]\?[0-9]", room.read_text())]


# --- files that are not ours, or were changed


def snapshot(path: Path) -> tuple[bytes, list[str]]:
    """Return a file's bytes, and what is beside it."""
    return path.read_bytes(), sorted(one.name for one in path.parent.iterdir())


@pytest.mark.parametrize("version", [0, 1, 2, 7])
@pytest.mark.parametrize("application", [0, 1234])
@pytest.mark.parametrize("read_only", [False, True])
async def test_another_programs_file_is_not_touched(
    tmp_path: Path, version: int, application: int, *, read_only: bool
) -> None:
    """A slip in a name must not change a browser's bookmarks."""
    path = tmp_path / "x.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(f"PRAGMA application_id = {application}")
    before = snapshot(path)
    with pytest.raises(MemoryStoreError, match=r"is not a memory|by a later version"):
        async with open_sqlite_memory(path, read_only=read_only):
            pytest.fail("it was opened")
    assert snapshot(path) == before


ENDLESS = """CREATE VIEW vectors AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)
SELECT i AS fragment, i AS vector FROM n"""


@pytest.mark.parametrize(
    "script",
    [
        "DROP TABLE vectors; " + ENDLESS,
        "CREATE TRIGGER t AFTER INSERT ON scopes BEGIN DELETE FROM fragments; END",
        "ALTER TABLE fragments ADD COLUMN other AS (content)",
        "CREATE TABLE more (x)",
        "DROP TRIGGER fragment_forgotten",
    ],
)
async def test_a_memory_that_was_changed_is_not_used(tmp_path: Path, script: str) -> None:
    """A view in the place of a table could take for ever, and a trigger do anything."""
    path = tmp_path / "x.db"
    async with open_sqlite_memory(path) as memory:
        await memory.remember(Fragment(content="a", scope="s"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(MemoryStoreError, match="made or changed its tables"):
            async with open_sqlite_memory(path, read_only=read_only):
                pytest.fail("it was opened")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE fragments SET content = CAST(x'ff' AS TEXT)",
        "UPDATE fragments SET content = x'ff'",
        "UPDATE fragments SET created_at = 'now'",
        "UPDATE scopes SET name = CAST(x'ff' AS TEXT)",
        "UPDATE scopes SET name = x'ff'",
    ],
)
async def test_what_is_no_fragment_is_an_error_of_the_file(tmp_path: Path, change: str) -> None:
    """And says so, whatever SQLite has stored where."""
    path = tmp_path / "x.db"
    async with open_sqlite_memory(path) as memory:
        await memory.remember(Fragment(content="a", scope="s"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()

    async def look() -> None:
        async with open_sqlite_memory(path, read_only=True) as memory:
            await memory.scopes()
            await memory.search("")

    with pytest.raises(MemoryStoreError, match=r"damaged|UTF-8"):
        await look()


async def test_who_only_looks_changes_nothing(tmp_path: Path) -> None:
    """Neither the file nor its format, and none is made."""
    path = tmp_path / "x.db"
    async with open_sqlite_memory(path) as memory:
        await memory.remember(Fragment(content="a cold sea", scope="s"))
    before = path.read_bytes()
    async with open_sqlite_memory(path, read_only=True) as memory:
        assert await contents(memory, "sea", scope="s") == ["a cold sea"]
        with pytest.raises(MemoryStoreError, match="readonly"):
            await memory.remember(Fragment(content="b", scope="s"))
    assert path.read_bytes() == before
    (tmp_path / "empty.db").touch()
    for name in ("none.db", "empty.db"):
        with pytest.raises(MemoryStoreError, match=r"is empty|unable to open"):
            async with open_sqlite_memory(tmp_path / name, read_only=True):
                pytest.fail("it was opened")
    assert not (tmp_path / "none.db").exists()


def modes_in(folder: Path) -> dict[str, int]:
    """Return who may read the files of *folder*, by their names."""
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


async def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Conversations are in it, and in the log beside it."""
    previous = os.umask(0o022)
    try:
        async with open_sqlite_memory(tmp_path / "x.db") as memory:
            await memory.remember(Fragment(content="a", scope="s"))
            modes = modes_in(tmp_path)
    finally:
        os.umask(previous)
    assert modes == dict.fromkeys(("x.db", "x.db-wal", "x.db-shm"), 0o600)


async def test_a_file_of_an_earlier_format_gets_its_words_anew(tmp_path: Path) -> None:
    """What was remembered before is found as what is remembered now."""
    path = tmp_path / "x.db"
    early = FileKind("memory", MemoryStoreError, MIGRATIONS[:2])
    async with open_database(path, early) as database:

        def insert(transaction: Transaction) -> None:
            transaction.change("INSERT INTO scopes (name) VALUES ('s')")
            transaction.change(
                "INSERT INTO fragments (scope, content, source, created_at, words)"
                " VALUES (1, 'in M\u00fcnchen', '', 1.0, 'in m\u00fcnchen')"
            )

        await database.write(insert)
    async with open_sqlite_memory(path) as memory:
        assert await contents(memory, "Munchen", scope="s") == ["in M\u00fcnchen"]
        assert await memory.forget("mem-1")
        assert await contents(memory, "Munchen", scope="s") == []


@pytest.mark.parametrize("make", ["in memory", "in a file"])
@pytest.mark.parametrize("text", ["a" + "\u0300\u0323" * 150_000, "\u0e41\u0e21\u0e27" * 100_000])
async def test_the_loop_goes_on_while_a_long_text_is_taken_apart(
    tmp_path: Path, make: str, text: str
) -> None:
    """Whoever wrote it: an answer, a page, or a model that asks for it."""
    async with contextlib.AsyncExitStack() as stack:
        memory: Memory = (
            InMemoryMemory()
            if make == "in memory"
            else await stack.enter_async_context(open_sqlite_memory(tmp_path / "x.db"))
        )
        begin = time.thread_time()
        kept = await memory.remember(Fragment(content=text, scope="s"))
        await memory.recall(MemoryQuery(text=text, scope="s"))
        assert await memory.forget(kept)
        assert time.thread_time() - begin < 0.3
