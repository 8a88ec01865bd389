"""Detects agents that wait for each other in a circle, and pools where all wait.

A first check is cheap: it follows the waits of one agent, and only if another agent waits for that
one. If it suspects a deadlock, there is a full check two scheduler steps later, when all tasks that
were woken have run.

An agent without a slot may have tasks that work, in addition to tasks that wait. trio does not
report the end of such a task, so the watch follows it until it no longer works.

The owner is the task that opened the pool and the tasks below it. If other tasks use the pool as
well, the owner is the nearest common ancestor of these tasks and all tasks below that ancestor.
While one of these tasks does anything other than waiting in a call of the pool, or for its own
nursery, the owner can still send. Tasks that declared themselves bystanders do not count. What a
source of a map waits for counts for whoever opened the map: an agent, or the owner.

| the owner's tasks | agents | what happens |
|---|---|---|
| one works, or waits with its own deadline | in a circle | one of the circle gets the error |
| one works, or waits with its own deadline | all wait for messages | nothing: it may send |
| all wait | in a circle, perhaps through the owner | an agent gets the error |
| all wait | all wait for messages | the first agent gets the error |
| all wait, one of them for a message | none is left | that task gets the error |
| all wait, for events at most | none is left | nothing: it looks the same as a pause |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from agentpool._errors import DeadlockError
from agentpool._messages import OWNER_ID, AgentId
from agentpool._pool.admission import Admission
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner, Way, looks_on
from agentpool._scheduling.slot import Slot
from agentpool._scheduling.waits import (
    LISTENING,
    Wait,
    WaitKind,
    deadlock_cycle,
    describe_deadlock,
    find_deadlocked,
)

if TYPE_CHECKING:
    from agentpool._messaging.stored_messages import Absent

FURTHER: Final = 8
"""How many agents beyond one that waits are looked at before all that it depends on."""

Waiters: TypeAlias = tuple[Slot | Owner, ...]
"""An agent or the owner. They know which of their tasks wait."""


@unbroken
@final
class Workers(trio.abc.Instrument):
    """Watches tasks that work without a slot. Installed only while such tasks exist."""

    __slots__ = ("_stopped", "_tasks", "owners")

    def __init__(self, stopped: Callable[[AgentId], None]) -> None:
        # Called when one of them works no more.
        self._stopped = stopped
        self._tasks: dict[trio.lowlevel.Task, tuple[AgentId, Waiters]] = {}
        self.owners = 0
        """How many of the watched tasks are on the owner's side."""

    def watch(self, task: trio.lowlevel.Task, agent_id: AgentId, waiters: Waiters) -> None:
        """Watch *task* of an agent or the owner, whose waits are in *waiters*."""
        if not self._tasks:
            trio.lowlevel.add_instrument(self)
        if task not in self._tasks:
            self.owners += agent_id == OWNER_ID
            self._tasks[task] = agent_id, waiters

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Report when a watched *task* stops working."""
        known = self._tasks.get(task)
        if known is None or _works(task, known[1]):
            return
        del self._tasks[task]
        self.owners -= known[0] == OWNER_ID
        if not self._tasks:
            trio.lowlevel.remove_instrument(self)
        self._stopped(known[0])

    def close(self) -> None:
        """Stop watching all tasks."""
        if self._tasks:
            self._tasks.clear()
            trio.lowlevel.remove_instrument(self)


@unbroken
@final
class DeadlockWatch:
    """Watches the waits of one pool for deadlocks."""

    def __init__(
        self,
        nursery: trio.Nursery,
        admission: Admission,
        running: Mapping[AgentId, AgentRecord],
    ) -> None:
        self._nursery = nursery
        self._admission = admission
        self._running = running
        self.sources: list[Callable[[], bool]] = []
        """One function for each open map. It returns whether the map may start an agent by
        itself."""
        # Those who seemed to close a circle, in the order of the suspicions.
        self._suspects: dict[AgentId, None] = {}
        # Whether anything was suspected since the last round.
        self._is_suspicious = False
        self._looking = False
        # Whether the pool's nursery ends with its last task.
        self._is_leaving = False
        # Whenever an agent stops working, or the owner waits, there may be a deadlock.
        self._workers = Workers(self.suspect)
        self.absent: Mapping[AgentId, Absent] = {}
        """Agents of an earlier process that their parents have not spawned again yet."""
        self.owner = Owner(admission, self.suspect)
        """The tasks that use the pool and are no agents."""

    def leave(self) -> None:
        """Stop looking when neither agents nor maps are left."""
        self._is_leaving = True

    def close(self) -> None:
        """Stop watching all tasks."""
        self._workers.close()

    def suspect(self, first: AgentId | None = None) -> None:
        """Check for a deadlock if one seems possible.

        Args:
            first: The agent that has just begun to wait, has stopped working, or waits for fewer
                agents. ``None``: an agent ended.
        """
        book = self._admission.book
        if first is not None and book.has_awaited and self._seems_to_close(first):
            self._suspects[first] = None
        elif not (book.listeners and self._stands_still(settled=False)):
            return
        if self._is_leaving and not self._nursery.child_tasks:
            return  # it has closed; asked last, since it copies all of its tasks for the answer
        self._is_suspicious = True
        if not self._looking:
            self._looking = True
            self._nursery.start_soon(self._look, name="deadlock watch")

    def _seems_to_close(self, first: AgentId) -> bool:
        """Return whether a circle of waits seems to lead from *first* back to it."""
        book = self._admission.book
        if book.has_groups:  # to look through many of them takes longer than the rest
            if self._goes_on(first, FURTHER) or not book.is_awaited(first):
                return False
        elif not book.is_awaited(first) or self._goes_on(first, FURTHER):
            return False
        waits = self._reached(first, settled=False)
        return first in find_deadlocked(waits, others_can_send=True)

    def _goes_on(self, agent_id: AgentId, further: int) -> bool:
        """Return whether the newest wait of an agent shows that it goes on.

        An agent may begin very many waits, and to look at all of them at each would take their
        square.

        Args:
            agent_id: The agent.
            further: How many agents to look at beyond it, each awaited by the one before.
        """
        if agent_id == OWNER_ID or agent_id in self.absent:
            return False
        record = self._running.get(agent_id)
        slot = None if record is None else record.slot
        if slot is None or slot.held or slot.wanted or slot.task is None:
            return True
        task = next(reversed(slot.waits), None)
        if task is None:
            return False
        newest = slot.waits[task]
        wait = newest.wait
        if newest.has_deadline or wait.ends_by_itself or wait.kind in LISTENING:
            return True
        target = wait.target
        if wait.kind is WaitKind.ANY:
            target = next(iter(wait.group), None)  # one that goes on is enough
            if target is None:  # all have ended, and this task has been woken
                return wait.fed_by is None or wait.fed_by() is None
        return further > 0 and target is not None and self._goes_on(target, further - 1)

    def _stands_still(self, *, settled: bool) -> bool:
        """Return whether no agent runs or can start while one waits for a message."""
        admission = self._admission
        return (
            admission.book.may_stand_still
            and not (admission.running_count or admission.queued_count)
            and not any(may_start() for may_start in self.sources)
            and not self._owner_can_act(settled=settled)
        )

    def _owner_can_act(self, *, settled: bool) -> bool:
        """Return whether a task of the owner can act without being woken by an agent.

        Args:
            settled: Whether all tasks that were woken have run since. Only then does this look for
                working tasks, and watch them until they no longer work.
        """
        owner = self.owner
        if not owner.waits or owner.has_deadline or owner.is_everybody or self._workers.owners:
            return True
        if not settled:
            return False
        if any(one.way.woken for one in owner.waits.values()):
            return True
        waiters = (owner,)
        workers = [
            task
            for task in _tasks_of(owner.root, but=self._nursery)
            if not looks_on(task) and _works(task, waiters)
        ]
        for task in workers:
            self._workers.watch(task, OWNER_ID, waiters)
        return bool(workers)

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
            while self._stands_still(settled=True) and self._fail_first(self._all_waits(), None):
                pass
        self._looking = False

    def _reached(self, first: AgentId, *, settled: bool) -> dict[AgentId, Sequence[Wait]]:
        """Return the waits that *first* depends on, directly or through others.

        Args:
            first: The agent to begin with.
            settled: Whether all tasks that were woken have run since.
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
            for agent_id in (OWNER_ID, *self._running, *self.absent)
            if (own := self._waits_of(agent_id, settled=True))
        }

    def _waits_of(self, agent_id: AgentId, *, settled: bool) -> Sequence[Wait]:
        """Return the wait of each strand of an agent. Empty: it can go on by itself."""
        if agent_id == OWNER_ID:
            if self._owner_can_act(settled=settled):
                return ()
            return [one.wait for one in self.owner.waits.values()]
        if (absent := self.absent.get(agent_id)) is not None:
            return (absent.wait,)
        record = self._running.get(agent_id)
        return () if record is None else self._strands_of(record.slot, settled=settled)

    def _strands_of(self, slot: Slot | None, *, settled: bool) -> Sequence[Wait]:
        """Return what each task of a running agent waits for. Empty: the agent can go on."""
        # Who has a slot, or gets one, is looked at when it gives it back.
        if slot is None or slot.held or slot.wanted or slot.task is None:
            return ()
        waiting = slot.waits.values()
        if any(one.has_deadline or (settled and one.woken) for one in waiting):
            return ()
        fed = self.owner.waits_for(slot.agent_id).values()
        if any(one.has_deadline or (settled and one.way.woken) for one in fed):
            return ()
        if not waiting or (settled and self._has_workers(slot)):
            return ()
        return [one.wait for one in waiting] + [one.wait for one in fed]

    def _has_workers(self, slot: Slot) -> bool:
        """Return whether an agent has working tasks in addition to waiting ones; watch those."""
        assert slot.task is not None  # noqa: S101  # looked at before
        # All of them, and not the first: the tasks of a nursery have no order.
        # What another agent has left in a nursery of this one waits like the owner.
        waiters = (slot, self.owner)
        workers = [task for task in _tasks_of(slot.task) if _works(task, waiters)]
        for task in workers:
            self._workers.watch(task, slot.agent_id, waiters)
        return bool(workers)

    def _fail_first(self, waits: Mapping[AgentId, Sequence[Wait]], first: AgentId | None) -> bool:
        """Fail one deadlocked agent, preferably *first*. Return whether any was failed."""
        # Who is not among those that wait can send. Those that *first* does not wait for are
        # looked at together, when no agent runs.
        able = len(self._running) + len(self.absent) + 1
        others_can_send = first is not None or len(waits) < able
        stuck = find_deadlocked(waits, others_can_send=others_can_send)
        if not stuck:
            return False
        if first is None or first not in stuck:
            first = min(stuck, key=_agents_first)
        cycle = deadlock_cycle(first, waits, stuck)
        named = cycle or tuple(sorted(stuck - {OWNER_ID})) or (OWNER_ID,)
        victim = first
        if first not in named or first == OWNER_ID or first in self.absent:
            # An agent is told before the owner: it can still say so, and end.
            present = [one for one in named if one not in self.absent]
            victim = min(present, key=_agents_first, default=OWNER_ID)
        start = named.index(min(named, key=_agents_first))
        named = named[start:] + named[:start]
        names = {agent_id: one.name for agent_id, one in self._running.items()}
        names |= {agent_id: one.name for agent_id, one in self.absent.items()}
        text = describe_deadlock(named, waits, names, cycle=bool(cycle))
        way = self._parked(victim, stuck)
        if way is None:
            return False
        way.fail(DeadlockError(text, agent_ids=named))
        return True

    def _parked(self, victim: AgentId, stuck: frozenset[AgentId]) -> Way | None:
        """Return the wait of *victim* to fail: preferably one for another stuck agent.

        ``None``: the agent only waits for events. Such a wait gets no error, since waiting may be
        its purpose.
        """
        waits = [(one.way, one.wait) for one in self.owner.waits_for(victim).values()]
        if victim != OWNER_ID:
            slot = self._running[victim].slot
            # It was parked when we looked, and nothing has run since.
            assert slot is not None  # noqa: S101
            waits = [*((one, one.wait) for one in slot.waits.values()), *waits]
        # A map that the owner's side feeds is not what its reader has to be told of.
        of_others = stuck - {victim}
        of_stuck = (
            way for way, wait in waits
            if wait.target in stuck or any(one in of_others for one in wait.group)
        )  # fmt: skip
        others = (way for way, wait in waits if wait.kind is not WaitKind.EVENT)
        return next(of_stuck, None) or next(others, None)


def _agents_first(agent_id: AgentId) -> tuple[bool, AgentId]:
    return agent_id == OWNER_ID, agent_id


def _tasks_of(
    task: trio.lowlevel.Task, *, but: trio.Nursery | None = None
) -> Iterator[trio.lowlevel.Task]:
    """Yield *task* and the tasks below it, except those of one nursery."""
    ahead = [task]
    while ahead:
        task = ahead.pop()
        yield task
        for nursery in task.child_nurseries:
            if nursery is not but:
                ahead.extend(nursery.child_tasks)


def _works(task: trio.lowlevel.Task, waiters: Waiters) -> bool:
    """Return whether *task* may be working: it has not ended and is not known to wait."""
    if any(task in one.waits for one in waiters):
        return False
    home = task.parent_nursery
    if home is None or task not in home.child_tasks:
        return False
    # trio does not say in public that a task waits for its own nursery. Where it says it
    # no more, agents with tasks of their own are never deadlocked, as far as we know.
    return not any(
        getattr(nursery, "_parent_waiting_in_aexit", False) for nursery in task.child_nurseries
    )
