"""Finds agents that wait for each other in a circle, and pools in which all wait.

A suspicion is cheap: it follows the waits of one agent. Only a suspicion is looked into,
one scheduler step later, when everybody who was woken already has taken a step.

An agent without a slot may have a task that works, beside others that wait. trio tells
nobody when such a task ends, so whoever has looked watches it until it works no more.

The owner is the task that opened the pool. While it does anything but wait for agents, it
can still send, so agents that wait for a message are not deadlocked. The same holds when
it has tasks of its own beside the pool, or when other tasks have used the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import attrs
import trio

from agentpool._errors import DeadlockError
from agentpool._messages import AgentId
from agentpool._pool.admission import Admission
from agentpool._pool.handle import AgentHandle
from agentpool._scheduling.slot import Slot
from agentpool._scheduling.waits import (
    Wait,
    deadlock_cycle,
    describe_deadlock,
    find_deadlocked,
)


@final
@attrs.define(eq=False, repr=False)
class Workers(trio.abc.Instrument):
    """Watches tasks that work without a slot. In place only while there are any."""

    _stopped: Callable[[AgentId], None]
    """Called when one of them works no more."""
    _slots: dict[trio.lowlevel.Task, Slot] = attrs.field(factory=dict[trio.lowlevel.Task, Slot])

    def watch(self, task: trio.lowlevel.Task, slot: Slot) -> None:
        """Watch *task*, of the agent that *slot* is of."""
        if not self._slots:
            trio.lowlevel.add_instrument(self)
        self._slots[task] = slot

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Tell if *task* was watched and works no more."""
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
    """Watches the waits of one pool."""

    _nursery: trio.Nursery
    _admission: Admission
    _running: Mapping[AgentId, AgentHandle]
    _owner: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)
    _outer_deadline: float = attrs.field(factory=trio.current_effective_deadline)
    """The deadline of everything around the pool: it is nobody's own."""
    _owner_waits: int = 0
    _shared: bool = False
    _looking: bool = False
    _workers: Workers = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Have it told when somebody works no more."""
        self._workers = Workers(self.suspect)

    def note_use(self) -> None:
        """Take note that a task outside of the agents uses the pool."""
        if trio.lowlevel.current_task() is not self._owner:
            self._shared = True

    @contextmanager
    def owner_waiting(self) -> Generator[None, None, None]:
        """While inside, the owner does nothing but wait for agents."""
        is_owner = trio.lowlevel.current_task() is self._owner
        if not is_owner or trio.current_effective_deadline() < self._outer_deadline:
            yield
            return
        self._owner_waits += 1
        self.suspect()
        try:
            yield
        finally:
            self._owner_waits -= 1

    def owner_left(self) -> None:
        """Take note that the pool's block has ended: the owner sends no more."""
        self._owner_waits += 1
        self.suspect()

    def suspect(self, first: AgentId | None = None) -> None:
        """Look whether agents are deadlocked, if it seems so.

        Args:
            first: Who just began to wait, or works no more. ``None``: somebody ended, or the
                owner waits.
        """
        if self._looking or (first is None and self._admission.running_count):
            return
        if not self._seems_deadlocked(first):
            return
        self._looking = True
        self._nursery.start_soon(self._look, first, name="deadlock watch")

    def _seems_deadlocked(self, first: AgentId | None) -> bool:
        if self._nobody_runs() and not self._others_can_send():
            return bool(self._running)
        # Follow the waits: a chain that ends at somebody who runs can end.
        seen: set[AgentId] = set()
        agent_id = first
        while agent_id is not None and agent_id not in seen:
            seen.add(agent_id)
            handle = self._running.get(agent_id)
            if handle is None or handle.slot is None or handle.slot.held:
                return False
            targets = [parked.wait.target for parked in handle.slot.waits.values()]
            agent_id = targets[0] if targets else None
        return agent_id is not None

    def _nobody_runs(self) -> bool:
        return not (self._admission.running_count or self._admission.queued_count)

    def _others_can_send(self) -> bool:
        """Whether the owner, or a task of its own, can still send."""
        if self._shared or not self._owner_waits:
            return True
        return any(
            nursery is not self._nursery and nursery.child_tasks
            for nursery in self._owner.child_nurseries
        )

    async def _look(self, first: AgentId | None) -> None:
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        self._looking = False
        # Several circles may have closed since somebody suspected one of them.
        while self._fail_first(first):
            pass

    def _fail_first(self, first: AgentId | None) -> bool:
        """Fail one of those that are deadlocked, *first* if it is. Return whether any was."""
        waits: dict[AgentId, list[Wait]] = {}
        for agent_id, handle in self._running.items():
            slot = handle.slot
            if slot is not None and not self._can_go_on(slot):
                waits[agent_id] = [parked.wait for parked in slot.waits.values()]
        can_send = self._others_can_send() or len(waits) < len(self._running)
        can_send = can_send or not self._nobody_runs()
        stuck = find_deadlocked(
            waits, others_can_send=can_send, owner_can_act=self._others_can_send()
        )
        if stuck:
            self._fail_one(first if first in stuck else min(stuck), waits, stuck)
        return bool(stuck)

    def _can_go_on(self, slot: Slot) -> bool:
        # Who has a slot, or gets one, is looked at when it gives it back.
        if slot.held or slot.wanted or slot.task is None:
            return True
        if any(
            parked.woken or parked.ends_at < self._outer_deadline for parked in slot.waits.values()
        ):
            return True
        worker = next((task for task in _tasks_of(slot.task) if _works(task, slot)), None)
        if worker is None:
            return False
        self._workers.watch(worker, slot)
        return True

    def _fail_one(
        self, first: AgentId, waits: Mapping[AgentId, Sequence[Wait]], stuck: frozenset[AgentId]
    ) -> None:
        cycle = deadlock_cycle(first, waits, stuck)
        victim = first if first in cycle or not cycle else cycle[0]
        if cycle:
            start = cycle.index(min(cycle))
            named = cycle[start:] + cycle[:start]
        else:
            named = tuple(sorted(stuck))
        names = {agent_id: handle.name for agent_id, handle in self._running.items()}
        text = describe_deadlock(named, waits, names, cycle=bool(cycle))
        slot = self._running[victim].slot
        # It was parked when we looked, and nothing has run since.
        assert slot is not None  # noqa: S101
        parked = next(
            (one for one in slot.waits.values() if one.wait.target in stuck),
            next(iter(slot.waits.values())),
        )
        parked.fail(DeadlockError(text, agent_ids=named))


def _tasks_of(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks_of(child)


def _works(task: trio.lowlevel.Task, slot: Slot) -> bool:
    """Whether *task* may do anything: it is not known to wait, and has not ended."""
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
