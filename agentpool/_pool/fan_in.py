"""Fan-in: ended agents, and those who wait for them.

``join_all`` answers in spawn order, ``join_next`` in the order of the ends. Each outcome is
given out once by ``join_next``; ``join_all`` gives all of them and leaves none behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import Owner, parked
from agentpool._scheduling.waits import Wait


@final
class _Join(Live):
    """Somebody who waits for every agent up to an id."""

    last_id: AgentId
    missing: dict[AgentId, None]
    """Those that have not ended."""
    lot: Lot = msgspec.field(default_factory=Lot)


@final
class Completions(Live):
    """Outcomes in the order of the ends: an async iterator."""

    _join_next: Callable[[], Awaitable[AgentOutcome | None]]

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> AgentOutcome:
        """Return the next outcome.

        Cancellation:
            No outcome is lost.
        """
        outcome = await self._join_next()
        if outcome is None:
            raise StopAsyncIteration
        return outcome


@final
class FanIn(Live):
    """All agents of one pool, by id, and the order in which they end."""

    handles: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict[AgentId, AgentRecord])
    """Every agent that was accepted, in spawn order."""
    active: dict[AgentId, None] = msgspec.field(default_factory=dict[AgentId, None])
    """Agents that have not ended."""
    _ended: deque[AgentRecord] = msgspec.field(default_factory=deque[AgentRecord])
    _joins: list[_Join] = msgspec.field(default_factory=list[_Join])
    _next: Lot = msgspec.field(default_factory=Lot)
    _owner: Owner | None = None

    def open(self, owner: Owner) -> None:
        """Let the pool see what *owner*, who opened it, waits for."""
        self._owner = owner

    def expect(self, handle: AgentRecord) -> None:
        """Take note of an accepted agent."""
        self.handles[handle.agent_id] = handle
        self.active[handle.agent_id] = None

    def ended(self, handle: AgentRecord) -> None:
        """Take note of its end, and wake whoever waited for it."""
        del self.active[handle.agent_id]
        self._ended.append(handle)
        for join in self._joins:
            if handle.agent_id <= join.last_id:
                del join.missing[handle.agent_id]
                if not join.missing:
                    join.lot.unpark_all()
        if self._next:
            if self.active:
                self._next.unpark(1)
            else:
                self._next.unpark_all()  # some of them will learn that nobody is left

    async def join_next(self) -> AgentOutcome | None:
        """Return the next outcome that nobody was given yet; ``None`` when nobody is left.

        Cancellation:
            No outcome is lost: the next caller gets it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._ended and self.active:
            wait = Wait.any_of(self.active.keys(), "the next agent to end")
            async with parked(wait, self._next, self._owner):
                await self._next.park()
        outcome = self._ended.popleft().collect() if self._ended else None
        await trio.lowlevel.cancel_shielded_checkpoint()
        return outcome

    async def join_all(self) -> dict[AgentId, AgentOutcome]:
        """Wait for every agent accepted so far; return all their outcomes in spawn order.

        Cancellation:
            No outcome is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        last_id = next(reversed(self.handles), 0)
        if self.active:
            join = _Join(last_id, dict(self.active))
            self._joins.append(join)
            try:
                wait = Wait.all_of(join.missing.keys(), "all agents")
                async with parked(wait, join.lot, self._owner):
                    await join.lot.park()
            finally:
                self._joins.remove(join)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        outcomes = {
            agent_id: handle.collect()
            for agent_id, handle in self.handles.items()
            if agent_id <= last_id
        }
        self._ended = deque(handle for handle in self._ended if handle.agent_id not in outcomes)
        return outcomes

    def unseen_failures(self) -> dict[AgentId, Exception]:
        """Errors of failed agents at whose outcome nobody has looked, in spawn order."""
        return {
            agent_id: error
            for agent_id, handle in self.handles.items()
            if (error := handle.unseen_failure) is not None
        }
