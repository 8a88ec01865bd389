"""``agentpool show``: a trace in the terminal, as a page, or in another format."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from agentpool import UsageError, trace_of_journal
from agentpool import journal as journals
from agentpool._amounts import counted
from agentpool._cli._command import ShowCommand
from agentpool._cli._event_text import event_line
from agentpool._cli._hidden_keys import write_told
from agentpool._cli._problem_text import problems
from agentpool._cli._recording import check_page, write_page
from agentpool._cli._report import ExitCode
from agentpool._cli._screen import visible
from agentpool._cli._trace_text import overview
from agentpool._cli._transcript_text import transcript
from agentpool._disk_file import is_database, is_marked_open
from agentpool.observe import (
    AgentRecord,
    Bill,
    Difference,
    Event,
    Trace,
    TraceError,
    chrome_trace,
    event_from_json,
    event_to_json,
    first_difference,
    read_trace,
    record_of,
)
from agentpool.tools import printable

MAX_LINE: Final = 256 * 1024 * 1024
"""The most bytes of a line with ``--follow``, which is the limit without ``--follow`` too."""

SHOWN_CHARACTERS: Final = 120
"""The most characters shown of a value in which two traces differ."""

LOOK_SECONDS: Final = 0.1
"""The time between two reads of a file that is still being written."""


def show(command: ShowCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If there is no such agent, or a file cannot be written.
        TraceError: If the file is not a trace.
    """
    if command.follow:
        if is_database(command.file):
            raise UsageError("--follow works with traces only; a journal keeps no times")
        return trio.run(_follow, command)
    trace = _read(command.file, command.pool)
    if command.other is not None:
        return _differ(trace, _read(command.other, command.pool), as_json=command.json)
    if command.html is not None:
        if command.json or command.agent is not None:
            raise UsageError(
                "--html writes a page with all agents; leave out --json and --agent, and open "
                "the page with #agent=3 at its end to see one of them"
            )
        check_page(command.html)
        write_page(command.html, trace)
        return ExitCode.COMPLETED
    record = record_of(trace.events)
    if command.agent is not None:
        agent = record.agents.get(command.agent)
        if agent is None:
            raise UsageError(
                f"there is no agent {command.agent} in {command.file!r}; it has "
                f"{counted(len(record.agents), 'agent')}"
            )
        # Also into a pipe: a pager hands what steers the terminal on to it.
        text = visible(transcript(agent, has_times=trace.has_times), "\n\t")
        write_told(_agent_json(agent, has_times=trace.has_times) if command.json else text)
    elif command.format == "chrome":
        if not trace.has_times:
            raise UsageError(
                f"{command.file!r} is a journal and keeps no times, and --format chrome shows "
                "nothing else; leave it out"
            )
        write_told(chrome_trace(trace.header, record).decode() + "\n")
    else:
        write_told(_trace_json(trace) if command.json else overview(trace, record))
    return ExitCode.COMPLETED


def _read(file: str, pool: str | None = None) -> Trace:
    if is_database(file):
        return trio.run(_read_journal, file, pool)
    if pool is not None:
        raise UsageError(f"--pool works with journals, but {file!r} is a trace, which has one pool")
    try:
        return read_trace(file)
    except TraceError as error:
        raise UsageError(str(error)) from error


async def _read_journal(file: str, pool: str | None) -> Trace:
    """Return the trace of *pool* in the journal *file*. ``None``: the only pool.

    Raises:
        UsageError: If there is no such pool, or there are several.
        JournalError: If the journal cannot be read.
    """
    async with journals.open_journal(file, read_only=True) as journal:
        names = [one.pool for one in await journal.pools()]
        found = [name for name in names if pool in {None, name}]
        if len(found) != 1:
            known = ", ".join(map(repr, names)) or "none"
            if pool is not None:
                raise UsageError(f"the journal has no pool {pool!r}; it has {known}")
            raise UsageError(f"say which pool with --pool; the journal has {known}")
        return trace_of_journal(found[0], await journal.read(found[0]))


def _differ(one: Trace, other: Trace, *, as_json: bool) -> int:
    difference = first_difference(one.events, other.events)
    if as_json:
        write_told(_difference_json(difference))
    elif difference is None:
        write_told("the same events happened in both, whatever their times\n")
    else:
        lines = [f"they differ from event {difference.place} on:"]
        for sign, event in (("-", difference.first), ("+", difference.second)):
            lines.append(f"{sign} {'(no more events)' if event is None else event_line(event)}")
        for field in difference.fields:
            values = (_short_json(value) for value in (field.first, field.second))
            lines.append(f"  {printable(field.path)}: {' / '.join(values)}")
        write_told("\n".join(lines) + "\n")
    return ExitCode.COMPLETED if difference is None else ExitCode.FAILED


def _difference_json(difference: Difference | None) -> str:
    """Return the difference as JSON, which is ``null`` if the traces are the same."""
    found: dict[str, object] | None = None
    if difference is not None:
        first, second = (
            None if event is None else msgspec.Raw(event_to_json(event))
            for event in (difference.first, difference.second)
        )
        found = {"place": difference.place, "first": first, "second": second}
        found["fields"] = difference.fields
    return msgspec.json.encode(found).decode() + "\n"


