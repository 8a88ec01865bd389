"""The command line: ``agentpool run``, ``map``, ``check``, ``memory`` and so on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
        # Takes up to half a second, in which Ctrl-C may come as well.
        from agentpool._cli._main import main as run_command  # noqa: PLC0415
    except KeyboardInterrupt:
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it may be closed
            sys.stderr.write("agentpool: interrupted\n")
        return INTERRUPTED
    return run_command(argv)
