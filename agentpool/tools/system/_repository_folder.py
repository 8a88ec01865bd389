"""Looks through a repository's own folder: where git writes, and what else it may read there.

Rules:

1. git writes messages and logs into files of fixed names, and follows links. So it does not run in
   a repository whose own folder has a link, except between objects: those it never writes again.
2. A repository in it, as of a submodule that is not checked out, has a configuration that git
   obeys once it is.

These checks block, and run in threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentpool._errors import ToolError
from agentpool.tools.system._entries import entries_below

_LINK_BYTES: Final = 4096
"""The most that is read of a file that says where a repository's own folder is: a path."""


def own_folder(place: Path) -> Path:
    """Return the own folder of the repository that *place* is the work tree of."""
    own = place / ".git"
    if own.is_file():  # as in a submodule
        with own.open("rb") as file:
            text = os.fsdecode(file.read(_LINK_BYTES))
        return place / text.removeprefix("gitdir:").strip()
    return own


def is_inside_another(folder: str) -> bool:
    """Return whether *folder* lies in a repository's own folder."""
    return any(part.casefold() == ".git" for part in Path(folder).parts)


def repositories_inside(own: str) -> Iterator[str]:
    """Yield the folders below *own* that have a configuration.

    Raises:
        ToolError: If there is a link that git could write through, or too much to look at.
    """
    for entry in entries_below(own, "for links in the repository's own; run `git gc` in it"):
        if _is_link(entry, own):
            raise ToolError(
                f"git may not be run here: {os.path.relpath(entry.path, own)!r} in the "
                "repository's own folder is a link, and git would write through it; "
                "remove it, or put a copy there"
            )
        place = str(Path(entry.path).parent)
        if entry.name == "config" and place != own and entry.is_file():
            yield place


def _is_link(entry: os.DirEntry[str], own: str) -> bool:
    if entry.is_symlink():
        return True
    if entry.is_dir() or entry.stat().st_nlink == 1:
        return False
    # A clone on the same disk shares the objects. Logs of branches may have any name.
    parts = Path(os.path.relpath(entry.path, own)).parts
    return "objects" not in parts or "logs" in parts