def _short_json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return visible(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def _trace_json(trace: Trace) -> str:
    record = record_of(trace.events)
    first = record.first_failure
    found = {
        "run_id": trace.header.run_id,
        "pool": trace.header.pool,
        "opened_at": trace.header.opened_at if trace.has_times else None,
        "seconds": record.seconds if trace.has_times else None,
        "closed": trace.statistics is not None,
        **_bill_numbers(record.bill),
        "first_failure": None if first is None else first.agent_id,
        "problems": [
            *trace.problems,
            *(one.line for one in problems(record, has_times=trace.has_times)),
        ],
        "agents": [
            _agent_numbers(agent, has_times=trace.has_times) for agent in record.agents.values()
        ],
    }
    return msgspec.json.encode(found).decode() + "\n"


def _bill_numbers(bill: Bill) -> dict[str, object]:
    return {
        "requests": bill.requests,
        "failed_requests": bill.failed,
        "usage": msgspec.to_builtins(bill.usage),
        "unmeasured_requests": bill.unmeasured,
        "estimated_tokens": bill.estimated_tokens,
        "cost_usd": bill.cost_usd,
        "known_usd": bill.known_usd,
        "unpriced_requests": bill.unpriced,
        "charged_as_estimate": {
            "requests": bill.charged_requests,
            "tokens": bill.charged_tokens,
            "cost_usd": bill.charged_usd,
        },
    }


def _agent_numbers(agent: AgentRecord, *, has_times: bool) -> dict[str, object]:
    error = agent.error
    seconds: dict[str, float] = {}
    for interval in agent.intervals:
        name = interval.reason.value
        seconds[name] = seconds.get(name, 0.0) + interval.end_seconds - interval.begin_seconds
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "parent_id": agent.spawned.parent_id,
        "status": agent.status,
        "spawned_at": agent.spawned.at_seconds if has_times else None,
        "started_at": agent.started_at if has_times else None,
        "finished_at": agent.finished_at if has_times else None,
        "turns": agent.turns,
        **_bill_numbers(agent.bill),
        "tool_calls": agent.tool_calls,
        "failed_calls": agent.failed_calls,
        "refused_calls": agent.refused_calls,
        "seconds": seconds if has_times else None,
        "error": None if error is None else {"type": error[0], "text": error[1]},
    }


def _agent_json(agent: AgentRecord, *, has_times: bool) -> str:
    found = {
        **_agent_numbers(agent, has_times=has_times),
        "query": agent.spawned.query,
        "system_prompt": agent.spawned.system_prompt,
        "messages": agent.messages,
        "not_sent_since_turn": agent.window.gone,
        "stub_since_turn": agent.window.stubs,
        "begun_text": agent.begun.text,
        "begun_thoughts": agent.begun.thoughts,
        "window_cuts": [
            {
                "before_turn": mark.turn,
                "messages": mark.cut.messages,
                "results": mark.cut.results,
                "summary": mark.cut.summary,
                "failure": mark.cut.failure,
            }
            for mark in agent.window.cuts
        ],
    }
    return msgspec.json.encode(found).decode() + "\n"


async def _follow(command: ShowCommand) -> int:
    """Print each event as it arrives, until the pool is closed."""
    _read(command.file)  # it is one, and can be read

    def tell(event: Event) -> None:
        if command.agent in {None, event.agent_id}:
            text = event_to_json(event).decode() if command.json else event_line(event)
            write_told(f"{text}\n")

    with Path(command.file).open("rb") as lines:  # noqa: ASYNC230  # a file that is here
        is_written = partial(is_marked_open, lines.fileno())
        if await _each_line(lines.readline, tell, is_written):
            return ExitCode.COMPLETED
    sys.stderr.write(
        f"agentpool: error: the trace {printable(repr(command.file))} ends here because the "
        "program that wrote it has ended, but its pool had not closed\n"
    )
    return ExitCode.FAILED


async def _each_line(
    read: Callable[[], bytes], tell: Callable[[Event], None], is_written: Callable[[], bool]
) -> bool:
    """Print the event of each line. Return whether the pool has closed."""
    rest, is_last_look = b"", False
    while True:
        await trio.lowlevel.checkpoint()
        piece = read()
        if not piece:
            if is_last_look:
                return False
            # What was written just before the end is read once more.
            is_last_look = not is_written()
            if not is_last_look:
                await trio.sleep(LOOK_SECONDS)
            continue
        rest, is_last_look = rest + piece, False
        if not rest.endswith(b"\n"):
            if len(rest) > MAX_LINE:
                raise UsageError("the trace has a line that does not end; it is damaged")
            continue  # its other half is not there yet
        line, rest = rest, b""
        if line.startswith(b'{"end":'):
            return True
        try:
            tell(event_from_json(line))
        except TraceError:
            continue  # no event, or one of a newer version
