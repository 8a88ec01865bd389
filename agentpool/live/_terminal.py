"""Shows a pool on a terminal, for programs other than the command line.

Rules:

1. The display is drawn in a thread, so a terminal that is paused with Ctrl-S stops no agent.
2. However its block ends, it leaves no line behind and restores the cursor.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TextIO

import trio

from agentpool._background import background
from agentpool._checks import expect_arguments
from agentpool._opening import opening
from agentpool._scheduling.owner import as_bystander
from agentpool.live._board import Board
from agentpool.live._display import FRAMES_PER_SECOND, LiveDisplay, open_display


@opening("board")
@asynccontextmanager
async def show_in_terminal(
    *, total: int | None = None, stream: TextIO | None = None
) -> AsyncGenerator[Board]:
    """Show on a terminal what the agents of a pool do while the block runs.

    Pass what it yields to the pool::

        async with (
            show_in_terminal() as board,
            open_pool(driver, observers=[board]) as pool,
        ):
            await pool.spawn(SpawnConfig(manifest, "Read this"))

    Where there is no terminal, or no rich (extra ``cli``), nothing is shown.

    Args:
        total: How many agents there will be. ``None``: as many as are spawned.
        stream: The terminal. ``None``: standard error.

    Yields:
        The observer to pass to the pool.

    Cancellation:
        The display is gone, and the cursor is as it was.
    """
    expect_arguments(show_in_terminal, locals(), but=("stream",))
    board = Board(total)
    display = open_display(sys.stderr if stream is None else stream)
    async with background() as nursery:
        if display is not None:
            with as_bystander():
                nursery.start_soon(_draw, board, display)
        yield board


async def _draw(board: Board, display: LiveDisplay) -> None:
    try:
        while True:
            view = board.look()
            board.take_lines()  # the display shows by itself what they say
            await trio.to_thread.run_sync(_written, lambda: display.draw(view))  # noqa: B023  # it is awaited here
            await trio.sleep(1 / FRAMES_PER_SECOND)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_written, display.close)


def _written(write: Callable[[], None]) -> None:
    # A terminal that is gone can be told nothing.
    with contextlib.suppress(OSError, ValueError):
        write()
