"""The process that searches: it lists folders, reads files and matches patterns.

The search is a script, so that it starts in 20 ms and imports nothing of the package. It has its
own process because Python's ``re`` can take practically forever for a short pattern, holds the
interpreter's lock meanwhile, and only stops when its process ends. (There is a package with a time
limit, but it has a different dialect and a compiled module.)

The process reads one line of JSON from its input and writes lines of JSON to its output: one line
for each find, and one at the end. Each find is written at once: a kill loses none.

The search never follows a link, so it stays inside its file or folder even if files are swapped
meanwhile. The kernel ends the process when it uses too much time or memory, so it does not stay
behind even if its parent is killed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import heapq
import json
import os
import re
import stat
import sys
import time  # noqa: TID251  # another process: there is no trio here
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

MAX_MEMORY_BYTES: Final = 1024**3
"""The largest address space. A pattern that needs more gets an error."""

MAX_LINE_BYTES: Final = 64 * 1024
"""How many bytes of each line are searched, from the beginning of the line. People do not write
longer lines."""

MAX_SHOWN_CHARS: Final = 300
"""The most characters shown of each line, around the first find in it."""

MAX_DEPTH: Final = 64
"""The most nested folders; each holds a descriptor."""

_BEFORE_CHARS: Final = 60
"""How many characters are shown before the find in a long line."""

_SNIFFED_BYTES: Final = 8192
"""How many bytes are searched for a NUL, the sign of a binary file."""

_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_FOLDER_FLAGS: Final = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_DIRECTORY", 0)
_FILE_FLAGS: Final = (
    os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)


class Request(NamedTuple):
    """What to search for."""

    kind: str
    """``glob`` or ``grep``."""
    fd: int | None
    """The open file or folder to search. ``None``: only the path is known."""
    path: str
    """Its full path, on systems where folders have no descriptors."""
    shown: str
    """The prefix for the paths of finds: the folder's name for the model, with ``/``, or empty."""
    pattern: str
    """For glob: parts with ``*``, ``?``, ``[]`` and ``**``; for grep: a regular expression."""
    include: str
    """For grep: only files whose name fits this."""
    ignore_case: bool
    """For grep: whether upper and lower case are the same."""
    limit: int
    """The most finds."""
    max_entries: int
    """The most files and folders to visit."""
    seconds: float
    """After this time the search stops by itself, between two files."""
    closed: tuple[int, ...] = ()
    """Devices whose folders are not entered."""


class Entry(NamedTuple):
    """Something in a folder."""

    shown: str
    folder: int | str
    """The descriptor or the path of its folder."""
    name: str
    is_folder: bool


class StoppedError(Exception):
    """The search has reached a limit, which the text names."""


class Walk:
    """Walks through folders, and counts the entries."""

    def __init__(self, request: Request) -> None:
        """Begin with all counts at zero."""
        self.left = request.max_entries
        self.closed = frozenset(request.closed)
        self.ends_at = time.monotonic() + request.seconds

    def check_time(self) -> None:
        """Raise if the time limit has passed.

        Raises:
            StoppedError: If the limit has passed.
        """
        if time.monotonic() > self.ends_at:
            raise StoppedError("time")

    def entries(self, folder: int | str, shown: str) -> list[Entry]:
        """Return the entries of *folder* except links, by name. An unreadable folder has none.

        Raises:
            StoppedError: If there are too many entries in total, or no time is left.
        """
        self.check_time()
        found: list[Entry] = []
        with contextlib.suppress(OSError), os.scandir(folder) as listing:
            for one in listing:
                if self.left <= 0:
                    raise StoppedError("entries")
                self.left -= 1
                is_folder = one.is_dir(follow_symlinks=False)
                if is_folder or one.is_file(follow_symlinks=False):
                    found.append(Entry(shown + one.name, folder, one.name, is_folder))
        return sorted(found, key=lambda one: one.name)


@contextlib.contextmanager
def opened_folder(entry: Entry, closed: frozenset[int]) -> Generator[int | str | None, None, None]:
    """Open the folder *entry*. ``None``: it is gone, cannot be opened, or belongs to the kernel."""
    if isinstance(entry.folder, str):
        yield os.path.join(entry.folder, entry.name)  # noqa: PTH118  # no pathlib: it starts slowly
        return
    try:
        fd = os.open(entry.name, _FOLDER_FLAGS, dir_fd=entry.folder)
    except OSError:
        yield None
        return
    try:
        yield None if os.fstat(fd).st_dev in closed else fd
    finally:
        os.close(fd)


