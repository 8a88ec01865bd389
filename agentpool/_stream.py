"""A map over any number of queries: the outcomes as they come, with flat memory.

Rules:

1. At most ``max_concurrent`` agents of the map are in flight, and at most twice as many
   outcomes wait for the reader. A slow reader slows the map; nothing piles up.
2. What the reader was given is forgotten by the pool.
3. Leaving the block ends the agents that are left, and waits for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Self, TypeAlias, cast, final

import attrs
import trio

from agentpool._admission import Admission
from agentpool._handle import AgentHandle, OnEnd
from agentpool._manifest import AgentManifest
from agentpool._outcome import AgentOutcome
from agentpool._slot import current_slot, parked
from agentpool._spawn import SpawnConfig
from agentpool._waits import Wait

Queries: TypeAlias = Iterable[str] | AsyncIterable[str]
Accept: TypeAlias = Callable[[SpawnConfig, OnEnd], AgentHandle]
"""Accepts an agent whose end is told to one function alone."""


@final
@attrs.define(eq=False, repr=False)
class OutcomeStream:
    """The outcomes of one map: an async iterator. ``pool.map`` makes it."""

    _manifest: AgentManifest
    _queries: Queries
    _ordered: bool
    _admission: Admission
    _accept: Accept
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _in_flight: dict[AgentHandle, int] = attrs.field(factory=dict[AgentHandle, int])
    _done: deque[AgentOutcome] = attrs.field(factory=deque[AgentOutcome])
    _out_of_order: dict[int, AgentOutcome] = attrs.field(factory=dict[int, AgentOutcome])
    _spawned: int = 0
    _given: int = 0
    _fed: bool = False
    _error: Exception | None = None
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

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
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            async with parked(Wait.other("the next outcome of a map")):
                await self._changed.park()
        outcome = self._done.popleft()
        self._changed.unpark_all()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return outcome

    async def feed(self) -> None:  # noqa: ASYNC910  # the feeding has its own
        """Turn queries into agents, as many at a time as the pool runs."""
        # A task of the pool: it has no part in the slot of an agent that opened the map.
        current_slot.set(None)
        try:
            with self._scope:
                await self._feed()
        except Exception as error:  # noqa: BLE001  # raised to the reader
            self._error = error
        finally:
            # Also when the pool itself is cancelled: whoever closes the map waits for this.
            self._fed = True
            self._changed.unpark_all()

    async def _feed(self) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(self._queries, AsyncIterable):
            async with AsyncExitStack() as stack:
                queries = self._queries
                if isinstance(queries, AsyncGenerator):
                    # Or its cleanup would be left to the garbage collector.
                    queries = cast("AsyncGenerator[str]", queries)
                    await stack.enter_async_context(aclosing(queries))
                async for query in queries:
                    await self._spawn(query)
        else:
            for query in self._queries:
                await self._spawn(query)

    async def _spawn(self, query: str) -> None:
        await trio.lowlevel.checkpoint()
        while not self._has_room():
            await self._changed.park()
        await self._admission.enter(partial(self._start, SpawnConfig(self._manifest, query)))

    def _start(self, config: SpawnConfig) -> AgentHandle:
        handle = self._accept(config, self._ended)
        # Cannot have ended yet: it takes a step of its own to end.
        self._in_flight[handle] = self._spawned
        self._spawned += 1
        return handle

    def _has_room(self) -> bool:
        slots = self._admission.limiter.total_tokens
        waiting = len(self._done) + len(self._out_of_order)
        return len(self._in_flight) < slots and waiting < 2 * slots

    def _ended(self, handle: AgentHandle) -> None:
        place = self._in_flight.pop(handle)
        if self._ordered:
            self._out_of_order[place] = handle.collect()
            while self._given in self._out_of_order:
                self._done.append(self._out_of_order.pop(self._given))
                self._given += 1
        else:
            self._done.append(handle.collect())
        self._changed.unpark_all()

    async def aclose(self) -> None:
        """End the agents that are left, and wait for them."""
        self._scope.cancel()
        for handle in tuple(self._in_flight):
            handle.cancel("the map's block ended")
        while self._in_flight or not self._fed:
            await self._changed.park()
        await trio.lowlevel.cancel_shielded_checkpoint()
