"""Sums up a pool and its agents in numbers, computed from events alone.

The terminal, the report and everything else that shows a trace use these numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, final

import msgspec

from agentpool._base import Record
from agentpool._checks import expect_arguments
from agentpool._errors import RecordedError, traceback_text
from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    ApprovalGiven,
    BudgetNear,
    BudgetReached,
    CompletionReceived,
    Event,
    EventsMissed,
    FellBack,
    GateChanged,
    MessageDropped,
    MessagesAdded,
    MessageSent,
    RequestFailed,
    RequestRetried,
    RequestStarted,
    SlotsChanged,
    ToolFinished,
    ToolStarted,
)
from agentpool._messages import OWNER_ID, AgentId, AssistantMessage, ChatMessage, Usage
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool.observe._begun_answer import BegunAnswer
from agentpool.observe._bill import Bill
from agentpool.observe._intervals import Interval, Life, Reason
from agentpool.observe._refused_calls import Refusals, RefusedCall
from agentpool.observe._window_marks import LostSummary, WindowMarks, lost_summaries

Notice: TypeAlias = (
    ApprovalGiven
    | BudgetNear
    | BudgetReached
    | EventsMissed
    | FellBack
    | GateChanged
    | RequestRetried
    | SlotsChanged
)
"""An event that explains the course of a run."""

OPEN: Final = "open"
"""The status of an agent whose end is not in the trace."""

_GOING_ON: Final = {
    Reason.QUEUED: "waits for a slot",
    Reason.MODEL: "waits for its model, which has not said a word",
    Reason.ANSWER: "waits for its model, which writes",
    Reason.OWN: "its own code runs",
}
"""What an agent does, for the reasons that need no further detail."""


@final
class AgentRecord(Record):
    """One agent, as far as the trace shows it."""

    agent_id: AgentId
    """Its number."""
    spawned: AgentSpawned
    """The event of its spawn, with its query."""
    parent_id: AgentId = OWNER_ID
    """The earlier agent that spawned it. `OWNER_ID`: the owner, or an agent that is not in the
    trace."""
    started_at: float | None = None
    """When it got its first slot. ``None``: it never had one."""
    finished_at: float | None = None
    """When it ended. ``None``: its end is not in the trace."""
    outcome: AgentOutcome | None = None
    """Its outcome. ``None``: it is not in the trace."""
    turns: int = 0
    """The number of its turns."""
    bill: Bill = msgspec.field(default_factory=Bill)
    """The known, unknown and estimated usage of its requests and of its tools' requests."""
    tool_calls: int = 0
    """Tool calls that ran."""
    failed_calls: int = 0
    """Tool calls that ran and failed."""
    refused_calls: int = 0
    """Tool calls that the model asked for and that never ran: not granted, unknown or not
    approved."""
    sent: tuple[tuple[int, int], ...] = ()
    """Which messages of the conversation the last request sent, by their places."""
    earlier_answers: int = 0
    """How many answers were in its conversation before its first turn."""
    children: list[AgentId] = []  # noqa: RUF012  # each has its own
    """The agents that it spawned."""
    messages: list[ChatMessage] = []  # noqa: RUF012  # each has its own
    """Its conversation."""
    intervals: tuple[Interval, ...] = ()
    """Where its time went."""
    open_requests: dict[int, RequestStarted] = {}  # noqa: RUF012  # each has its own
    """Attempts to ask a model whose end is not in the trace, by their ``sequence``."""
    open_calls: dict[str, ToolStarted] = {}  # noqa: RUF012  # each has its own
    """Tool calls whose end is not in the trace, by their ids."""
    now: Interval | None = None
    """What the agent was doing when the trace ended, and since when. ``None``: it had ended."""
    life: Life = msgspec.field(default_factory=lambda: Life(0.0))
    """Collects the intervals."""
    refusals: Refusals = msgspec.field(default_factory=Refusals)
    """Finds the refused calls."""
    window: WindowMarks = msgspec.field(default_factory=WindowMarks)
    """The messages of its conversation that are no longer sent, or only as a stub."""
    begun: BegunAnswer = msgspec.field(default_factory=BegunAnswer)
    """The part that had arrived of an answer whose end is not in the trace."""

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.spawned.agent_name

    @property
    def status(self) -> str:
        """How the agent ended. ``open``: the trace does not show its end."""
        return OPEN if self.outcome is None else self.outcome.status.value

    @property
    def error(self) -> tuple[str, str, str] | None:
        """Type, text and traceback of the agent's error. ``None``: it had none."""
        error = None if self.outcome is None else self.outcome.error
        if error is None:
            return None
        if isinstance(error, RecordedError):
            return error.kind, str(error), error.traceback
        return type(error).__name__, str(error), traceback_text(error)

    @property
    def error_words(self) -> str:
        """The text of its error, without repeating the agent's name. Empty: it had no error."""
        text = "" if self.error is None else self.error[1]
        return text.removeprefix(f"agent {self.agent_id} ({self.name}) was {self.status} ")

    @property
    def requests(self) -> int:
        """Requests to models, including those of its tools and to each driver of a fallback."""
        return self.bill.requests

    @property
    def failed_requests(self) -> int:
        """Requests that got no complete answer: retried, refused or given up."""
        return self.bill.failed

    @property
    def usage(self) -> Usage:
        """The known tokens, plus an estimate for the text of requests that broke off."""
        return self.bill.usage

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all its requests. ``None``: the cost of some requests is unknown."""
        return self.bill.cost_usd

    @property
    def unpriced(self) -> int:
        """Requests whose cost is unknown."""
        return self.bill.unpriced

    @property
    def going_on(self) -> str:
        """What the agent does when the trace ends, and since when. Empty: it has ended."""
        now = self.now
        if now is None:
            return ""
        words = _GOING_ON.get(now.reason)
        if now.reason is Reason.TOOL:
            words = f"runs {now.detail}"
        elif words is None:
            calls = ", ".join(
                f"{one.call.name}, turn {one.turn}" for one in self.open_calls.values()
            )
            words = f"waits for {now.detail}" + (f", in {calls}" if calls else "")
        seconds = now.end_seconds - now.begin_seconds
        return f"{words}; since {now.begin_seconds:.2f} s, for {seconds:.2f} s"

    @property
    def queued_and_ran(self) -> tuple[float, float]:
        """Seconds until its first slot, and seconds from then to its end, including later waits."""
        if not self.intervals:
            return 0.0, 0.0
        begin, end = self.intervals[0].begin_seconds, self.intervals[-1].end_seconds
        started = end if self.started_at is None else self.started_at
        return started - begin, end - started

    def seconds_of(self, reason: Reason) -> float:
        """Return the seconds spent on *reason*."""
        return sum(i.end_seconds - i.begin_seconds for i in self.intervals if i.reason is reason)


@final
class ToolRecord(Record):
    """One tool, over all agents."""

    name: str
    """Its name."""
    calls: int = 0
    """Calls that ended."""
    failed: int = 0
    """Tool calls that ran and failed."""
    open: int = 0
    """Calls that began and whose end is not in the trace."""
    seconds: list[float] = []  # noqa: RUF012  # each has its own
    """The durations of the calls whose start is in the trace."""

    def percentile(self, part: float) -> float | None:
        """Return the duration that *part* of its calls did not exceed. ``None``: no calls."""
        ordered = sorted(self.seconds)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else None


@final
class PoolRecord(Record):
    """A pool, as far as the trace shows it."""

    agents: dict[AgentId, AgentRecord] = {}  # noqa: RUF012  # each has its own
    """All agents, in spawn order."""
    tools: dict[str, ToolRecord] = {}  # noqa: RUF012  # each has its own
    """All tools that were called."""
    warnings: list[AgentWarned] = []  # noqa: RUF012  # each has its own
    """Warnings: a limit was near, or a problem was tolerated."""
    messages: list[MessageSent] = []  # noqa: RUF012  # each has its own
    """The messages between agents."""
    dead_letters: list[MessageDropped] = []  # noqa: RUF012  # each has its own
    """Messages that were never received."""
    answers: list[CompletionReceived] = []  # noqa: RUF012  # each has its own
    """Answers of models."""
    calls: list[ToolFinished] = []  # noqa: RUF012  # each has its own
    """Tool calls that ended."""
    refused: list[RefusedCall] = []  # noqa: RUF012  # each has its own
    """Tool calls that never ran, because they were refused."""
    notices: list[Notice] = []  # noqa: RUF012  # each has its own
    """Events that explain the course: retries, fallbacks, approvals, limits, gates, slots and
    gaps."""
    seconds: float = 0.0
    """When the last event happened, in seconds since the pool opened."""
    first_failure: AgentRecord | None = None
    """The agent that failed first. ``None``: no agent failed."""

    @property
    def bill(self) -> Bill:
        """The usage of all requests: known, unknown and estimated."""
        total = Bill()
        for agent in self.agents.values():
            total.add(agent.bill)
        return total

    @property
    def usage(self) -> Usage:
        """The known tokens of all requests."""
        return self.bill.usage

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all requests. ``None``: the cost of some requests is unknown."""
        return self.bill.cost_usd

    def end_of(self, agent: AgentRecord) -> float:
        """Return when *agent* ended, or if the agent had not ended, when the trace ends."""
        return self.seconds if agent.finished_at is None else agent.finished_at

    def roots(self) -> Iterator[AgentRecord]:
        """Yield the agents whose parent is the owner or not in the trace."""
        for agent in self.agents.values():
            if agent.parent_id == OWNER_ID:
                yield agent

    def with_children(self) -> dict[AgentId, Bill]:
        """Return the usage of each agent's own requests and of its descendants' requests."""
        found: dict[AgentId, Bill] = {}
        # Who was spawned comes after who spawned it.
        for agent in reversed(self.agents.values()):
            found[agent.agent_id] = total = Bill()
            total.add(agent.bill)
            for child in agent.children:
                total.add(found[child])
        return found

    def _unmeasured_of(self, children: Iterable[AgentId]) -> int:
        outcomes = (self.agents[child].outcome for child in children)
        return sum(one.unmeasured_requests for one in outcomes if one is not None)

    def lost_summaries(self) -> list[LostSummary]:
        """Return why agents got no summary of what had left their windows, each reason once."""
        return [one for agent in self.agents.values() for one in lost_summaries(agent.window)]

    def take(self, event: Event) -> None:
        """Handle *event*."""
        self.seconds = max(self.seconds, event.at_seconds)
        # A file may say of an agent twice that it was spawned, or that it spawned itself.
        if isinstance(event, AgentSpawned) and event.agent_id not in self.agents:
            parent = self.agents.get(event.parent_id)
            self.agents[event.agent_id] = AgentRecord(
                event.agent_id,
                event,
                parent_id=OWNER_ID if parent is None else parent.agent_id,
                life=Life(event.at_seconds),
            )
            if parent is not None:
                parent.children.append(event.agent_id)
        if isinstance(event, Notice):
            self.notices.append(event)
        agent = self.agents.get(event.agent_id)
        if agent is not None:
            agent.life.take(event)
            refused = agent.refusals.take(event, agent.turns, len(agent.messages))
            agent.refused_calls += len(refused)
            self.refused += refused
            agent.window.take(event, len(agent.messages))
            agent.begun.take(event)
            self._agent(agent, event)
        elif isinstance(event, MessageSent) and event.agent_id == OWNER_ID:
            self.messages.append(event)
        elif isinstance(event, MessageDropped):
            self.dead_letters.append(event)

    def _agent(self, agent: AgentRecord, event: Event) -> None:  # noqa: C901, PLR0912  # one for each kind
        match event:
            case AgentStarted():
                agent.started_at = event.at_seconds
            case MessagesAdded():
                agent.messages.extend(event.messages)
            case RequestStarted():
                agent.bill.take(event)
                agent.turns = max(agent.turns, event.turn)
                if event.sent and not agent.sent:
                    answers = sum(isinstance(one, AssistantMessage) for one in agent.messages)
                    agent.earlier_answers = answers - event.turn + 1
                agent.sent = event.sent or agent.sent
                agent.open_requests[event.sequence] = event
            case RequestFailed():
                agent.bill.take(event)
                agent.open_requests.pop(event.request_id, None)
            case CompletionReceived():
                agent.bill.take(event)
                self.answers.append(event)
                agent.open_requests.pop(event.request_id, None)
            case ToolStarted():
                agent.open_calls[event.call.call_id] = event
                self._tool(event.call.name).open += 1
            case ToolFinished():
                self._called(agent, event)
            case AgentWarned():
                self.warnings.append(event)
            case MessageSent():
                self.messages.append(event)
            case MessageDropped():
                self.dead_letters.append(event)
            case AgentFinished(outcome=outcome):
                agent.finished_at, agent.outcome = event.at_seconds, outcome
                agent.messages = list(outcome.messages)
                agent.bill.end(outcome, self._unmeasured_of(agent.children))
                if outcome.status is AgentStatus.FAILED and self.first_failure is None:
                    self.first_failure = agent
            case _:
                pass

    def _called(self, agent: AgentRecord, event: ToolFinished) -> None:
        self.calls.append(event)
        agent.tool_calls += 1
        agent.failed_calls += event.is_error
        tool = self._tool(event.call.name)
        if agent.open_calls.pop(event.call.call_id, None) is not None:
            tool.open -= 1
        tool.calls += 1
        tool.failed += event.is_error
        if event.duration_seconds is not None:
            tool.seconds.append(event.duration_seconds)

    def _tool(self, name: str) -> ToolRecord:
        return self.tools.setdefault(name, ToolRecord(name))


def record_of(events: Iterable[Event]) -> PoolRecord:
    """Compute the record of a pool from its *events*."""
    expect_arguments(record_of, locals())
    record = PoolRecord()
    for event in events:
        record.take(event)
    for agent in record.agents.values():
        if agent.outcome is None:
            agent.now = agent.life.going_on(record.seconds)
            agent.bill.leave_open(len(agent.open_requests))
        agent.intervals = agent.life.done(record.seconds)
    return record
