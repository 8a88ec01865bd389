"""The purpose of an SQLite file: a journal or a memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import attrs

from agentpool._errors import AgentPoolError


@final
@attrs.frozen
class FileKind:
    """The purpose of a file: its name in errors, and its format."""

    name: str
    """The word for the file in errors, such as ``memory``."""
    error: type[AgentPoolError]
    """The type of error that SQLite's errors become."""
    migrations: Sequence[str]
    """SQL scripts. The file's ``user_version`` says how many it has had; the others are run,
    each with its number in one transaction."""
    functions: Mapping[str, Callable[[str], str]] = {}
    """Functions of one text that its SQL may call. They run in the thread."""
    interrupts: bool = True
    """Whether cancelling a call interrupts its transaction, which costs two tasks."""
    synchronous: str = "NORMAL"
    """When to wait for the disk, in SQLite's words. A kill loses nothing; with ``FULL`` a power cut
    loses nothing either."""
    owners: str = "SELECT '' WHERE ? < 0"
    """SQL that finds the names of what the process with the id ``?`` owns in the file."""
