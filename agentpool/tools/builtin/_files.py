"""Tools to read, write and edit files.

Rules:

1. A tool requires the grants with which it was made: the tool is not shown to an agent whose grants
   do not cover all of these.
2. A file is read in pieces and shown in pages, so it may be of any size.
3. A write or an edit happens completely or not at all. An edit is refused if the file has changed
   since it was read. Another program can still interfere only in the instant before the new file is
   renamed.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Final, final

import attrs
import trio
from msgspec import Meta

from agentpool._checks import expect_arguments
from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability, CapabilityKind
from agentpool.abc import Tool
from agentpool.tools._function import tool
from agentpool.tools.builtin._search import search_tools
from agentpool.tools.system._file_work import FileWork
from agentpool.tools.system._page import MAX_PAGE_LINES, Page
from agentpool.tools.system._roots import Roots
from agentpool.tools.system._walk_in_roots import find_roots, open_place

MAX_EDIT_BYTES: Final = 10 * 1024 * 1024
"""The most bytes of a file that can be edited, since files are edited in memory. Larger files are
data made by programs."""

MAX_SKIPPED_BYTES: Final = 1024 * 1024 * 1024
"""The most bytes that are read to find the requested line. Without a limit this could take forever:
a sparse file can have any length."""

MAX_COUNTED_BYTES: Final = 64 * 1024 * 1024
"""The most bytes that are read, page included, to count the lines of the file. Reading this many
takes some hundredths of a second."""

_PIECE_BYTES: Final = 256 * 1024

_SNIFFED_BYTES: Final = 8192
"""How many bytes are searched for a NUL, the sign of a binary file, as grep and git do."""


def file_tools(
    grants: Iterable[Capability], *, folder: str | Path = ".", work: FileWork | None = None
) -> tuple[Tool, ...]:
    """Return the file tools that *grants* allow.

    The grant ``file_read`` gives ``file_read``, ``glob`` and ``grep``. The grant ``file_write``
    gives ``file_write`` and ``file_edit``. The tools reach only files below a granted path,
    whatever links exist, and even if links are made while a tool runs.

    Args:
        grants: An agent's grants, of which only those about files matter. Links in the granted
            paths are followed now, and never again.
        folder: The folder for relative paths, both in grants and from the model.
        work: Limits how many file operations run in parallel. Pass the same object for all agents
            of a pool. ``None``: these tools get a limit of their own.
    """
    expect_arguments(file_tools, locals())
    granted = tuple(grants)
    shared = work or FileWork()
    made: list[Tool] = []
    if scope := _scope(granted, CapabilityKind.FILE_READ):
        roots = find_roots(granted, CapabilityKind.FILE_READ, str(folder))
        needed = Capability(CapabilityKind.FILE_READ, scope)
        reading = _Reading(roots, shared)
        made += [
            tool(capability=needed, on_unknown="rerun")(reading.file_read),
            *search_tools(roots, needed, shared),
        ]
    if scope := _scope(granted, CapabilityKind.FILE_WRITE):
        roots = find_roots(granted, CapabilityKind.FILE_WRITE, str(folder))
        needed = Capability(CapabilityKind.FILE_WRITE, scope)
        writing = _Writing(roots, shared)
        made += [
            tool(capability=needed)(writing.file_write),
            tool(capability=needed)(writing.file_edit),
        ]
    return tuple(made)


def _scope(grants: tuple[Capability, ...], kind: CapabilityKind) -> tuple[str, ...]:
    return tuple(text for grant in grants if grant.kind is kind for text in grant.scope)


@final
@attrs.frozen(eq=False)
class _Reading:
    _roots: Roots
    _work: FileWork

    async def file_read(
        self,
        path: str,
        offset: Annotated[int, Meta(ge=1)] = 1,
        limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_LINES)] = MAX_PAGE_LINES,
        column: Annotated[int, Meta(ge=1)] = 1,
    ) -> str:
        """Read a text file, a page at a time. Lines are shown with their numbers.

        Args:
            path: The file.
            offset: The number of the first line to show.
            limit: The most lines to show.
            column: The first character to show of each line, for very long lines.
        """
        page = Page(offset=offset, limit=limit, column=column)
        return await self._work.read(path, partial(self._read, path, page, offset))

    def _read(self, path: str, page: Page, offset: int) -> str:
        with open_place(self._roots, path) as place, os.fdopen(place.open_file(), "rb", 0) as file:
            _check_text(path, file.read(_SNIFFED_BYTES))
            file.seek(0)
            return _fill(page, file, offset)


def _fill(page: Page, file: BinaryIO, offset: int) -> str:
    """Fill *page* from *file* and return it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    to_skip = offset - 1
    counted_bytes = skipped_bytes = 0
    while counted_bytes < MAX_COUNTED_BYTES:
        # Whoever asked may be gone, and a file can be as long as a disk.
        trio.from_thread.check_cancelled()
        piece = file.read(_PIECE_BYTES)
        if not piece:
            if not page.is_full:
                # Bytes of a character that the file does not finish.
                page.add(decoder.decode(b"", final=True))
            return page.finish(is_end=True)
        if to_skip:
            lines = piece.count(b"\n")
            skipped_bytes += len(piece)
            if skipped_bytes > MAX_SKIPPED_BYTES:
                raise ToolError(
                    f"line {offset} is not in the first {MAX_SKIPPED_BYTES:,} bytes of the file, "
                    "and no more than that is read to find it; use grep"
                )
            if lines < to_skip:
                page.count(lines, is_open=not piece.endswith(b"\n"))
                to_skip -= lines
                continue
            head = b"\n".join(piece.split(b"\n", to_skip)[:to_skip])
            page.count(to_skip, is_open=False)
            piece, to_skip = piece[len(head) + 1 :], 0
        counted_bytes += len(piece)
        if page.is_full:
            page.count(piece.count(b"\n"), is_open=not piece.endswith(b"\n"))
        else:
            page.add(decoder.decode(piece))
    return page.finish(is_end=False)


