"""A trace in words: the tree of agents, the first failure, the slow parts, a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from agentpool._amounts import counted, dollars
from agentpool._cli._problem_text import ERROR_CHARACTERS, problem_lines
from agentpool._cli._who import who, who_is
from agentpool.observe import (
    AgentRecord,
    FellBack,
    PoolRecord,
    RequestRetried,
    Trace,
    slowest_calls,
)
from agentpool.tools import printable

TREE_ROWS: Final = 200
"""The most agents that are shown. For more agents, a report is better."""

SLOWEST: Final = 5
"""The most calls that are shown."""

WARNINGS: Final = 10
"""The most retries that are shown, and the most full windows."""

_NAME_COLUMNS: Final = 40


def overview(trace: Trace, record: PoolRecord) -> str:
    """Return a summary of the pool, as lines."""
    parts = [
        _heading(trace, record),
        problem_lines(record, has_times=trace.has_times),
        _tree(trace, record),
        _going_on(trace, record),
        _slowest(trace, record),
        _tools(record),
        _asked_again(record),
        _rest(trace, record),
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts if part)


def _heading(trace: Trace, record: PoolRecord) -> list[str]:
    counts: dict[str, int] = {}
    for agent in record.agents.values():
        counts[agent.status] = counts.get(agent.status, 0) + 1
    statuses = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    bill = record.bill
    usage = bill.usage
    cached = f", {usage.cached_tokens:,} of them cached" if usage.cached_tokens else ""
    when, took, ended = "", "", ""
    if trace.has_times:
        when = f", {datetime.fromtimestamp(trace.header.opened_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        took = f" in {record.seconds:.1f} s"
        ended = "" if trace.statistics is not None else "; the pool had not closed"
    failed = f", {bill.failed:,} without an answer" if bill.failed else ""
    sent, came = bill.sides_words()
    usage_line = (
        f"{counted(bill.requests, 'request')}{failed}: "
        f"{sent} tokens in{cached}, {came} out, "
        f"{_money(bill.cost_usd)}"
    )
    name = printable(trace.header.pool)
    ran = "; ".join(map(printable, trace.ran_words()))
    return [
        f"pool {name!r}{when}, run {trace.header.run_id}",
        *([ran] if ran else []),
        f"{counted(len(record.agents), 'agent')}{took}: {statuses or 'none'}{ended}",
        usage_line,
        *bill.unknown_words(),
    ]


def _tree(trace: Trace, record: PoolRecord) -> list[str]:
    title = "agent".ljust(_NAME_COLUMNS)
    lines = [
        f"{title}  {'status':<10}{'queued':>9}{'ran':>9}{'turns':>7}{'tokens':>11}{'cost':>11}"
    ]
    for count, (agent, branch) in enumerate(_rows(record)):
        if count == TREE_ROWS:
            more = len(record.agents) - TREE_ROWS
            lines.append(f"… and {more:,} more agents; --json has all of them")
            break
        lines.append(_row(agent, branch, has_times=trace.has_times))
    return lines


def _rows(record: PoolRecord) -> Iterator[tuple[AgentRecord, str]]:
    """Yield each agent below its parent, with the lines of the tree."""
    rest = [(agent, "", "") for agent in reversed(list(record.roots()))]
    while rest:
        agent, branch, below = rest.pop()
        yield agent, branch
        children = [record.agents[child] for child in agent.children]
        for child in reversed(children):
            to, past = ("└─ ", "   ") if child is children[-1] else ("├─ ", "│  ")
            rest.append((child, below + to, below + past))


def _row(agent: AgentRecord, branch: str, *, has_times: bool) -> str:
    name = f"{branch}{agent.agent_id} {printable(agent.name)}"
    if len(name) > _NAME_COLUMNS:
        name = name[: _NAME_COLUMNS - 1] + "…"
    times = "".join(
        f"{seconds if has_times else '?':>9}"
        for seconds in map("{:.1f}".format, agent.queued_and_ran)
    )
    cost, tokens = _money(agent.bill.cost_usd), agent.bill.tokens_words()
    columns = f"{agent.status:<10}{times}{agent.turns:>7,}{tokens:>11}{cost:>11}"
    return f"{name:<{_NAME_COLUMNS}}  {columns}"


def _going_on(trace: Trace, record: PoolRecord) -> list[str]:
    """Return what the unfinished agents wait for."""
    lines = [
        f"  {who(agent)}: {printable(agent.going_on)}"
        for agent in record.agents.values()
        if trace.has_times and agent.now is not None
    ]
    left = len(lines) - TREE_ROWS
    more = [f"… and {left:,} more that had not ended"] if left > 0 else []
    return ["waiting when the trace ends", *lines[:TREE_ROWS], *more] if lines else []


def _asked_again(record: PoolRecord) -> list[str]:
    """Say which models took over, and how many requests were repeated."""
    lines: list[str] = []
    retried: dict[int, list[RequestRetried]] = {}
    for event in record.notices:
        if isinstance(event, FellBack):
            text = event.words()[:ERROR_CHARACTERS]
            lines.append(f"fell back: {who_is(event)} {printable(text)}")
        elif isinstance(event, RequestRetried):
            retried.setdefault(event.agent_id, []).append(event)
    for events in retried.values():
        times = "once" if len(events) == 1 else f"{len(events):,} times"
        seconds = sum(event.delay_seconds for event in events)
        text = printable(events[-1].error[:ERROR_CHARACTERS])
        lines.append(f"retried: {who_is(events[0])} {times}, after {seconds:.1f} s: {text}")
    left = len(lines) - WARNINGS
    return lines[:WARNINGS] + ([f"… and {left:,} more of these"] if left > 0 else [])


def _slowest(trace: Trace, record: PoolRecord) -> list[str]:
    if not trace.has_times:
        return []
    lines = [
        f"  {call.seconds:8.2f} s  {printable(call.subject)}, {who(record.agents[call.agent_id])}, "
        f"turn {call.turn}{f', {call.ending}' if call.ending else ''}"
        for call in slowest_calls(record, SLOWEST)
    ]
    return ["slowest calls", *lines] if lines else []


def _tools(record: PoolRecord) -> list[str]:
    if not record.tools:
        return []
    lines = [f"{'tool':<{_NAME_COLUMNS}}  {'calls':>7}{'open':>6}{'failed':>8}{'p50':>9}{'p95':>9}"]
    for tool in record.tools.values():
        half, most = tool.percentile(0.5), tool.percentile(0.95)
        times = "".join("        ?" if s is None else f"{s:>7.2f} s" for s in (half, most))
        name = printable(tool.name)[:_NAME_COLUMNS]
        lines.append(
            f"{name:<{_NAME_COLUMNS}}  {tool.calls:>7,}{tool.open:>6,}{tool.failed:>8,}{times}"
        )
    return lines


def _rest(trace: Trace, record: PoolRecord) -> list[str]:
    cut = [agent for agent in record.agents.values() if agent.window.cuts or _left_out(agent)]
    lines = [f"window: {who(agent)}: {_window(agent)}" for agent in cut[:WARNINGS]]
    left = len(cut) - WARNINGS
    lines += [f"… and {left:,} more agents with a full window"] if left > 0 else []
    return lines + [f"this trace: {problem}" for problem in trace.problems]


def _left_out(agent: AgentRecord) -> int:
    return 0 if agent.outcome is None else agent.outcome.messages_left_out


def _window(agent: AgentRecord) -> str:
    """Say which parts of *agent*'s conversation are no longer sent, and what replaces them."""
    marks = agent.window
    gone = len(marks.gone)
    # Traces of earlier versions do not say which results are stubs, but all ends say how many.
    stubs = marks.stubbed or max(0, _left_out(agent) - gone)
    parts = [f"{counted(gone, 'message')} of the conversation left it"] if gone else []
    parts += [f"{counted(stubs, 'tool result')} sent as stubs"] if stubs else []
    summaries = sum(bool(mark.cut.summary) for mark in marks.cuts)
    parts += [f"summed up {counted(summaries, 'time')}"] if summaries else []
    return f"{', '.join(parts) or 'it was full'}; --agent {agent.agent_id} has the marks"


def _money(cost_usd: float | None) -> str:
    return "? USD" if cost_usd is None else dollars(cost_usd)
