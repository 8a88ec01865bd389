"""The arguments of the commands before a run: init, doctor and completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentpool._cli._command import CompletionCommand, DoctorCommand, InitCommand
from agentpool._cli._options import text
from agentpool._cli._parser import Parser

PARTS: Final = ("program", "test", "ci")
"""The parts that can be written in addition to a manifest. Each part needs those before it."""

_INIT_EXAMPLES = """\
Without --with, a terminal is asked what to write, and anything else gets all of it. No file is
replaced.

examples:
  agentpool init
  agentpool init reviewer --name reviewer --model anthropic/claude-opus-4-5
  agentpool init --with nothing
  agentpool init nightly --with ci

exit codes:
  0    the files are written
  2    the command is wrong, a file is there already, or cannot be written
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""

_DOCTOR_EXAMPLES = """\
Nothing is changed and nothing leaves this machine. Keys are not shown, only where they belong.

examples:
  agentpool doctor
  agentpool doctor --no-ask --json

exit codes:
  0    a model can be asked; with --no-ask, also the packaged one if it is installed
  1    none can
  2    the command is wrong
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""

_COMPLETION_EXAMPLES = """\
Type once:
  agentpool completion bash > ~/.local/share/bash-completion/completions/agentpool
  agentpool completion zsh > ~/.zsh/_agentpool     (a folder that is in $fpath)
  agentpool completion tcsh > ~/.agentpool.tcsh    (and source it in ~/.tcshrc)

exit codes:
  0    done
  2    the command is wrong, or shtab is not installed
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""


def parse_init(argv: Sequence[str]) -> InitCommand:
    """Parse the arguments of ``agentpool init``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "init",
        "[FOLDER] [options]",
        "Write a manifest, a program, a test and a CI job to begin with.",
        _INIT_EXAMPLES,
    )
    add = parser.add_argument
    add("folder", nargs="?", default=".", metavar="FOLDER", help="where (the current folder)")
    add("--name", type=text, default="reader", help="what the agent is called (%(default)s)")
    add(
        "--model",
        metavar="PATH|PROVIDER/NAME",
        help="a GGUF file, or a provider's model such as openai/gpt-5 (the packaged one)",
    )
    add(
        "--with",
        dest="parts",
        choices=("nothing", *PARTS),
        metavar="nothing|program|test|ci",
        help="what comes with the manifest; each brings those before it",
    )
    add("--json", action="store_true", help="print one JSON object with the files")
    found = parser.read(argv)
    last = found.parts
    parts = None if last is None else PARTS[: 0 if last == "nothing" else PARTS.index(last) + 1]
    return InitCommand(
        folder=found.folder, name=found.name, model=found.model, parts=parts, json=found.json
    )


def parse_doctor(argv: Sequence[str]) -> DoctorCommand:
    """Parse the arguments of ``agentpool doctor``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "doctor",
        "[options]",
        "Say what is installed, what is missing and how to get it.",
        _DOCTOR_EXAMPLES,
    )
    add = parser.add_argument
    add("--no-ask", action="store_true", help="do not load the packaged model to ask it a word")
    add("--json", action="store_true", help="print one JSON object")
    found = parser.read(argv)
    return DoctorCommand(ask=not found.no_ask, json=found.json)


def parse_completion(argv: Sequence[str]) -> CompletionCommand:
    """Parse *argv* into the name of a shell.

    Raises:
        UsageError: If *argv* names no shell.
    """
    parser = Parser(
        "completion",
        "bash|zsh|tcsh",
        "Print what a shell needs to complete words with Tab.",
        _COMPLETION_EXAMPLES,
    )
    parser.add_argument(
        "shell", choices=("bash", "zsh", "tcsh"), metavar="bash|zsh|tcsh", help="whose script"
    )
    return CompletionCommand(shell=parser.read(argv).shell)
