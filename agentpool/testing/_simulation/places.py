"""Finds where a task waits: a line in the user's own code."""

from __future__ import annotations

import contextlib
import linecache
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias

import trio

import agentpool._base as inside

Place: TypeAlias = tuple[str, int, str]
"""A file, a line in it, and the function. An empty name of the file: before the first line."""

START: Final[Place] = ("", 0, "")

_TRIO: Final = str(Path(trio.__file__).parent)
_PACKAGE: Final = str(Path(inside.__file__).parent)
_OTHERS: Final = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_WRAPPERS: Final = (
    contextlib.__file__,
    str(Path(_PACKAGE, "_scheduling")),
    str(Path(_PACKAGE, "_messaging", "inbox")),
    str(Path(_PACKAGE, "testing", "_simulation")),
    _TRIO,
)
"""Files whose waits belong to their callers."""

_OURS, _LIBRARY, _WRAPPER = range(3)


@cache
def _kind(filename: str) -> int:
    """Return to whom the file belongs: to the user, to trio or to us."""
    if filename.startswith(_WRAPPERS):
        return _WRAPPER
    return _LIBRARY if filename.startswith((_PACKAGE, *_OTHERS)) else _OURS


def place_of(task: trio.lowlevel.Task) -> Place:
    """Return where *task* waits.

    This is the innermost line of the user's own code. If the task has no such line, this is the
    innermost line of a library other than trio and the wrappers.
    """
    return innermost(task.iter_await_frames())


def innermost(frames: Iterable[tuple[FrameType, int]]) -> Place:
    """Return the place of the last relevant frame of *frames*."""
    best: tuple[FrameType, int] | None = None
    best_kind = _WRAPPER
    for found in frames:
        kind = _kind(found[0].f_code.co_filename)
        if kind <= best_kind and kind != _WRAPPER:
            best, best_kind = found, kind
    if best is None:
        return START
    code = best[0].f_code
    return (code.co_filename, best[1], code.co_name)


def text_of(place: Place) -> str:
    """Return *place* in words."""
    filename, line, function = place
    return f"{Path(filename).name}:{line} in {function}" if filename else "its start"


def source_of(place: Place) -> str:
    """Return the source line at *place*. Empty: the file cannot be read."""
    return linecache.getline(place[0], place[1]).strip() if place[0] else ""
