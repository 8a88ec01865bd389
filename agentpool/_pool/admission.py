"""Decides which agent runs next: slots, the queue of new agents, and returning agents.

Rules:

1. There are never more agents with a slot than there are slots.
2. An agent that gave its slot back to wait for others comes before one that has not started, and a
   child of an agent comes before any other newcomer: work that has begun is finished first.
3. Agents that come back are served in order. Newcomers share the slots by their groups, and so do
   children.
4. A newcomer is a plain value until it has a slot: no task, no scope, no inbox.
5. The slot of an agent that waits only at gates is lent to agents that come back, but never to a
   new one: the new agent would have to wait at the gate as well, while its time runs. The slot of
   an agent that also waits for something else is given away, since it may wait for the end of an
   agent that has not started.
6. A free slot is given out in the same step. Only where many agents run, the slots of those that
   end are handed on to queued ones in the next step, and nobody overtakes these meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Final, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import PoolFullError
from agentpool._events import AgentQueued, AgentResumed, SlotsChanged
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import OWNER_ID, AgentId
from agentpool._pool.entrance import Entrance
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.caller_context import CallerContext
from agentpool._scheduling.cancelled import is_cancelled
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.fair_queue import PLAIN, FairQueue, Share
from agentpool._scheduling.slot import Slot, current_slot
from agentpool._scheduling.waits import Wait, WaitBook, WaitKind
from agentpool._spawn import SpawnConfig
from agentpool.observe._hub import EventHub

MANY: Final = 16
"""Running agents from which on the slots of those that end in one step are handed on together, in
the next step. Many that begin in a row take a tenth less time than as many that begin one by one,
each as another ends; for few, the task that hands them on would take more than it saves."""

HANDING_ON: Final = "hand slots on"
"""The name of the task that does so."""


def _number_of(record: AgentRecord) -> AgentId:
    return record.agent_id


def _is_withdrawn(record: AgentRecord) -> bool:
    # Before it has ended: whoever is told of that may use the pool.
    return record.cancelled is not None


def _new_queue() -> FairQueue[AgentRecord]:
    return FairQueue(_is_withdrawn)


@unbroken
@final
class Admission(Live):
    """Hands out the slots of one pool."""

    slots: float
    """Agents that may run at a time."""
    max_queued: int
    """Newcomers that may wait."""
    _hub: EventHub
    _start: Callable[[AgentRecord, Slot], None]
    """Starts an agent with its first slot, in a copy of the context variables of the caller."""
    _nursery: trio.Nursery
    """The nursery of the agents."""
    _on_waiting: Callable[[AgentId], None]
    """Called after an agent has begun to wait."""
    running: Mapping[AgentId, AgentRecord]
    """The agents of the pool that have started and have not ended."""
    entrance: Entrance
    """Where calls wait until a new agent has room."""
    outer: Slot | None = msgspec.field(default_factory=current_slot.get)
    outer_deadline: float = msgspec.field(default_factory=trio.current_effective_deadline)
    """The deadline of everything around the pool."""
    book: WaitBook = msgspec.field(default_factory=WaitBook)
    """The waits of its agents and its owner."""
    _callers: CallerContext = msgspec.field(default_factory=CallerContext)
    _newcomers: FairQueue[AgentRecord] = msgspec.field(default_factory=_new_queue)
    _children: FairQueue[AgentRecord] = msgspec.field(default_factory=_new_queue)
    """Newcomers whose parents are agents of the pool."""
    running_count: int = 0
    """Agents that hold a slot. A plain number is enough, since each slot knows whether it is held:
    trio's limiter, which knows its borrowers, takes a tenth of an agent's time."""
    _lent: int = 0
    """Slots that wait for their agents to come back from a gate."""
    _is_handing_on: bool = False
    """Whether free slots are given out in the next step."""
    _returning: deque[Slot] = msgspec.field(default_factory=deque[Slot])

    def __post_init__(self) -> None:
        """Let new agents in from now on."""
        self.entrance.room_for = self.room_for

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
        # Free slots are for newcomers: whoever comes back was served when they became free.
        free = self.slots - self.running_count - self._lent
        wanted = self._newcomers.waiting + self._children.waiting + count
        return wanted <= free or wanted <= self.max_queued + max(0, free)

    def full_error(self, count: int) -> PoolFullError:
        """Return the error for a spawn of *count* agents without room."""
        running, queued = self.running_count, self.queued_count
        return PoolFullError(
            f"no room for {count} more: {running} of {self.slots:g} slots are "
            f"taken and {queued} of {self.max_queued} places in the queue; wait with "
            "fan_out() or spawn(), or increase max_queued",
            running=running,
            queued=queued,
        )

    def admit(
        self, record: AgentRecord, config: SpawnConfig, begins_in: Context | None = None
    ) -> Slot | None:
        """Return a slot for *record* if one is free, otherwise queue it. Ask ``room_for`` first.

        *begins_in*: the context variables of the caller. ``None``: they are looked up.
        """
        if self._is_handing_on:
            self.pump()  # it overtakes nobody
        if self.running_count + self._lent < self.slots:
            self.running_count += 1
            moment = self.entrance.moment
            return self._slot_for(record, self._hub.seconds() if moment is None else moment)
        record.reach(self._callers.now() if begins_in is None else begins_in)
        queue = self._children if record.origin.depth else self._newcomers
        queue.push(record, config.share)
        return None

    def withdraw(self, record: AgentRecord) -> None:
        """Remove a cancelled agent from the queue. Its place is free immediately."""
        queue = self._children if record.origin.depth else self._newcomers
        queue.note_gone()
        self._forget_callers()
        self.entrance.offer()

    def withdraw_all(
        self, why: tuple[str, str], *, is_left_open: bool = False
    ) -> list[AgentRecord]:
        """Empty the queue, and return its agents in order, marked as cancelled."""
        left = self._newcomers.drain() + self._children.drain()
        self._forget_callers()
        left.sort(key=_number_of)
        for record in left:
            record.mark_cancelled(why, is_left_open=is_left_open)
        self.entrance.offer()
        return left

    def pump(self, *, newcomers: bool = True) -> None:
        """Give out all free slots, first to agents that return from a wait."""
        while self._returning and self.running_count < self.slots:
            slot = self._returning.popleft()
            if slot.wanted and slot.task is not None:  # or it has ended meanwhile
                self._give_back(slot)
        free = self.slots - self.running_count - self._lent
        count = int(min(free, self.queued_count)) if newcomers else 0
        if count > 0:
            now = self._hub.seconds()
            for _ in range(count):
                self.running_count += 1
                self._start_next(now)
        if count < free:
            self.entrance.offer()

    def _slot_for(self, record: AgentRecord, now: float) -> Slot:
        if self.entrance.line:
            self.entrance.offer()
        scope = trio.CancelScope()
        return Slot(self, record.agent_id, scope, record.name, now)

    def _start_next(self, now: float) -> None:
        record = (self._children if self._children.waiting else self._newcomers).pop()
        if self._callers.last is not None:
            self._forget_callers()
        record.begins_in.run(self._start, record, self._slot_for(record, now))

    def _forget_callers(self) -> None:
        if not self.queued_count:
            self._callers.last = None

    def resize(self, slots: float) -> None:
        """Change the number of slots. Agents go on even if more are running than that."""
        with self._hub:
            self._hub.tell(SlotsChanged, OWNER_ID, "", slots)
            self.slots = slots
            self.pump()

    def leave(self, slot: Slot, now: float) -> None:
        """Take back the slot of an agent that ended, if it has one. Call it in the agent's task.

        Args:
            slot: The agent's slot.
            now: The time, as the hub tells it. The next agent begins when this one ends, so both
                get the same number.
        """
        # A task holds its context, which holds the slot: the circle would be left to the
        # garbage collector, with all that was in the task.
        slot.task = None
        slot.forget_waits()
        if slot.lent:
            self._end_loan(slot)
        if self._is_handing_on and slot.held and not self._returning:
            slot.held = False
            self.running_count -= 1
            return
        # Once the nursery is cancelled, newcomers would start only to be cancelled.
        newcomers = self.queued_count > 0 and not is_cancelled()
        if slot.held:
            slot.held = False
            if newcomers and not self._returning and self.running_count + self._lent <= self.slots:
                # In a pool with a queue, the slot of every agent is handed to the next one.
                if self.running_count < MANY:
                    self._start_next(now)
                    return
                self._nursery.start_soon(self._hand_on, name=HANDING_ON)
                self._is_handing_on = True
                self.running_count -= 1
                return
            self.running_count -= 1
            if not (self._returning or self.entrance.line):
                return  # nobody else could have it
        self.pump(newcomers=newcomers)

    async def _hand_on(self) -> None:  # noqa: ASYNC910  # there is nothing to wait for
        """Give the slots of the agents that ended in one step to the next ones."""
        self._is_handing_on = False
        with self._hub:
            self.pump(newcomers=not is_cancelled())

    def share_of(self, slot: Slot) -> Share:
        """Return the share of an agent. One that has ended has the usual share."""
        record = self.running.get(slot.agent_id)
        return PLAIN if record is None else record.share

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

    def tell_newcomer(self, record: AgentRecord) -> None:
        """Report that an agent waits for its first slot, as the last of the queue."""
        self.tell_queued(record.agent_id, record.name, self.queued_count - 1, again=False)

    def tell_queued(self, agent_id: AgentId, name: str, ahead: int, *, again: bool) -> None:
        """Report that an agent waits for a slot, with *ahead* agents before it.

        *again*: It had a slot before.
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
