"""Detects agents that wait for each other in a circle, and pools in which all wait.

A suspicion is cheap: it follows the waits of one agent, and only of one that is waited for.
Only a suspicion is looked into, two scheduler steps later, when everybody who was woken
already has taken a step.

An agent without a slot may have tasks that work, beside others that wait. trio tells
nobody when such a task ends, so whoever has looked watches it until it works no more.

The owner is the task that opened the pool. While it does anything but wait in a call of the
pool, it can still send, so agents that wait for a message are not deadlocked. The same
holds when it has tasks of its own beside the pool, or when other tasks have used the pool.

| the owner | agents | what happens |
|---|---|---|
| works, or has tasks of its own | in a circle | one of the circle is told |
| works, or has tasks of its own | all wait for messages | nothing: it may send |
| waits, without a deadline of its own | in a circle, perhaps through it | an agent is told |
| waits, without a deadline of its own | all wait for messages | the first agent is told |
| waits for a message | none is left | the owner is told |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import final

import attrs
import trio

from agentpool._errors import DeadlockError
from agentpool._messages import OWNER_ID, AgentId
from agentpool._pool.admission import Admission
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.slot import Owner, Slot, parked
from agentpool._scheduling.waits import (
    Wait,
    deadlock_cycle,
    describe_deadlock,
    find_deadlocked,
)


@final
@attrs.define(eq=False, repr=False)
class Workers(trio.abc.Instrument):
    """Watches tasks that work without a slot. Installed only while there are any."""

    _stopped: Callable[[AgentId], None]
    """Called when one of them works no more."""
    _slots: dict[trio.lowlevel.Task, Slot] = attrs.field(factory=dict[trio.lowlevel.Task, Slot])

    def watch(self, task: trio.lowlevel.Task, slot: Slot) -> None:
        """Watch *task*, which belongs to the agent of *slot*."""
        if not self._slots:
            trio.lowlevel.add_instrument(self)
        self._slots[task] = slot

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Report if a watched *task* no longer works."""
        slot = self._slots.get(task)
        if slot is None or _works(task, slot):
            return
        del self._slots[task]
        if not self._slots:
            trio.lowlevel.remove_instrument(self)
        self._stopped(slot.agent_id)