# --- glob


class GlobPattern:
    """A path pattern, matched part by part so that no folder is walked twice.

    A state is the number of parts already matched; ``**`` can match any number of names, or none.
    """

    def __init__(self, pattern: str) -> None:
        """Parse *pattern*."""
        parts = [part for part in pattern.split("/") if part not in {"", "."}]
        self._parts: list[tuple[re.Pattern[str] | None, bool]] = [
            (None if part == "**" else re.compile(fnmatch.translate(part)), part.startswith("."))
            for part in parts
        ]
        self.start = self._closed({0})
        self._end = len(self._parts)

    def _closed(self, states: set[int]) -> frozenset[int]:
        for state in sorted(states):
            rest = state
            while rest < len(self._parts) and self._parts[rest][0] is None:
                rest += 1
                states.add(rest)
        return frozenset(states)

    def step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """Return the states after *name*. A name that does not match has none.

        A name that begins with a dot is only matched by a part that begins with a dot.
        """
        is_hidden = name.startswith(".")
        after: set[int] = set()
        for state in states:
            if state < self._end:
                part, names_hidden = self._parts[state]
                if is_hidden and not names_hidden:
                    continue
                if part is None:
                    after.add(state)
                elif part.match(name):
                    after.add(state + 1)
        return self._closed(after)

    def is_whole(self, states: frozenset[int]) -> bool:
        """Return whether the path so far matches the whole pattern."""
        return self._end in states

    def goes_on(self, states: frozenset[int]) -> bool:
        """Return whether anything below may match."""
        return any(state < self._end for state in states)


def glob(request: Request, say: Callable[[dict[str, object]], None]) -> None:
    """Find files by their paths, newest first."""
    pattern, walk = GlobPattern(request.pattern), Walk(request)
    newest: list[tuple[int, str]] = []
    total = 0
    why = ""

    def look(folder: int | str, shown: str, states: frozenset[int], depth: int) -> None:
        nonlocal total
        for entry in walk.entries(folder, shown):
            after = pattern.step(states, entry.name)
            if not entry.is_folder:
                if pattern.is_whole(after):
                    total += 1
                    found = (_changed_at(entry), entry.shown)
                    (heapq.heappush if total <= request.limit else heapq.heappushpop)(newest, found)
            elif depth < MAX_DEPTH and pattern.goes_on(after):
                with opened_folder(entry, walk.closed) as below:
                    if below is not None:
                        look(below, entry.shown + "/", after, depth + 1)

    try:
        look(request.path if request.fd is None else request.fd, request.shown, pattern.start, 0)
    except StoppedError as stopped:
        why = str(stopped)
    for _, shown in sorted(newest, key=lambda one: (-one[0], one[1])):
        say({"path": shown})
    say({"end": why, "total": total})


def _changed_at(entry: Entry) -> int:
    try:
        if isinstance(entry.folder, str):
            return os.stat(os.path.join(entry.folder, entry.name)).st_mtime_ns  # noqa: PTH116, PTH118  # no pathlib: it starts slowly
        return os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0  # it has gone since


# --- grep


class Grep:
    """Searches for lines and reports them as it finds them."""

    def __init__(
        self, request: Request, pattern: re.Pattern[str], say: Callable[[dict[str, object]], None]
    ) -> None:
        """Begin without results."""
        self._request = request
        self._pattern = pattern
        self._say = say
        self._walk = Walk(request)
        self._left = request.limit

    def search(self, file: BinaryIO, shown: str) -> None:
        """Search *file*.

        Raises:
            StoppedError: If a limit is reached.
        """
        for number, line in text_lines(file):
            match = self._pattern.search(line)
            if match is not None:
                if self._left <= 0:
                    raise StoppedError("limit")
                self._left -= 1
                text = excerpt(line, *match.span())
                self._say({"path": shown, "line": number, "text": text})

    def look(self, folder: int | str, shown: str, depth: int = 0) -> None:
        """Search every file below *folder*, except hidden ones.

        Raises:
            StoppedError: If a limit is reached.
        """
        for entry in self._walk.entries(folder, shown):
            if entry.name.startswith("."):
                continue
            if entry.is_folder:
                if depth < MAX_DEPTH:
                    with opened_folder(entry, self._walk.closed) as below:
                        if below is not None:
                            self.look(below, entry.shown + "/", depth + 1)
            elif fnmatch.fnmatchcase(entry.name, self._request.include):
                self._walk.check_time()
                # One that cannot be read, on a bad disk or gone, does not end the search.
                with contextlib.suppress(OSError), opened_file(entry) as file:
                    if file is not None:
                        self.search(file, entry.shown)


