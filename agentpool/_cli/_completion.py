"""``agentpool completion``: the script with which a shell completes words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Final

from agentpool import UsageError
from agentpool._cli._command import CompletionCommand
from agentpool._cli._parser import Parser
from agentpool._cli._report import ExitCode
from agentpool._cli._screen import write_out

_FILES: Final = ("FILE", "MANIFEST", "PATH", "OUT", "OTHER")
_FOLDERS: Final = ("DIR", "FOLDER")


def complete(command: CompletionCommand, parsers: Mapping[str, Parser]) -> int:
    """Print the script for one shell, and return the exit code.

    Args:
        command: The command, with the shell.
        parsers: The parser of each command.

    Raises:
        UsageError: If the package that makes the script is not installed.
    """
    try:
        import shtab  # noqa: PLC0415  # in an extra
    except ImportError as error:
        raise UsageError(
            "completion needs the package shtab; run: pip install 'trio-agentpool[cli]'"
        ) from error
    whole = argparse.ArgumentParser(prog="agentpool")
    commands = whole.add_subparsers()
    for name, parser in parsers.items():
        for action in parser._actions:
            words = str(action.metavar or "")
            if any(word in words for word in _FILES):
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # so shtab is told
            elif any(word in words for word in _FOLDERS):
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # the same
        about = (parser.description or "").partition("\n")[0]
        commands.add_parser(
            name, parents=[parser], add_help=False, help=about, description=about, usage=""
        )
    write_out(sys.stdout, shtab.complete(whole, command.shell))
    return ExitCode.COMPLETED
