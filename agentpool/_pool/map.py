"""Maps over any number of queries in constant memory.

Rules:

1. At most ``max_concurrent`` agents of the map are in flight, and at most twice as many
   outcomes wait for the reader. A slow reader slows the map; nothing piles up.
2. The pool knows the last thousand outcomes given out, or as many as `keep_outcomes` says.
3. Leaving the block ends the agents that are left, and waits for them.
4. Several sources are treated equally: those that have a query ready take turns, and a source that
   is slow, or has ended, does not make the others wait.
5. A source that raises ends all. The reader still gets the outcomes of agents that had begun.
6. A query whose agent failed may be asked again, by a new agent, after a while. Until then it
   keeps its place: nothing piles up, and an ordered map gives nothing out before it.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from operator import attrgetter
from typing import Final, Self, TypeAlias, cast, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import PoolClosedError, UsageError
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._pool.admission import Admission
from agentpool._pool.record import AgentRecord, OnEnd
from agentpool._pool.shutdown import cancel_rest
from agentpool._pool.spawn_checks import Queries, check_query
from agentpool._scheduling.ctrl_c import interruptible, unbroken
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.pace import AGENT_STEPS, Pace
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import Slot, current_slot, feeds_for, parked
from agentpool._scheduling.waits import Wait
from agentpool._spawn import SpawnConfig, with_query

Accept: TypeAlias = Callable[[SpawnConfig, OnEnd], AgentRecord]
"""Accepts an agent. Its end is reported only to the function passed in."""


RETRY_SECONDS: Final = 1.0
"""The wait before a query is asked again for the first time. Each further wait is twice as long."""

MAX_RETRY_SECONDS: Final = 60.0
"""The longest wait before a query is asked again."""


@final
class _Query(Live):
    """A query taken from a source."""

    place: int
    """Its number, from 0."""
    config: SpawnConfig
    """The config of its agent."""
    tries: int = 0
    """How often its agent failed."""
    outcome: AgentOutcome | None = None
    """The outcome of the last agent that failed. ``None``: none has failed."""
    due: float = 0.0
    """The time at which it is asked again."""


@unbroken
@final
class QueryMap(Live):
    """One map: it starts an agent for each query, and gives out the outcomes."""

    _config: SpawnConfig
    """The config of its agents, with another query: to make one anew takes three times as long."""
    _sources: Sequence[Queries]
    _ordered: bool
    _admission: Admission
    _accept: Accept
    _owner: Owner
    _on_change: Callable[[], object]
    """Called when a wait for the map may have become one that never ends."""
    _asker: AgentId
    """Who opened it: an agent, or the owner."""
    _retries: int
    """How often a query is asked again if its agent fails."""
    _scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    _in_flight: dict[AgentId, AgentRecord] = msgspec.field(
        default_factory=dict[AgentId, AgentRecord]
    )
    """Agents that have not ended."""
    _again: list[_Query] = msgspec.field(default_factory=list["_Query"])
    """Queries that are asked again after a while, the next one first."""
    _next_ids: dict[AgentId, None] = msgspec.field(default_factory=dict[AgentId, None])
    """In an ordered map: the agent whose outcome comes next, while it is in flight."""
    _ids: dict[int, AgentId] = msgspec.field(default_factory=dict[int, AgentId])
    """In an ordered map: the agents in flight, by their places."""
    _done: deque[AgentOutcome] = msgspec.field(default_factory=deque[AgentOutcome])
    _out_of_order: dict[int, AgentOutcome] = msgspec.field(default_factory=dict[int, AgentOutcome])
    _spawned: int = 0
    _given: int = 0
    _open: dict[trio.lowlevel.Task, None] = msgspec.field(
        default_factory=dict[trio.lowlevel.Task, None]
    )
    """The tasks of the sources that have not ended."""
    _idle: int = 0
    """How many of these wait for their turn."""
    _fed: bool = False
    """Whether all sources have ended."""
    _has_ended: bool = False
    """Whether no more agents are started."""
    _errors: list[Exception] = []  # noqa: RUF012  # each has its own: what its sources raised
    _letting_in: int = 0
    """Queries whose turn has come, but which have no agent yet."""
    _turns: Lot = msgspec.field(default_factory=Lot)
    """The sources that have a query ready, in the order of their turns."""
    _changed: Lot = msgspec.field(default_factory=Lot)
    _pace: Pace = msgspec.field(default_factory=Pace)
    """Decides when a source that starts agents must yield. What the reader takes is counted by the
    pool: by one count for both, fewer agents would begin in one step."""
    is_left: bool = False
    """Whether its block has ended, and not by an error or a cancellation."""

    def __post_init__(self) -> None:
        """Count the agents that it starts from where the pool is."""
        self._pace = self._admission.entrance.pace.apart()

    async def next_outcome(self) -> AgentOutcome:
        """Return the next outcome, in the order of ends or of queries.

        Raises:
            StopAsyncIteration: If there are no more outcomes.
            Exception: An error that the queries raised, after the last outcome.
            DeadlockError: If no agent of the map can go on while the caller waits.

        Cancellation:
            No outcome is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not (self._done or self._is_over):
            group = self._next_ids if self._ordered else self._in_flight
            what = "the next outcome of a map"
            wait = Wait.any_of(group.keys(), what, self._may_be_fed, self._fed_by)
            async with parked(wait, self._changed, self._owner):
                while not (self._done or self._is_over):
                    await self._changed.park()
                    if not self._done:  # it may have been passed over as one that goes on
                        self._on_change()
        if not self._done:
            if len(self._errors) > 1:
                raise ExceptionGroup("several sources of a map failed", self._errors)
            if self._errors:
                raise self._errors[0]
            raise StopAsyncIteration
        outcome = self._done.popleft()
        self._give_turns()
        if self._admission.entrance.pace.is_due():
            await trio.lowlevel.cancel_shielded_checkpoint()
        return outcome

    @property
    def _is_over(self) -> bool:
        return self._fed and not self._in_flight and not self._again

    def may_start(self) -> bool:
        """Whether a source may start another agent without help."""
        # Those that wait for their turn go on when an agent has ended, or the reader reads.
        if self._again:
            return True
        if self._fed:
            return False
        return not self._open or self._idle + len(self._waiting_sources()) < len(self._open)

    def _waiting_sources(self) -> list[trio.lowlevel.Task]:
        """Return the tasks of the sources that wait in a call of the pool, or were just woken."""
        return [task for task in self._open if task in self._owner.waits_for(self._asker)]

    def _may_be_fed(self) -> bool:
        """Return whether the next outcome may come from an agent that has not started."""
        return self.may_start() and not (self._ordered and self._next_ids)

    def _fed_by(self) -> AgentId | None:
        """Return whose sources would feed it if they went on. ``None``: no source waits."""
        is_next = self._ordered and self._next_ids
        return None if is_next or not self._waiting_sources() else self._asker

    async def feed(self, asker: Slot | None) -> None:  # noqa: ASYNC910  # the feeding has its own
        """Spawn agents for the queries on behalf of *asker*, as many as the pool runs."""
        current_slot.set(None)  # a task of the pool has no part in the slot of *asker*,
        feeds_for.set(asker)  # but what sources do, that agent does
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    if self._retries:
                        nursery.start_soon(self._ask_again, name="retries of a map")
                    async with trio.open_nursery() as feeding:
                        for source in self._sources:
                            feeding.start_soon(self._feed, source, name="source of a map")
                    self._fed = True
                    self._changed.unpark_all()
                    self._on_change()
        finally:
            # Also when the pool itself is cancelled: whoever closes the map waits for this.
            self._fed = self._has_ended = True
            self._give_up_retries()
            self._changed.unpark_all()
            self._on_change()

    async def _ask_again(self) -> None:  # noqa: ASYNC910  # to park is a checkpoint
        while not self._is_over:
            with trio.move_on_at(self._again[0].due if self._again else math.inf):
                await self._changed.park()
            while self._again and self._again[0].due <= trio.current_time():
                try:
                    await self._admission.entrance.enter(self._start, self._again[0])
                except PoolClosedError:
                    self._give_up_retries()
                    self._changed.unpark_all()
                self._on_change()

    def _give_up_retries(self) -> None:
        """Give out the failed outcomes of the queries that were to be asked again."""
        waiting, self._again = self._again, []
        for query in waiting:
            assert query.outcome is not None  # noqa: S101  # it failed
            self._give(query.place, query.outcome)

    async def _feed(self, source: Queries) -> None:  # noqa: ASYNC910  # the taking has its own
        task = trio.lowlevel.current_task()
        self._open[task] = None
        try:
            await self._take(source)
        except Exception as error:  # noqa: BLE001  # raised to the reader
            self._errors.append(error)
            self._scope.cancel()
        finally:
            del self._open[task]
            self._on_change()

    @interruptible
    async def _take(self, queries: Queries) -> None:
        async with AsyncExitStack() as stack:
            if isinstance(queries, AsyncGenerator):
                # Or its cleanup would be left to the garbage collector, also if it never began.
                stack.push_async_callback(cast("AsyncGenerator[str]", queries).aclose)
            await trio.lowlevel.checkpoint()
            if isinstance(queries, AsyncIterable):
                async for query in queries:
                    await self._spawn(query)
            else:
                for query in queries:
                    await self._spawn(query)

    async def _spawn(self, query: str) -> None:  # noqa: ASYNC910  # it yields at the pace of the pool
        if len(self._sources) > 1:
            await trio.lowlevel.checkpoint()  # in which the other sources take their turns
        if self._turns.sleepers or not self._has_room():
            self._idle += 1
            self._on_change()
            try:
                await self._turns.park()  # its turn is counted by whoever gives it
            except BaseException:
                self._idle -= 1
                raise
        else:
            self._letting_in += 1
        try:
            if type(query) is not str:
                query = check_query(query)
            admission = self._admission
            try:
                config = with_query(self._config, query)
            except UsageError as error:
                place = self._spawned + self._letting_in
                raise UsageError(f"{error}, or leave it out of the map (query {place})") from None
            if not admission.entrance.may_enter():
                await admission.entrance.enter(self._start_first, config)
            else:  # as enter(), without its coroutine
                # Its turn may have come just before the map was left.
                await trio.lowlevel.checkpoint_if_cancelled()
                self._start_first(config)
                if self._pace.is_due(AGENT_STEPS):
                    await trio.lowlevel.checkpoint()
        finally:
            self._letting_in -= 1
            self._give_turns()

    def _give_turns(self) -> None:
        while self._turns.sleepers and self._has_room():
            self._letting_in += 1
            self._idle -= 1
            self._turns.unpark(1)

    def _start_first(self, config: SpawnConfig) -> AgentRecord:
        record = self._start(_Query(self._spawned, config))
        self._spawned += 1
        return record

    def _start(self, query: _Query) -> AgentRecord:
        record = self._accept(query.config, partial(self._ended, query))
        if query.tries:
            self._again.remove(query)
        if record.has_ended:  # an observer that heard of its spawn may have cancelled it
            return record
        self._in_flight[record.agent_id] = record
        if self._ordered:
            self._ids[query.place] = record.agent_id
            self._find_next()
        return record

    def _has_room(self) -> bool:
        slots = self._admission.slots
        taken = len(self._in_flight) + len(self._again) + self._letting_in
        return taken < slots and len(self._done) + len(self._out_of_order) < 2 * slots

    def _find_next(self) -> None:
        self._next_ids.clear()
        if (agent_id := self._ids.get(self._given)) is not None:
            self._next_ids[agent_id] = None

    def _ended(self, query: _Query, record: AgentRecord) -> None:
        self._in_flight.pop(record.agent_id, None)
        if self._ordered:
            self._ids.pop(query.place, None)
            self._find_next()
        outcome = record.collect()
        is_failed = outcome.error is not None and outcome.status is AgentStatus.FAILED
        if is_failed and query.tries < self._retries and not self._scope.cancel_called:
            seconds = min(RETRY_SECONDS * 2.0 ** min(query.tries, 100), MAX_RETRY_SECONDS)
            query.tries += 1
            query.outcome, query.due = outcome, trio.current_time() + seconds
            bisect.insort(self._again, query, key=attrgetter("due"))
            self._changed.unpark_all()
        else:
            self._give(query.place, outcome)
        self._give_turns()

    def _give(self, place: int, outcome: AgentOutcome) -> None:
        """Give the outcome of a query to the reader when its turn comes."""
        if self._ordered:
            self._out_of_order[place] = outcome
            while self._given in self._out_of_order:
                self._done.append(self._out_of_order.pop(self._given))
                self._given += 1
            self._find_next()
        else:
            self._done.append(outcome)
        if self._done:
            self._changed.unpark_all()

    async def aclose(self) -> None:
        """Cancel the remaining agents, and wait for them."""
        self._scope.cancel()
        in_flight = self._in_flight.values()
        cancel_rest(in_flight, "the map's block ended", is_broken=not self.is_left)
        while self._in_flight or not self._has_ended:
            await self._changed.park()
        await trio.lowlevel.cancel_shielded_checkpoint()


@final
class OutcomeStream(Live):
    """The outcomes of one map: an async iterator. Made by ``pool.map``."""

    _map: QueryMap

    def _repr_words(self) -> str:
        return f"{self._map._spawned} spawned"  # pyright: ignore[reportPrivateUsage]  # its map

    def __aiter__(self) -> Self:
        """Return the iterator itself."""
        return self

    def __anext__(self) -> Awaitable[AgentOutcome]:
        """Return the next outcome, in the order of ends or of queries.

        Raises:
            Exception: An error that the queries raised, after the last outcome.
            DeadlockError: If no agent of the map can go on while the caller waits.

        Cancellation:
            No outcome is lost.
        """
        return self._map.next_outcome()  # no coroutine around it
