"""Collects ended agents, and wakes the calls that wait for them.

``join_all`` returns outcomes in spawn order, ``join_next`` in the order in which agents end.
``join_next`` returns each outcome once. ``join_all`` returns all of them, and leaves none for
``join_next``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from heapq import merge
from operator import attrgetter
from typing import Final, Self, cast, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome
from agentpool._pool.numbered import Numbered
from agentpool._pool.record import AgentRecord, Caretaker, Kept, as_record
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.pace import Pace
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait

_NUMBER: Final = attrgetter("agent_id")


@final
class _Join(Live):
    """A call that waits for some agents to end: the collection of those that have not ended.

    It has no dict of these: with a hundred thousand agents, that would be 5 MB.
    """

    _rest: tuple[Mapping[AgentId, AgentRecord], ...]
    """Where its agents are until they end."""
    wanted: dict[AgentId, Kept]
    """All of its agents, in spawn order. An outcome takes the place of its agent's record."""
    missing: int
    """How many have not ended."""
    lot: Lot = msgspec.field(default_factory=Lot)

    def __len__(self) -> int:
        """Return how many have not ended."""
        return self.missing

    def __contains__(self, agent_id: object) -> bool:
        """Return whether that agent is one of them and has not ended."""
        one = self.wanted.get(agent_id) if type(agent_id) is int else None
        return isinstance(one, AgentRecord) and not one.has_ended

    def __iter__(self) -> Iterator[AgentId]:
        """Yield those that have not ended."""
        return (agent_id for some in self._rest for agent_id in some if agent_id in self)

    def note_end(self, record: AgentRecord, left: Kept) -> None:
        """Note that an agent has ended, and what is kept of it."""
        if self.wanted.get(record.agent_id) is record:
            self.wanted[record.agent_id] = left
            self.missing -= 1
            if not self.missing:
                self.lot.unpark_all()


@unbroken
@final
class Batch(Live):
    """The agents of a call that accepts one after the other."""

    is_rising: bool
    """Whether their numbers rise. An earlier process may have given them in another order."""
    ids: list[AgentId] = msgspec.field(default_factory=list[AgentId])
    """Their numbers, in the order in which they were accepted."""
    forgotten: dict[AgentId, AgentRecord] = msgspec.field(
        default_factory=dict[AgentId, AgentRecord]
    )
    """Those that the pool has forgotten since, or may have forgotten before they were added."""

    def add(self, record: AgentRecord) -> None:
        """Add an agent that was accepted."""
        self.ids.append(record.agent_id)
        if record.has_ended:
            self.forgotten[record.agent_id] = record

    def forget(self, record: AgentRecord) -> None:
        """Keep an agent that the pool forgets, unless it is known to be none of these."""
        place = bisect_left(self.ids, record.agent_id) if self.is_rising else 0
        if not self.is_rising or self.ids[place : place + 1] == [record.agent_id]:
            self.forgotten[record.agent_id] = record


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


def _nobody() -> Numbered[Kept]:
    return Numbered()


KEPT_OF_OTHERS: Final = 1000
"""How many ended agents the pool remembers of those that the owner did not start."""

SPARE_GHOSTS: Final = 32
"""How many forgotten agents may always be left for ``join_next`` to skip."""


