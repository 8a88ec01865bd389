"""Puts a pool into a guest run, together with a model of the pool, for state machines.

Between two rules no task runs, so the invariants see the pool at one moment. The model knows only
what the machine did, and the pool's events. The pool's own statistics must agree with these.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final

import trio

from agentpool._errors import (
    AgentPoolError,
    DeadlockError,
    MessageError,
    PoolClosedError,
    PoolError,
)
from agentpool._events import AgentFinished, AgentSpawned, MessageDropped, MessageSent
from agentpool._manifest.capability import Capability, CapabilityKind
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import AgentId, AgentMessage, AssistantMessage, ToolMessage
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._pool.handle import AgentHandle
from agentpool._pool.open import open_pool
from agentpool._pool.pool import AgentPool
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver, Event, Observer, Tool
from agentpool.testing._contract import promise
from agentpool.testing._guest import GuestRun
from agentpool.testing._hypothesis import stateful
from agentpool.testing._log import EventLog
from agentpool.testing._puppet import ActingObserver, BoundWatch, PuppetDriver
from agentpool.testing._simulation.quiescent import agents_of, outcome_faults, pool_leaks
from agentpool.tools._function import tool
from agentpool.tools._registry import ToolRegistry
from agentpool.tools.builtin._team import TEAM_TOOLS

_CONTENT: Final = re.compile("<[0-9]+>")
"""Makes the texts of a machine's messages, no two of which are the same."""

MACHINE_MANIFEST: Final = AgentManifest(
    name="puppet", capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2))
)
"""The manifest of an agent that may send, wait and have children, and has no memory."""


@tool
async def nap(seconds: float) -> str:
    """Sleep.

    Args:
        seconds: How long.
    """
    await trio.sleep(seconds)
    return "rested"


