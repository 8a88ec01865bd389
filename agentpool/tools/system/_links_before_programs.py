"""Checks a folder for links before a program writes there under names that it chooses.

Rules:

1. A program that unpacks or makes an archive follows links as the system does. Such a program may
   not run in a folder that has a link to a folder outside, and none of its arguments may be a link
   to a file outside.
2. A different repository has its own configuration, which may run programs, so git may not be
   directed into a different repository.
3. A repository's own folder (``.git``) has programs that git runs. No file may be moved there, or
   out of the agent's folder, either by its name or through a link.

These checks block, and run in threads. They are not a sandbox: links that a program makes while it
runs are not checked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agentpool.tools.system._entries import entries_below

_BARE: Final = ("HEAD", "objects")
"""The names that make a folder a repository without a work tree."""


def outward_link(folder: str, arguments: Sequence[str]) -> str | None:
    """Return a link below *folder* through which a program with *arguments* might write.

    Raises:
        ToolError: If the folder has too many entries to check.
    """
    top = os.path.realpath(folder)
    for entry in entries_below(top, "for links that lead out of it; use a smaller folder"):
        if not entry.is_symlink() or is_below(os.path.realpath(entry.path), top):
            continue
        # Where a value begins cannot be told: -cfout.tar. git names its patches itself.
        is_named = any(one.endswith(entry.name) for one in arguments)
        if entry.is_dir() or is_named or entry.name.endswith(".patch"):
            return os.path.relpath(entry.path, top)
    return None


def other_repository(folder: str, steps: Sequence[str]) -> str | None:
    """Return the first of *steps* that leads into a repository other than *folder*'s."""
    top = at = os.path.realpath(folder)
    for step in steps:
        at = os.path.realpath(Path(at, step))
        if not is_below(at, top):
            return step
        below = Path(at)
        while str(below) != top:
            if (below / ".git").exists() or all((below / name).exists() for name in _BARE):
                return step
            below = below.parent
    return None


def misleading_target(folder: str, steps: Sequence[str], arguments: Sequence[str]) -> str | None:
    """Return the first of *arguments* that leads out of *folder*, or into a repository's own.

    Args:
        folder: Where the program starts.
        steps: The folders that it changes into first.
        arguments: Its arguments, of which some are paths.
    """
    top = os.path.realpath(folder)
    at = os.path.realpath(Path(top, *steps))
    for argument in arguments:  # options too: behind "--" they are names
        real = os.path.realpath(Path(at, argument))
        parts = (*Path(argument).parts, *Path(real[len(top) :]).parts)
        if not is_below(real, top) or any(part.casefold() == ".git" for part in parts):
            return argument
    return None


def is_below(path: str, top: str) -> bool:
    """Return whether *path* is *top* or in *top*. Both paths are without links."""
    return path == top or path.startswith(top.rstrip(os.sep) + os.sep)
