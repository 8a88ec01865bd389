"""Shows a worker's warnings in the display of its command."""

from __future__ import annotations

import logging
from typing import final

from agentpool.live import Board


@final
class BoardLog(logging.Handler):
    """Puts the first line of each warning on a board."""

    def __init__(self, board: Board) -> None:
        """Create it for *board*."""
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record on the board."""
        self._board.say(record.getMessage().partition("\n")[0], notable=True)
