"""A map over any number of queries: the outcomes as they come, with flat memory.

Rules:

1. At most ``max_concurrent`` agents of the map are in flight, and at most twice as many
   outcomes wait for the reader. A slow reader slows the map; nothing piles up.
2. What the reader was given is forgotten by the pool.
3. Leaving the block ends the agents that are left, and waits for them.
4. Several sources are taken level: those that have a query ready take turns, and one that
   is slow, or has ended, keeps no other one waiting.
5. A source that raises ends all of them; what has begun is still given out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Self, TypeAlias, cast, final

import msgspec
import trio

from agentpool._agent.agent import output_of
from agentpool._base import Live
from agentpool._outcome import AgentOutcome
from agentpool._pool.admission import Admission
from agentpool._pool.handle import AgentHandle, OnEnd
from agentpool._scheduling.slot import current_slot, parked
from agentpool._scheduling.waits import Wait
from agentpool._spawn import SpawnConfig

Queries: TypeAlias = Iterable[str] | AsyncIterable[str]
Accept: TypeAlias = Callable[[SpawnConfig, OnEnd], AgentHandle]
"""Accepts an agent whose end is told to one function alone."""


@final
class OutcomeStream(Live):
    """The outcomes of one map: an async iterator. ``pool.map`` makes it."""

    _config_of: Callable[[str], SpawnConfig]
    _sources: Sequence[Queries]
    _ordered: bool
    _admission: Admission
    _accept: Accept
    _scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    _in_flight: dict[AgentHandle, int] = msgspec.field(default_factory=dict[AgentHandle, int])
    _done: deque[AgentOutcome] = msgspec.field(default_factory=deque[AgentOutcome])
    _out_of_order: dict[int, AgentOutcome] = msgspec.field(default_factory=dict[int, AgentOutcome])
    _spawned: int = 0
    _given: int = 0
    _fed: bool = False
    _errors: list[Exception] = msgspec.field(default_factory=list[Exception])
    """What the sources raised."""
    _letting_in: int = 0
    """Queries whose turn has come, and that are not agents yet."""
    _turns: trio.lowlevel.ParkingLot = msgspec.field(default_factory=trio.lowlevel.ParkingLot)
    """The sources that have a query ready, in the order of their turns."""
    _changed: trio.lowlevel.ParkingLot = msgspec.field(default_factory=trio.lowlevel.ParkingLot)

    def __post_init__(self) -> None:
        """Refuse what fits no query before the first one is read."""
        output_of(self._config_of("?"))

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> AgentOutcome:
        """Return the next outcome, in the order of the ends or of the queries.

        Raises:
            Exception: Whatever the queries raised, after every outcome that there is.

        Cancellation:
            No outcome is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._done:
            if self._fed and not self._in_flight:
                if len(self._errors) > 1:
                    raise ExceptionGroup("several sources of a map failed", self._errors)
                if self._errors:
                    raise self._errors[0]
                raise StopAsyncIteration
            async with parked(Wait.other("the next outcome of a map")):
                await self._changed.park()
        outcome = self._done.popleft()
        self._give_turns()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return outcome

    async def feed(self) -> None:  # noqa: ASYNC910  # the feeding has its own
        """Turn queries into agents, as many at a time as the pool runs."""
        # A task of the pool: it has no part in the slot of an agent that opened the map.
        current_slot.set(None)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for source in self._sources:
                        nursery.start_soon(self._feed, source, name="source of a map")
        finally:
            # Also when the pool itself is cancelled: whoever closes the map waits for this.
            self._fed = True
            self._changed.unpark_all()

    async def _feed(self, source: Queries) -> None:  # noqa: ASYNC910  # the taking has its own
        try:
            await self._take(source)
        except Exception as error:  # noqa: BLE001  # raised to the reader
            self._errors.append(error)
            self._scope.cancel()

    async def _take(self, queries: Queries) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(queries, AsyncIterable):
            async with AsyncExitStack() as stack:
                if isinstance(queries, AsyncGenerator):
                    # Or its cleanup would be left to the garbage collector.
                    queries = cast("AsyncGenerator[str]", queries)
                    await stack.enter_async_context(aclosing(queries))
                async for query in queries:
                    await self._spawn(query)
        else:
            for query in queries:
                await self._spawn(query)

    async def _spawn(self, query: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._turns or not self._has_room():
            await self._turns.park()  # its turn is counted by whoever gives it
        else:
            self._letting_in += 1
        try:
            await self._admission.enter(partial(self._start, self._config_of(query)))
        finally:
            self._letting_in -= 1
            self._give_turns()

    def _give_turns(self) -> None:
        while self._turns and self._has_room():
            self._letting_in += 1
            self._turns.unpark()
        self._changed.unpark_all()

    def _start(self, config: SpawnConfig) -> AgentHandle:
        handle = self._accept(config, self._ended)
        # Cannot have ended yet: it takes a step of its own to end.
        self._in_flight[handle] = self._spawned
        self._spawned += 1
        return handle

    def _has_room(self) -> bool:
        slots = self._admission.limiter.total_tokens
        waiting = len(self._done) + len(self._out_of_order)
        return len(self._in_flight) + self._letting_in < slots and waiting < 2 * slots

    def _ended(self, handle: AgentHandle) -> None:
        place = self._in_flight.pop(handle)
        if self._ordered:
            self._out_of_order[place] = handle.collect()
            while self._given in self._out_of_order:
                self._done.append(self._out_of_order.pop(self._given))
                self._given += 1
        else:
            self._done.append(handle.collect())
        self._give_turns()

    async def aclose(self) -> None:
        """End the agents that are left, and wait for them."""
        self._scope.cancel()
        for handle in tuple(self._in_flight):
            handle.cancel("the map's block ended")
        while self._in_flight or not self._fed:
            await self._changed.park()
        await trio.lowlevel.cancel_shielded_checkpoint()
