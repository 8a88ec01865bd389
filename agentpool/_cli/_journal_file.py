"""Checks the journal that a command names."""

from __future__ import annotations

from pathlib import Path

from agentpool import UsageError


def expect_journal(name: str) -> None:
    """Raise unless there is a file of that name.

    To open a journal makes a file where there is none, which is not an answer to a slip in its
    name.

    Raises:
        UsageError: If there is none, or it is a folder.
    """
    if Path(name).is_dir():
        raise UsageError(f"{name!r} is a folder, and not a journal; name the file in it")
    if not Path(name).is_file():
        raise UsageError(f"there is no journal {name!r}; see --journal of agentpool run")
