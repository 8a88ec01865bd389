"""The current activity of each agent: an observer for the progress display.

The observer only takes notes. The display reads these when it has time, so no agent ever waits for
a terminal.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, assert_never, final

import attrs
import trio

from agentpool._base import Unique
from agentpool._checks import Checked, expect_arguments
from agentpool._errors import DeadlockError
from agentpool._events import (
    AgentFinished,
    AgentParked,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    CompletionReceived,
    Event,
    Phase,
    PhaseChanged,
    RequestRetried,
    TextDelta,
    ToolFinished,
)
from agentpool._messages import OWNER_ID, AgentId
from agentpool._one_line import printable
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool.abc import Observer

TAIL_CHARACTERS: Final = 200
"""The most characters of an agent's last words. This is wider than the column on any terminal."""

# Long enough to even out an answer that comes in bursts, short enough to show that the
# model has slowed down.
RATE_SECONDS: Final = 5.0

CHARACTERS_PER_TOKEN: Final = 4
"""Roughly right for English. Used only until the provider reports the tokens."""

_PHASES: Final = {Phase.PERCEIVE: "looks", Phase.REASON: "thinks", Phase.DONE: "done"}
"""The word for each phase. For ``ACT``, the name of the tool is shown instead."""


@final
@attrs.define(eq=False)
class _Row:
    """One running agent."""

    name: str
    since: float
    phase: str = "starts"
    phase_before: str = ""
    tokens: int = 0
    characters: int = 0
    tail: str = ""

    @property
    def tokens_so_far(self) -> int:
        return self.tokens + -(-self.characters // CHARACTERS_PER_TOKEN)


@final
@attrs.frozen(kw_only=True)
class AgentView:
    """One running agent, as the display shows it."""

    agent_id: AgentId
    """Its number."""
    name: str
    """Its name."""
    phase: str
    """What the agent does, in a few words."""
    seconds: float
    """Seconds since it got its first slot."""
    tokens: int
    """How many tokens it has written. While it writes, this is an estimate."""
    last_words: str
    """The end of the agent's last text, on one line."""


@final
@attrs.frozen(kw_only=True)
class BoardView:
    """Everything that the display shows, at one moment."""

    agents: tuple[AgentView, ...]
    """The running agents, in the order of their starts."""
    done: int
    """Agents that completed."""
    failed: int
    """Agents that failed, and inputs that could not be read."""
    ended_otherwise: int
    """Agents that were stopped or cancelled."""
    queued: int
    """Agents that have not started."""
    tokens: int
    """The tokens written so far."""
    tokens_per_second: float
    """The rate over the last few seconds."""
    loading: str = ""
    """What is being loaded, such as a model. Empty: nothing."""
    loading_seconds: float = 0.0
    """How long the loading has taken so far."""
    keys: str = ""
    """Which keys do what, in words. Empty: no keys are read."""


@final
@attrs.frozen
class Line:
    """One event in words, for output without a display."""

    text: str
    """The text."""
    notable: bool
    """Whether the line is also shown beside a display."""


MOST_LINES: Final = 10_000
"""Lines of a board that wait to be written. A board whose lines nobody takes keeps the newest."""


@final
@attrs.define(eq=False, repr=False)
class Board(Checked, Unique, Observer):
    """Stores what a display shows of a pool. Pass it to ``open_pool(observers=…)``.

    It only takes notes, so no agent waits for the display.

    >>> import trio
    >>> from agentpool import AgentManifest, SpawnConfig, open_pool
    >>> from agentpool.drivers import ScriptedDriver
    >>> from agentpool.live import counts_line
    >>> async def main() -> None:
    ...     board = Board()
    ...     async with open_pool(ScriptedDriver(["Hello!"]), observers=[board]) as pool:
    ...         await pool.spawn(SpawnConfig(AgentManifest(), "Say hello"))
    ...     print(counts_line(board.look()).split(" · ")[0])
    >>> trio.run(main)
    1 done, 0 running, 0 queued
    """

    total: int | None = None
    """How many agents there will be, including inputs that cannot be read. ``None``: the number of
    agents that have been spawned."""
    keys: str = ""
    """Which keys do what, in words, for the last line. Empty: no keys are read."""
    _spawned: int = attrs.field(init=False, default=0)
    """Agents that are counted in addition to ``total``."""
    _loading: str = attrs.field(init=False, default="")
    _loading_since: float = attrs.field(init=False, default=0.0)
    deadlocks: int = attrs.field(init=False, default=0)
    """How often an agent got a deadlock error."""
    elsewhere: dict[int, BoardView] = attrs.field(init=False, factory=dict[int, BoardView])
    """Agents in other processes, as far as their state is known, under a number for each
    process."""
    _rows: dict[AgentId, _Row] = attrs.field(init=False, factory=dict[AgentId, _Row])
    _ended: Counter[AgentStatus] = attrs.field(init=False, factory=Counter[AgentStatus])
    _tokens: int = attrs.field(init=False, default=0)
    _samples: deque[tuple[float, int]] = attrs.field(init=False, factory=deque[tuple[float, int]])
    _lines: deque[Line] = attrs.field(init=False, factory=lambda: deque[Line](maxlen=MOST_LINES))
    _left_out: int = attrs.field(init=False, default=0)
    _news: trio.Event = attrs.field(init=False, factory=trio.Event)

    def on_event(self, event: Event) -> None:
        """Record *event*."""
        match event:
            case AgentSpawned(parent_id=parent_id):
                # The children of agents come on top of what was to be done.
                self._spawned += self.total is None or parent_id != OWNER_ID
            case AgentStarted():
                self._rows[event.agent_id] = _Row(event.agent_name, trio.current_time())
                self.say(f"{event.agent_name} started")
            case AgentFinished(outcome=outcome):
                self._finished(event.agent_id, outcome)
            case (
                TextDelta() | PhaseChanged() | CompletionReceived() | AgentParked() | AgentResumed()
            ):
                if event.agent_id in self._rows:
                    _update(self._rows[event.agent_id], event)
            case RequestRetried():
                when = f"in {event.delay_seconds:.1f} s"
                self.say(f"{event.agent_name} asks again {when}: {event.error}", notable=True)
            case ToolFinished(error_type="DeadlockError"):
                self.deadlocks += 1
            case AgentWarned():
                self.say(f"{event.agent_name}: {event.text}", notable=True)
            case _:
                pass

    def _finished(self, agent_id: AgentId, outcome: AgentOutcome) -> None:
        row = self._rows.pop(agent_id, None)
        self._ended[outcome.status] += 1
        self.deadlocks += isinstance(outcome.error, DeadlockError)
        # What it wrote itself: its outcome has what its children wrote as well.
        written = outcome.usage.output_tokens if row is None else row.tokens_so_far
        self._tokens += written
        # One that never started has nothing to tell; the summary counts it.
        if row is not None:
            seconds = trio.current_time() - row.since
            status = outcome.status.value
            if outcome.status is AgentStatus.STOPPED and outcome.stop_reason is not None:
                status = f"{status} ({outcome.stop_reason.value})"
            self.say(f"{row.name} {status} after {seconds:.1f} s, {written} tokens")

    def unreadable(self, line: str) -> None:
        """Count an input that no agent can be made for."""
        expect_arguments(Board.unreadable, locals())
        self.count(AgentStatus.FAILED)
        self.say(line)

    def count(self, status: AgentStatus, tokens: int = 0) -> None:
        """Count an agent that ended in another process, and its tokens."""
        expect_arguments(Board.count, locals())
        self._ended[status] += 1
        self._tokens += tokens

    def say(self, text: str, *, notable: bool = False) -> None:
        """Queue a line to be written."""
        expect_arguments(Board.say, locals())
        line = f"[{self._ended.total()}/{self._expected}] {printable(text)}"
        self._left_out += len(self._lines) == MOST_LINES
        self._lines.append(Line(line, notable))
        self._news.set()

    def load(self, what: str) -> None:
        """Show that *what* is being loaded. Pass an empty text when loading is done."""
        expect_arguments(Board.load, locals())
        self._loading, self._loading_since = printable(what), trio.current_time()
        if what:
            self.say(f"loads {what}")

    @property
    def _expected(self) -> int:
        return (self.total or 0) + self._spawned

    async def note(self, text: str) -> None:
        """Queue a line that is shown even beside a display."""
        expect_arguments(Board.note, locals())
        await trio.lowlevel.checkpoint()
        self.say(text, notable=True)

    async def wait_lines(self) -> None:
        """Wait until there are new lines to write."""
        await self._news.wait()

    def take_lines(self) -> list[Line]:
        """Return the lines that are not written yet.

        If they are more than 10,000, the first of them says how many older ones were left out.
        """
        lines = list(self._lines)
        if self._left_out:
            text = f"[...] {self._left_out:,} lines before this one were left out"
            lines.insert(0, Line(text, notable=True))
        self._lines.clear()
        self._left_out, self._news = 0, trio.Event()
        return lines

    def look(self) -> BoardView:
        """Return a snapshot."""
        now = trio.current_time()
        agents = tuple(
            AgentView(
                agent_id=agent_id,
                name=row.name,
                phase=row.phase,
                seconds=now - row.since,
                tokens=row.tokens_so_far,
                last_words=row.tail,
            )
            for agent_id, row in self._rows.items()
        )
        agents += tuple(agent for view in self.elsewhere.values() for agent in view.agents)
        tokens = self._tokens + sum(agent.tokens for agent in agents)
        ended = self._ended
        return BoardView(
            agents=agents,
            done=ended[AgentStatus.COMPLETED],
            failed=ended[AgentStatus.FAILED],
            ended_otherwise=ended[AgentStatus.STOPPED] + ended[AgentStatus.CANCELLED],
            queued=max(0, self._expected - ended.total() - len(agents)),
            tokens=tokens,
            tokens_per_second=self._rate(now, tokens),
            loading=self._loading,
            loading_seconds=now - self._loading_since if self._loading else 0.0,
            keys=self.keys,
        )

    def _rate(self, now: float, tokens: int) -> float:
        """Return the tokens per second of the last few seconds."""
        samples = self._samples
        samples.append((now, tokens))
        while len(samples) > 1 and now - samples[0][0] > RATE_SECONDS:
            samples.popleft()
        since, before = samples[0]
        # An estimate may turn out to have been too high; a speed is never below zero.
        return max(0, tokens - before) / (now - since) if now > since else 0.0


def _update(
    row: _Row, event: TextDelta | PhaseChanged | CompletionReceived | AgentParked | AgentResumed
) -> None:
    match event:
        case TextDelta(text=text):
            row.phase = "writes"
            row.characters += len(text)
            row.tail = " ".join((row.tail + text).split(" "))[-TAIL_CHARACTERS:]
        case PhaseChanged(phase=phase, tool_name=tool_name):
            row.phase = _PHASES.get(phase, tool_name)
        case CompletionReceived(usage=usage):
            if usage is not None:
                row.tokens += usage.output_tokens
                row.characters = 0
        case AgentParked(waits_for=waits_for):
            row.phase_before, row.phase = row.phase, f"waits for {waits_for}"
        case AgentResumed():
            row.phase = row.phase_before
        case _:
            assert_never(event)
