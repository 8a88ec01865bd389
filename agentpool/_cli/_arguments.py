"""The grammar of the command line, and its help.

This module turns words into values. It opens nothing and runs nothing.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs

import agentpool
from agentpool import UsageError
from agentpool._cli._cluster_arguments import add_cluster, parse_cluster, read_cluster
from agentpool._cli._command import (
    ChatCommand,
    CheckCommand,
    Command,
    MapCommand,
    RunCommand,
    ServeCommand,
)
from agentpool._cli._file_arguments import parse_approve, parse_memory, parse_runs, parse_show
from agentpool._cli._options import add_options, add_session, address, is_text, read_options, text
from agentpool._cli._parser import ONLY_THE_PARSER, Parser, ParserAsked
from agentpool._cli._setup_arguments import parse_completion, parse_doctor, parse_init
from agentpool._cli._worker_arguments import LEASE_SECONDS, add_workers, read_workers

EXIT_CODES: Final = """\
exit codes:
  0    every agent completed
  1    an agent failed or was cancelled, or an input could not be read
  2    the command or a manifest is wrong, or a model could not be opened
  3    no agent failed, but a guard, a budget or a deadline stopped one
  4    all that is left waits for approvals: see agentpool approve
  5    the results, a trace or a report could not be written
  130  interrupted: Ctrl-C, SIGTERM, a closed terminal, or the output is no longer read
"""


_FILE_NAME: Final = re.compile(r"\S+\.[A-Za-z]{1,5}")
"""Matches a word that looks like the name of a file rather than like a question."""

_OVERVIEW = f"""\
Run pools of LLM agents: bounded, cancellable, one outcome for every agent.

commands:
  run      put a query to one or more agents
  chat     talk with an agent, turn by turn
  map      give each of several files to an agent of its own
  check    look manifests over, without running anything
  init     write a manifest, a program, a test and a CI job to begin with
  doctor   say what is installed, what is missing and how to get it
  completion
           print what a shell needs to complete words with Tab
  memory   look after the file in which agents remember
  runs     look after the journal of runs that go on after a kill
  approve  answer what agents asked before their program ended
  serve    offer agents to other programs, over MCP
  show     look at the trace of a run
  cluster  look at the nodes of a cluster

examples:
  agentpool run "Why is the sky blue?"
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
  agentpool run "What is on it?" --attach photo.png --model gemini/gemini-2.5-flash
  agentpool run "Why is the sky blue?" --model openai/gpt-5
  agentpool run reader.toml --model anthropic/claude-opus-4-5 "Why is the sky blue?"
  agentpool run reader.toml --driver script:answers.toml --json "Why is the sky blue?"
  agentpool run reader.toml --journal night.db "Why is the sky blue?"
  agentpool run reader.toml --session sky "And at night?"

{EXIT_CODES}"""

_CHAT_EXAMPLES = """\
Answers are printed as they are written. Ctrl-C ends the turn, and at the prompt, twice, the
chat. /help says what else can be typed. With --session it is kept, in agentpool.db unless
--journal names another file, and goes on the next time.

examples:
  agentpool chat
  agentpool chat reader.toml
  agentpool chat reader.toml --session sky
  agentpool chat reader.toml --session sky --model openai/gpt-5

exit codes:
  0    the input ended, or /quit
  1    a turn failed
  2    the command or the manifest is wrong, or the model could not be opened
  130  interrupted
"""

_MAP_EXAMPLES = f"""\
Results are printed in the order of the files; with --json, --unordered or --output-dir each
is written as soon as it is there. An input that cannot be read costs no other.