class PoolStage(stateful.RuleBasedStateMachine):
    """A pool, a model of it, and the invariants that hold between any two rules."""

    max_concurrent: ClassVar[int] = 2
    """The number of slots at the start."""
    max_queued: ClassVar[int] = 4
    """How many agents may wait for a slot."""
    inbox_capacity: ClassVar[int] = 2
    """How many messages may wait for one agent."""

    def make_driver(self) -> Driver:
        """Return the driver. The rules that decide answers need a ``PuppetDriver``."""
        return self.puppet

    def make_tools(self) -> tuple[Tool, ...]:
        """Return the tools of the agents."""
        return (*TEAM_TOOLS, nap)

    def make_config(self, number: int) -> SpawnConfig:
        """Return the config of the *number*-th agent, from 0."""
        return SpawnConfig(MACHINE_MANIFEST, f"job {number}")

    def open_pool(
        self, driver: Driver, observers: tuple[Observer, ...]
    ) -> AbstractAsyncContextManager[AgentPool]:
        """Open the pool, with at least these observers."""
        return open_pool(
            driver,
            max_concurrent=self.max_concurrent,
            max_queued=self.max_queued,
            inbox_capacity=self.inbox_capacity,
            tools=ToolRegistry(self.make_tools()),
            observers=observers,
            random_seed=0,
        )

    def __init__(self) -> None:
        """Open the pool."""
        super().__init__()
        self.puppet: PuppetDriver = PuppetDriver()
        self.log: EventLog = EventLog()
        self.handles: list[AgentHandle] = []
        self.received: list[AgentMessage] = []
        self.given: list[AgentId] = []
        self.given_next: list[AgentId] = []
        self.contents: int = 0
        self.refusals: Counter[str] = Counter()
        self.closed: bool = False
        self.failures: list[BaseException] = []
        self._bound = BoundWatch()
        self._actor = ActingObserver(self.note_event)
        self._busy: set[str] = set()
        self._leave = trio.Event()
        self._pool: AgentPool | None = None
        self._background: trio.Nursery | None = None
        self.run: GuestRun = GuestRun(self._stage)
        self.run.settle()

    def _note_closed(self) -> None:
        """Expect that the pool takes no more agents."""
        self.closed = True

    @property
    def pool(self) -> AgentPool:
        """The pool."""
        assert self._pool is not None  # noqa: S101  # open since __init__
        return self._pool

    async def _stage(self) -> None:  # noqa: ASYNC910  # the pool has checkpoints
        observers = (self.log, self._bound, self._actor)
        try:
            async with self.open_pool(self.make_driver(), observers) as pool:
                self._pool = self._bound.pool = pool
                async with trio.open_nursery() as nursery:
                    self._background = nursery
                    await self._leave.wait()
                    nursery.cancel_scope.cancel()
                pool.abort_all("the machine ends")
        except PoolError as error:
            self.failures.extend(self._unexpected(error))

    def _unexpected(self, error: PoolError) -> list[BaseException]:
        """Return the faults in the error that the pool raised when it closed."""
        failed = {
            event.agent_id
            for event in self.log.events
            if isinstance(event, AgentFinished) and event.outcome.status is AgentStatus.FAILED
        }
        own = failed & {handle.agent_id for handle in self.handles}
        if set(error.by_agent) == own - set(self.given):
            return []
        return [AssertionError(f"{error.by_agent} raised at the exit, {own} failed")]

    def note_event(self, event: Event) -> None:
        """Called for each event, during the operation that causes the event.

        Subclasses may act here.
        """

    # --- what the rules are made of

    def start(self, what: str, async_fn: Callable[[], Awaitable[object]]) -> None:
        """Start a call that may wait, in parallel with calls of other kinds.

        Only one call of each kind runs at a time.
        """
        if what in self._busy:
            return

        async def perform() -> None:  # noqa: ASYNC910  # the pool has checkpoints
            try:
                await async_fn()
            except (MessageError, PoolClosedError, DeadlockError) as error:
                # What a pool that closes, or in which all wait, may answer.
                self.refusals[type(error).__name__] += 1
            except AgentPoolError as error:
                self.failures.append(error)
            finally:
                self._busy.discard(what)

        self._busy.add(what)
        assert self._background is not None  # noqa: S101  # open since __init__
        background = self._background
        self.run.call(lambda: background.start_soon(perform, name=what))

    def pick(self, number: int) -> AgentHandle | None:
        """Return one of the handles. ``None``: there are none."""
        return self.handles[number % len(self.handles)] if self.handles else None

    def content(self) -> str:
        """Return a text that no other message has."""
        self.contents += 1
        return f"<{self.contents}>"

    def configs(self, count: int) -> list[SpawnConfig]:
        """Return the configs of the next *count* agents to spawn."""
        return [self.make_config(len(self.handles) + number) for number in range(count)]

    # --- what must hold

    @stateful.invariant()
    def all_holds(self) -> None:
        """Check all invariants together, so that a finding names every broken invariant."""
        self.nothing_failed()
        self.statistics_agree()
        self.who_works_has_a_slot()
        self.ends_are_given_in_order()
        self.senders_keep_their_order()

    def nothing_failed(self) -> None:
        """Check that no background call has raised an unexpected error."""
        for failure in (*self.failures, *self._actor.failures):
            raise failure
        promise(not self._bound.faults, self._bound.faults[:1])

    def statistics_agree(self) -> None:
        """Check that the pool's statistics agree with its events."""
        found = self.pool.statistics()
        kinds = Counter(type(event) for event in self.log.events)
        spawned = [e.agent_id for e in self.log.events if isinstance(e, AgentSpawned)]
        promise(spawned == list(range(1, found.spawned + 1)), f"ids must rise by 1, got {spawned}")
        at_work = found.running + found.parked + found.queued
        ended = kinds[AgentFinished]
        promise(at_work == found.spawned - ended, f"{ended} have ended: {found}")
        promise(found.messages == kinds[MessageSent], f"{kinds[MessageSent]} were sent: {found}")
        dropped = kinds[MessageDropped]
        promise(found.dead_letters == dropped, f"{dropped} were dropped: {found}")
        promise(
            found.running + found.parked == self.pool.active_count,
            f"the numbers do not add up: {found}",
        )
        promise(found.queued <= self.max_queued, f"more than {self.max_queued} wait: {found}")
        idle = found.running + found.at_gate < found.max_concurrent
        promise(not (idle and found.queued), f"a slot is free and an agent waits: {found}")

    def who_works_has_a_slot(self) -> None:
        """Check that there are never more requests than slots."""
        asking, running = len(self.puppet.pending), self.pool.statistics().running
        promise(asking <= running, f"{asking} agents ask their model, {running} have a slot")

    def ends_are_given_in_order(self) -> None:
        """Check that ``join_next`` returns each outcome once, in the order of the ends."""
        own = {handle.agent_id for handle in self.handles}
        ended = [e.agent_id for e in self.log.events if isinstance(e, AgentFinished)]
        expected = [agent_id for agent_id in ended if agent_id in own]
        nexts = [agent_id for agent_id in expected if agent_id in set(self.given_next)]
        promise(
            nexts == self.given_next, f"join_next() gave {self.given_next}, but {expected} ended"
        )

    def senders_keep_their_order(self) -> None:
        """Check that the owner gets the messages of each sender in order."""
        by_sender: dict[AgentId, list[int]] = {}
        for message in self.received:
            by_sender.setdefault(message.sender, []).append(message.message_id)
        for sender, numbers in by_sender.items():
            promise(
                numbers == sorted(set(numbers)),
                f"messages of agent {sender} came in the order {numbers}",
            )

    # --- the end

    def teardown(self) -> None:
        """End everything, and check that nothing is left and nothing was lost."""
        try:
            self.run.call(self._leave.set)
        finally:
            # Whatever happens: two runs in one thread cannot be.
            self.run.finish()
        self.nothing_failed()
        self.log.check()
        leaks = list(pool_leaks(agents_of(self.pool), (), closed=True))
        ends = [event for event in self.log.events if isinstance(event, AgentFinished)]
        for end in ends:
            leaks += outcome_faults(end.outcome, end.agent_id)
        leaks += self._lost_messages([end.outcome for end in ends])
        promise(not leaks, "\n".join(leaks))

    def _lost_messages(self, outcomes: list[AgentOutcome]) -> Iterator[str]:
        """Yield every accepted message that was not delivered exactly once."""
        found: Counter[str] = Counter(message.content for message in self.received)
        for outcome in outcomes:
            for message in outcome.messages:
                if isinstance(message, AssistantMessage):
                    continue
                text = message.content if isinstance(message, ToolMessage) else message.text
                found.update(_CONTENT.findall(text))
        for letter in self.pool.router.dead_letters:
            found[letter.message.content] += 1
        for event in self.log.events:
            if isinstance(event, MessageSent) and found[event.message.content] != 1:
                times = found[event.message.content]
                yield f"{event.message} was delivered {times} times"
