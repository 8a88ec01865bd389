"""The arguments of the commands for files: memory, runs, approve and show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, cast

from agentpool._cli._command import ApproveCommand, MemoryCommand, RunsCommand, ShowCommand
from agentpool._cli._options import count, file_name, text
from agentpool._cli._parser import Parser

_MEMORY_EXAMPLES = """\
The file is the one of agentpool run --memory FILE.

examples:
  agentpool memory list notes.db
  agentpool memory list notes.db --scope team
  agentpool memory search notes.db "north wind"
  agentpool memory delete notes.db mem-12 mem-13
  agentpool memory delete notes.db --scope team

exit codes:
  0    done
  1    something that was to be deleted was not there
  2    the command is wrong, or the file cannot be used
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""

_RUNS_EXAMPLES = """\
The file is the one of agentpool run --journal FILE. The same command with the same file goes
on where it ended; resume runs that command again. prune forgets how agents that ended came to
their answers, and keeps these and what was spent.

examples:
  agentpool runs list night.db
  agentpool runs show night.db
  agentpool runs show night.db map --json
  agentpool runs resume night.db
  agentpool runs prune night.db

exit codes (resume: those of its command):
  0    done
  1    a pool is not over and was not pruned
  2    the command is wrong, or the file cannot be used
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""

_APPROVE_EXAMPLES = """\
The file is the one of agentpool run --journal FILE. The same command with the same file goes
on, and takes the answer for its own; the tool runs once.

examples:
  agentpool approve night.db
  agentpool approve night.db 3.7.0 yes
  agentpool approve night.db 3.7.0 no --reason "not on a Friday"

exit codes:
  0    done
  2    the command is wrong, the file cannot be used, or a process runs the pool
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""

_SHOW_EXAMPLES = """\
The file is the one of agentpool run --trace FILE; it may still be written.

examples:
  agentpool show night.trace
  agentpool show night.trace --agent 3
  agentpool show night.trace --html night.html
  agentpool show night.trace --follow
  agentpool show night.trace --diff evening.trace
  agentpool show night.db --agent 3

exit codes:
  0    done, or both traces are the same; also where a trace is cut or damaged, as it is
       after a kill: all that can be read is shown, and "this trace:" says what is missing
  1    the traces differ
  2    the command is wrong, or the file cannot be read
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""


def parse_memory(argv: Sequence[str]) -> MemoryCommand:
    """Parse the arguments of ``agentpool memory``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "memory",
        "list|search|delete FILE [WORDS... | ID...] [options]",
        "List, search or delete what agents keep in a memory's file.",
        _MEMORY_EXAMPLES,
    )
    add = parser.add_argument
    add("action", choices=("list", "search", "delete"), help="what to do")
    add("file", metavar="FILE", help="the memory's file")
    add("words", nargs="*", metavar="WORDS|ID", help="what to search for; which to delete")
    add("--scope", metavar="NAME", help="list, search or delete in this scope alone")
    add("--limit", type=count, default=20, metavar="N", help="at most N of them (%(default)s)")
    add("--json", action="store_true", help="print one JSON object per fragment or scope")
    found = parser.read(argv)
    if found.action == "list" and found.words:
        parser.error(f"list takes no words, got {found.words[0]!r}; did you mean search?")
    if found.action == "search" and not found.words:
        parser.error("search needs words; list shows the newest")
    if found.action == "delete" and bool(found.words) == (found.scope is not None):
        parser.error("delete needs either ids or --scope")
    return MemoryCommand(
        action=cast("Literal['list', 'search', 'delete']", found.action),
        file=found.file,
        words=" ".join(found.words) if found.action == "search" else "",
        ids=tuple(found.words) if found.action == "delete" else (),
        scope=found.scope,
        limit=found.limit,
        json=found.json,
    )


