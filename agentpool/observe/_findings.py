"""Explains what went wrong in a pool."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, assert_never, final

import msgspec

from agentpool._errors import PARENT_LEFT, AgentCancelledError, RecordedError
from agentpool._events import (
    ApprovalGiven,
    BudgetNear,
    BudgetReached,
    EventsMissed,
    FellBack,
    GateChanged,
    RequestRetried,
    SlotsChanged,
)
from agentpool._messages import AgentId
from agentpool.observe._record import OPEN, AgentRecord, Notice, PoolRecord
from agentpool.observe._trace import Trace

MAX_OF_A_KIND: Final = 8
"""The most findings of one kind that are listed. Further findings are only counted."""

SHOWN_CHARACTERS: Final = 1000
"""The most characters of a failed tool's text."""

_NAMED: Final = re.compile(r"(?:^|(?:joins|asks|waits for room in the inbox of) )(\d+) \(")
"""Finds an agent in the text of a deadlock."""

BAD: Final = "bad"
"""Something failed."""

ODD: Final = "odd"
"""Something was tolerated, or ended early."""

NOTE: Final = "note"
"""Something that explains the course of the run."""


@final
class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One possible reason for a failure."""

    level: str
    """``bad``, ``odd`` or ``note``."""
    title: str
    """A short title."""
    text: str
    """The explanation."""
    at_seconds: float | None = None
    """When it happened, in seconds since the pool opened. ``None``: at no particular time."""
    agent_id: AgentId | None = None
    """The id of the agent. ``None``: no agent in particular."""
    detail: str = ""
    """Details that are shown only on request: a traceback."""
    circle: tuple[AgentId, ...] = ()
    """The agents of a deadlock: each waits for the next, and the last one for the first."""
    count: int = 1
    """How many findings of the same kind this finding stands for."""


def findings_of(trace: Trace, record: PoolRecord) -> list[Finding]:
    """Return the problems in order of time, and then the findings that explain the run."""
    found = [
        *_failures(trace, record),
        *_early_ends(trace, record),
        *_tool_failures(record),
        *_refusals(record),
        *_lost_summaries(record),
        *(_notice(event) for event in record.notices),
        *_letters(record),
        *_warnings(trace, record),
    ]
    found.sort(key=_place)
    return list(_shortened(found))


def _place(finding: Finding) -> tuple[bool, float]:
    at_seconds = finding.at_seconds
    return finding.level == NOTE, math.inf if at_seconds is None else at_seconds


def _shortened(found: list[Finding]) -> Iterator[Finding]:
    """Yield the first findings of each kind, then one finding with the number of the rest."""
    counts, totals = Counter[str](), Counter(finding.title for finding in found)
    for finding in found:
        counts[finding.title] += 1
        if counts[finding.title] <= MAX_OF_A_KIND:
            yield finding
        elif counts[finding.title] == MAX_OF_A_KIND + 1:
            more = totals[finding.title] - MAX_OF_A_KIND
            text = f"… and {more:,} more of these"
            yield Finding(
                level=finding.level,
                title=finding.title,
                text=text,
                count=more,
                at_seconds=finding.at_seconds,
            )


def _failures(trace: Trace, record: PoolRecord) -> Iterator[Finding]:
    broken = [call.at_seconds for call in record.calls if call.is_error and trace.has_times]
    failed = [agent for agent in record.agents.values() if agent.status == "failed"]
    failed.sort(key=record.end_of)
    for place, agent in enumerate(failed):
        kind, text, traceback = agent.error or ("", "", "")
        at_seconds = record.end_of(agent)
        title = "Failed"
        if place == 0:
            is_first = not any(at < at_seconds for at in broken)
            title = "Failed first" if is_first else "First agent to fail"
        yield Finding(
            level=BAD,
            title=title,
            text=f"{kind}: {text}",
            agent_id=agent.agent_id,
            at_seconds=at_seconds,
            detail=traceback,
            circle=circle_of(record, text) if kind == "DeadlockError" else (),
        )


def _early_ends(trace: Trace, record: PoolRecord) -> Iterator[Finding]:
    for agent in record.agents.values():
        if agent.status in {"stopped", "cancelled"} and not _went_along(record, agent):
            below = list(_taken_along(record, agent))
            yield Finding(
                level=ODD,
                title=agent.status.capitalize(),
                text=agent.error_words + _below_words(below),
                agent_id=agent.agent_id,
                at_seconds=record.end_of(agent),
                count=1 + len(below),
            )
        elif agent.status == OPEN:
            doing = agent.going_on
            yield Finding(
                level=ODD,
                title="Had not ended",
                text=f"when the trace ends: {doing}" if trace.has_times else "",
                agent_id=agent.agent_id,
            )


def _went_along(record: PoolRecord, agent: AgentRecord) -> bool:
    """Return whether *agent* was cancelled only because its parent was."""
    parent = record.agents.get(agent.parent_id)
    return (
        agent.status == "cancelled"
        and parent is not None
        and parent.status == "cancelled"
        and _reason_of(agent) == PARENT_LEFT
    )


def _reason_of(agent: AgentRecord) -> str:
    error = None if agent.outcome is None else agent.outcome.error
    if isinstance(error, RecordedError):
        return error.details.get("reason", "")
    return error.reason if isinstance(error, AgentCancelledError) else ""


def _taken_along(record: PoolRecord, agent: AgentRecord) -> Iterator[AgentRecord]:
    """Yield the descendants of *agent* that were cancelled because *agent* ended, parents first."""
    waiting = deque(agent.children)
    while waiting:
        child = record.agents[waiting.popleft()]
        if _went_along(record, child):
            yield child
            waiting.extend(child.children)


def _below_words(below: list[AgentRecord]) -> str:
    if not below:
        return ""
    named = [f"{agent.agent_id} ({agent.name})" for agent in below[:MAX_OF_A_KIND]]
    if len(below) > MAX_OF_A_KIND:
        named.append(f"{len(below) - MAX_OF_A_KIND:,} more")
    agents = "1 agent" if len(below) == 1 else f"{len(below):,} agents"
    return f"; with it {agents} below it: {', '.join(named)}"


def _tool_failures(record: PoolRecord) -> Iterator[Finding]:
    for call in record.calls:
        if call.is_error:
            stuck = call.error_type == "DeadlockError"
            yield Finding(
                level=BAD if stuck else ODD,
                title="Deadlock" if stuck else "A tool failed",
                text=f"{call.call.name}: {call.content[:SHOWN_CHARACTERS]}",
                agent_id=call.agent_id,
                at_seconds=call.at_seconds,
                detail=call.traceback,
                circle=circle_of(record, call.content) if stuck else (),
            )


def _refusals(record: PoolRecord) -> Iterator[Finding]:
    """Yield the calls that were refused without asking a person."""
    for call in record.refused:
        if not call.was_asked:
            yield Finding(
                level=ODD,
                title="Call refused",
                text=f"{call.name}, turn {call.turn}: {call.content[:SHOWN_CHARACTERS]}",
                agent_id=call.agent_id,
                at_seconds=call.at_seconds,
            )


def _lost_summaries(record: PoolRecord) -> Iterator[Finding]:
    for lost in record.lost_summaries():
        yield Finding(
            level=ODD,
            title="No summary",
            text=lost.words(),
            agent_id=lost.agent_id,
            count=lost.count,
            at_seconds=lost.at_seconds,
        )


def _notice(event: Notice) -> Finding:
    level, title, text = _notice_words(event)
    return Finding(
        level=level,
        title=title,
        text=text,
        agent_id=event.agent_id or None,
        at_seconds=event.at_seconds,
    )


def _notice_words(event: Notice) -> tuple[str, str, str]:  # noqa: PLR0911  # one for each kind
    """Return level, title and text."""
    match event:
        case ApprovalGiven():
            return _approval(event)
        case BudgetNear() | BudgetReached():
            text = f"{event.budget}: {event.kind.value}, {event.used:,.6g} of {event.limit:,.6g}"
            if isinstance(event, BudgetReached):
                return ODD, "Budget spent", text
            return NOTE, "Budget nearly spent", text
        case RequestRetried():
            when = f"again after {event.delay_seconds:.2f} s"
            return NOTE, "Request retried", f"attempt {event.attempt}, {when}: {event.error}"
        case FellBack():
            return NOTE, "Fallback", event.words()
        case GateChanged():
            until = f"closed for {event.closed_seconds:.1f} s, then {event.limit} at once"
            return NOTE, "Gate closed", f"{event.gate}: {until}; {event.waiting} wait"
        case SlotsChanged():
            return NOTE, "Slots changed", f"{event.max_concurrent:g} from then on"
        case EventsMissed():
            return ODD, "Events are missing", f"{event.count:,} of them"
        case _:
            assert_never(event)


def _approval(event: ApprovalGiven) -> tuple[str, str, str]:
    by = f" by {event.decided_by}" if event.decided_by else ""
    text = f"{event.call.name}:{by} after {event.waited_seconds:.1f} s"
    if event.approved:
        return NOTE, "Call approved", text
    return ODD, "Call refused", text + (f": {event.reason}" if event.reason else "")


def _letters(record: PoolRecord) -> Iterator[Finding]:
    for letter in record.dead_letters:
        message = letter.message
        text = (
            f"message {message.message_id} from {message.sender or 'the owner'} to "
            f"{message.recipient or 'the owner'}: {letter.reason}"
        )
        yield Finding(
            level=ODD,
            title="Dead letter",
            text=text,
            agent_id=message.sender or None,
            at_seconds=letter.at_seconds,
        )


def _warnings(trace: Trace, record: PoolRecord) -> Iterator[Finding]:
    for warning in record.warnings:
        yield Finding(
            level=ODD,
            title="Warning",
            text=warning.text,
            agent_id=warning.agent_id or None,
            at_seconds=warning.at_seconds,
        )
    for problem in trace.problems:
        yield Finding(level=ODD, title="This trace", text=problem)
    if trace.statistics is None and trace.has_times:
        yield Finding(level=ODD, title="This trace", text="the pool had not closed when it ends")


def circle_of(record: PoolRecord, text: str) -> tuple[AgentId, ...]:
    """Return the agents in the circle that the *text* of a deadlock names.

    Empty: it names no circle.

    ``1 (planner) asks 2 (critic), which joins 1 (planner)``: the first agent is named again at the
    end.
    """
    told = text.rpartition("DeadlockError: ")[2]
    ids = [int(number) for number in _NAMED.findall(told)]
    known = all(agent_id in record.agents for agent_id in ids)
    return tuple(ids[:-1]) if known and len(ids) > 1 and ids[0] == ids[-1] else ()
