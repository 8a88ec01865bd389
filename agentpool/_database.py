"""The only module that uses SQLite: one file, one connection, one transaction at a time.

Rules:

1. A transaction is done whole or not at all, whatever ends it.
2. A call that is cancelled interrupts its own transaction, and returns when the thread is
   free: nothing goes on behind it. A transaction that was committed in that moment stays.
   SQLite forgets one that finds no statement, so long statements ask, too.
3. What is small runs where it is, without a thread, until two in a row were slow.
4. Who finds the file locked waits in trio, not in the thread: see ``agentpool._file_lock``.
5. What SQLite raises comes out as the error of the file's kind and names the file.
6. Nothing is written to a file that is another program's, and no statement is run on tables
   that are not what our own migrations make: a view in the place of a table could take for
   ever. What a file is is looked at before anything else.
7. A new file can be read by its owner alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeAlias, TypeVar, final

import attrs
import trio

from agentpool._disk_file import check_file, check_locks, open_to_write
from agentpool._errors import AgentPoolError
from agentpool._file_kind import FileKind
from agentpool._file_lock import LockWait

Value: TypeAlias = str | int | float | bytes | None
"""What a column can hold."""

Row: TypeAlias = tuple[Value, ...]

T = TypeVar("T")

APPLICATION_ID: Final = 0x61676E70
"""By which a file is known as ours: ``agnp`` in its bytes. Files from before it have 0."""

_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_ASK_EVERY_STEPS: Final = 1_000_000
"""Steps of SQLite's machine, some 20 ms, after which a statement asks whether it is wanted."""

QUICK_SECONDS: Final = 0.01
"""What a small transaction may take without a thread: a hundred times what it does take."""

SLOW_COUNT: Final = 2
"""In a row, that took longer: one alone may have been the turn of another process."""

CLOSE_SECONDS: Final = 10.0  # for the last checkpoint of a large log; nothing depends on it


@final
@attrs.define(eq=False, repr=False)
class Transaction:
    """What a job may do with the file, inside the thread."""

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


@final
@attrs.define(eq=False, repr=False)
class _Job:
    """One transaction that runs in the thread, and its result."""

    run: Callable[[], object]
    value: object = None
    error: Exception | None = None
    is_over: bool = False
    is_unwanted: bool = False

    def do(self) -> None:
        """Run the job in the thread. Never raises there."""
        try:
            self.value = self.run()
        except Exception as error:  # noqa: BLE001  # raised again where it was asked for
            self.error = error
        finally:
            self.is_over = True


@final
@attrs.define(eq=False, repr=False)
class Database:
    """An open SQLite file. Opened by ``open_database``."""

    path: Path
    _kind: FileKind
    _connection: sqlite3.Connection
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    # Of its own: tools may have taken all of trio's threads, and wait for this file.
    _thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _job: _Job | None = None
    _slow: int = SLOW_COUNT  # transactions were, up to the last one
    _clock: trio.abc.Clock = attrs.field(factory=trio.lowlevel.current_clock)  # for the thread

    async def read(self, job: Callable[[Transaction], T]) -> T:
        """Run *job* on one consistent state of the file.

        Raises:
            AgentPoolError: The kind's error, if the file cannot be read.

        Cancellation:
            Nothing has changed.
        """
        return await self._in_turn(self._transaction("BEGIN", job))

    def write_at_once(self, job: Callable[[Transaction], None]) -> bool:
        """Run a small *job* that does not wait for the disk, and commit its changes, here and now.

        Return whether that was done: not while others have the file, nor while it is slow.

        Raises:
            AgentPoolError: The kind's error, if the file cannot be written. Nothing has
                changed.
        """
        if self._slow >= SLOW_COUNT or self._turn.locked():
            return False
        try:
            self._transaction("BEGIN IMMEDIATE", job)()
        except sqlite3.Error as error:
            if _is_locked(error):
                return False
            _raise_as_ours(error, self.path, self._kind)
        return True

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """Run *job* and commit its changes.

        Raises:
            AgentPoolError: The kind's error, if the file cannot be written. Nothing has
                changed.

        Cancellation:
            It is done whole or not at all.
        """
        return await self._in_turn(self._transaction("BEGIN IMMEDIATE", job))

    async def command(self, sql: str) -> None:
        """Run one statement that must stand outside of a transaction.

        Raises:
            AgentPoolError: The kind's error, if it fails.

        Cancellation:
            It is done whole or not at all.
        """
        await self._in_turn(lambda: self._connection.execute(sql).fetchall())

    def _transaction(self, begin: str, job: Callable[[Transaction], T]) -> Callable[[], T]:
        def run() -> T:
            began_at = self._clock.current_time()
            try:
                self._connection.execute(begin)
                value = job(Transaction(self._connection))
                self._connection.execute("COMMIT")
            except BaseException:
                # An interruption may have rolled it back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            is_slow = self._clock.current_time() - began_at >= QUICK_SECONDS
            self._slow = self._slow + 1 if is_slow else 0
            return value

        return run

    async def _in_turn(self, run: Callable[[], T]) -> T:
        wait: LockWait | None = None
        async with self._turn:
            while True:
                try:
                    return await self._in_thread(run)
                except UnicodeDecodeError as error:
                    raise _no_text(self.path, self._kind, error) from error
                except sqlite3.Error as error:
                    wait = wait or LockWait(self.path, self._kind.name, self._owned_by)
                    if not _is_locked(error) or not await wait.is_worth_it():
                        _raise_as_ours(error, self.path, self._kind, wait.advice())

    def _owned_by(self, pid: int) -> list[str]:
        """Return the names of what a process has in the file."""
        with contextlib.suppress(sqlite3.Error):  # readers wait for no writer, but for a few
            found = self._connection.execute(self._kind.owners, (pid,))
            return [str(name) for (name,) in found]
        return []

    async def _in_thread(self, run: Callable[[], T]) -> T:
        if not self._kind.interrupts:
            return await trio.to_thread.run_sync(run, limiter=self._thread)
        job = self._job = _Job(run)

        async def interrupt_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                job.is_unwanted = True
                # It is our turn, so the statement that runs is ours. Where none runs,
                # this does nothing: the next one asks.
                if not job.is_over:
                    self._connection.interrupt()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt_when_cancelled)
            await trio.to_thread.run_sync(job.do, limiter=self._thread)
            nursery.cancel_scope.cancel()
        if job.error is not None:
            raise job.error
        return job.value  # type: ignore[return-value]  # what run() returned

    def is_unwanted(self) -> bool:
        """Return whether the running job was cancelled. Called in its thread."""
        return self._job is not None and self._job.is_unwanted


