"""What is made of a trace takes time in proportion to it: a trace may be somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeAlias

import pytest

from agentpool import AgentOutcome, AgentStatus, ToolCall, UserMessage
from agentpool._cli._trace_text import overview
from agentpool._cli._transcript_text import transcript
from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    AgentStarted,
    Event,
    MessagesAdded,
    RequestFirstPiece,
    RequestStarted,
    ToolFinished,
    ToolStarted,
)
from agentpool.observe import intervals_of, render_report
from agentpool.observe._chrome import chrome_trace
from agentpool.observe._codec import event_from_json, event_to_json
from agentpool.observe._critical_path import critical_path
from agentpool.observe._difference import first_difference
from agentpool.observe._record import record_of
from agentpool.observe._trace import Trace, TraceHeader
from tests.support.growth import assert_linear

Events: TypeAlias = Sequence[Event]

HEADER = TraceHeader(run_id="ab", pool="p", opened_at=1.0, max_concurrent=2)
NUMBERS = count(1)


def spawned(n: int, parent_of: Callable[[int], int] = lambda _: 0) -> list[Event]:
    """Return the spawns of *n* agents."""
    return [AgentSpawned(next(NUMBERS), 0.0, at, f"a{at}", parent_of(at)) for at in range(1, n + 1)]


def ended(n: int, status: AgentStatus) -> list[Event]:
    """Return the ends of *n* agents, the last one first."""
    return [
        AgentFinished(
            next(NUMBERS), 1.0, at, f"a{at}",
            AgentOutcome(agent_id=at, name="a", status=status, messages=(UserMessage("a"),)),
        )
        for at in range(n, 0, -1)
    ]  # fmt: skip


def of_one(*events: Sequence[Event]) -> list[Event]:
    """Return *events* of one agent that has started."""
    started = AgentStarted(next(NUMBERS), 0.0, 1, "a1")
    return [*spawned(1), started, *(one for several in events for one in several)]


def calls(n: int) -> list[Event]:
    """Return *n* calls that begin."""
    return [
        ToolStarted(next(NUMBERS), float(at), 1, "a1", ToolCall(str(at), f"f{at}", "{}"))
        for at in range(n)
    ]


def failed(n: int) -> list[Event]:
    """Return how they fail, in the order in which they began."""
    circle = "DeadlockError: 1 (a1) asks 1 (a1)"
    return [
        ToolFinished(
            next(NUMBERS), float(n + at), 1, "a1", ToolCall(str(at), f"f{at}", "{}"),
            circle, is_error=True, error_type="DeadlockError",
        )
        for at in range(n)
    ]  # fmt: skip


def requests(n: int, sent: tuple[tuple[int, int], ...] = ()) -> list[Event]:
    """Return *n* requests that begin."""
    return [
        RequestStarted(next(NUMBERS), float(at), 1, "a1", at, 1, "m", by_tool=False, sent=sent)
        for at in range(n)
    ]


def said(n: int, times: int = 1) -> list[Event]:
    """Return *times* that *n* messages are told."""
    messages = (UserMessage("a"),) * n
    return [MessagesAdded(next(NUMBERS), 0.0, 1, "a1", 0, messages) for _ in range(times)]


TRACES: dict[str, Callable[[int], Events]] = {
    "agents side by side": spawned,
    "agents below each other, cancelled": lambda n: [
        *spawned(n, lambda at: at - 1),
        *ended(n, AgentStatus.CANCELLED),
    ],
    "agents below one, stopped": lambda n: [
        *spawned(n, lambda at: int(at > 1)),
        *ended(n, AgentStatus.STOPPED),
    ],
    "calls that have not ended": lambda n: of_one(calls(n)),
    "calls that failed": lambda n: of_one(calls(n), failed(n)),
    "requests that have not ended": lambda n: of_one(requests(n)),
    "parts of a conversation": lambda n: of_one(
        said(n), requests(1, (*((at, at) for at in range(n)), (n + 1, n + 1)))
    ),
    "messages one by one": lambda n: of_one(said(1, n)),
}


def trace_of(events: Events) -> Trace:
    """Return a trace of *events*."""
    return Trace(header=HEADER, events=tuple(events))


READERS: dict[str, Callable[[Events], object]] = {
    "intervals": intervals_of,
    "report page": lambda events: render_report(trace_of(events)),
    "overview": lambda events: overview(trace_of(events), record_of(events)),
    "Chrome's format": lambda events: chrome_trace(HEADER, record_of(events)),
    "critical path": lambda events: critical_path(record_of(events)),
    "difference": lambda events: first_difference(events, events),
    "events as JSON": lambda events: [event_from_json(event_to_json(one)) for one in events],
    "transcript": lambda events: [
        transcript(agent, has_times=True) for agent in record_of(events).agents.values()
    ],
}
HARD: dict[str, tuple[str, ...]] = {
    "intervals": ("calls that have not ended", "calls that failed", "requests that have not ended"),
    "report page": tuple(TRACES),
    "overview": ("agents below each other, cancelled", "calls that failed"),
    "Chrome's format": ("agents below one, stopped",),
    "critical path": ("agents below each other, cancelled", "requests that have not ended"),
    "difference": ("calls that failed",),
    "events as JSON": ("messages one by one",),
    "transcript": ("messages one by one", "calls that have not ended"),
}
"""The traces that could be hard for each."""


@pytest.mark.parametrize(
    ("reader", "kind"), [(reader, kind) for reader, kinds in HARD.items() for kind in kinds]
)
def test_a_trace_is_read_in_proportion(reader: str, kind: str) -> None:
    """A trace of a thousand open calls named all of them in each of a thousand intervals."""
    assert_linear(READERS[reader], TRACES[kind])


def test_of_many_calls_at_once_the_number_is_told() -> None:
    """And of few their names."""
    intervals = intervals_of(of_one(calls(22)))[1]
    details = [one.detail for one in intervals]
    assert details[1] == "f0, f1"
    assert details[-2:] == [", ".join(f"f{at}" for at in range(20)), "21 calls"]


def test_an_answer_arrives_as_long_as_one_of_several_does() -> None:
    """A request may begin and speak twice in a damaged trace."""
    first, second = requests(2)
    pieces = [
        RequestFirstPiece(next(NUMBERS), at, 1, "a1", one.sequence, 1.0)
        for at, one in ((2.0, first), (3.0, first), (4.0, second))
    ]
    reasons = intervals_of(of_one([first, second], pieces, [first], requests(1)))[1]
    assert [one.reason.value for one in reasons][-1] == "answer"
