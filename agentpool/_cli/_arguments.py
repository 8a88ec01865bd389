"""What may be written on the command line, and the help that says so.

Words become values here; nothing is opened and nothing runs.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import math
from collections.abc import Callable, Sequence
from typing import Final, Never, TypeAlias, final

import attrs

from agentpool._build import Override
from agentpool._errors import UsageError
from agentpool._manifest_parts import PROVIDERS

# So that a local model is kept busy and a person can still follow who does what.
DEFAULT_MAX_CONCURRENT: Final = 3

SCRIPT_PREFIX: Final = "script:"
"""What ``--driver`` begins with when a file answers in place of a model."""

EXIT_CODES: Final = """\
exit codes:
  0    every agent completed
  1    an agent failed or was cancelled, or an input could not be read
  2    the command or a manifest is wrong, or a model could not be opened
  3    no agent failed, but a guard, a budget or a deadline stopped one
  130  interrupted: Ctrl-C, SIGTERM, or nobody reads the output any more
"""

_OVERVIEW = f"""\
Run pools of LLM agents: bounded, cancellable, one outcome for every agent.

commands:
  run      put a query to one or more agents
  map      give each of several files to an agent of its own
  check    look manifests over, without running anything

examples:
  agentpool run examples/reader.toml "Why is the sky blue?"
  agentpool map examples/reader.toml --each examples/texts/*.txt
  agentpool check examples/*.toml
  agentpool map --help

{EXIT_CODES}"""

_RUN_EXAMPLES = f"""\
examples:
  agentpool run reader.toml "Why is the sky blue?"
  agentpool run optimist.toml sceptic.toml --max-concurrent 1 "Will it rain?"
  agentpool run reader.toml - < question.txt
  agentpool run reader.toml --driver openai --model NAME "Why is the sky blue?"
  agentpool run reader.toml --driver script:answers.toml --json "Why is the sky blue?"

{EXIT_CODES}"""

_MAP_EXAMPLES = f"""\
Results are printed in the order of the files. An input that cannot be read costs no other.

examples:
  agentpool map reader.toml --each texts/*.txt
  agentpool map reader.toml --each texts/*.txt --reduce editor.toml
  agentpool map reader.toml --each *.md --prompt "Who is this for?" --json > answers.jsonl
  agentpool map reader.toml --each texts/*.txt --model larger.gguf --max-concurrent 2

{EXIT_CODES}"""

_CHECK_EXAMPLES = f"""\
Every fault of every file is printed, with its place and what to write instead.

examples:
  agentpool check reader.toml
  agentpool check *.toml --model-file

{EXIT_CODES}"""


@final
@attrs.frozen(kw_only=True)
class Options:
    """What ``run`` and ``map`` have in common."""

    json: bool
    """Whether results are JSON lines."""
    quiet: bool
    """Whether nothing but results and errors is said."""
    max_concurrent: int
    """Agents that run at the same time."""
    override: Override
    """What goes before the manifests' own words."""
    script: str | None
    """The file that answers in place of a model. ``None``: models answer."""
    deadline_seconds: float | None
    """The longest that one agent may run. ``None``: as its manifest says."""


@final
@attrs.frozen(kw_only=True)
class RunCommand:
    """``agentpool run``."""

    manifests: tuple[str, ...]
    """Their paths; one agent each."""
    query: str
    """What they are asked. ``-``: what is on standard input."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class MapCommand:
    """``agentpool map``."""

    manifest: str
    """Its path; one agent for each file."""
    files: tuple[str, ...]
    """The paths of the inputs."""
    prompt: str | None
    """What is said before each text. ``None``: nothing."""
    reduce: str | None
    """The path of the manifest that gets all answers. ``None``: nobody does."""
    reduce_prompt: str | None
    """What is said before the answers. ``None``: nothing."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class CheckCommand:
    """``agentpool check``."""

    manifests: tuple[str, ...]
    """Their paths."""
    model_file: bool
    """Whether the model's file must be there."""
    json: bool
    """Whether findings are JSON lines."""


Command: TypeAlias = RunCommand | MapCommand | CheckCommand
"""What somebody wants done."""


class _Words(argparse.Namespace):
    """What argparse found, with types."""

    words: list[str]
    manifest: str
    manifests: list[str]
    each: list[str]
    prompt: str | None
    reduce: str | None
    reduce_prompt: str | None
    json: bool
    quiet: bool
    max_concurrent: int
    model: str | None
    driver: str | None
    deadline: float | None
    max_tokens: int | None
    model_file: bool


class _Parser(argparse.ArgumentParser):
    """A parser that raises: who prints errors, and how, is decided in one place."""

    def __init__(self, command: str, usage: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"agentpool {command}".rstrip(),
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> Never:
        raise UsageError(f"{message}; see {self.prog} --help")


def parse(argv: Sequence[str]) -> Command:
    """Return the command that *argv* says.

    Raises:
        UsageError: If it says none.
        SystemExit: After the help or the version was printed.
    """
    commands: dict[str, Callable[[Sequence[str]], Command]] = {
        "run": _parse_run,
        "map": _parse_map,
        "check": _parse_check,
    }
    if argv and argv[0] in commands:
        return commands[argv[0]](argv[1:])
    overview = _Parser("", "agentpool COMMAND ...", _OVERVIEW, "")
    overview.add_argument("--version", action="version", version=f"agentpool {_version()}")
    overview.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    overview.parse_known_args(argv)
    if not argv:
        overview.error("a command is missing: run, map or check")
    near = difflib.get_close_matches(argv[0], commands, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "it must be run, map or check"
    raise UsageError(f"there is no command {argv[0]!r}; {hint}; see agentpool --help")


def _version() -> str:
    try:
        return importlib.metadata.version("trio-agentpool")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _parse_run(argv: Sequence[str]) -> RunCommand:
    parser = _Parser(
        "run",
        "agentpool run MANIFEST... QUERY [options]",
        "Put a query to one agent for each manifest, and print their answers.",
        _RUN_EXAMPLES,
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="MANIFEST... QUERY",
        help="the manifests, then the query; - as the query reads standard input",
    )
    _add_options(parser)
    found = parser.parse_intermixed_args(argv, namespace=_Words())
    *manifests, query = found.words
    if not manifests:
        parser.error(f"a manifest and a query are needed, got only {query!r}")
    return RunCommand(manifests=tuple(manifests), query=query, options=_options(found))


def _parse_map(argv: Sequence[str]) -> MapCommand:
    parser = _Parser(
        "map",
        "agentpool map MANIFEST --each FILE... [--reduce MANIFEST] [options]",
        "Give each file to an agent of its own; then, maybe, all answers to one more.",
        _MAP_EXAMPLES,
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="what each agent is")
    parser.add_argument(
        "--each",
        nargs="+",
        action="extend",
        required=True,
        metavar="FILE",
        help="the inputs: the text of each file (UTF-8) is one agent's query",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="say this before each text")
    parser.add_argument(
        "--reduce", metavar="MANIFEST", help="give all answers, with their files, to this agent"
    )
    parser.add_argument("--reduce-prompt", metavar="TEXT", help="say this before the answers")
    _add_options(parser)
    found = parser.parse_intermixed_args(argv, namespace=_Words())
    if found.reduce_prompt is not None and found.reduce is None:
        parser.error("--reduce-prompt means nothing without --reduce")
    return MapCommand(
        manifest=found.manifest,
        files=tuple(found.each),
        prompt=found.prompt,
        reduce=found.reduce,
        reduce_prompt=found.reduce_prompt,
        options=_options(found),
    )


def _parse_check(argv: Sequence[str]) -> CheckCommand:
    parser = _Parser(
        "check",
        "agentpool check MANIFEST... [options]",
        "Look manifests over, without running anything.",
        _CHECK_EXAMPLES,
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="the files")
    parser.add_argument(
        "--model-file", action="store_true", help="a local model's file must be there as well"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per manifest")
    found = parser.parse_intermixed_args(argv, namespace=_Words())
    return CheckCommand(
        manifests=tuple(found.manifests), model_file=found.model_file, json=found.json
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-concurrent", type=_count, default=DEFAULT_MAX_CONCURRENT, metavar="N",
        help="agents that run at the same time (%(default)s)")  # fmt: skip
    add("--model", metavar="PATH|NAME",
        help="a GGUF file, or a provider's model, in place of the manifest's")  # fmt: skip
    add("--driver", type=_driver, metavar="KIND",
        help="local: a model on this machine; openai, anthropic: a server that speaks that "
        "interface, at the manifest's base_url, at OPENAI_BASE_URL or ANTHROPIC_BASE_URL, "
        "or at its home; script:FILE: answers from a file, to try things out")  # fmt: skip
    add("--max-tokens", type=_count, metavar="N",
        help="the most tokens of one answer, in place of the manifest's")  # fmt: skip
    add("--deadline", type=_seconds, metavar="SECONDS",
        help="stop an agent that runs longer than this")  # fmt: skip
    add("--json", action="store_true",
        help="print one JSON object per agent and a summary, a line each")  # fmt: skip
    add("--quiet", action="store_true", help="say nothing but results and errors")


def _options(found: _Words) -> Options:
    driver: str | None = found.driver
    script: str | None = None
    if driver is not None and driver.startswith(SCRIPT_PREFIX):
        script, driver = driver.removeprefix(SCRIPT_PREFIX), None
    # A script answers for every model, so --model has nothing left to say.
    model = found.model if script is None else None
    override = Override(model=model, driver=driver, max_tokens=found.max_tokens)
    return Options(
        json=found.json,
        quiet=found.quiet,
        max_concurrent=found.max_concurrent,
        override=override,
        script=script,
        deadline_seconds=found.deadline,
    )


def _count(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {word!r}")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, got {word!r}")
    return seconds


def _driver(word: str) -> str:
    if word in {"local", *PROVIDERS} or word.removeprefix(SCRIPT_PREFIX) not in {word, ""}:
        return word
    kinds = ", ".join(("local", *PROVIDERS))
    raise argparse.ArgumentTypeError(f"must be {kinds} or script:FILE, got {word!r}")