@final
@attrs.define(eq=False, repr=False)
class DeadlockWatch:
    """Watches the waits of one pool for deadlocks."""

    _nursery: trio.Nursery
    _admission: Admission
    _running: Mapping[AgentId, AgentRecord]
    owner: Owner = attrs.field(init=False)
    """The task that opened the pool."""
    sources: list[Callable[[], bool]] = attrs.field(init=False, factory=list[Callable[[], bool]])
    """Of each map that is open: whether it may start an agent by itself."""
    _suspects: dict[AgentId, None] = attrs.field(init=False, factory=dict[AgentId, None])
    """Those who seemed to close a circle, in the order of the suspicions."""
    _is_suspicious: bool = attrs.field(init=False, default=False)
    """Whether anything was suspected since the last round."""
    _looking: bool = attrs.field(init=False, default=False)
    _workers: Workers = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Check for a deadlock whenever an agent stops working or the owner waits."""
        self._workers = Workers(self.suspect)
        self.owner = Owner(self._admission, lambda: self.suspect(OWNER_ID))

    def suspect(self, first: AgentId | None = None) -> None:
        """Check for a deadlock if one seems possible.

        Args:
            first: Who just began to wait, works no more, or has fewer agents to wait for.
                ``None``: somebody ended.
        """
        if first is not None and self._seems_to_close(first):
            self._suspects[first] = None
        elif not (self._admission.book.listeners and self._stands_still()):
            return
        self._is_suspicious = True
        if not self._looking:
            self._looking = True
            self._nursery.start_soon(self._look, name="deadlock watch")

    def _seems_to_close(self, first: AgentId) -> bool:
        """Return whether a circle of waits seems to lead from *first* back to it."""
        if not self._admission.book.is_awaited(first):
            return False
        waits = self._reached(first, settled=False)
        return first in find_deadlocked(waits, others_can_send=True)

    def _stands_still(self) -> bool:
        """Return whether no agent runs or will run, and one waits for a message."""
        admission = self._admission
        return (
            admission.book.may_stand_still
            and not (admission.running_count or admission.queued_count)
            and not self._owner_can_act()
            and not any(may_start() for may_start in self.sources)
        )

    def _owner_can_act(self) -> bool:
        """Return whether the owner, or a task of its own, can act without being woken."""
        owner = self.owner
        if owner.is_shared or owner.wait is None or owner.has_deadline:
            return True
        return any(
            nursery is not self._nursery and nursery.child_tasks
            for nursery in owner.task.child_nurseries
        )

    async def _look(self) -> None:  # noqa: ASYNC910  # it is started for a suspicion
        while self._is_suspicious:
            suspects, self._suspects = self._suspects, {}
            self._is_suspicious = False
            # What is suspected meanwhile has a round of its own: whoever was woken by the
            # same thing must have taken its step.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            for first in suspects:
                while self._fail_first(self._reached(first, settled=True), first):
                    pass
            while self._stands_still() and self._fail_first(self._all_waits(), None):
                pass
        self._looking = False

    def _reached(self, first: AgentId, *, settled: bool) -> dict[AgentId, Sequence[Wait]]:
        """Return the waits that *first* depends on, directly or through others.

        Args:
            first: Whose waits are followed.
            settled: Whether everybody who was woken has taken a step since.
        """
        waits: dict[AgentId, Sequence[Wait]] = {}
        ahead = [first]
        while ahead:
            agent_id = ahead.pop()
            if agent_id not in waits and (own := self._waits_of(agent_id, settled=settled)):
                waits[agent_id] = own
                for wait in own:
                    ahead.extend(wait.agent_ids)
        return waits

    def _all_waits(self) -> dict[AgentId, Sequence[Wait]]:
        """Return the waits of every agent that cannot go on by itself."""
        return {
            agent_id: own
            for agent_id in (OWNER_ID, *self._running)
            if (own := self._waits_of(agent_id, settled=True))
        }

    def _waits_of(self, agent_id: AgentId, *, settled: bool) -> Sequence[Wait]:
        """Return the wait of each branch of an agent. Empty: it can go on by itself."""
        if agent_id == OWNER_ID:
            owner = self.owner
            if self._owner_can_act() or owner.wait is None or owner.way is None:
                return ()
            return () if settled and owner.way.woken else (owner.wait,)
        handle = self._running.get(agent_id)
        slot = None if handle is None else handle.slot
        # Who has a slot, or gets one, is looked at when it gives it back.
        if slot is None or slot.held or slot.wanted or slot.task is None:
            return ()
        waiting = slot.waits.values()
        if any(one.has_deadline or (settled and one.woken) for one in waiting):
            return ()
        if settled and self._has_workers(slot):
            return ()
        return [one.wait for one in waiting]

    def _has_workers(self, slot: Slot) -> bool:
        """Return whether tasks of an agent work beside its waiting ones, and watch them."""
        assert slot.task is not None  # noqa: S101  # looked at before
        # All of them, and not the first: the tasks of a nursery have no order.
        workers = [task for task in _tasks_of(slot.task) if _works(task, slot)]
        for task in workers:
            self._workers.watch(task, slot)
        return bool(workers)

    def _fail_first(self, waits: Mapping[AgentId, Sequence[Wait]], first: AgentId | None) -> bool:
        """Fail one deadlocked agent, *first* if it is one. Return whether any was failed."""
        # Who is not among those that wait can send. Those that *first* does not wait for are
        # looked at together, when nobody runs.
        others_can_send = first is not None or len(waits) <= len(self._running)
        stuck = find_deadlocked(waits, others_can_send=others_can_send)
        if not stuck:
            return False
        if first is None or first not in stuck:
            first = min(stuck, key=_agents_first)
        cycle = deadlock_cycle(first, waits, stuck)
        named = cycle or tuple(sorted(stuck - {OWNER_ID})) or (OWNER_ID,)
        victim = first if first in named else named[0]
        if victim == OWNER_ID:
            # An agent is told before the owner: it can still say so, and end.
            victim = min(named, key=_agents_first)
        start = named.index(min(named, key=_agents_first))
        named = named[start:] + named[:start]
        names = {agent_id: handle.name for agent_id, handle in self._running.items()}
        text = describe_deadlock(named, waits, names, cycle=bool(cycle))
        self._parked(victim, stuck).fail(DeadlockError(text, agent_ids=named))
        return True

    def _parked(self, victim: AgentId, stuck: frozenset[AgentId]) -> parked:
        """Return the wait of *victim* to fail: one for another stuck agent, if there is one."""
        if victim == OWNER_ID:
            owners = self.owner.way
            assert owners is not None  # noqa: S101  # it waited when we looked
            return owners
        slot = self._running[victim].slot
        # It was parked when we looked, and nothing has run since.
        assert slot is not None  # noqa: S101
        return next(
            (
                one
                for one in slot.waits.values()
                if any(target in stuck for target in one.wait.agent_ids)
            ),
            next(iter(slot.waits.values())),
        )


def _agents_first(agent_id: AgentId) -> tuple[bool, AgentId]:
    return agent_id == OWNER_ID, agent_id


def _tasks_of(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks_of(child)


def _works(task: trio.lowlevel.Task, slot: Slot) -> bool:
    """Return whether *task* may be working: it is not known to wait and has not ended."""
    if task in slot.waits:
        return False
    home = task.parent_nursery
    if home is None or task not in home.child_tasks:
        return False
    # trio does not say in public that a task waits for its own nursery. Where it says it
    # no more, agents with tasks of their own are never deadlocked, as far as we know.
    return not any(
        getattr(nursery, "_parent_waiting_in_aexit", False) for nursery in task.child_nurseries
    )