examples:
  agentpool map reader.toml --each texts/*.txt
  agentpool map reader.toml --each texts/*.txt --reduce editor.toml
  agentpool map reader.toml --each mails/*.txt --each pages/*.txt
  agentpool map reader.toml --each *.md --prompt "Who is this for?" --json > answers.jsonl
  agentpool map reader.toml --each texts/ --output-dir answers
  agentpool map reader.toml --each texts/*.txt --schema fact.json --json
  agentpool map reader.toml --each texts/*.txt --model larger.gguf --max-concurrent 2
  agentpool map reader.toml --each texts/*.txt --journal night.db
  agentpool map reader.toml --each texts/*.txt --journal night.db --workers 4
  agentpool map reader.toml --each texts/*.txt --cluster auto

{EXIT_CODES}"""

_SERVE_EXAMPLES = """\
Each manifest is a tool with one argument, the query. Without --http it speaks over standard
input and output, until input ends.

examples:
  agentpool serve reader.toml editor.toml
  agentpool serve reader.toml --max-concurrent 2 --deadline 300
  agentpool serve reader.toml --http 127.0.0.1:8000

exit codes:
  0    the client is done
  2    the command or a manifest is wrong, or a model could not be opened
  130  interrupted: Ctrl-C, SIGTERM or a closed terminal
"""

_CHECK_EXAMPLES = """\
Every fault of every file is printed, with its place and what to write instead.

examples:
  agentpool check reader.toml
  agentpool check *.toml --model-file

exit codes:
  0    every manifest is good
  2    a manifest or the command is wrong
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""


def parsers() -> dict[str, Parser]:
    """Return the parser of each command."""
    found: dict[str, Parser] = {}
    for name, parse_words in _commands().items():
        try:
            parse_words(ONLY_THE_PARSER)
        except ParserAsked as asked:
            found[name] = asked.parser
    return found


def _commands() -> dict[str, Callable[[Sequence[str]], Command]]:
    return {
        "run": _parse_run,
        "chat": _parse_chat,
        "map": _parse_map,
        "check": _parse_check,
        "init": parse_init,
        "doctor": parse_doctor,
        "completion": parse_completion,
        "memory": parse_memory,
        "runs": parse_runs,
        "approve": parse_approve,
        "serve": _parse_serve,
        "show": parse_show,
        "cluster": parse_cluster,
    }


def parse(argv: Sequence[str]) -> Command:
    """Parse *argv* into a command.

    Raises:
        UsageError: If *argv* names no command, or has a mistake.
        SystemExit: After the help or the version was printed.
    """
    commands = _commands()
    if argv and argv[0] in commands:
        command = commands[argv[0]](argv[1:])
        if isinstance(command, MapCommand) or (
            isinstance(command, RunCommand) and command.session is None
        ):
            return attrs.evolve(command, options=attrs.evolve(command.options, words=tuple(argv)))
        return command
    known = ", ".join(commands)
    if argv and not argv[0].startswith("-"):
        near = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it must be one of {known}"
        raise UsageError(f"there is no command {argv[0]!r}; {hint}; see agentpool --help")
    overview = Parser("", "COMMAND ...", _OVERVIEW, "")
    overview.add_argument(
        "--version", action="version", version=f"agentpool {agentpool.__version__}"
    )
    overview.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    overview.refuse_unknown_options(argv[:1])
    overview.parse_known_args(argv)
    what = f"there is no option {argv[0]!r}" if argv else f"a command is missing, one of {known}"
    raise UsageError(f"{what}; see agentpool --help")


def _parse_run(argv: Sequence[str]) -> RunCommand:
    parser = Parser(
        "run",
        "[MANIFEST...] QUERY [options]",
        "Put a query to one agent for each manifest, and print their answers.\n"
        "Without a manifest, an agent without tools answers: the model on this machine, or\n"
        "the one that --model names.",
        _RUN_EXAMPLES,
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="[MANIFEST...] QUERY",
        help="the manifests, then the query; - as the query reads standard input",
    )
    parser.add_argument(
        "--attach",
        action="append",
        default=[],
        metavar="FILE",
        help="an image or a PDF beside the query; can be given several times",
    )
    add_session(
        parser,
        "make this a turn of the conversation NAME, which is kept in agentpool.db unless --journal "
        "names another file",
    )
    add_options(parser)
    found = parser.read(argv)
    *manifests, query = found.words
    if found.session is not None and len(manifests) > 1:
        parser.error(f"a turn of a session has one manifest, got {len(manifests)}")
    if not manifests and _FILE_NAME.fullmatch(query):
        # Whoever forgets the query would otherwise ask the local model "a.toml".
        parser.error(f"the query is missing, got only {query!r}")
    if not is_text(query):
        parser.error(f"the query must be UTF-8, got {query!r}")
    return RunCommand(
        manifests=tuple(manifests),
        query=query,
        attachments=tuple(found.attach),
        session=found.session,
        options=read_options(found),
    )


def _parse_chat(argv: Sequence[str]) -> ChatCommand:
    parser = Parser(
        "chat",
        "[MANIFEST] [options]",
        "Talk with an agent. Without a manifest it has no tools: the model on this machine, or\n"
        "the one that --model names.",
        _CHAT_EXAMPLES,
    )
    parser.add_argument("manifests", nargs="*", metavar="MANIFEST", help="what the agent is")
    add_session(
        parser, "keep the conversation under this name, or go on with the one that is there"
    )
    add_options(parser, lines=False)
    found = parser.read(argv)
    if len(found.manifests) > 1:
        parser.error(f"a chat has one manifest, got {len(found.manifests)}")
    if found.journal is not None and found.session is None:
        parser.error("--journal has no effect in a chat without --session")
    if found.approve == "later":
        parser.error("a chat cannot leave calls for later; use --approve later with run or map")
    return ChatCommand(
        manifest=found.manifests[0] if found.manifests else None,
        session=found.session,
        options=read_options(found),
    )


def _parse_map(argv: Sequence[str]) -> MapCommand:
    parser = Parser(
        "map",
        "MANIFEST --each FILE... [--reduce MANIFEST] [options]",
        "Give each file to an agent of its own; then, maybe, all answers to one more.",
        _MAP_EXAMPLES,
    )
    parser.add_argument("manifest", nargs="?", metavar="MANIFEST", help="what each agent is")
    parser.add_argument(
        "--each",
        nargs="+",
        action="append",
        required=True,
        metavar="FILE",
        help="the inputs: the text of each file (UTF-8) is one agent's query; a folder stands "
        "for the files in it, - for standard input; several --each are sources that take turns",
    )
    parser.add_argument("--prompt", type=text, metavar="TEXT", help="say this before each text")
    parser.add_argument(
        "--reduce", metavar="MANIFEST", help="give all answers, with their files, to this agent"
    )
    parser.add_argument(
        "--reduce-prompt", type=text, metavar="TEXT", help="say this before the answers"
    )
    parser.add_argument(
        "--unordered", action="store_true", help="print each result as soon as it is there"
    )
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write each answer into a file of this folder as soon as it is there, named after "
        "its input; an unfinished one ends in .partial",
    )
    add_workers(parser)
    add_cluster(parser)
    add_options(parser)
    found = parser.read(argv)
    if found.manifest is None:
        took = ", ".join(repr(word) for source in found.each for word in source)
        parser.error(f"MANIFEST is missing, as --each took {took}; put the manifest first")
    if found.output_dir is not None and found.json:
        parser.error("--output-dir writes texts and --json prints lines; choose one of them")
    if found.reduce_prompt is not None and found.reduce is None:
        parser.error("--reduce-prompt has no effect without --reduce; add --reduce MANIFEST")
    cluster = read_cluster(parser, found)
    workers = read_workers(parser, found, argv)
    return MapCommand(
        manifest=found.manifest,
        sources=tuple(map(tuple, found.each)),
        prompt=found.prompt,
        reduce=found.reduce,
        reduce_prompt=found.reduce_prompt,
        # Lines of JSON name their inputs, so a reader needs no order, and loses nothing if
        # the program is killed.
        ordered=not (found.unordered or found.json or found.output_dir is not None),
        output_dir=found.output_dir,
        workers=workers,
        lease_seconds=found.lease or LEASE_SECONDS,
        options=attrs.evolve(read_options(found), cluster=cluster),
    )


def _parse_check(argv: Sequence[str]) -> CheckCommand:
    parser = Parser(
        "check",
        "MANIFEST... [options]",
        "Look manifests over, without running anything.",
        _CHECK_EXAMPLES,
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="the files")
    parser.add_argument(
        "--model-file", action="store_true", help="a local model's file must be there as well"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per manifest")
    found = parser.read(argv)
    return CheckCommand(
        manifests=tuple(found.manifests), model_file=found.model_file, json=found.json
    )


def _parse_serve(argv: Sequence[str]) -> ServeCommand:
    parser = Parser(
        "serve",
        "MANIFEST... [options]",
        "Offer agents to other programs as an MCP server.",
        _SERVE_EXAMPLES,
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="what each agent is")
    parser.add_argument(
        "--http",
        type=address,
        metavar="HOST:PORT",
        help="listen there instead, on an address of this machine alone; port 0 is any that is "
        "free",
    )
    add_options(parser, results=False)
    found = parser.read(argv)
    return ServeCommand(
        manifests=tuple(found.manifests), http=found.http, options=read_options(found)
    )
