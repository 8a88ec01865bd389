"""Waits for an SQLite file that another process has locked, and finds that process.

Rules:

1. A process that finds the file locked looks again after a moment, and then ten times a second. If
   the process with the lock is stopped, it looks once a second.
2. A process that keeps the lock for half a minute hangs, or makes a backup: an error names it.
3. A stopped process cannot release the lock, and no other process can take it away. The wait lasts
   as long as the process is stopped, and that time does not count: the person who stopped the
   process must continue or end it. A warning with the process id says so immediately.
4. If the system does not tell which process has the lock, there is no guess: the wait ends after
   half a minute.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, final

import attrs
import trio

LOCKED_SECONDS: Final = 30.0
"""How long others may lock a file. A process that keeps the file locked for longer hangs, or makes
a backup."""

_FIRST_PAUSE_SECONDS: Final = 0.002
_LONGEST_PAUSE_SECONDS: Final = 0.1
_STOPPED_PAUSE_SECONDS: Final = 1.0

_TELL_SECONDS: Final = 2.0
"""Seconds until a warning names the process with the lock. A writer needs a thousandth of that."""

_LOCKS: Final = Path("/proc/locks")
"""Every lock on this machine and its process, on Linux."""

_IN_LOG: Final = 120
"""The byte of the file ``-shm`` that a writer to the log locks."""

_IN_FILE: Final = range(0x40000000, 0x40000003)
"""The first of the bytes that a process locks when it writes to the file itself."""

_log: Final = logging.getLogger("agentpool")


@final
@attrs.frozen
class LockHolder:
    """The process that has locked a file."""

    pid: int
    """The process id."""
    program: str
    """The name of its program."""
    is_stopped: bool
    """Whether it is stopped until a signal tells it to continue."""

    def __str__(self) -> str:
        """Return a description for use within a sentence."""
        return f"process {self.pid} ({self.program})"


def lock_holder(path: Path) -> LockHolder | None:
    """Return the process that writes to the SQLite file *path*. ``None``: no known process does."""
    beside = path.with_name(f"{path.name}-shm")
    with contextlib.suppress(OSError):  # another system, or a process that has just ended
        wanted = [(path.stat(), _IN_FILE)]
        with contextlib.suppress(FileNotFoundError):  # not every file has a log
            wanted.append((beside.stat(), range(_IN_LOG, _IN_LOG + 1)))
        for pid, device, inode, first in written_locks(_LOCKS.read_text()):
            if any(
                inode == file.st_ino and first in places and _is_of(pid, device, file)
                for file, places in wanted
            ):
                text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
                # The name, in parentheses, may have anything in it.
                name, _, rest = text.partition("(")[2].rpartition(")")
                return LockHolder(pid, name, rest.split()[0] in {"T", "t"})
    return None


def _is_of(pid: int, device: tuple[int, int], file: os.stat_result) -> bool:
    """Return whether a lock of *pid*, on a file with the inode number of *file*, is on *file*.

    Files on two devices may have the same number. Some file systems report one device for a file
    and a different one for its locks: then the lock is on *file* if the process has *file* open.
    """
    if device == (os.major(file.st_dev), os.minor(file.st_dev)):
        return True
    with contextlib.suppress(OSError):  # another user's process
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.path.samestat(entry.stat(), file):
                    return True
    return False


def written_locks(table: str) -> Iterator[tuple[int, tuple[int, int], int, int]]:
    """Yield the write locks in *table*: process, device, file and first byte.

    >>> list(written_locks("1: POSIX  ADVISORY  WRITE 708 fe:00:2966502 120 120"))
    [(708, (254, 0), 2966502, 120)]
    """
    for line in table.splitlines():
        # Whoever waits for the lock of the line above has an arrow.
        _, *words = line.split()
        if words[0] == "POSIX" and words[2] == "WRITE":
            major, minor, inode = words[4].split(":")
            yield int(words[3]), (int(major, 16), int(minor, 16)), int(inode), int(words[5])


@final
@attrs.define(eq=False)
class LockWait:
    """One wait for a file that is locked."""

    _path: Path
    _kind: str
    """The word for the file in errors."""
    _owned_by: Callable[[int], Sequence[str]]
    """Returns the names of what a process owns in the file."""
    holder: LockHolder | None = None
    """The process with the lock, as far as is known."""
    _counted_seconds: float = 0.0
    _pause_seconds: float = _FIRST_PAUSE_SECONDS
    _began_at: float = attrs.field(factory=trio.current_time)
    _told: LockHolder | None = None

    async def is_worth_it(self) -> bool:
        """Wait a moment and return ``True``. Return ``False`` once the maximum time is over.

        Cancellation:
            Nothing has changed.
        """
        if trio.current_time() - self._began_at >= _TELL_SECONDS:
            self.holder = lock_holder(self._path)
            self._tell(self.holder)
        if self._counted_seconds >= LOCKED_SECONDS:
            await trio.lowlevel.checkpoint()
            return False
        if self.holder is not None and self.holder.is_stopped:
            await trio.sleep(_STOPPED_PAUSE_SECONDS)
            return True
        before = trio.current_time()
        await trio.sleep(self._pause_seconds)
        self._counted_seconds += trio.current_time() - before
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return True

    def _tell(self, holder: LockHolder | None) -> None:
        if holder is None or holder == self._told or holder.pid == os.getpid():
            return
        self._told = holder
        names = ", ".join(map(repr, self._owned_by(holder.pid)))
        who = f"{holder}, which runs {names}," if names else f"{holder}"
        how = (
            f"is stopped and has it locked; let it go on (kill -CONT {holder.pid}), or end it "
            f"(kill -KILL {holder.pid})"
            if holder.is_stopped
            else "has it locked"
        )
        _log.warning("waiting for %s file %r: %s %s", self._kind, str(self._path), who, how)

    def advice(self) -> str:
        """Return advice that names the process with the lock."""
        who = "another program" if self.holder is None else str(self.holder)
        return f"{who} has held it for {LOCKED_SECONDS:g} seconds; end it"
