"""An open SQLite file: one connection, one transaction at a time.

Rules:

1. A transaction is done whole or not at all, whatever ends it.
2. A call that is cancelled interrupts its own transaction, and returns when the thread is free, so
   that no work goes on after it. A transaction that was committed at that moment stays. SQLite
   ignores an interrupt between two statements, so long statements check for it, too.
3. Small transactions run in the caller's thread, until two in a row were slow.
4. A call that finds the file locked waits in trio, not in the thread: see ``agentpool._file_lock``.
5. A file that was moved, deleted or replaced while it is open is no longer written, since the
   changes would be lost.
6. SQLite's errors are raised as the error type of the file's kind, and name the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar, final

import attrs
import trio

from agentpool._base import Shown
from agentpool._database.transaction import Transaction, Value
from agentpool._errors import AgentPoolError
from agentpool._file_kind import FileKind
from agentpool._file_lock import LockWait

T = TypeVar("T")

_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
QUICK_SECONDS: Final = 0.01
"""The longest time of a small transaction without a thread: a hundred times the usual."""

SLOW_COUNT: Final = 2
"""After this many slow transactions in a row, a thread is used. A single one may have waited for
another process."""


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
    """An open SQLite file. Opened by ``agentpool._database.opening``."""

    path: Path
    _kind: FileKind
    _connection: sqlite3.Connection
    _where: str
    """The file's absolute path: the working directory may change."""
    _identity: tuple[int, int]
    """The file's device and inode number."""
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
        """Run a small *job* in this thread and commit its changes. It must not wait for the disk.

        Return whether it was run. It is not run while others have the file, or while the file is
        slow.

        Raises:
            AgentPoolError: The kind's error, if the file cannot be written. Nothing has
                changed.
        """
        if self._slow >= SLOW_COUNT or self._turn.locked():
            return False
        self._check_place()
        try:
            self._transaction("BEGIN IMMEDIATE", job)()
        except sqlite3.Error as error:
            if _is_locked(error):
                return False
            raise_as_ours(error, self.path, self._kind)
        return True

    def change_at_once(self, sql: str, values: Sequence[Value]) -> int:
        """Run one small statement in this thread and commit it. It must not wait for the disk.

        Return how many rows it changed. 0: it found none, or was not run (see ``write_at_once``).

        Raises:
            AgentPoolError: The kind's error, if the file cannot be written. Nothing has
                changed.
        """
        if self._slow >= SLOW_COUNT or self._turn.locked():
            return 0
        began_at = self._clock.current_time()
        self._check_place()
        try:
            # A transaction by itself: three calls fewer, a third of the time.
            changed = self._connection.execute(sql, values).rowcount
        except sqlite3.Error as error:
            if _is_locked(error):
                return 0
            raise_as_ours(error, self.path, self._kind)
        self._note_time(began_at)
        return changed

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """Run *job* and commit its changes.

        Raises:
            AgentPoolError: The kind's error, if the file cannot be written. Nothing has
                changed.

        Cancellation:
            It is done whole or not at all.
        """
        self._check_place()
        return await self._in_turn(self._transaction("BEGIN IMMEDIATE", job))

    async def command(self, sql: str) -> None:
        """Run one statement that must run outside of a transaction.

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
            self._note_time(began_at)
            return value

        return run

    def _check_place(self) -> None:
        try:
            found = identity_of(self._where)
        except OSError:
            found = None
        if found != self._identity:
            raise self._kind.error(
                f"{self._kind.name} file {str(self.path)!r} was moved, deleted or replaced while "
                "it was open, so nothing more is written to it; put it back and go on with it"
            )

    def _note_time(self, began_at: float) -> None:
        is_slow = self._clock.current_time() - began_at >= QUICK_SECONDS
        self._slow = self._slow + 1 if is_slow else 0

    async def _in_turn(self, run: Callable[[], T]) -> T:
        wait: LockWait | None = None
        async with self._turn:
            while True:  # noqa: ASYNC913  # each round waits in a thread
                try:
                    return await self._in_thread(run)
                except UnicodeDecodeError as error:
                    raise _no_text(self.path, self._kind, error) from error
                except sqlite3.Error as error:
                    wait = wait or LockWait(self.path, self._kind.name, self._owned_by)
                    if not _is_locked(error) or not await wait.is_worth_it():
                        raise_as_ours(error, self.path, self._kind, wait.advice())

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


def identity_of(path: str) -> tuple[int, int]:
    """Return the device and inode number of the file at *path*, which identify it.

    Raises:
        OSError: If there is no such file.
    """
    found = os.stat(path)  # noqa: PTH116  # half the time, and before each write
    return found.st_dev, found.st_ino


def _no_text(path: Path, kind: FileKind, error: UnicodeDecodeError) -> AgentPoolError:
    what = f"{kind.name} file {str(path)!r} has text that is not valid UTF-8"
    return kind.error(f"{what}: {error}; it is damaged, restore it from a copy")


def _is_locked(error: sqlite3.Error) -> bool:
    # The low byte is the cause, the rest tells more of it.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED


def raise_as_ours(error: sqlite3.Error, path: Path, kind: FileKind, busy: str = "") -> NoReturn:
    """Raise SQLite's *error* as the error type of the file, with advice.

    Args:
        error: The error that SQLite raised.
        path: The file.
        kind: The purpose of the file.
        busy: What to do if another process has the file locked.

    Raises:
        AgentPoolError: Always.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    advice = {
        sqlite3.SQLITE_BUSY: busy,
        sqlite3.SQLITE_CANTOPEN: _why_not_open(path),
        sqlite3.SQLITE_NOTADB: f"it is not a {kind.name}; name another file",
        sqlite3.SQLITE_READONLY: _why_not_written(path),
        sqlite3.SQLITE_FULL: "make room on the disk",
        sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a copy",
    }.get(code, "look at the file")
    raise kind.error(f"{kind.name} file {str(path)!r}: {error}; {advice}") from error


def _why_not_open(path: Path) -> str:
    if path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.exists():
        return "there is no such file, and whoever only reads makes none"
    return "its folder must exist, and must be writable"


def _why_not_written(path: Path) -> str:
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return "it was opened to be read only; open it without read_only=True"
    return "make the file and its folder writable"


class InFile(Shown):
    """Base class of stores in one SQLite file."""

    __slots__ = ()

    _database: Database

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def _repr_words(self) -> str:
        return repr(str(self.path))
