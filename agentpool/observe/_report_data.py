"""The data of a report page, as JSON that is safe inside HTML.

Agents are written as lists without field names, since the names would make up most of the page.
``report.js`` knows the meaning of each place in a list.
"""

from __future__ import annotations

from typing import Final, assert_never, final

import msgspec

from agentpool._amounts import counted
from agentpool._messages import (
    AgentId,
    AssistantMessage,
    ChatMessage,
    Json,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.observe._codec import unicode_text
from agentpool.observe._critical_path import critical_path
from agentpool.observe._intervals import Reason
from agentpool.observe._record import AgentRecord, PoolRecord
from agentpool.observe._slow_calls import slowest_calls
from agentpool.observe._trace import Trace

MAX_TEXT: Final = 20_000
"""The most characters of one text. The trace has the whole text."""

MAX_TEXTS: Final = 30_000_000
"""The most characters of all texts. A page with this many opens in a few seconds and takes 500
MB."""

MAX_INTERVALS: Final = 1_500_000
"""The most intervals of all agents together: with more, a page would open too slowly."""

SLOWEST: Final = 100
"""How many of the slowest calls are listed."""

_REASONS: Final = list(Reason)


def report_data(trace: Trace, record: PoolRecord) -> tuple[str, list[str]]:
    """Return the data of the page, and notes about what is left out."""
    building = _Building(record)
    agents = [building.agent(agent) for agent in record.agents.values()]
    data = {
        "seconds": record.seconds if trace.has_times else None,
        "slots": trace.header.max_concurrent,
        "reasons": [reason.value for reason in _REASONS],
        "agents": agents,
        "words": [building.text(word) for word in building.words],
        "tools": [
            [
                building.text(tool.name),
                tool.calls,
                tool.failed,
                tool.percentile(0.5),
                tool.percentile(0.95),
            ]
            for tool in record.tools.values()
        ],
        "models": _models(record),
        "slow": [
            [
                building.text(call.subject),
                call.agent_id,
                call.turn,
                call.begun_at,
                call.seconds,
                call.ending,
            ]
            for call in slowest_calls(record, SLOWEST)
        ],
        "messages": _messages(record),
        "path": [[s.agent_id, s.begin_seconds, s.end_seconds] for s in critical_path(record)],
        "marks": [
            [event.at_seconds, event.agent_id, type(event).__name__] for event in record.notices
        ],
    }
    text = msgspec.json.encode(data).decode()
    # The end of a script element is found by the letters alone.
    return text.replace("<", "\\u003c").replace(">", "\\u003e"), building.problems()


class _Building:
    """Limits the size of a page, and counts what is left out."""

    __slots__ = ("_durations", "_intervals", "_left_out", "_sums", "_texts", "words")

    def __init__(self, record: PoolRecord) -> None:
        self._sums = record.with_children()
        self._durations = _Durations(record)
        self._intervals = self._texts = self._left_out = 0
        self.words: dict[str, int] = {}
        """Texts that many agents share, with their places in the data."""

    def agent(self, agent: AgentRecord) -> list[object]:
        """Return the data of one agent."""
        own, total = agent.bill, self._sums[agent.agent_id]
        error = agent.error
        outcome = agent.outcome
        reason = None if outcome is None else outcome.stop_reason
        return [
            agent.agent_id,
            self.text(agent.name),
            agent.parent_id,
            agent.status,
            [agent.spawned.at_seconds, agent.started_at, agent.finished_at],
            agent.turns,
            [own.requests, own.failed],
            [
                own.usage.input_tokens,
                own.usage.output_tokens,
                own.usage.cached_tokens,
                own.unmeasured,
                own.unknown_words(),
            ],
            _rounded(own.cost_usd),
            [total.usage.total_tokens, _rounded(total.cost_usd), total.unmeasured],
            [agent.tool_calls, agent.failed_calls],
            self.text(agent.spawned.query),
            self._word(agent.spawned.system_prompt),
            None if error is None else [self.text(part) for part in error],
            "" if reason is None else reason.value,
            self._intervals_of(agent),
            self._conversation(agent),
            [
                [mark.place, mark.turn, self.text(mark.cut.words()), self.text(mark.cut.summary)]
                for mark in agent.window.cuts
            ],
            [self.text(agent.begun.thoughts), self.text(agent.begun.text)],
            self._durations.failed.get(agent.agent_id, []),
        ]

    def _intervals_of(self, agent: AgentRecord) -> list[float]:
        flat: list[float] = []
        self._intervals += len(agent.intervals)
        if self._intervals > MAX_INTERVALS:
            return flat
        for one in agent.intervals:
            word = self._word(one.detail)
            target = one.target_id or 0
            flat += (round(one.begin_seconds, 6), _REASONS.index(one.reason), word, target)
        if agent.intervals:
            flat.append(round(agent.intervals[-1].end_seconds, 6))
        return flat

    def _conversation(self, agent: AgentRecord) -> list[object]:
        if self._texts > MAX_TEXTS:
            self._left_out += bool(agent.messages)
            return []
        turn, marks, found = -agent.earlier_answers, agent.window, list[object]()
        for place, message in enumerate(agent.messages):
            turn += isinstance(message, AssistantMessage)
            # Answers of earlier runs have no turn, and no time.
            found.append(
                [
                    *self._message(message, agent.agent_id, max(turn, 0)),
                    marks.stubs.get(place, 0),
                    marks.gone.get(place, 0),
                ]
            )
        return found

    def _message(self, message: ChatMessage, agent_id: AgentId, turn: int) -> list[Json]:
        """Return the kind, the text, the calls or the call's id, the turn and the seconds."""
        match message:
            case UserMessage():
                return ["user", self.text(message.text + _attached(message)), "", turn, None]
            case AssistantMessage():
                took = self._durations.answers.get((agent_id, turn))
                calls = [self._call(call, agent_id, turn) for call in message.tool_calls]
                return ["model", self.text(message.text), calls, turn, took]
            case ToolMessage():
                kind = "failed" if message.is_error else "tool"
                text = self.text(message.content + _attached(message))
                return [kind, text, message.call_id, turn, None]
            case _:
                assert_never(message)

    def _call(self, call: ToolCall, agent_id: AgentId, turn: int) -> list[Json]:
        took = self._durations.calls.get((agent_id, turn, call.call_id))
        return [call.call_id, self.text(call.name), self.text(call.arguments), took]

    def text(self, text: str) -> str:
        """Return *text*, shortened."""
        self._texts += min(len(text), MAX_TEXT)
        text = unicode_text(text)
        if len(text) <= MAX_TEXT:
            return text
        return f"{text[:MAX_TEXT]}… [{len(text) - MAX_TEXT:,} more characters in the trace]"

    def _word(self, text: str) -> int:
        if text not in self.words:
            self._texts += len(text)
            self.words[text] = len(self.words)
        return self.words[text]

    def problems(self) -> list[str]:
        """Return notes about what is left out."""
        found: list[str] = []
        if self._left_out:
            found.append(
                f"the conversations of {counted(self._left_out, 'agent')} are left out; see --agent"
            )
        if self._intervals > MAX_INTERVALS:
            found.append("the times of some agents are left out: there are too many")
        return found


def _rounded(cost_usd: float | None) -> float | None:
    return None if cost_usd is None else round(cost_usd, 9)


def _attached(message: UserMessage | ToolMessage) -> str:
    """Return a placeholder for the attachments of *message*: images would make the page heavy."""
    return "".join(
        f"\n[{one.name or 'attached'}: {one.media_type}, {len(one.data):,} bytes]"
        for one in message.attachments
    )


@final
class _Durations:
    """How long answers and calls took, and when failed calls ran."""

    __slots__ = ("answers", "calls", "failed")

    def __init__(self, record: PoolRecord) -> None:
        self.answers: dict[tuple[AgentId, int], float] = {}
        self.calls: dict[tuple[AgentId, int, str], float] = {}
        self.failed: dict[AgentId, list[list[float]]] = {}
        for answer in record.answers:
            took = answer.attempt_seconds
            if not answer.by_tool:
                took = answer.duration_seconds if took is None else took
                self.answers[answer.agent_id, answer.turn] = round(took, 6)
        for call in record.calls:
            took = call.duration_seconds
            if took is not None:
                self.calls[call.agent_id, call.turn, call.call.call_id] = round(took, 6)
            if call.is_error:
                at = call.at_seconds
                self.failed.setdefault(call.agent_id, []).append([at - (took or 0.0), at])


def _models(record: PoolRecord) -> list[list[object]]:
    """Return the name, answers, tokens, cost and times of each model."""
    by_name: dict[str, list[object]] = {}
    times: dict[str, tuple[list[float], list[float]]] = {}
    for answer in record.answers:
        where = f" on {answer.node}" if answer.node else ""
        name = unicode_text(f"{answer.model or '(not said)'}{where}")
        row = by_name.setdefault(name, [name, 0, 0, 0, 0, 0.0, None, None])
        usage = answer.usage
        numbers = (None, None, None) if usage is None else (
            usage.input_tokens, usage.output_tokens, usage.cached_tokens
        )  # fmt: skip
        row[1] = _sum(row[1], 1)
        for place, number in enumerate(numbers, 2):
            row[place] = _sum(row[place], number)
        row[5] = _sum(row[5], answer.cost_usd)
        wholes, firsts = times.setdefault(name, ([], []))
        alone = answer.attempt_seconds
        wholes.append(answer.duration_seconds if alone is None else alone)
        if answer.first_piece_seconds is not None:
            firsts.append(answer.first_piece_seconds)
    for name, (wholes, firsts) in times.items():
        by_name[name][6:] = [_middle(wholes), _middle(firsts)]
    return list(by_name.values())


def _sum(so_far: object, more: float | None) -> float | None:
    """Return the sum of the parts. ``None``: one of the parts is unknown."""
    return None if more is None or not isinstance(so_far, int | float) else so_far + more


def _middle(seconds: list[float]) -> float | None:
    return sorted(seconds)[len(seconds) // 2] if seconds else None


def _messages(record: PoolRecord) -> list[list[object]]:
    dead = {letter.message.message_id: letter.reason for letter in record.dead_letters}
    return [
        [
            sent.at_seconds,
            sent.message.sender,
            sent.message.recipient,
            sent.message.message_id,
            sent.message.reply_to,
            unicode_text(sent.message.content[:MAX_TEXT]),
            dead.get(sent.message.message_id, ""),
        ]
        for sent in record.messages
    ]
