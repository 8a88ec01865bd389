"""Texts from files and from standard input, and what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath

from agentpool._errors import UsageError


def read_text(path: str) -> str:
    """Return the text of the file *path*.

    Raises:
        UsageError: If it cannot be read, is not UTF-8, or says nothing.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path that nobody takes apart
            data = file.read()
    except (OSError, ValueError) as exc:  # ValueError: a path that no system has
        reason = getattr(exc, "strerror", None) or str(exc)
        raise UsageError(f"input {path!r} cannot be read: {reason}; check the path") from exc
    return _text(data, f"input {path!r}")


def read_standard_input() -> str:
    """Return what is on standard input.

    Raises:
        UsageError: If there is none, or it is not UTF-8, or says nothing.
    """
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # so it is without a console
        raise UsageError("there is no standard input; write the query instead of '-'")
    return _text(sys.stdin.buffer.read(), "standard input")


def _text(data: bytes, what: str) -> str:
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise UsageError(f"{what} is not UTF-8: line {line}; save it as UTF-8") from exc
    if not text.strip():
        raise UsageError(f"{what} is empty; there is nothing to ask")
    return text


def short_names(paths: Sequence[str]) -> list[str]:
    """Return what each of *paths* is called: the file's name, or all of it if it must be.

    >>> short_names(["a/x.txt", "b/y.txt", "c/y.txt"])
    ['x.txt', 'b/y.txt', 'c/y.txt']
    """
    names = [PurePath(path).name or path for path in paths]
    return [
        name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)
    ]
