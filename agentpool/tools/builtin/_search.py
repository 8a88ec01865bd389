"""Tools to find files by path and by content.

Each search runs in its own process (see ``_search_child``), because a pattern can take forever, and
only ending the process stops the search. This module starts the process in the folder to which the
path leads, ends the process when its time is over, and shows what it had found by then.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final, TypeAlias, cast, final

import attrs
import trio
from msgspec import Meta

from agentpool._environ import LIBRARIES, build_environ
from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability
from agentpool._messages import Json
from agentpool.abc import Tool
from agentpool.tools._function import tool
from agentpool.tools.system import _search_child
from agentpool.tools.system._file_work import FileWork, refused
from agentpool.tools.system._kernel_systems import kernel_devices
from agentpool.tools.system._process import open_group
from agentpool.tools.system._roots import Roots
from agentpool.tools.system._search_child import Request
from agentpool.tools.system._walk_in_roots import open_place

MAX_FOUND: Final = 200
"""The most files or lines found: more than a model can use."""

MAX_ENTRIES: Final = 200_000
"""The most files and folders that one search visits: some seconds' worth."""

MAX_PATTERN_CHARS: Final = 1000
"""The longest pattern. People write shorter patterns; a longer one is an attack."""

SEARCH_SECONDS: Final = 10.0
"""How long one search may take. Searching 200,000 small files takes less."""

_LATER_SECONDS: Final = 1.0
"""The extra time in which a search should end by itself before its process is killed. It does not
end by itself if a single line takes too long to match."""

