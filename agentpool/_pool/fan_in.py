"""Collects ended agents, and wakes the calls that wait for them.

``join_all`` returns outcomes in spawn order, ``join_next`` in the order in which agents end.
``join_next`` returns each outcome once. ``join_all`` returns all of them, and leaves none for
``join_next``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Self, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.pace import Pace
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait


@final
class _Join(Live):
    """A call that waits for some agents to end."""

    missing: dict[AgentId, None]
    """The agents that have not ended."""
    lot: Lot = msgspec.field(default_factory=Lot)


@final
class Completions(Live):
    """Outcomes in the order in which agents end: an async iterator."""

    _join_next: Callable[[], Awaitable[AgentOutcome | None]]

    def __aiter__(self) -> Self:
        """Return the iterator itself."""
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


KEPT_OF_OTHERS: Final = 1000
"""How many ended agents the pool remembers of those that the owner did not start."""

SPARE_GHOSTS: Final = 32
"""How many forgotten agents may always be left for ``join_next`` to skip."""


@final
class FanIn(Live):
    """All agents of one pool by id, and the order in which they end."""

    keep_outcomes: int | None = None
    """How many retrieved outcomes are kept. ``None``: all, except for those of agents that were not
    started by the owner."""
    known: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict[AgentId, AgentRecord])
    """Every agent that was accepted for the pool, in spawn order."""
    owned: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict[AgentId, AgentRecord])
    """The agents of parents, maps, races and supervisions. Their ends are reported only to
    these."""
    active: dict[AgentId, None] = msgspec.field(default_factory=dict[AgentId, None])
    """Agents that have not ended."""
    failed: set[AgentId] = msgspec.field(default_factory=set[AgentId])
    """Agents that failed. The pool's end looks at these, and not at all of its agents."""
    active_owned: dict[AgentId, None] = msgspec.field(default_factory=dict[AgentId, None])
    """The agents of parents, maps, races and supervisions that have not ended."""
    _ended: deque[AgentId] = msgspec.field(default_factory=deque[AgentId])
    """The agents that ``join_next`` has not returned, in the order in which they ended. Forgotten
    agents may be among them: an ordered dict could drop these, but takes ten times as much
    memory."""
    _given_out: deque[AgentRecord] = msgspec.field(default_factory=deque[AgentRecord])
    """The agents whose outcome may be forgotten, oldest first."""
    _joins: list[_Join] = msgspec.field(default_factory=list[_Join])
    _next: Lot = msgspec.field(default_factory=Lot)
    _owner: Owner | None = None
    _pace: Pace = msgspec.field(default_factory=Pace)

    def open(self, owner: Owner, pace: Pace) -> None:
        """Register *owner*, the task that opened the pool, so that its waits are seen."""
        self._owner, self._pace = owner, pace

    def expect(self, record: AgentRecord) -> None:
        """Add an accepted agent."""
        if record.on_end is None:
            self.known[record.agent_id] = record
            self.active[record.agent_id] = None
        else:
            self.owned[record.agent_id] = record
            self.active_owned[record.agent_id] = None

    def find(self, agent_id: AgentId) -> AgentRecord | None:
        """Return the record of an agent. ``None``: it never existed, or is no longer kept."""
        if type(agent_id) is not int:  # True is a key that finds agent 1, and no id
            return None
        return self.known.get(agent_id) or self.owned.get(agent_id)

    def ended(self, record: AgentRecord) -> None:
        """Record an agent's end, and wake the calls that wait for it."""
        for join in self._joins:
            if record.agent_id in join.missing:
                del join.missing[record.agent_id]
                if not join.missing:
                    join.lot.unpark_all()
        if record.on_end is not None:
            del self.active_owned[record.agent_id]
            record.on_end(record)
            return
        del self.active[record.agent_id]
        self._ended.append(record.agent_id)
        if self._next:
            if self.active:
                self._next.unpark(1)
            else:
                self._next.unpark_all()  # some of them will learn that no agent is left

    def given_out(self, record: AgentRecord) -> None:
        """Record that an outcome was retrieved, and forget the oldest ones beyond the limit."""
        keep = self.keep_outcomes
        if keep is None:
            if record.on_end is None:
                return
            keep = KEPT_OF_OTHERS
        self._given_out.append(record)
        while len(self._given_out) > keep:
            self._drop(self._given_out.popleft())

    def forget(self, record: AgentRecord) -> None:
        """Forget an agent that has ended."""
        self._drop(record)
        if record in self._given_out:
            self._given_out.remove(record)

    def _drop(self, record: AgentRecord) -> None:
        self.known.pop(record.agent_id, None)
        self.owned.pop(record.agent_id, None)
        self.failed.discard(record.agent_id)
        # Each scan is paid for by the half of the agents that it throws out.
        if len(self._ended) > 2 * len(self.known) + SPARE_GHOSTS:
            self._ended = deque(one for one in self._ended if one in self.known)

    def _has_next(self) -> bool:
        """Return whether an agent has ended that ``join_next`` has not returned."""
        while self._ended and self._ended[0] not in self.known:
            self._ended.popleft()
        return bool(self._ended)

    async def join_next(self) -> AgentOutcome | None:
        """Return the next outcome that has not been returned yet. ``None``: no agent is left.

        Cancellation:
            No outcome is lost: the next caller gets it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._has_next() and self.active:
            wait = Wait.any_of(self.active.keys(), "the next agent to end")
            async with parked(wait, self._next, self._owner):
                await self._next.park()
        outcome = self.known[self._ended.popleft()].collect() if self._ended else None
        if outcome is None or self._pace.is_due():
            await trio.lowlevel.cancel_shielded_checkpoint()
        return outcome

    async def join_all(self, *, children: bool) -> dict[AgentId, AgentOutcome]:
        """Wait for every agent accepted so far, and return their outcomes in spawn order.

        Args:
            children: Whether to include the agents of parents, maps, races and supervisions.

        Cancellation:
            No outcome is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        # Taken now: an outcome that is retrieved meanwhile may be forgotten.
        wanted = sorted(self.known.values(), key=_number_of)  # a child that went on is among them
        missing = dict(self.active)
        if children:
            wanted = sorted([*wanted, *self.owned.values()], key=_number_of)
            missing |= self.active_owned
        if missing:
            join = _Join(missing)
            self._joins.append(join)
            try:
                wait = Wait.all_of(join.missing.keys(), "all agents")
                async with parked(wait, join.lot, self._owner):
                    await join.lot.park()
            finally:
                self._joins.remove(join)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        outcomes = {record.agent_id: record.collect() for record in wanted}
        self._ended = deque(one for one in self._ended if one not in outcomes)
        return outcomes

    def unseen_failures(self) -> dict[AgentId, Exception]:
        """Errors of failed agents whose outcomes were never retrieved, in spawn order."""
        return {
            agent_id: error
            for agent_id in sorted(self.failed)
            if (record := self.known.get(agent_id)) is not None
            and (error := record.unseen_failure) is not None
        }


def _number_of(record: AgentRecord) -> AgentId:
    return record.agent_id
