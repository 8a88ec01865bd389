"""What went wrong in a trace, in words, in the order in which it happened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

import msgspec

import agentpool
from agentpool import drivers
from agentpool._cli._screen import visible
from agentpool._cli._who import who, who_is
from agentpool.observe import AgentRecord, PoolRecord, RefusedCall, ToolFinished
from agentpool.tools import printable

OF_A_KIND: Final = 10
"""The most problems of one kind that are shown. The rest are only counted."""

ERROR_CHARACTERS: Final = 200
"""The most characters shown of a failed tool's text."""

REFUSAL_CHARACTERS: Final = 400
"""The most characters shown of the reason why a call was refused. The reason names the available
tools."""

_FRAME: Final = re.compile(r'^ +File "(.*)", line', re.MULTILINE)
"""The files of a traceback."""

_OURS: Final = frozenset((*dir(agentpool), *dir(drivers)))
"""Words in the names of errors that are raised on purpose."""


@final
class Problem(msgspec.Struct, frozen=True):
    """One thing that went wrong."""

    at_seconds: float
    """When it went wrong."""
    kind: str
    """The plural name of its kind."""
    line: str
    """The problem in one line."""
    traceback: str = ""
    """The traceback of the error. Empty: no error was raised, or its traceback explains nothing."""


def problem_lines(record: PoolRecord, *, has_times: bool) -> list[str]:
    """Return each problem with its traceback, without repeats, and how many are left out."""
    counts, shown = Counter[str](), set[str]()
    lines: list[str] = []
    for problem in problems(record, has_times=has_times):
        counts[problem.kind] += 1
        if counts[problem.kind] > OF_A_KIND:
            continue
        lines.append(problem.line)
        if problem.traceback not in shown:
            shown.add(problem.traceback)
            lines += [f"  {visible(line)}" for line in problem.traceback.rstrip().splitlines()]
    lefts = ((count - OF_A_KIND, kind) for kind, count in counts.items())
    return lines + [f"… and {left:,} more {kind}" for left, kind in lefts if left > 0]


def problems(record: PoolRecord, *, has_times: bool) -> list[Problem]:
    """Return what went wrong, in the order in which it happened."""
    found = [
        *_failures(record, has_times=has_times),
        *_early_ends(record, has_times=has_times),
        *(_failed(record, call, has_times=has_times) for call in record.calls if call.is_error),
        *(_refused(record, call, has_times=has_times) for call in record.refused),
        *_lost_summaries(record, has_times=has_times),
        *_told(record, has_times=has_times),
    ]
    return sorted(found, key=lambda problem: problem.at_seconds)


def _after(at_seconds: float, *, has_times: bool) -> str:
    return f", after {at_seconds:.2f} s" if has_times else ""


def _failures(record: PoolRecord, *, has_times: bool) -> Iterator[Problem]:
    first = record.first_failure
    failed_calls = [call.at_seconds for call in record.calls if call.is_error]
    for agent in record.agents.values():
        if agent.status != "failed" or agent.error is None:
            continue
        kind, text, traceback = agent.error
        # Where agentpool says on purpose what is wrong is of no use to whoever reads it.
        is_ours = kind in _OURS and all(map(_is_ours, _FRAME.findall(traceback)))
        at_seconds = agent.finished_at or 0.0
        title = "failed"
        if agent is first:
            has_earlier = has_times and any(at < at_seconds for at in failed_calls)
            title = "first agent to fail" if has_earlier else "failed first"
        line = f"{title}: {who(agent)}{_after(at_seconds, has_times=has_times)}: "
        line += f"{kind}: {printable(text)}"
        # Of the first one only: the others often failed with it.
        traceback = "" if is_ours or agent is not first else traceback
        yield Problem(at_seconds, "failed agents", line, traceback)


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(agentpool.__file__).parent)


def _early_ends(record: PoolRecord, *, has_times: bool) -> Iterator[Problem]:
    """Yield why agents were stopped or cancelled."""
    for agent in record.agents.values():
        if agent.status in {"stopped", "cancelled"}:
            at_seconds = agent.finished_at or 0.0
            when = _after(at_seconds, has_times=has_times)
            line = f"{agent.status}: {who(agent)}{when}: {printable(agent.error_words)}"
            yield Problem(at_seconds, "that ended early", line)


def _failed(record: PoolRecord, call: ToolFinished, *, has_times: bool) -> Problem:
    """Return which call failed, and with what."""
    when = _after(call.at_seconds, has_times=has_times)
    content = printable(call.content[:ERROR_CHARACTERS])
    line = f"tool failed: {_call_words(record, call.agent_id, call.call.name, call.turn)}{when}"
    return Problem(call.at_seconds, "failed calls", f"{line}: {content}", call.traceback)


def _refused(record: PoolRecord, call: RefusedCall, *, has_times: bool) -> Problem:
    """Return which call was refused, and why."""
    when = _after(call.at_seconds, has_times=has_times)
    content = printable(call.content[:REFUSAL_CHARACTERS])
    line = f"refused: {_call_words(record, call.agent_id, call.name, call.turn)}{when}"
    return Problem(call.at_seconds, "refused calls", f"{line}: {content}")


def _call_words(record: PoolRecord, agent_id: int, tool: str, turn: int) -> str:
    return f"{printable(tool)} of {who(record.agents[agent_id])}, turn {turn}"


def _lost_summaries(record: PoolRecord, *, has_times: bool) -> Iterator[Problem]:
    for lost in record.lost_summaries():
        when = _after(lost.at_seconds, has_times=has_times)
        agent: AgentRecord = record.agents[lost.agent_id]
        line = f"no summary: {who(agent)}{when}: {printable(lost.words())}"
        yield Problem(lost.at_seconds, "missing summaries", line)


def _told(record: PoolRecord, *, has_times: bool) -> Iterator[Problem]:
    """Yield warnings and dead letters."""
    for event in record.warnings:
        when = _after(event.at_seconds, has_times=has_times)
        line = f"warning: {who_is(event)}{when}: {printable(event.text)}"
        yield Problem(event.at_seconds, "warnings", line)
    for letter in record.dead_letters:
        message, when = letter.message, _after(letter.at_seconds, has_times=has_times)
        line = (
            f"dead letter: message {message.message_id} of {message.sender} to "
            f"{message.recipient}{when}: {printable(letter.reason)}"
        )
        yield Problem(letter.at_seconds, "dead letters", line)
