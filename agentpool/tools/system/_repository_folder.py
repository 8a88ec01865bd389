"""Looks through a repository's own folder: where git writes, and what else git may read there.

Rules:

1. git writes messages and logs into files of fixed names, and follows links. So it does not run in
   a repository whose own folder has a link, except for links between objects, which git never
   writes again.
2. A repository's own folder must be called ``.git``, or be out of the program's reach. If it has a
   different name, git could overwrite its files from a commit, like any other files.
3. A repository inside that folder, such as the one of a submodule that is not checked out, has a
   configuration that git obeys after the checkout.

These checks block, and run in threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentpool._errors import ToolError
from agentpool.tools.system._entries import entries_below
from agentpool.tools.system._links_before_programs import is_below

_LINK_BYTES: Final = 4096
"""The most bytes that are read of a file that says where a repository's own folder is. The file
holds one path."""


def own_folder(place: Path) -> Path:
    """Return the repository's own folder, such as ``.git``, for the work tree *place*."""
    own = place / ".git"
    # A file as in a submodule.
    return place / _text_of(own).removeprefix("gitdir:").strip() if own.is_file() else own


def _text_of(file: Path) -> str:
    with file.open("rb") as opened:
        return os.fsdecode(opened.read(_LINK_BYTES))


def is_inside_another(folder: str) -> bool:
    """Return whether *folder* lies in a repository's own folder."""
    return any(part.casefold() == ".git" for part in Path(folder).parts)


def check_name(own: str, top: str) -> None:
    """Raise if git in *top* could overwrite a repository's own folder like any other files.

    Raises:
        ToolError: If git could do that.
    """
    real = os.path.realpath(own)
    if is_below(real, top) and not is_inside_another(real[len(top) :]):
        raise ToolError(
            f"git may not be run here: {os.path.relpath(real, top)!r} is a repository's own "
            "folder and is not called '.git', so git could write its configuration from a "
            "commit; rename it to .git"
        )


def repositories_inside(own: str, top: str) -> Iterator[str]:
    """Yield the folders below *own* that have a configuration.

    Args:
        own: A repository's own folder.
        top: The folder in which git will run, without links.

    Raises:
        ToolError: If git could write to a configuration that it obeys: either through a link, or
            because the configuration is among the files of a work tree. Also if there are too many
            entries to check.
    """
    check_name(own, top)
    for entry in entries_below(own, "for links in the repository's own; run `git gc` in it"):
        if (kind := _link_kind(entry, own)) is not None:
            raise ToolError(
                f"git may not be run here: {os.path.relpath(entry.path, own)!r} in the "
                f"repository's own folder is a {kind} link, and git would write through it; "
                "remove it, or put a copy there"
            )
        place = str(Path(entry.path).parent)
        if entry.name == "commondir" and entry.is_file():
            # Of a work tree beside the first one: where the configuration is.
            check_name(str(Path(place, _text_of(Path(entry.path)).strip())), top)
        if entry.name == "config" and place != own and entry.is_file():
            yield place


def _link_kind(entry: os.DirEntry[str], own: str) -> str | None:
    """Return the kind of link that *entry* is. ``None``: git writes nothing through *entry*."""
    parts = Path(os.path.relpath(entry.path, own)).parts
    if parts[0] == "hooks":
        return None  # git writes no hooks, and here it runs none
    if entry.is_symlink():
        return "symbolic"
    if entry.is_dir() or entry.stat().st_nlink == 1:
        return None
    # A clone on the same disk shares the objects. Logs of branches may have any name.
    return None if "objects" in parts and "logs" not in parts else "hard"
