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
    """Whether a call that is cancelled interrupts its transaction, for the price of two tasks."""
    synchronous: str = "NORMAL"
    """When the disk is waited for, in SQLite's words: a kill loses nothing, with ``FULL`` a power
    cut neither."""
    owners: str = "SELECT '' WHERE ? < 0"
    """SQL that finds the names of what process number ``?`` has in the file."""
