"""The command line as stored in a journal, so that it can be run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import msgspec
import trio

from agentpool.journal import JournalError

if TYPE_CHECKING:
    from agentpool.journal import SqliteJournal


@final
class KeptCommand(msgspec.Struct, frozen=True):
    """A command line, and the folder where it was typed."""

    words: tuple[str, ...]
    """The words after the program's name."""
    folder: str
    """The folder in which its relative paths begin."""

    @classmethod
    def of(cls, kept: str) -> KeptCommand:
        """Parse what ``CommandKeeper`` wrote.

        Raises:
            JournalError: If *text* is not valid.
        """
        try:
            return msgspec.convert(json.loads(kept), cls)
        except (ValueError, RecursionError) as error:
            raise JournalError(f"the journal has a command that cannot be read: {error}") from error


@final
@attrs.define(eq=False)
class CommandKeeper:
    """Writes the command line to the journal: at once if it has none, or once the command works.

    A command that is refused because it asks for something else must not replace the command to
    which the journal belongs.
    """

    _journal: SqliteJournal | None
    _pool: str
    _words: tuple[str, ...]
    _is_kept: bool = False

    async def keep(self, *, is_first: bool = False) -> None:
        """Write the command line once. *is_first*: only if the journal has no command line.

        Raises:
            JournalError: If the journal cannot be written.
        """
        if self._journal is None or not self._words or self._is_kept:
            await trio.lowlevel.checkpoint()
            return
        self._is_kept = not is_first
        # As JSON with escapes: not all names of files are text.
        kept = json.dumps({"words": self._words, "folder": str(Path.cwd())})
        await self._journal.keep_command(self._pool, kept, is_first=is_first)