def parse_runs(argv: Sequence[str]) -> RunsCommand:
    """Parse the arguments of ``agentpool runs``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "runs",
        "list|show|resume|prune FILE [POOL] [options]",
        "List or show what a journal keeps, run its command again to go on with it, or give back\n"
        "the space of what is over.",
        _RUNS_EXAMPLES,
    )
    add = parser.add_argument
    add("action", choices=("list", "show", "resume", "prune"), help="what to do")
    add("file", metavar="FILE", help="the journal")
    add("pool", nargs="?", metavar="POOL", help="show, resume or prune this pool alone")
    add("--json", action="store_true", help="print one JSON object per pool or agent")
    found = parser.read(argv)
    if found.action == "list" and found.pool is not None:
        parser.error(f"list takes no pool, got {found.pool!r}; did you mean show?")
    if found.action == "resume" and found.json:
        parser.error("resume takes no --json: it prints what its command printed")
    return RunsCommand(
        action=cast("Literal['list', 'show', 'resume', 'prune']", found.action),
        file=found.file,
        pool=found.pool,
        json=found.json,
    )


def parse_approve(argv: Sequence[str]) -> ApproveCommand:
    """Parse the arguments of ``agentpool approve``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "approve",
        "FILE [QUESTION yes|no] [options]",
        "List the calls that wait for approval, or give it.",
        _APPROVE_EXAMPLES,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the journal")
    add("words", nargs="*", metavar="QUESTION yes|no", help="which call, and whether it may run")
    add("--reason", type=text, default="", metavar="TEXT", help="why not, for the model")
    add("--pool", metavar="POOL", help="the pool whose question it is, if several have it")
    add("--json", action="store_true", help="print one JSON object per question")
    found = parser.read(argv)
    question, answer = found.words[:1], found.words[1:]
    if question and answer not in (["yes"], ["no"]):
        parser.error(f"say yes or no after the question, got {' '.join(answer)!r}")
    return ApproveCommand(
        file=found.file,
        question=question[0] if question else None,
        answer="yes" if answer == ["yes"] else "no",
        reason=found.reason,
        pool=found.pool,
        json=found.json,
    )


_CLASHES: Final = (
    ("follow", "diff"), ("follow", "html"), ("follow", "format chrome"), ("diff", "html"),
    ("diff", "agent"), ("diff", "format chrome"), ("html", "format chrome"),
    ("agent", "format chrome"), ("json", "format chrome"),
)  # fmt: skip
"""Options of ``agentpool show`` of which only one would be heeded."""


def parse_show(argv: Sequence[str]) -> ShowCommand:
    """Parse the arguments of ``agentpool show``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "show",
        "FILE [options]",
        "Look at the trace of a run: who did what, what failed first, what took long. A journal\n"
        "is read as well; it has no times.",
        _SHOW_EXAMPLES,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the trace, or a journal")
    add("--pool", metavar="NAME", help="which pool of a journal that has several")
    add("--agent", type=count, metavar="N", help="show what this agent said and was told")
    add("--html", type=file_name, metavar="OUT", help="make a page of it that opens in any browser")
    add("--follow", action="store_true", help="print each event as it comes, to the pool's end")
    add(
        "--format",
        choices=("text", "chrome"),
        default="text",
        metavar="text|chrome",
        help="chrome: the trace-event JSON that Perfetto and chrome://tracing open",
    )
    add("--diff", metavar="OTHER", help="show the first event in which another trace differs")
    add("--json", action="store_true", help="print JSON")
    found = parser.read(argv)
    chrome = found.format == "chrome"
    given = {"follow": found.follow, "diff": found.diff, "html": found.html, "agent": found.agent,
             "json": found.json, "format chrome": chrome}  # fmt: skip
    for one, other in _CLASHES:
        if given[one] and given[other]:
            parser.error(f"--{one} and --{other} each print something of their own; leave one out")
    return ShowCommand(
        file=found.file,
        pool=found.pool,
        agent=found.agent,
        follow=found.follow,
        json=found.json,
        html=found.html,
        format=found.format,
        other=found.diff,
    )
