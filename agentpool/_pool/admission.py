"""Decides which agent runs next: slots, the queue of new agents, and returning agents.

Rules:

1. At no instant do more agents hold a slot than there are slots.
2. Who gave a slot back to wait for others comes before who has not started, and a child
   of an agent before a newcomer: what has begun is ended first.
3. Who comes back is served in order. Newcomers, and children, share by their groups.
4. A newcomer is a plain value until it has a slot: no task, no scope, no inbox.
5. A slot whose agent waits at gates alone is lent to agents that come back, and to no other
   else: whoever starts would wait at the gate as well, with its time running. One whose
   agent waits for anything besides is given away: that may be the end of who has to start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import PoolFullError
from agentpool._events import AgentQueued, AgentResumed, SlotsChanged
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import OWNER_ID, AgentId
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.fair_queue import FairQueue
from agentpool._scheduling.pace import Pace
from agentpool._scheduling.slot import Slot, current_slot, parked
from agentpool._scheduling.waits import Wait, WaitBook, WaitKind, WaitReason
from agentpool.observe._hub import EventHub

T = TypeVar("T")
U = TypeVar("U")


def _number_of(record: AgentRecord) -> AgentId:
    return record.agent_id


def _is_withdrawn(record: AgentRecord) -> bool:
    # Before it has ended: whoever is told of that may use the pool.
    return record.cancelled is not None


def _new_queue() -> FairQueue[AgentRecord]:
    return FairQueue(_is_withdrawn)


@final
class Admission(Live):
    """Hands out the slots of one pool."""

    slots: float
    """Agents that may run at a time."""
    max_queued: int
    """Newcomers that may wait."""
    _hub: EventHub
    _start: Callable[[AgentRecord, Slot], None]
    """Told before the slot is handed on."""
    _on_waiting: Callable[[AgentId], None]
    """Told afterwards."""
    running: Mapping[AgentId, AgentRecord]
    """The agents of the pool that have started and have not ended."""
    outer: Slot | None = msgspec.field(default_factory=current_slot.get)
    outer_deadline: float = msgspec.field(default_factory=trio.current_effective_deadline)
    """The deadline of everything around the pool."""
    book: WaitBook = msgspec.field(default_factory=WaitBook)
    """What its agents and its owner wait for."""
    pace: Pace = msgspec.field(default_factory=Pace)
    """When a call of the pool yields that has nothing to wait for."""
    _newcomers: FairQueue[AgentRecord] = msgspec.field(default_factory=_new_queue)
    _children: FairQueue[AgentRecord] = msgspec.field(default_factory=_new_queue)
    """Newcomers whose parents are agents of the pool."""
    running_count: int = 0
    """Agents that hold a slot. Plain numbers: a limiter that knows its borrowers takes a
    tenth of an agent's time, and each slot says itself whether it is held."""
    closed: bool = False
    """Whether the pool takes no more agents."""
    _lent: int = 0
    """Slots that wait for their agents to come back from a gate."""
    _returning: deque[Slot] = msgspec.field(default_factory=deque[Slot])
    _room: trio.lowlevel.ParkingLot = msgspec.field(default_factory=trio.lowlevel.ParkingLot)

    @property
    def queued_count(self) -> int:
        """New agents that wait for their first slot."""
        return self._newcomers.waiting + self._children.waiting

    @property
    def lent_count(self) -> int:
        """Waiting agents at a gate whose slots are not given to new agents."""
        return self._lent

    def opener(self) -> AgentManifest | None:
        """Return the manifest of the running agent that opened the pool."""
        keeper = None if self.outer is None else self.outer.keeper
        if self.outer is None or not isinstance(keeper, Admission):
            return None
        agent = keeper.running.get(self.outer.agent_id)
        return None if agent is None else agent.take_work()[0].manifest

    def room_for(self, count: int) -> bool:
        """Return whether *count* more new agents would find a slot or a place in the queue."""
        # Slots that are free now are not promised to anybody: whoever comes back was
        # served when they became free.
        queued, taken = self.queued_count, self.running_count + self._lent
        if not queued and taken + count <= self.slots:
            return True
        free = 0 if queued else max(0, int(self.slots - taken))
        return count - free <= self.max_queued - queued

    def full_error(self, count: int) -> PoolFullError:
        """Return the error for a spawn of *count* agents without room."""
        running, queued = self.running_count, self.queued_count
        return PoolFullError(
            f"no room for {count} more: {running} of {self.slots:g} slots are "
            f"taken and {queued} of {self.max_queued} places in the queue; wait with spawn(), "
            "or raise max_queued",
            running=running,
            queued=queued,
        )

    async def enter(self, accept: Callable[[], AgentRecord]) -> AgentRecord:
        """Call *accept* as soon as a new agent has room, waiting without a slot.

        An agent that waits here is accepted's parent: it takes its own slot again only
        after the newcomer was let in, so that a pool of one with no queue has children.

        Raises:
            Exception: What *accept* raises.

        Cancellation:
            If cancelled, nothing was accepted.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.room_for(1):
            record = accept()
            if self.pace.is_due():
                await trio.lowlevel.cancel_shielded_checkpoint()
            return record
        async with parked(Wait.other("a place in the queue", WaitReason.QUEUE)):
            while not (self.closed or self.room_for(1)):
                await self._room.park()
            try:
                # Cancelled in the tick in which there was room: a map that is being left
                # must start no agent that would never be cancelled.
                await trio.lowlevel.checkpoint_if_cancelled()
                return accept()
            except BaseException:
                self._room.unpark()  # the room is the next one's
                raise

    async def enter_each(
        self, accept: Callable[[T, U], AgentRecord], wanted: Iterable[tuple[T, U]]
    ) -> list[AgentRecord]:
        """Call *accept* for each of *wanted* as soon as the pool has room, without a slot.

        Raises:
            Exception: What *accept* raises.

        Cancellation:
            Those accepted before stay accepted.
        """
        records: list[AgentRecord] = []
        for one, other in wanted:
            if self.pace.is_due():
                await trio.lowlevel.checkpoint()
            if self.room_for(1):
                records.append(accept(one, other))
            else:
                records.append(await self.enter(partial(accept, one, other)))
        await trio.lowlevel.cancel_shielded_checkpoint()
        return records

    def close(self) -> None:
        """Wake the calls that wait for room: the pool has closed."""
        self.closed = True
        self._room.unpark_all()

    def admit(self, record: AgentRecord) -> None:
        """Start *record* if a slot is free, otherwise queue it. Ask ``room_for`` first."""
        is_free = self.running_count + self._lent < self.slots
        if is_free and not (self._returning or self.queued_count):
            # Through the queue it would be the next one as well.
            self.running_count += 1
            self._start_with(record)
            return
        queue = self._children if record.depth else self._newcomers
        queue.push(record, record.share)
        self.pump()

    def withdraw(self, record: AgentRecord) -> None:
        """Remove a cancelled agent from the queue. Its place is free at once."""
        queue = self._children if record.depth else self._newcomers
        queue.note_gone()
        self._room.unpark()

    def withdraw_all(self) -> tuple[AgentRecord, ...]:
        """Empty the queue and return its agents in order."""
        left = self._newcomers.drain() + self._children.drain()
        left.sort(key=_number_of)
        self._room.unpark_all()
        return tuple(left)

    def pump(self, *, newcomers: bool = True) -> None:
        """Give out all free slots, first to agents that return from a wait."""
        while self.running_count < self.slots:
            if self._returning:
                slot = self._returning.popleft()
                if slot.wanted:
                    self._give_back(slot)
                continue
            if self.running_count + self._lent >= self.slots:
                return
            queue = self._children if self._children.waiting else self._newcomers
            if not (newcomers and queue.waiting):
                if self._room:
                    self._room.unpark()
                return
            self.running_count += 1
            self._start_with(queue.pop())

    def _start_with(self, record: AgentRecord) -> None:
        if self._room:
            self._room.unpark()
        scope = trio.CancelScope()
        slot = Slot(self, record.agent_id, scope, record.share, record.name)
        self._start(record, slot)

    def resize(self, slots: float) -> None:
        """Change the number of slots. Running agents go on, even if too many now."""
        with self._hub:
            self._hub.tell(SlotsChanged, OWNER_ID, "", slots)
            self.slots = slots
            self.pump()
            self._room.unpark_all()

    def leave(self, slot: Slot, *, newcomers: bool) -> None:
        """Take back the slot of an agent that ended, if it has one.

        Args:
            slot: The agent's.
            newcomers: Whether newcomers may start. Not when the pool's nursery is
                cancelled: each would only start to be cancelled.
        """
        # A task holds its context, which holds the slot: the circle would be left to the
        # garbage collector, with all that was in the task.
        slot.task = None
        slot.forget_waits()
        self._end_loan(slot)
        if slot.held:
            slot.held = False
            if newcomers and self._hand_on():
                return
            self.running_count -= 1
        self.pump(newcomers=newcomers)

    def _hand_on(self) -> bool:
        """Give the slot of an ended agent to a new one, if a new one is next.

        In a pool with a queue that is what every end does.
        """
        if self._returning or self.running_count + self._lent > self.slots:
            return False
        queue = self._children if self._children.waiting else self._newcomers
        if not queue.waiting:
            return False
        self._start_with(queue.pop())
        return True

    # The slots' side.

    def release(self, slot: Slot, wait: Wait) -> None:
        """Take back the slot of a waiting agent."""
        with self._hub:
            self._hub.parked(slot.agent_id, slot.name, wait)
            if wait.lends and slot.only_lends:
                self._lend(slot)
            self.running_count -= 1
            self.pump()
        if wait.kind is not WaitKind.OTHER:
            self._on_waiting(slot.agent_id)

    def look_again(self, slot: Slot) -> None:
        """Reconsider an agent without a slot after its waits have changed."""
        if slot.only_lends:
            self._lend(slot)
        elif slot.lent:
            self._end_loan(slot)
            with self._hub:
                self.pump()
        self._on_waiting(slot.agent_id)

    def regain(self, slot: Slot) -> bool:
        """Give *slot* back to its agent if one is free and no other agent comes first."""
        if self._returning or self.running_count >= self.slots:
            return False
        self._give_back(slot)
        return True

    def request(self, slot: Slot) -> None:
        """Queue an agent that returns from a wait, ahead of all new agents: no slot is free."""
        ahead = len(self._returning)
        self._returning.append(slot)
        self.tell_queued(slot.agent_id, slot.name, ahead, again=True)

    def tell_queued(self, agent_id: AgentId, name: str, ahead: int, *, again: bool) -> None:
        """Report that an agent waits for a slot, with that many agents ahead.

        Args:
            agent_id: Which agent.
            name: Its name.
            ahead: Agents that come before it.
            again: Whether it had one before.
        """
        counts = (self.running_count, self.slots)
        self._hub.tell(AgentQueued, agent_id, name, *counts, ahead, again)

    def _give_back(self, slot: Slot) -> None:
        self._end_loan(slot)
        self.running_count += 1
        slot.grant()
        self._hub.tell(AgentResumed, slot.agent_id, slot.name)

    def _lend(self, slot: Slot) -> None:
        if not slot.lent:
            slot.lent = True
            self._lent += 1

    def _end_loan(self, slot: Slot) -> None:
        if slot.lent:
            slot.lent = False
            self._lent -= 1