def grep(request: Request, say: Callable[[dict[str, object]], None]) -> None:
    """Find lines by a regular expression."""
    try:
        pattern = re.compile(request.pattern, re.IGNORECASE if request.ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        say({"error": f"not a regular expression: {error}; correct the pattern"})
        return
    work = Grep(request, pattern, say)
    top = request.path if request.fd is None else request.fd
    why = ""
    try:
        if stat.S_ISREG(os.stat(top).st_mode):  # noqa: PTH116  # may be a descriptor
            with open(top, "rb") as one:  # noqa: PTH123  # may be a descriptor
                work.search(one, request.shown)
        else:
            work.look(top, request.shown)
    except StoppedError as stopped:
        why = str(stopped)
    except OSError as error:
        say({"error": f"the file cannot be read: {error.strerror}; choose another file"})
        return
    say({"end": why})


@contextlib.contextmanager
def opened_file(entry: Entry) -> Generator[BinaryIO | None, None, None]:
    """Open the file *entry*. ``None``: it cannot be opened, or is no longer an ordinary file."""
    try:
        if isinstance(entry.folder, str):
            fd = os.open(os.path.join(entry.folder, entry.name), _FILE_FLAGS)  # noqa: PTH118  # no pathlib: it starts slowly
        else:
            fd = os.open(entry.name, _FILE_FLAGS, dir_fd=entry.folder)
    except OSError:
        yield None
        return
    with os.fdopen(fd, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(fd).st_mode) else None


def text_lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield the lines of *file* with their numbers. A file that is not text has none."""
    if b"\0" in file.read(_SNIFFED_BYTES):
        return
    file.seek(0)
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        yield number, line.decode(errors="replace").rstrip("\r\n")
        while not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            line = file.readline(MAX_LINE_BYTES)


def excerpt(line: str, start: int, end: int) -> str:
    """Return *line*, or the piece of it around the find."""
    if len(line) <= MAX_SHOWN_CHARS:
        return line
    begin = 0 if end <= MAX_SHOWN_CHARS else max(0, start - _BEFORE_CHARS)
    piece = line[begin : begin + MAX_SHOWN_CHARS]
    return f"{'…' if begin else ''}{piece}{'…' if begin + MAX_SHOWN_CHARS < len(line) else ''}"


def limit_process(seconds: float) -> None:
    """Make the kernel end this process if it uses too much time or memory."""
    try:
        import resource  # noqa: PLC0415  # not on every platform
    except ImportError:
        return
    cpu_seconds = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    most = (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES)
    # Elsewhere what is shared counts as well, so it stays as it is.
    memory = most if sys.platform == "linux" else resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, memory)


def main(
    source: BinaryIO, target: BinaryIO, *, limit: Callable[[float], None] = limit_process
) -> None:
    """Run the search in *source*, and write the results to *target*."""
    request = Request(**json.loads(source.readline()))

    def say(found: dict[str, object]) -> None:
        # Names are bytes; those that are not text are shown as well as they can be.
        shown = {
            key: value.encode(errors="surrogateescape").decode(errors="replace")
            if isinstance(value, str)
            else value
            for key, value in found.items()
        }
        target.write(json.dumps(shown).encode() + b"\n")
        target.flush()

    limit(request.seconds)
    try:
        (glob if request.kind == "glob" else grep)(request, say)
    except MemoryError:
        say({"error": "it takes too much memory; write a simpler pattern"})


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        main(sys.stdin.buffer, sys.stdout.buffer)