_MAX_FOUND_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of output: enough for 200 of the longest paths and pieces of lines."""

_MAGIC: Final = frozenset("*?[")

_Found: TypeAlias = Mapping[str, Json]
_Pattern = Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_CHARS)]


def search_tools(
    roots: Roots, needed: Capability, work: FileWork, *, seconds: float = SEARCH_SECONDS
) -> tuple[Tool, ...]:
    """Return the tools ``glob`` and ``grep``, which search below *roots*.

    Args:
        roots: The paths that may be searched.
        needed: The grant that an agent needs to search them.
        work: Limits how many searches run in parallel.
        seconds: How long one search may take.
    """
    search = _Search(roots, work, seconds)
    make = tool(capability=needed, on_unknown="rerun")
    return tuple(make(do) for do in (search.glob, search.grep))


@final
@attrs.frozen(eq=False)
class _Search:
    _roots: Roots
    _work: FileWork
    _seconds: float

    async def glob(self, pattern: _Pattern, path: str = ".") -> str:
        """Find files by their paths, the newest first.

        Args:
            pattern: Such as ``*.py`` for one folder, or ``src/**/*.py`` for all below it.
                Names that begin with a dot are found only by a part that does too.
            path: The folder from which the pattern goes.
        """
        folder, rest = split_pattern(pattern, path)
        finds, end = await self._run(folder, kind="glob", pattern=rest)
        lines = [str(find["path"]) for find in finds]
        total = cast("int", end.get("total", len(lines)))
        if total > len(lines):
            lines.append(f"[{total - len(lines)} more files; narrow the pattern]")
        return "\n".join([*lines, *_why(end)]) or "No files found."

    async def grep(
        self,
        pattern: _Pattern,
        path: str = ".",
        include: _Pattern = "*",
        *,
        ignore_case: bool = False,
    ) -> str:
        """Find lines in text files by a regular expression, in Python's dialect.

        Args:
            pattern: The regular expression. It is looked for in each line by itself.
            path: The file, or the folder with all below it; hidden ones are left out.
            include: Only files whose names fit, such as ``*.py``.
            ignore_case: Whether upper and lower case are the same.
        """
        finds, end = await self._run(
            path, kind="grep", pattern=pattern, include=include, ignore_case=ignore_case
        )
        lines = [f"{find['path']}:{find['line']}:{find['text']}" for find in finds]
        return "\n".join([*lines, *_why(end)]) or "No matches found."

    async def _run(
        self, path: str, *, kind: str, pattern: str, include: str = "*", ignore_case: bool = False
    ) -> tuple[list[_Found], _Found]:
        """Run a search. Return what it found and how it ended.

        Raises:
            ToolError: If *path* does not exist or is not granted, or the pattern is invalid.
        """
        async with self._work.searchers:
            fd, full_path, shown = await self._work.read(
                path, partial(_open, self._roots, path, kind)
            )
            try:
                request = Request(
                    kind=kind,
                    fd=fd,
                    path=full_path,
                    shown=shown,
                    pattern=pattern,
                    include=include,
                    ignore_case=ignore_case,
                    limit=MAX_FOUND,
                    max_entries=MAX_ENTRIES,
                    seconds=self._seconds,
                    closed=tuple(kernel_devices()),
                )
                return await _search(request)
            finally:
                if fd is not None:
                    os.close(fd)


def _open(roots: Roots, path: str, kind: str) -> tuple[int | None, str, str]:
    """Open *path*. Return the open file or folder, its full path, and the prefix of every find."""
    with open_place(roots, path) as place:
        found = place.look()
        if found is None:
            raise ToolError(f"there is nothing at {path!r}")
        if stat.S_ISDIR(found.st_mode):
            shown = "" if path == "." else path.rstrip("/") + "/"
            return (place.open_folder() if place.is_held else None), place.full_path, shown
        if kind == "glob":
            raise ToolError(f"{path!r} is a file; name a folder")
        return place.open_file(), place.full_path, path


async def _search(request: Request) -> tuple[list[_Found], _Found]:
    if not sys.executable:
        raise ToolError(
            "no Python interpreter was found to run the search; do without glob and grep"
        )
    # -I and -S: nothing of the user's is loaded, and it starts in half of the time.
    argv = [sys.executable, "-I", "-S", _search_child.__file__]
    try:
        async with open_group(
            argv,
            # It needs no more than to start.
            environ=build_environ(os.environ, also=LIBRARIES),
            stdin=json.dumps(request._asdict()).encode() + b"\n",
            pass_fds=() if request.fd is None else (request.fd,),
            keep_bytes=_MAX_FOUND_BYTES,
            max_bytes=_MAX_FOUND_BYTES,
        ) as group:
            with trio.move_on_after(request.seconds + _LATER_SECONDS) as limit:
                await group.run()
    except OSError as exc:
        raise refused(request.shown, exc) from exc
    finds: list[_Found] = []
    # What it was writing when it was ended is not a line.
    for line in group.stdout.text().split("\n")[:-1]:
        said = cast("_Found", json.loads(line))
        if "error" in said:
            raise ToolError(str(said["error"]))
        if "end" in said:
            return finds, said
        finds.append(said)
    # Below 0: the kernel was quicker than we.
    if limit.cancelled_caught or (group.returncode or 0) < 0:
        return finds, {"end": "time", "seconds": request.seconds}
    raise ToolError(f"the search failed: {group.stderr.text()[-300:]}")


def _why(end: _Found) -> tuple[str, ...]:
    """Return why a search ended early. Empty: the search was complete."""
    match end["end"]:
        case "time":
            why = "out of time; name a smaller folder or write a simpler pattern"
        case "entries":
            why = f"{MAX_ENTRIES} files and folders were looked at; name a smaller folder"
        case "limit":
            why = f"{MAX_FOUND} lines were found; narrow the pattern or the folder"
        case _:
            return ()
    return (f"[stopped: {why}]",)


def split_pattern(pattern: str, path: str) -> tuple[str, str]:
    """Split *pattern* into the folder to search, starting from *path*, and the rest.

    The leading parts without wildcards belong to the folder. The walk to that folder makes all
    checks, including those for links; the search itself follows no links.
    """
    parts = pattern.split("/")
    plain = 0
    while plain < len(parts) - 1 and not _MAGIC & set(parts[plain]):
        plain += 1
    if not plain:
        return path, pattern
    head, rest = "/".join(parts[:plain]) or "/", "/".join(parts[plain:])
    if head.startswith("/") or path == ".":
        return head, rest
    return f"{path.rstrip('/')}/{head}", rest