@unbroken
@final
class FanIn(Live):
    """All agents of one pool by id, and the order in which they end."""

    _pool: Caretaker
    keep_outcomes: int | None = None
    """How many retrieved outcomes are kept. ``None``: all, except for those of agents that were not
    started by the owner."""
    active: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict[AgentId, AgentRecord])
    """The pool's agents that have not ended, in the order in which they were accepted."""
    kept: Numbered[Kept] = msgspec.field(default_factory=_nobody)
    """Those that have ended and are not forgotten."""
    owned: dict[AgentId, AgentRecord] = msgspec.field(default_factory=dict[AgentId, AgentRecord])
    """The agents of parents, maps, races and supervisions. Their ends are reported only to
    these."""
    failed: set[AgentId] = msgspec.field(default_factory=set[AgentId])
    """Agents that failed. The pool's end looks at these, and not at all of its agents."""
    _ended: deque[AgentId] = msgspec.field(default_factory=deque[AgentId])
    """The agents that ``join_next`` has not returned, in the order in which they ended. Forgotten
    agents may be among them: an ordered dict could drop these, but takes ten times as much
    memory."""
    _given_out: deque[AgentRecord] = msgspec.field(default_factory=deque[AgentRecord])
    """The agents whose outcome may be forgotten, oldest first."""
    _joins: list[_Join] = msgspec.field(default_factory=list[_Join])
    _batches: list[Batch] = msgspec.field(default_factory=list[Batch])
    """What calls have accepted that go on accepting."""
    _next: Lot = msgspec.field(default_factory=Lot)
    _owner: Owner | None = None
    _pace: Pace = msgspec.field(default_factory=Pace)

    def open(self, owner: Owner, pace: Pace) -> None:
        """Register *owner*, the task that opened the pool, so that its waits are seen."""
        self._owner, self._pace = owner, pace

    def expect(self, record: AgentRecord) -> None:
        """Add an accepted agent."""
        (self.active if record.on_end is None else self.owned)[record.agent_id] = record

    def __contains__(self, agent_id: object) -> bool:
        """Return whether that agent has not ended."""
        if type(agent_id) is not int:  # as in find()
            return False
        if agent_id in self.active:
            return not self.active[agent_id].has_ended
        return agent_id in self.owned and not self.owned[agent_id].has_ended

    def __iter__(self) -> Iterator[AgentId]:
        """Yield the ids of all agents that have not ended, in spawn order."""
        owned = [one.agent_id for one in self.owned.values() if not one.has_ended]
        return iter(sorted([*self.active, *owned]))

    def find(self, agent_id: AgentId) -> AgentRecord | None:
        """Return the record of an agent. ``None``: it never existed, or is no longer kept."""
        if type(agent_id) is not int:  # True is a key that finds agent 1, and no id
            return None
        found = self.active.get(agent_id) or self.owned.get(agent_id) or self.kept.get(agent_id)
        return None if found is None else as_record(self._pool, found)

    def everybody(self) -> Iterator[AgentRecord]:
        """Yield all agents that are known, of whatever origin, in spawn order."""
        for one in self._known(children=True).values():
            yield as_record(self._pool, one)

    def ended(self, record: AgentRecord) -> None:
        """Record an agent's end, and wake the calls that wait for it."""
        agent_id = record.agent_id
        # A pool that forgets counts the outcomes that were given out: the record knows which.
        left = record.remains if self.keep_outcomes is None and record.on_end is None else record
        for join in self._joins:
            join.note_end(record, left)
        is_forgotten = record.rare is not None and record.rare.is_forgotten
        if is_forgotten:
            self._drop(record)
        if record.on_end is not None:
            record.on_end(record)
            return
        del self.active[agent_id]
        if not is_forgotten:
            self.kept.add(agent_id, left)
            self._ended.append(agent_id)
        if self._next.sleepers:
            if not self.active:
                self._next.unpark_all()  # some of them will learn that no agent is left
            elif not is_forgotten:
                self._next.unpark(1)

    def all_ended(self, unstarted: list[AgentRecord]) -> None:
        """Record the end of agents that never had a slot, as ``ended`` does. Their records stay."""
        for join in self._joins:
            for record in unstarted:
                join.note_end(record, record)
        before = len(self._ended)
        for record in unstarted:
            if record.on_end is not None:
                record.on_end(record)
                continue
            agent_id = record.agent_id
            del self.active[agent_id]
            self.kept.add(agent_id, record)
            self._ended.append(agent_id)
        if self._next.sleepers:
            # If none is left, all of them will learn that.
            self._next.unpark(len(self._ended) - before if self.active else len(self._next))

    @contextmanager
    def batch(self, *, is_rising: bool) -> Generator[Batch, None, None]:
        """Open a batch for agents that are accepted one after the other.

        It holds their numbers alone, so of those that end meanwhile no more is kept than of others.

        Args:
            is_rising: Whether their numbers rise. If not, the batch may also keep others that are
                forgotten while it is open.
        """
        batch = Batch(is_rising)
        self._batches.append(batch)
        try:
            yield batch
        finally:
            self._batches.remove(batch)

    def all_of(self, batch: Batch) -> Iterator[Kept]:
        """Yield what is kept of the agents of *batch*, in order."""
        for agent_id in batch.ids:
            yield self.active.get(agent_id) or self.kept.get(agent_id) or batch.forgotten[agent_id]

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
        if record.on_end is None:
            for batch in self._batches:
                batch.forget(record)
        self.kept.drop(record.agent_id)
        self.owned.pop(record.agent_id, None)
        self.failed.discard(record.agent_id)
        # Each scan is paid for by the half of the agents that it throws out.
        if len(self._ended) > 2 * len(self.kept) + SPARE_GHOSTS:
            self._ended = deque(one for one in self._ended if self.kept.get(one) is not None)

    def _take_next(self) -> Kept | None:
        """Return an ended agent that ``join_next`` has not returned, if there is one."""
        while self._ended:
            if (one := self.kept.get(self._ended.popleft())) is not None:
                return one
        return None

    async def join_next(self) -> AgentOutcome | None:
        """Return the next outcome that has not been returned yet. ``None``: no agent is left.

        Cancellation:
            No outcome is lost: the next caller gets it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while (one := self._take_next()) is None and self.active:
            wait = Wait.any_of(self.active.keys(), "the next agent to end")
            async with parked(wait, self._next, self._owner):
                if self.active and not self._ended:
                    await self._next.park()
        outcome = None if one is None else _collected(one)
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
        wanted = self._known(children=children)
        rest = (self.active, self.owned) if children else (self.active,)
        owned = sum(not one.has_ended for one in self.owned.values()) if children else 0
        if missing := len(self.active) + owned:
            join = _Join(rest, wanted, missing)
            self._joins.append(join)
            try:
                wait = Wait.all_of(join, "all agents")
                async with parked(wait, join.lot, self._owner):
                    while join.missing:
                        await join.lot.park()
            finally:
                self._joins.remove(join)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        outcomes = cast("dict[AgentId, AgentOutcome]", wanted)  # in place: there may be very many
        for agent_id, one in wanted.items():
            outcomes[agent_id] = _collected(one)
        self._ended = deque(one for one in self._ended if one not in outcomes)
        return outcomes

    def _known(self, *, children: bool) -> dict[AgentId, Kept]:
        """Return all agents that are known, in spawn order, those of parents only as *children*."""
        others = [*self.active.values(), *(self.owned.values() if children else ())]
        others.sort(key=_NUMBER)  # a child that went on is among them
        # Merged one by one: those that have ended may be very many, and need no list of their own.
        merged = merge(self.kept, others, key=_NUMBER) if others else self.kept
        return {one.agent_id: one for one in merged}

    def unseen_failures(self) -> dict[AgentId, Exception]:
        """Errors of failed agents whose outcomes were never retrieved, in spawn order."""
        return {
            agent_id: error
            for agent_id in sorted(self.failed)
            if isinstance(record := self.kept.get(agent_id), AgentRecord)
            and (error := record.unseen_failure) is not None
        }


def _collected(one: Kept) -> AgentOutcome:
    """Return an outcome, which counts as retrieved."""
    return one.collect() if isinstance(one, AgentRecord) else one
