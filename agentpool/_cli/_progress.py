"""What a command shows while it runs: lines, or a display on a terminal."""

from __future__ import annotations

import sys

import trio

from agentpool import as_bystander
from agentpool._cli._command import Options
from agentpool._cli._interrupt import Interruption
from agentpool._cli._keyboard import keyboard_of
from agentpool._cli._screen import Screen
from agentpool._cli._terminal_approver import Prompter, open_prompter
from agentpool.live import FRAMES_PER_SECOND, Board, open_display


def open_screen(options: Options, *, keys: bool) -> tuple[Screen, Prompter | None]:
    """Return the screen, and if there is a terminal, the prompter."""
    live = not (options.json or options.quiet) and sys.stderr.isatty()
    screen = Screen(sys.stdout, sys.stderr, open_display(sys.stderr) if live else None)
    listens = keys and screen.display is not None
    return screen, open_prompter(screen, keyboard_of(sys.stdin) if listens else None)


async def close_screen(
    screen: Screen, prompter: Prompter | None, board: Board, options: Options
) -> None:
    """Write the last lines, and restore the terminal."""
    if prompter is not None:
        prompter.close()
    await screen.write_lines(lines_to_write(board, screen, options.quiet))
    await screen.close_display()


async def show(
    board: Board,
    screen: Screen,
    interruption: Interruption,
    quiet: bool,  # noqa: FBT001  # start_soon passes no names
    prompter: Prompter | None,
) -> None:
    """Write lines, or draw the display, until cancelled."""
    with as_bystander():
        while screen.display is not None:
            await screen.write_lines(lines_to_write(board, screen, quiet))
            board.keys = "" if prompter is None else prompter.keys
            await screen.draw(board.look())
            with trio.move_on_after(1 / FRAMES_PER_SECOND):
                await interruption.called.wait()
                # The next signal ends the program at once, and the cursor must be there then.
                if prompter is not None:
                    prompter.close()
                await screen.close_display()
        while True:
            await board.wait_lines()
            await screen.write_lines(lines_to_write(board, screen, quiet))


def lines_to_write(board: Board, screen: Screen, quiet: bool) -> list[str]:  # noqa: FBT001  # see show
    """Return the lines to be written now."""
    lines = board.take_lines()
    if quiet:
        return []
    # The display shows by itself who started and who ended.
    return [line.text for line in lines if line.notable or screen.display is None]
