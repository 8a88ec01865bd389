"""Reads texts from files and standard input, with readable errors."""

from __future__ import annotations

import difflib
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from agentpool import UsageError

# More than the largest window of any model, and little enough to hold. A device such as
# /dev/zero never ends.
MAX_INPUT_BYTES: Final = 64 * 1024 * 1024


FROM_STANDARD_INPUT: Final = "-"
"""The word for standard input, as an input or as the query."""


_NEAR: Final = 0.82
"""How similar two file names must be for a hint. Many names have the same ending, which is not
enough."""

NOTHING_TO_ASK: Final = "there is nothing to ask"


def read_text(path: str, *, what: str | None = None, if_empty: str = NOTHING_TO_ASK) -> str:
    """Return the text of the file *path*.

    Args:
        path: The path of the file.
        what: The name of the text in errors. ``None``: the text is called an input.
        if_empty: The advice in the error for an empty file.

    Raises:
        UsageError: If the file cannot be read, is too large, is not UTF-8, or is empty.
    """
    what = what or f"input {path!r}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path that is not taken apart
            data = file.read(MAX_INPUT_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a path that no system has
        reason = getattr(exc, "strerror", None) or str(exc)
        raise UsageError(f"{what} cannot be read: {reason}; check the path") from exc
    return _text(data, what, if_empty)


def file_beside(error: BaseException) -> str:
    """Return a hint with the name of the file that was probably meant. Empty: no name is similar.

    Args:
        error: The error that was raised because another file could not be opened.
    """
    missing = error.__cause__
    if not isinstance(missing, FileNotFoundError) or not isinstance(missing.filename, str):
        return ""
    folder, name = os.path.split(missing.filename)
    try:
        near = difflib.get_close_matches(name, os.listdir(folder or "."), 1, _NEAR)  # noqa: PTH208  # names alone
    except OSError:
        return ""
    return f"; did you mean {os.path.join(folder, near[0])!r}?" if near else ""  # noqa: PTH118  # as it was written


def joined(prompt: str | None, text: str) -> str:
    """Return *text* after the text that introduces it."""
    return text if prompt is None else f"{prompt}\n\n{text}"


def files_of(path: str) -> list[str]:
    """Return the inputs at *path*: the files of a folder, or *path* itself.

    Hidden files and folders inside are left out.

    Raises:
        UsageError: If a folder cannot be read, or has no file.
    """
    if not os.path.isdir(path):  # noqa: PTH112  # see read_text
        return [path]
    try:
        with os.scandir(path) as entries:
            found = sorted(e.path for e in entries if not e.name.startswith(".") and e.is_file())
    except OSError as exc:
        raise UsageError(f"folder {path!r} cannot be read: {exc.strerror}; check it") from exc
    if not found:
        raise UsageError(f"folder {path!r} has no file to read; name files, or another folder")
    return found


def read_standard_input() -> str:
    """Read standard input to its end.

    Raises:
        UsageError: If there is no standard input, or it is too large, is not UTF-8, or is empty.
    """
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # so it is without a console
        raise UsageError("there is no standard input; write a query or a file instead of '-'")
    return _text(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1), "standard input", NOTHING_TO_ASK)


def may_wait(path: str) -> bool:
    """Return whether reading the file *path* may wait forever, as with a pipe."""
    if path == FROM_STANDARD_INPUT:
        return True
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # see read_text
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _text(data: bytes, what: str, if_empty: str) -> str:
    if len(data) > MAX_INPUT_BYTES:
        limit = f"{MAX_INPUT_BYTES:,} bytes"
        raise UsageError(f"{what} is larger than {limit}, and no model reads so much; split it")
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise UsageError(f"{what} is not UTF-8: line {line}; save it as UTF-8") from exc
    if "\0" in text:
        raise UsageError(
            f"{what} has NUL characters, so it is not text, or is UTF-16; save it as UTF-8"
        )
    if not text.strip():
        raise UsageError(f"{what} is empty; {if_empty}")
    return text


def short_names(paths: Sequence[str]) -> list[str]:
    """Return a short name for each of *paths*: the file's name, or more of the path if needed.

    >>> short_names(["a/x.txt", "b/y.txt", "c/y.txt"])
    ['x.txt', 'b/y.txt', 'c/y.txt']
    """
    names = [PurePath(path).name or path for path in paths]
    times = Counter(names)
    return [name if times[name] == 1 else path for name, path in zip(names, paths, strict=True)]
