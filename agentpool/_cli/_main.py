"""Runs the command that a command line names, and turns its errors into lines and exit codes.

Results go to standard output, and everything else goes to standard error. A mistake of the user
gives one clear line and an exit code, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import assert_never

from agentpool import AgentPoolError, UsageError
from agentpool._cli._approve_command import answer
from agentpool._cli._arguments import parse, parsers
from agentpool._cli._chat import chat
from agentpool._cli._check import check
from agentpool._cli._cluster import look_at_cluster
from agentpool._cli._command import (
    ApproveCommand,
    ChatCommand,
    CheckCommand,
    ClusterCommand,
    CompletionCommand,
    DoctorCommand,
    InitCommand,
    MapCommand,
    MemoryCommand,
    RunCommand,
    RunsCommand,
    ServeCommand,
    ShowCommand,
)
from agentpool._cli._completion import complete
from agentpool._cli._doctor import look_around
from agentpool._cli._hidden_keys import keys_hidden
from agentpool._cli._init import begin
from agentpool._cli._interrupt import kept_handlers
from agentpool._cli._map import map_files
from agentpool._cli._memory import look_after_memory
from agentpool._cli._overwrites import refuse_clashes
from agentpool._cli._report import ExitCode, error_lines
from agentpool._cli._resume import resume
from agentpool._cli._run import run
from agentpool._cli._runs import look_after_runs
from agentpool._cli._screen import drop_output
from agentpool._cli._serve import serve
from agentpool._cli._show import show


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: The words after the program's name. ``None``: the words of this process's command
            line.
    """
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]  # so it is if it was closed
        # Before any other file is opened, which would get its number.
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  # for the life of the process
    with keys_hidden():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # see above
            raise UsageError("there is no standard output; redirect it, for example to a file")
        with kept_handlers():
            code = _do(sys.argv[1:] if argv is None else argv)
        # Here, and not at the interpreter's end, where its failure would have no handler.
        sys.stdout.flush()
    except AgentPoolError as error:
        sys.stderr.write("".join(f"{line}\n" for line in error_lines(error)))
        return ExitCode.WRONG
    except KeyboardInterrupt:
        # Before or after the time in which a command ends its agents in good order.
        sys.stderr.write("agentpool: interrupted\n")
        return ExitCode.INTERRUPTED
    except OSError as error:
        # Whoever opens or reads a file says what is wrong with it. This is about the output.
        drop_output()
        if isinstance(error, BrokenPipeError):
            return ExitCode.INTERRUPTED
        sys.stderr.write(f"agentpool: error: cannot write the results: {error}\n")
        return ExitCode.UNWRITTEN
    return code


def _do(argv: Sequence[str]) -> int:  # noqa: C901, PLR0911, PLR0912  # one for each command
    try:
        command = parse(argv)
    except SystemExit:  # argparse has printed the help or the version
        return ExitCode.COMPLETED
    refuse_clashes(command)
    match command:
        case RunCommand():
            return run(command)
        case ChatCommand():
            return chat(command)
        case MapCommand():
            return map_files(command)
        case CheckCommand():
            return check(command)
        case InitCommand():
            return begin(command)
        case CompletionCommand():
            return complete(command, parsers())
        case DoctorCommand():
            return look_around(command)
        case MemoryCommand():
            return look_after_memory(command)
        case ApproveCommand():
            return answer(command)
        case RunsCommand(action="resume"):
            return resume(command)
        case RunsCommand():
            return look_after_runs(command)
        case ServeCommand():
            return serve(command)
        case ClusterCommand():
            return look_at_cluster(command)
        case ShowCommand():
            return show(command)
        case _:
            assert_never(command)
