"""Walks through the entries of a folder, up to a bound. Blocks, and runs in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from agentpool._errors import ToolError

MAX_ENTRIES: Final = 200_000
"""The most entries of a folder to check: about a second."""


def entries_below(top: str, advice: str, *, but: str | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield all entries below *top*, without following links.

    A folder that cannot be listed counts as empty.

    Args:
        top: The folder.
        advice: What cannot be checked if there are too many entries, and what to do then.
        but: The name, in small letters, of folders that are yielded but not entered.

    Raises:
        ToolError: If there are too many entries.
    """
    folders, count = [top], 0
    while folders:
        try:
            entries = os.scandir(folders.pop())
        except OSError:
            continue  # no program can go there by name either
        with entries:
            for entry in entries:
                count += 1
                if count > MAX_ENTRIES:
                    raise ToolError(
                        f"the folder has more than {MAX_ENTRIES} entries, too many to check "
                        f"{advice}"
                    )
                yield entry
                if entry.is_dir(follow_symlinks=False) and entry.name.casefold() != but:
                    folders.append(entry.path)
