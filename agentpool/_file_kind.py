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
    """SQL scripts. The file's ``user_version`` counts those that were run. Each of the others is
    run and counted in one transaction."""
    functions: Mapping[str, Callable[[str], str]] = {}
    """Functions of one text that its SQL may call. They run in the database thread."""
    interrupts: bool = True
    """Whether cancelling a call interrupts its transaction, which costs two tasks."""
    synchronous: str = "NORMAL"
    """SQLite's setting ``synchronous``. A kill of the process loses nothing. With ``FULL``, a power
    cut loses nothing either."""
    owners: str = "SELECT '' WHERE ? < 0"
    """SQL that lists, by name, what the process with the id ``?`` owns in the file."""
