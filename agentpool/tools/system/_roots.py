"""Decides which paths an agent may access, by name alone.

Rules:

1. Every path is made absolute. A relative path, in a grant or from a model, begins at one folder,
   the same for all.
2. The meaning of a grant is fixed when the tools are made. Links in the granted path are followed
   then, so a link that changes later does not change what was granted.
3. A path is covered if it is a root or below one, compared part by part. On the way to a root a
   walk may pass through the folders above it, but learns only that they exist.
4. Neither ``*`` nor ``/`` covers ``/proc``, where the memory of this process and its environment,
   with its keys, are files. Only a grant that names ``/proc`` or a path below it covers such a
   path.

``_walk_in_roots`` finds out, step by step, where a name leads on the disk.
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
"""The longest path: Linux's own limit, and longer than any that people type."""

_PROCESSES: Final[Parts] = ("proc",)


@final
@attrs.frozen(kw_only=True)
class Root:
    """One granted path."""

    text: str
    """The grant as it was written, for messages."""
    name: Parts
    """The parts of its path, with links."""
    real: Parts
    """The parts of its path with all links followed."""


@final
@attrs.frozen(kw_only=True)
class Roots:
    """The paths that an agent may access."""

    folder: Root
    """The folder for relative paths. The folder alone grants nothing."""
    granted: tuple[Root, ...]
    """The granted paths; the path of ``*`` is the whole file system."""

    def locate(self, path: str) -> Parts:
        """Return the parts of *path* from the root of the file system.

        If *path* begins with a granted path that has links, these links are replaced by their
        targets. ``..`` is kept, since only a walk knows where that leads.

        Raises:
            ToolError: If *path* is not a possible path.
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
        """Return *parts* with their beginning resolved if it is a granted path with links."""
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
        """Return whether *place* is covered or leads to a root, so that a walk may pass it."""
        return self.covers(place) or any(
            root.real[: len(place)] == place for root in (self.folder, *self.granted)
        )

    def outside(self, path: str) -> ToolError:
        """Return the text that tells a model that *path* is outside its roots."""
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
