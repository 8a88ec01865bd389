"""A trace in words: the tree of agents, the first failure, the slow parts, a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, assert_never

import agentpool
from agentpool import drivers
from agentpool._amounts import counted, dollars
from agentpool._cli._report import left_out
from agentpool._cli._screen import visible
from agentpool.drivers import AssistantMessage, ChatMessage, ToolMessage, UserMessage
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentRecord,
    AgentSpawned,
    AgentWarned,
    CompletionReceived,
    Event,
    FellBack,
    PoolRecord,
    Reason,
    RefusedCall,
    RequestFailed,
    RequestRetried,
    ToolFinished,
    ToolStarted,
    Trace,
)
from agentpool.tools import printable

TREE_ROWS: Final = 200
"""The most agents that are shown; for more, a report is better."""

SLOWEST: Final = 5
"""The most calls that are shown."""

WARNINGS: Final = 10
"""The most warnings, early ends and errors of tools that are shown."""

ERROR_CHARACTERS: Final = 200
"""The limit for the error of a tool."""

REFUSAL_CHARACTERS: Final = 400
"""The limit for the reason of a refusal. It names the tools that exist."""

_NAME_COLUMNS: Final = 40


def overview(trace: Trace, record: PoolRecord) -> str:
    """Return a summary of the pool, as lines."""
    parts = [
        _heading(trace, record),
        _failure(trace, record),
        _early_ends(record),
        _tool_errors(record),
        _refused(record),
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
    usage_line = (
        f"{counted(bill.requests, 'request')}{failed}: "
        f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out, "
        f"{_money(bill.cost_usd)}"
    )
    name = printable(trace.header.pool)
    return [
        f"pool {name!r}{when}, run {trace.header.run_id}",
        f"{counted(len(record.agents), 'agent')}{took}: {statuses or 'none'}{ended}",
        usage_line,
        *bill.unknown_words(),
    ]


_FRAME: Final = re.compile(r'^ +File "(.*)", line', re.MULTILINE)
"""The files of a traceback."""

_OURS: Final = frozenset((*agentpool.__all__, *drivers.__all__))
"""The names of errors that are raised on purpose, among others."""


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(agentpool.__file__).parent)


def _failure(trace: Trace, record: PoolRecord) -> list[str]:
    agent = record.first_failure
    if agent is None or agent.error is None:
        return []
    kind, text, traceback = agent.error
    # Where agentpool says on purpose what is wrong is of no use to whoever reads it.
    is_ours = kind in _OURS and all(map(_is_ours, _FRAME.findall(traceback)))
    when = f", after {agent.finished_at or 0.0:.1f} s" if trace.has_times else ""
    return [f"failed first: {_who(agent)}{when}: {kind}: {printable(text)}"] + [
        f"  {visible(line)}" for line in traceback.rstrip().splitlines() if not is_ours
    ]


def _early_ends(record: PoolRecord) -> list[str]:
    """Return why agents were stopped or cancelled."""
    lines = [
        f"{agent.status}: {_who(agent)}: {printable((agent.error or ('', '', ''))[1])}"
        for agent in record.agents.values()
        if agent.status in {"stopped", "cancelled"}
    ]
    left = len(lines) - WARNINGS
    return lines[:WARNINGS] + ([f"… and {left:,} more that ended early"] if left > 0 else [])


def _tool_errors(record: PoolRecord) -> list[str]:
    """Return the errors of tool calls, and where each was raised, without repeats."""
    failed = [call for call in record.calls if call.is_error]
    lines, shown = list[str](), set[str]()
    for call in failed[:WARNINGS]:
        lines.append(failed_words(record, call))
        if call.traceback not in shown:
            shown.add(call.traceback)
            lines += [f"  {visible(line)}" for line in call.traceback.rstrip().splitlines()]
    left = len(failed) - WARNINGS
    return lines + ([f"… and {left:,} more failed calls"] if left > 0 else [])


def _refused(record: PoolRecord) -> list[str]:
    """Return the calls that were never made, and why."""
    left = len(record.refused) - WARNINGS
    lines = [refused_words(record, call) for call in record.refused[:WARNINGS]]
    return lines + ([f"… and {left:,} more refused calls"] if left > 0 else [])


def failed_words(record: PoolRecord, call: ToolFinished) -> str:
    """Return in one line which call failed, and its error."""
    who = _who(record.agents[call.agent_id])
    content = printable(call.content[:ERROR_CHARACTERS])
    return f"tool failed: {printable(call.call.name)} of {who}, turn {call.turn}: {content}"


def refused_words(record: PoolRecord, call: RefusedCall) -> str:
    """Return in one line which call was refused, and why."""
    who = _who(record.agents[call.agent_id])
    content = printable(call.content[:REFUSAL_CHARACTERS])
    return f"refused: {printable(call.name)} of {who}, turn {call.turn}: {content}"


def _tree(trace: Trace, record: PoolRecord) -> list[str]:
    title = "agent".ljust(_NAME_COLUMNS)
    lines = [f"{title}  {'status':<10}{'seconds':>9}{'turns':>7}{'tokens':>11}{'cost':>11}"]
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
    seconds = sum(i.end_seconds - i.begin_seconds for i in agent.intervals)
    took = f"{seconds:.1f}" if has_times else "?"
    cost, tokens = _money(agent.bill.cost_usd), agent.bill.tokens_words()
    columns = f"{agent.status:<10}{took:>9}{agent.turns:>7,}{tokens:>11}{cost:>11}"
    return f"{name:<{_NAME_COLUMNS}}  {columns}"


def _going_on(trace: Trace, record: PoolRecord) -> list[str]:
    """Return what the unfinished agents wait for."""
    lines = [
        f"  {_who(agent)}: {printable(agent.going_on)}"
        for agent in record.agents.values()
        if trace.has_times and agent.now is not None
    ]
    left = len(lines) - TREE_ROWS
    more = [f"… and {left:,} more that had not ended"] if left > 0 else []
    return ["waiting when the trace ends", *lines[:TREE_ROWS], *more] if lines else []


def _asked_again(record: PoolRecord) -> list[str]:
    """Return which models took over, and how many requests were repeated."""
    lines: list[str] = []
    retried: dict[int, list[RequestRetried]] = {}
    for event in record.notices:
        if isinstance(event, FellBack):
            text = event.words()[:ERROR_CHARACTERS]
            lines.append(f"fell back: {_who_is(event)} {printable(text)}")
        elif isinstance(event, RequestRetried):
            retried.setdefault(event.agent_id, []).append(event)
    for events in retried.values():
        times = "once" if len(events) == 1 else f"{len(events):,} times"
        seconds = sum(event.delay_seconds for event in events)
        text = printable(events[-1].error[:ERROR_CHARACTERS])
        lines.append(f"retried: {_who_is(events[0])} {times}, after {seconds:.1f} s: {text}")
    left = len(lines) - WARNINGS
    return lines[:WARNINGS] + ([f"… and {left:,} more of these"] if left > 0 else [])


def _model(name: str | None) -> str:
    return f"model {name}" if name else "the model"


def _seconds_of(answer: CompletionReceived) -> float:
    """Return the time of the model. Traces of earlier versions include the waits before retries."""
    seconds = answer.attempt_seconds
    return answer.duration_seconds if seconds is None else seconds


def _slowest(trace: Trace, record: PoolRecord) -> list[str]:
    if not trace.has_times:
        return []
    found = [
        (_seconds_of(answer), _model(answer.model), answer.agent_id, answer.turn, "")
        for answer in record.answers
    ]
    for agent in record.agents.values():
        cut = ", still open" if agent.outcome is None else ", cut off"
        end, agent_id = record.end_of(agent), agent.agent_id
        for asked in agent.open_requests.values():
            model = _model(asked.model or agent.spawned.model)
            found.append((end - asked.at_seconds, model, agent_id, asked.turn, cut))
        for begun in agent.open_calls.values():
            tool = f"tool {printable(begun.call.name)}"
            found.append((end - begun.at_seconds, tool, agent_id, begun.turn, cut))
    found += [
        (call.duration_seconds, f"tool {printable(call.call.name)}", call.agent_id, call.turn, "")
        for call in record.calls
        if call.duration_seconds is not None
    ]
    if not found:
        return []
    found.sort(key=lambda call: -call[0])
    return ["slowest calls"] + [
        f"  {seconds:8.2f} s  {what}, {_who(record.agents[agent_id])}, turn {turn}{cut}"
        for seconds, what, agent_id, turn, cut in found[:SLOWEST]
    ]


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
    lines = [f"warning: {_who_is(event)}: {printable(event.text)}" for event in record.warnings]
    left = len(lines) - WARNINGS
    lines = lines[:WARNINGS] + ([f"… and {left:,} more warnings"] if left > 0 else [])
    lines += [
        f"window: {_who(agent)}: {left_out(agent.outcome.messages_left_out)}"
        for agent in record.agents.values()
        if agent.outcome is not None and agent.outcome.messages_left_out
    ][:WARNINGS]
    lines += [
        f"dead letter: message {letter.message.message_id} of {letter.message.sender} to "
        f"{letter.message.recipient}: {printable(letter.reason)}"
        for letter in record.dead_letters[:WARNINGS]
    ]
    return lines + [f"this trace: {problem}" for problem in trace.problems]


def transcript(agent: AgentRecord, *, has_times: bool) -> str:
    """Return the conversation of *agent*, and where its time went."""
    lines = [f"{_who(agent)}: {agent.status}"]
    if agent.error is not None:
        lines.append(f"{agent.error[0]}: {agent.error[1]}")
    times = [f"{agent.seconds_of(r):.2f} s {r.value}" for r in Reason if agent.seconds_of(r)]
    lines += [", ".join(times) or ("it never ran" if has_times else "times unknown"), ""]
    if agent.spawned.system_prompt:
        lines += ["--- system", agent.spawned.system_prompt, ""]
    for message in agent.messages:
        lines += [*_said(message), ""]
    return "\n".join(lines)


def _said(message: ChatMessage) -> list[str]:
    match message:
        case UserMessage():
            return ["--- user", message.text, *_attached(message)]
        case AssistantMessage():
            calls = [f"calls {c.name} ({c.call_id}): {c.arguments}" for c in message.tool_calls]
            return ["--- model", *([message.text] if message.text else []), *calls]
        case ToolMessage():
            failed = ", failed" if message.is_error else ""
            heading = f"--- {message.name} ({message.call_id}){failed}"
            return [heading, message.content, *_attached(message)]
        case _:
            assert_never(message)


def _attached(message: UserMessage | ToolMessage) -> list[str]:
    return [
        f"[{one.name or 'attached'}: {one.media_type}, {len(one.data):,} bytes]"
        for one in message.attachments
    ]


def event_line(event: Event) -> str:
    """Return *event* in one line."""
    return f"{event.at_seconds:9.3f} s  {_who_is(event)}: {printable(_words(event))}"


def _words(event: Event) -> str:  # noqa: PLR0911  # one for each kind
    match event:
        case AgentSpawned():
            return f"spawned by {event.parent_id or 'the owner'}: {event.query[:60]}"
        case AgentFinished():
            error = event.outcome.error
            return event.outcome.status.value + ("" if error is None else f": {error}")
        case AgentParked():
            return f"waits for {event.waits_for}"
        case CompletionReceived():
            tokens = "?" if event.usage is None else f"{event.usage.total_tokens:,}"
            return f"answered after {event.duration_seconds:.2f} s, {tokens} tokens"
        case ToolStarted():
            return f"calls {event.call.name} {event.call.arguments[:60]}"
        case ToolFinished():
            return f"{event.call.name} {'failed' if event.is_error else 'returned'}"
        case AgentWarned():
            return event.text
        case RequestFailed():
            return f"request failed: {event.error_type}: {event.error}"
        case _:
            return type(event).__name__


def _who_is(event: Event) -> str:
    return f"{event.agent_id} {printable(event.agent_name)}" if event.agent_id else "the pool"


def _who(agent: AgentRecord) -> str:
    return f"agent {agent.agent_id} ({printable(agent.name)})"


def _money(cost_usd: float | None) -> str:
    return "? USD" if cost_usd is None else dollars(cost_usd)
