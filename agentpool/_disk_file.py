"""Files written for the user: traces, reports, answers, recordings, memories, journals.

Rules, the same for all of them:

1. A new file is readable by its owner only, since it contains conversations.
2. An existing file keeps its mode. Only root may replace the contents of another user's file, since
   that user could read them.
3. A link is followed, and the file that it names is written. The link stays.
4. Anything other than a regular file (a device, a pipe, a socket, a folder) is refused before it is
   opened. It is never replaced, and no open call waits for it.
5. To replace the contents of a file, a new file is written next to it and renamed: so there is
   always the old file or the new one. A file with several names (hard links), or in a place where
   nothing can be renamed, is overwritten instead, so its other names have the new text as well.

This is for files that a person names. For those that a *model* names, see ``tools.system._places``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import struct
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

_BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# Should a pipe take the file's place after it was looked at, the open does not wait for it.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _BINARY
_NEW_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | _BINARY
_NO_RENAME: Final = (errno.EACCES, errno.EPERM, errno.EBUSY)
_ROOT: Final = 0

_NO_LOCKS: Final = (
    "its file system has no locks, so two processes could write at the same time; keep it on a "
    "disk "
    "of this machine"
)

_DATABASE: Final = b"SQLite format 3\0"
"""How an SQLite file begins."""

OWNER_ALONE: Final = 0o600
"""The mode of a new file."""


def check_file(path: Path, *, added_to: bool = False) -> None:
    """Raise if *path* exists and is not a regular file of this user.

    Args:
        path: The path to check.
        added_to: Whether the old contents stay. If so, the file may belong to another user, who
            shares it.

    Raises:
        OSError: If *path* is something else. Says what it is.
    """
    with contextlib.suppress(FileNotFoundError):
        _check(path.stat(), added_to=added_to)


def is_database(path: str) -> bool:
    """Return whether the file *path* is an SQLite file, as journals and memories are."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return file.read(len(_DATABASE)) == _DATABASE
    except (OSError, ValueError):
        return False  # whoever opens it says why


def open_to_write(path: Path, *, append: bool = False) -> int:
    """Open the file at *path*, creating it if it is missing; return its descriptor.

    Args:
        path: The file to open.
        append: Whether the old contents stay, and every write goes to the end.

    Raises:
        OSError: If it cannot be written, or is not a file of this user.
    """
    check_file(path, added_to=append)
    fd = os.open(path, _FLAGS | (os.O_APPEND if append else 0), OWNER_ALONE)
    try:
        _check(os.fstat(fd), added_to=append)
        if not append:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def mark_open(fd: int) -> bool:
    """Show other processes that the file behind *fd* is being written, until *fd* is closed.

    The mark ends with the process, even if the process is killed. Returns False if another process
    is checking for a mark at this moment; in that case, try again. On a platform without file
    locks, nothing is marked.
    """
    try:
        _flock(fd, "LOCK_SH", "LOCK_NB")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_marked_open(fd: int) -> bool:
    """Return whether a process that has the file behind *fd* open has marked it.

    Also returns True if there is no way to know.
    """
    try:
        _flock(fd, "LOCK_EX", "LOCK_NB")
    except OSError:
        return True
    _flock(fd, "LOCK_UN")
    return False


def check_locks(path: Path) -> None:
    """Raise if the file system at *path* has no locks between processes.

    The test locks another file in the same folder, since closing *path* itself would release its
    locks. If the test is not possible, no error is raised.

    Raises:
        OSError: If there are no locks. Says where to keep the file.
    """
    try_lock = _find_lock()
    if try_lock is None:
        return
    beside = path.with_name(f".agentpool-{secrets.token_hex(8)}.lock")
    with contextlib.ExitStack() as stack:
        try:
            first = os.open(beside, _NEW_FLAGS, OWNER_ALONE)
        except OSError:
            return  # what is wrong with the folder is said by who opens the file
        stack.callback(os.close, first)
        stack.callback(beside.unlink)
        second = os.open(beside, _FLAGS)
        stack.callback(os.close, second)
        try:
            try_lock(first)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # a system that does not know such locks may have others
            raise OSError(error.errno, _NO_LOCKS) from error
        with contextlib.suppress(BlockingIOError):
            try_lock(second)
            raise OSError(errno.ENOLCK, _NO_LOCKS)


def write_whole(path: Path, data: bytes) -> None:
    """Replace the contents of the file at *path* with *data*.

    Raises:
        OSError: If it cannot be written, or is not a file of this user. The old contents are
            unchanged, unless the file had to be overwritten (rule 5).
    """
    check_file(path)
    # Where the link leads: itself it stays.
    target = Path(os.path.realpath(path))
    there = target.stat() if target.exists() else None
    if there is not None and (there.st_nlink > 1 or _is_foreign(there)):
        _write_in_place(target, data)
        return
    try:
        _write_beside(target, data, stat.S_IMODE(there.st_mode) if there else OWNER_ALONE)
    except OSError as error:
        if there is None or error.errno not in _NO_RENAME:
            raise
        _write_in_place(target, data)


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data*.

    Raises:
        OSError: If it cannot be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_in_place(path: Path, data: bytes) -> None:
    fd = open_to_write(path)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def _write_beside(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".agentpool-{secrets.token_hex(8)}.tmp")
    fd = os.open(beside, _NEW_FLAGS, OWNER_ALONE)
    try:
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        beside.chmod(mode)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _flock(fd: int, *names: str) -> None:
    """Lock or unlock the file behind *fd*. A lock lasts until *fd* is closed.

    Raises:
        OSError: If it cannot be locked, or this platform has no such locks.
    """
    try:
        fcntl = import_module("fcntl")
    except ImportError as error:
        raise OSError(errno.ENOSYS, "this platform has no such locks") from error
    flags = 0
    for name in names:
        flags |= getattr(fcntl, name)
    fcntl.flock(fd, flags)


def _find_lock() -> Callable[[int], object] | None:
    """Return the call that locks a whole file while its descriptor is open. ``None``: none exists.

    Other kinds of locks belong to the process as a whole, so they would not exclude that process.
    """
    try:
        fcntl = import_module("fcntl")
        command: int = fcntl.F_OFD_SETLK
    except (ImportError, AttributeError):
        return None
    # As in C: type, whence, start, length, process.
    whole = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    return lambda fd: fcntl.fcntl(fd, command, whole)


def _check(found: os.stat_result, *, added_to: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = kind_words(found.st_mode)
        raise OSError(errno.EINVAL, f"it must be a regular file, not {kind}; name another file")
    if not added_to and _is_foreign(found) and os.geteuid() != _ROOT:
        raise OSError(errno.EPERM, "it belongs to another user; name another file, or remove it")


def _is_foreign(found: os.stat_result) -> bool:
    return hasattr(os, "geteuid") and found.st_uid != os.geteuid()


def kind_words(mode: int) -> str:
    """Describe something with this *mode* that is not a regular file."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a link that was put there just now"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((text for is_kind, text in kinds if is_kind(mode)), "a device")
