"""Opens SQLite files and closes them. A new file is readable by its owner only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from agentpool._database.database import Database, identity_of, raise_as_ours
from agentpool._database.format import add_functions, look, migrate
from agentpool._disk_file import check_file, check_locks, open_to_write
from agentpool._file_kind import FileKind

_ASK_EVERY_STEPS: Final = 1_000_000
"""After this many steps of SQLite's machine, some 20 ms, a statement checks for cancellation."""

CLOSE_SECONDS: Final = 10.0  # for the last checkpoint of a large log; nothing depends on it


@asynccontextmanager
async def open_database(
    path: Path, kind: FileKind, *, read_only: bool = False
) -> AsyncGenerator[Database]:
    """Open the SQLite file at *path*; create it if it is missing.

    Args:
        path: The file. Its folder exists.
        kind: The purpose of the file.
        read_only: Whether to create and change nothing, not even the format.

    Raises:
        AgentPoolError: The kind's error, if it cannot be opened, is no such file, or is of a
            later version.

    Cancellation:
        The file is closed; each migration is done whole or not at all.
    """
    connect = partial(_connect, path, read_only=read_only)
    try:
        connection, where, identity = await trio.to_thread.run_sync(connect)
    except sqlite3.Error as error:
        raise_as_ours(error, path, kind)
    except OSError as error:
        raise kind.error(f"{kind.name} file {str(path)!r}: {error.strerror}") from error
    add_functions(connection, kind)
    database = Database(path, kind, connection, where, identity)
    if kind.interrupts:
        connection.set_progress_handler(database.is_unwanted, _ASK_EVERY_STEPS)
    try:
        found = await database.read(partial(look, kind=kind, path=path))
        if read_only:
            if not found:
                what = f"{str(path)!r} is not a {kind.name}"
                raise kind.error(f"{what}: it is empty; name another file")
            yield database
            return
        # A log beside the file: readers and one writer at once, from several processes. A
        # kill loses nothing; after a power cut the last writes may be missing, none half.
        await database.command("PRAGMA journal_mode = WAL")
        await database.command(f"PRAGMA synchronous = {kind.synchronous}")
        await database.command("PRAGMA foreign_keys = ON")
        # What is deleted is overwritten, and not only given free.
        await database.command("PRAGMA secure_delete = ON")
        await migrate(database, kind)
        yield database
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await trio.to_thread.run_sync(connection.close)


def _connect(path: Path, *, read_only: bool) -> tuple[sqlite3.Connection, str, tuple[int, int]]:
    check_file(path, added_to=True)
    if not read_only:
        check_locks(path)
        # SQLite would let everybody read it. What goes wrong here it says better.
        with contextlib.suppress(OSError):
            os.close(open_to_write(path, append=True))
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro" if read_only else path,
        timeout=0,  # a lock is waited for in trio
        isolation_level=None,
        check_same_thread=False,
        uri=read_only,
    )
    where = str(path.absolute())
    return connection, where, identity_of(where)