@asynccontextmanager
async def open_database(
    path: Path, kind: FileKind, *, read_only: bool = False
) -> AsyncGenerator[Database]:
    """Open the SQLite file at *path*; create it if it is missing.

    Args:
        path: The file. Its folder exists.
        kind: What it is for.
        read_only: Whether nothing is made or changed, also not to a newer format.

    Raises:
        AgentPoolError: The kind's error, if it cannot be opened, is no such file, or is of a
            later version.

    Cancellation:
        The file is closed; each migration is done whole or not at all.
    """
    connect = partial(_connect, path, read_only=read_only)
    try:
        connection = await trio.to_thread.run_sync(connect)
    except sqlite3.Error as error:
        _raise_as_ours(error, path, kind)
    except OSError as error:
        raise kind.error(f"{kind.name} file {str(path)!r}: {error.strerror}") from error
    _add_functions(connection, kind)
    database = Database(path, kind, connection)
    if kind.interrupts:
        connection.set_progress_handler(database.is_unwanted, _ASK_EVERY_STEPS)
    try:
        found = await database.read(partial(_look, kind=kind, path=path))
        if read_only:
            if not found:
                raise kind.error(f"{str(path)!r} is not a {kind.name}: it is empty; name another")
            yield database
            return
        # A log beside the file: readers and one writer at once, from several processes. A
        # kill loses nothing; after a power cut the last writes may be missing, none half.
        await database.command("PRAGMA journal_mode = WAL")
        await database.command(f"PRAGMA synchronous = {kind.synchronous}")
        await database.command("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten, and not only given free.
        await database.command("PRAGMA secure_delete = ON")
        await _migrate(database, kind)
        yield database
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await trio.to_thread.run_sync(connection.close)


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    check_file(path, added_to=True)
    if not read_only:
        check_locks(path)
        # SQLite would let everybody read it. What goes wrong here it says better.
        with contextlib.suppress(OSError):
            os.close(open_to_write(path, append=True))
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro" if read_only else path,
        timeout=0,  # a lock is waited for in trio
        isolation_level=None,
        check_same_thread=False,
        uri=read_only,
    )


def _add_functions(connection: sqlite3.Connection, kind: FileKind) -> None:
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


def _look(transaction: Transaction, *, kind: FileKind, path: Path) -> int:
    """Return the format of the file. 0: the file is empty.

    Raises:
        AgentPoolError: The kind's error, if it is another program's, or a later version's.
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
            f"{str(path)!r} is not a {kind.name}: another program made or changed its tables; "
            "name another file. Nothing was changed in it"
        )
    return found


def _schema_of(kind: FileKind, version: int) -> dict[tuple[Value, Value], Value]:
    """Return the schema of a file of that format."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _add_functions(connection, kind)
        fresh = Transaction(connection)
        for script in kind.migrations[:version]:
            _run_script(fresh, script)
        return _schema(fresh)


def _run_script(transaction: Transaction, script: str) -> None:
    for statement in filter(str.strip, script.split(";\n\n")):
        transaction.change(statement)


async def _migrate(database: Database, kind: FileKind) -> None:
    migrations = kind.migrations

    def migrate(transaction: Transaction) -> None:
        # Looked at again inside: another process may have been here in between.
        first = _version(transaction)
        transaction.change(f"PRAGMA application_id = {APPLICATION_ID}")
        for number, script in enumerate(migrations[first:], start=first + 1):
            _run_script(transaction, script)
            transaction.change(f"PRAGMA user_version = {number}")

    if await database.read(_version) < len(migrations):
        await database.write(migrate)


def _no_text(path: Path, kind: FileKind, error: UnicodeDecodeError) -> AgentPoolError:
    what = f"{kind.name} file {str(path)!r} has text that is none"
    return kind.error(f"{what}: {error}; it is damaged, restore it from a copy")


def _is_locked(error: sqlite3.Error) -> bool:
    # The low byte is the cause, the rest tells more of it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED


def _raise_as_ours(error: sqlite3.Error, path: Path, kind: FileKind, busy: str = "") -> NoReturn:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    advice = {
        sqlite3.SQLITE_BUSY: busy,
        sqlite3.SQLITE_CANTOPEN: "its folder must exist, and must be writable",
        sqlite3.SQLITE_NOTADB: f"it is not a {kind.name}; name another file",
        sqlite3.SQLITE_READONLY: "make the file and its folder writable",
        sqlite3.SQLITE_FULL: "make room on the disk",
        sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a copy",
    }.get(code, "look at the file")
    raise kind.error(f"{kind.name} file {str(path)!r}: {error}; {advice}") from error
