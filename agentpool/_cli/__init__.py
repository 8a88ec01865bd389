"""The command line: ``agentpool run``, ``map``, ``check``, ``memory`` and so on."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from typing import Final

INTERRUPTED: Final = 130
"""``ExitCode.INTERRUPTED``, before that can be imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: The words after the program's name. ``None``: the words of this process's command
            line.
    """
    try:
        with _later_ctrl_c():
            # Takes up to half a second.
            from agentpool._cli._main import main as run_command  # noqa: PLC0415
    except KeyboardInterrupt:
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it may be closed
            sys.stderr.write("agentpool: interrupted\n")
        return INTERRUPTED
    return run_command(argv)


@contextlib.contextmanager
def _later_ctrl_c() -> Generator[None]:
    """Raise ``KeyboardInterrupt`` after the block if Ctrl-C comes in it.

    In the middle of an import it may be swallowed, or leave a module of C half made.
    """
    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    presses = list[int]()
    signal.signal(signal.SIGINT, lambda number, _: presses.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if presses:
        raise KeyboardInterrupt