@final
@attrs.frozen(eq=False)
class _Writing:
    _roots: Roots
    _work: FileWork

    async def file_write(self, path: str, content: str) -> str:
        """Write a file: a new one, or all of one that is there. Folders are made if needed.

        Args:
            path: The file.
            content: Everything that the file will hold.
        """
        data = content.encode()
        await self._work.write(path, partial(self._write, path, data))
        return f"Wrote {len(data)} bytes to {path}"

    def _write(self, path: str, data: bytes) -> None:
        with open_place(self._roots, path, make_folders=True) as place:
            place.write(data, instead_of=place.check_writable())

    async def file_edit(self, path: str, old_string: str, new_string: str) -> str:
        """Replace a piece of a text file. The piece must occur exactly once.

        Args:
            path: The file.
            old_string: The piece as it stands in the file, without line numbers, with
                enough around it that there is only one like it.
            new_string: What to write instead.
        """
        return await self._work.write(path, partial(self._edit, path, old_string, new_string))

    def _edit(self, path: str, old: str, new: str) -> str:
        with open_place(self._roots, path) as place:
            with os.fdopen(place.open_file(), "rb", 0) as file:
                before = os.fstat(file.fileno())
                if before.st_size > MAX_EDIT_BYTES:
                    raise ToolError(
                        f"{path!r} has {before.st_size} bytes, and only files of up to "
                        f"{MAX_EDIT_BYTES} can be edited; use another program"
                    )
                data = file.read(MAX_EDIT_BYTES + 1)
            _check_text(path, data[:_SNIFFED_BYTES])
            try:
                text = data.decode()
            except UnicodeDecodeError as exc:
                line = data.count(b"\n", 0, exc.start) + 1
                raise ToolError(f"{path!r} is not UTF-8: line {line}; nothing was changed") from exc
            edited, line = replace_once(text, old, new)
            now = place.look()
            if now is None or _identity(now) != _identity(before):
                raise ToolError(f"{path!r} has changed meanwhile; read it again")
            place.write(edited.encode(), instead_of=before)
        return f"Edited {path} at line {line}"


def replace_once(text: str, old: str, new: str) -> tuple[str, int]:
    """Replace the only occurrence of *old* in *text* with *new*. Return the text and the line.

    If all lines end alike, *old* and *new* may use either line end, CR LF or LF.

    Raises:
        ToolError: If *old* does not occur exactly once, or nothing would change.
    """
    if not old:
        raise ToolError("old_string must not be empty; write the piece that is to be replaced")
    if old == new:
        raise ToolError("old_string and new_string are the same; nothing would change")
    end = _line_end(text)
    if end is not None:
        # Models see lines without their ends, and write either; the file has its own.
        old, new = (part.replace("\r\n", "\n").replace("\n", end) for part in (old, new))
        if old == new:
            raise ToolError(
                "old_string and new_string differ only in their line ends; the file has one kind"
            )
    first = text.find(old)
    if first < 0:
        raise ToolError("old_string is not in the file; read it again and copy it exactly")
    line = text.count("\n", 0, first) + 1
    # From the next character on, since two can overlap.
    second = text.find(old, first + 1)
    if second >= 0:
        again = text.count("\n", 0, second) + 1
        raise ToolError(
            f"old_string occurs more than once, at lines {line} and {again}; "
            "include more of the text around it"
        )
    return text[:first] + new + text[first + len(old) :], line


def _line_end(text: str) -> str | None:
    """Return the line ending of *text*. ``None``: *text* has no line endings, or different ones."""
    lines, with_return = text.count("\n"), text.count("\r\n")
    if not lines or 0 < with_return < lines:
        return None
    return "\r\n" if with_return else "\n"


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_text(path: str, start: bytes) -> None:
    if b"\0" in start:
        raise ToolError(f"{path!r} is a binary file; only text in UTF-8 can be read")
