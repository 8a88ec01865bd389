"""Decides which paths an agent may access, by name alone.

Rules:

1. Every path is absolute in the end. A relative one, in a grant or from a model, begins at
   one folder, which is the same for all.
2. What a grant means is decided once, when the tools are made: links in it are followed
   then, and what it is replaced by later is not what was granted.
3. A path is covered if it lies at or below a root, part by part. On the way to a root a
   walk may pass the folders above it, and sees nothing of them but that they are there.
4. Neither ``*`` nor ``/`` covers ``/proc``: this process's memory and its environment, with
   its keys, are files there. A grant that names something below it does.

What a name leads to on the disk is found out in ``_places``, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, final

import attrs

from agentpool._errors import ToolError
from agentpool._manifest.capability import ANYTHING

Parts: TypeAlias = tuple[str, ...]
"""A path from the root of the file system, part by part; ``()`` is ``/`` itself."""

MAX_PATH_CHARS: Final = 4096
"""Linux's own limit, and more than anybody has ever typed."""

_PROCESSES: Final[Parts] = ("proc",)


@final
@attrs.frozen(kw_only=True)
class Root:
    """One granted path."""

    text: str
    """The grant as it was written, for messages."""
    name: Parts
    """Where it is, with its links."""
    real: Parts
    """Where that is without any."""


@final
@attrs.frozen(kw_only=True)
class Roots:
    """The paths that an agent may access."""

    folder: Root
    """Where relative paths begin. It grants nothing."""
    granted: tuple[Root, ...]
    """What is granted; ``*`` has the whole file system as its place."""

    def locate(self, path: str) -> Parts:
        """Return the parts of *path* from the root of the file system.

        A beginning that a grant writes with links is written without. ``..`` is left in:
        only a walk knows where it leads.

        Raises:
            ToolError: If *path* can be the name of nothing.
        """
        if not path or len(path) > MAX_PATH_CHARS or "\0" in path:
            shown = path if len(path) <= MAX_PATH_CHARS else f"{path[:40]}…"
            raise ToolError(
                f"a path is 1 to {MAX_PATH_CHARS} characters without NUL, got {shown!r}; "
                "'.' is the working folder"
            )
        parts = split(path)
        return self.without_links(parts if path.startswith("/") else (*self.folder.real, *parts))

    def without_links(self, parts: Parts) -> Parts:
        """Return *parts* with the beginning resolved if a grant writes it with links."""
        longest = None
        for root in (self.folder, *self.granted):
            name = root.name
            if parts[: len(name)] == name and (longest is None or len(name) > len(longest.name)):
                longest = root
        return parts if longest is None else (*longest.real, *parts[len(longest.name) :])

    def covers(self, place: Parts) -> bool:
        """Return whether *place*, a path without links, may be accessed."""
        return any(
            place[: len(root.real)] == root.real
            and (place[:1] != _PROCESSES or root.real[:1] == _PROCESSES)
            for root in self.granted
        )

    def may_pass(self, place: Parts) -> bool:
        """Return whether a walk may continue at *place*: it is covered, or leads to a root."""
        return self.covers(place) or any(
            root.real[: len(place)] == place for root in (self.folder, *self.granted)
        )

    def outside(self, path: str) -> ToolError:
        """Return the text for a model about a *path* outside of its roots."""
        granted = ", ".join(root.text for root in self.granted)
        return ToolError(f"path {path!r} is outside of what is granted: {granted}")


def split(path: str) -> Parts:
    """Return the parts of *path*, without the empty ones and ``.``."""
    return tuple(part for part in path.split("/") if part not in {"", "."})


def join(parts: Sequence[str]) -> str:
    """Return the absolute path of *parts*."""
    return "/" + "/".join(parts)


def is_anything(text: str) -> bool:
    """Return whether the grant *text* covers every path."""
    return text == ANYTHING
