"""The right to run, and how an agent gives it back while it waits.

An agent that waits for others (a child, an answer, room in an inbox, a retry) holds no
slot meanwhile, so a pool with one slot can run any tree of parents and children. It takes a slot
again before it goes on, ahead of agents that have not started.

An agent may run several tools side by side, each a strand. It waits when all of its strands wait,
and a strand waits when any of its tasks does: other agents can run while a tool waits for two
children, or while it waits for one child and another of its tasks reads a connection. Tasks that a
tool starts inside itself belong to its strand, and so do calls back from its thread. Tasks that it
leaves in nurseries outside of the agent are not the agent's: they wait like the owner.

Between two steps of trio, the slot of an agent that has started and not ended is in one of
these states, and in no other. A slot that its agent has is never lent or wanted, and it is
given back in the same step in which the last strand begins to wait.

| held | lent | wanted | every strand waits | the agent |
|---|---|---|---|---|
| yes | no | no | no | runs |
| no | no | no | yes | is parked; its slot was given away |
| no | yes | no | yes | is parked at a gate; its slot is kept for agents that come back |
| no | no | yes | no | comes back, and waits until its slot is granted |
| no | no | no | no | was cancelled, and ends without a slot |
| no | yes | no | no | was cancelled at a gate, and ends without a slot |
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

import trio

from agentpool._base import Live
from agentpool._errors import DeadlockError
from agentpool._messages import OWNER_ID, AgentId
from agentpool._scheduling.ctrl_c import ends_the_program, unbroken
from agentpool._scheduling.fair_queue import Share
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.strand import Fork, Strand, current_strand
from agentpool._scheduling.waits import Wait, WaitBook

if TYPE_CHECKING:
    from agentpool._scheduling.current_request import Asking


_NoWaits: TypeAlias = "MappingProxyType[trio.lowlevel.Task, parked]"
NO_WAITS: Final[_NoWaits] = MappingProxyType({})
"""The waits of an agent that waits for nothing."""


class SlotKeeper(Protocol):
    """Hands out the slots of one pool."""

    outer: Slot | None
    """The slot of the agent in which the keeper's pool was opened. ``None``: in no agent."""
    outer_deadline: float
    """The deadline of everything around the keeper's pool. For a wait, it does not count."""
    book: WaitBook
    """The waits of the pool's agents and owner."""

    def share_of(self, slot: Slot) -> Share:
        """Return the share that the agent of *slot* has in a queue."""
        ...

    def release(self, slot: Slot, wait: Wait) -> None:
        """Take back the slot of a waiting agent, and give it to the next one."""

    def look_again(self, slot: Slot) -> None:
        """Reconsider an agent without a slot after its waits have changed."""

    def regain(self, slot: Slot) -> bool:
        """Give *slot* back to its agent if one is free and no other agent comes first."""
        ...

    def request(self, slot: Slot) -> None:
        """Grant *slot* now or later, before any new agent, by calling ``slot.grant()``."""


@unbroken
@final
class Slot(Live):
    """One started agent's right to run."""

    keeper: SlotKeeper
    agent_id: AgentId
    scope: trio.CancelScope
    """The agent's own scope. If it is cancelled, the agent ends without a slot."""
    name: str = ""
    """The agent's name."""
    started_at: float = 0.0
    """When the agent got it, in seconds since the pool opened."""
    held: bool = True
    lent: bool = False
    """Whether the slot is lent: kept for agents that come back, not for new ones."""
    task: trio.lowlevel.Task | None = None
    """The agent's own task. ``None``: it has not taken its first step, or has ended."""
    own_strand: Strand | None = None
    """What it does if it does one thing at a time. ``None``: it has not waited since it began or
    forked."""
    forked: Fork | None = None
    """Its strands, if its own task waits for several, and does nothing else."""
    on_waiting: Callable[[], None] | None = None
    """Called when a task of the agent begins to wait. ``None``: nothing is called."""
    guards: tuple[float, ...] = ()
    """Deadlines that the manifest sets for its tools, unless it is forked. They are not meant for
    waits: a wait that only they would end counts as one without a deadline."""
    asking: Asking | None = None
    """The request that the agent makes in its own turn. ``None``: there is no request."""
    _waits: dict[trio.lowlevel.Task, parked] | None = None
    _granted: trio.Event | None = None

    @property
    def waits(self) -> dict[trio.lowlevel.Task, parked] | _NoWaits:
        """The waiting tasks of the agent, and what they wait for; the newest wait is the last."""
        return self._waits or NO_WAITS

    def has_deadline(self) -> bool:
        """Return whether the current task has its own deadline; ``guards`` do not count."""
        deadline, forked = trio.current_effective_deadline(), self.forked
        guards = self.guards if forked is None else forked.guards
        if deadline in guards:
            # What is set further out ends later than the guard, except for the whole run.
            deadline = self.scope.deadline
            if deadline in guards:
                return False
        return deadline < self.keeper.outer_deadline

    def is_guard(self, deadline: float) -> bool:
        """Return whether the manifest sets *deadline* for a tool of the agent, or for the run."""
        return deadline in (self.guards if self.forked is None else self.forked.guards)

    def end_guard(self, guard: float) -> None:
        """Forget the deadline of a tool that has ended."""
        if self.forked is None:
            self.guards = self.guards[:-1]  # of one tool at a time, it is the last
        else:
            self.forked.end_guard(guard)

    @property
    def all_wait(self) -> bool:
        """Whether every strand waits."""
        if self.forked is not None:
            return not self.forked.busy
        return self.own_strand is None or self.own_strand.waits > 0

    @property
    def only_lends(self) -> bool:
        """Whether the agent waits only at gates, so that its slot is only lent."""
        return all(parked.wait.lends for parked in self.waits.values())

    @property
    def wanted(self) -> bool:
        """Whether a task waits for the slot to be granted."""
        return self._granted is not None

    def grant(self) -> None:
        """Give the slot to the agent, so that it goes on."""
        self.held = True
        self.abandon()

    def abandon(self) -> None:
        """Wake the tasks that wait for the slot, without granting it."""
        if self._granted is not None:
            self._granted.set()
            self._granted = None

    def fork(self, count: int) -> tuple[Strand, ...]:
        """Return *count* strands, one for each of several calls that run at the same time."""
        strands = tuple([Strand() for _ in range(count)])
        self.own_strand = None
        self.forked = Fork(dict.fromkeys(strands), count, dict.fromkeys(self.guards, 1))
        return strands

    def strand_ended(self, strand: Strand) -> None:
        """End one strand. After the last one the agent itself goes on."""
        forked = self.forked
        assert forked is not None  # noqa: S101  # it is so until the last one has ended
        forked.end(strand)
        if not forked.strands:
            self.forked = None
        elif self.waits:
            self.settle(next(iter(self.waits.values())).wait)

    def strand_of(self, task: trio.lowlevel.Task) -> Strand | None:
        """Return the strand that *task* belongs to. ``None``: the task is not the agent's."""
        strand = current_strand.get()
        if strand is None and task is self.task and self.forked is None:
            return self._own_strand()
        if self.task is None or (strand is not None and strand.ended):
            return None
        root = trio.lowlevel.current_root_task()
        above = task
        while above is not self.task:
            nursery = above.parent_nursery
            if nursery is None or nursery.parent_task is root:
                # A call from a thread that may be left behind has a task of trio's own.
                if above is task:
                    break
                return None
            above = nursery.parent_task
        if strand is not None or self.forked is not None:
            # Forked, the own strand does nothing: whoever is of it was left behind.
            return strand
        return self._own_strand()

    def own_request(self) -> Asking | None:
        """Return the request that the agent makes, if the current task is part of the agent.

        A task that the agent has left behind is no longer part of it.
        """
        asking = self.asking
        if asking is None or self.strand_of(trio.lowlevel.current_task()) is None:
            return None
        return asking

    def _own_strand(self) -> Strand:
        if self.own_strand is None:
            self.own_strand = Strand()
        return self.own_strand

    def begin_wait(self, task: trio.lowlevel.Task, wait: parked) -> None:
        """Record that *task* waits. Gives the slot back if every strand waits."""
        if self._waits is None:
            self._waits = {}
        self._waits[task] = wait
        self.keeper.book.add(wait.wait, has_deadline=wait.has_deadline)
        if self.wanted and self.all_wait:
            # The strand that came back is beside one that waits now: it goes on, and takes no
            # slot, which would not be given back when it ends.
            self.abandon()
        self.settle(wait.wait)

    def end_wait(self, task: trio.lowlevel.Task) -> None:
        """Record that *task* waits no longer."""
        wait = None if self._waits is None else self._waits.pop(task, None)
        if wait is not None:  # or it was left behind
            self.keeper.book.remove(wait.wait, has_deadline=wait.has_deadline)

    def forget_waits(self) -> None:
        """Mark the tasks that still wait as left behind."""
        if self._waits is not None:
            for wait in self._waits.values():
                self.keeper.book.remove(wait.wait, has_deadline=wait.has_deadline)
            self._waits = None

    def settle(self, wait: Wait) -> None:
        """Give the slot back if every strand waits; *wait* is the newest wait."""
        if not self.held:
            self.keeper.look_again(self)
        elif self.all_wait:
            self.held = False
            self.keeper.release(self, wait)

    async def leave_behind(self) -> None:  # noqa: ASYNC910  # waits only when the slot is gone
        """Take a slot again, as ``resume``, even though an abandoned thread waits in a call."""
        if self.own_strand is not None:
            self.own_strand.ended = True
            self.own_strand = None
        self.forget_waits()
        await self.resume()

    async def resume(self) -> None:  # noqa: ASYNC910  # waits only when the slot is gone
        """Wait for a slot and take it.

        Cancellation:
            If the agent itself is cancelled, it does not wait for a slot. If only a part of it is
            cancelled, it still does: that part ends and the agent goes on.
        """
        if self.held or self.scope.cancel_called or self.keeper.regain(self):
            return  # noqa: ASYNC910  # there is nothing to wait for
        if self._granted is None:
            self._granted = granted = trio.Event()
            self.keeper.request(self)
        else:
            granted = self._granted
        # Shielded, since code that goes on without a slot would break the pool's bound. The
        # agent's own cancellation and deadline do end the wait: it then ends without a slot.
        with trio.CancelScope(shield=True, deadline=self.scope.deadline):
            await granted.wait()
        if not granted.is_set():
            self.abandon()


current_slot: ContextVar[Slot | None] = ContextVar("agentpool_slot", default=None)
"""The slot of the agent that the current task belongs to. ``None``: it belongs to no agent."""

feeds_for: Final[ContextVar[Slot | None]] = ContextVar("agentpool_feeds_for", default=None)
"""The slot of the agent whose map the current task feeds. ``None``: it feeds none of an agent."""


@unbroken
@final
class parked(Live):  # noqa: N801  # used as a statement: async with parked(Wait.message(), lot)
    """``async with parked(wait, lot):`` waits without a slot, and takes one at the end.

    Outside of an agent there is no slot to give back. With *owner*, the wait of a task on the
    owner's side is recorded in the pool.

    A time limit around the block ends the wait. The agent then has to wait for a slot, so in a busy
    pool it goes on later than the limit. Only the agent's own deadline or cancellation ends the
    wait for the slot as well.

    Raises:
        DeadlockError: Raised by ``lot.park()``, if the wait would never end.
    """

    wait: Wait
    lot: Lot | None = None
    """Where the task waits. ``None``: it waits for something that ends by itself."""
    owner: Owner | None = None
    """The owner of the pool that must end the wait. ``None``: no pool has to end it."""
    has_deadline: bool = False
    """Whether the waiting task has a deadline that is not the pool's."""
    _slot: Slot | None = None
    _strand: Strand | None = None
    _task: trio.lowlevel.Task | None = None
    _for: AgentId | None = None
    """For whom the owner has recorded the wait. ``None``: it has not."""

    @property
    def woken(self) -> bool:
        """Whether the awaited thing has happened, even if the task has not run since."""
        return self.lot is not None and self._task not in self.lot

    def fail(self, error: DeadlockError) -> None:
        """Raise an error in a wait that would never end."""
        # Only a wait that has begun is found, and only one that can last is failed.
        assert self.lot is not None and self._task is not None  # noqa: S101, PT018
        self.lot.fail(self._task, error)

    async def __aenter__(self) -> None:  # noqa: ASYNC910  # nothing to wait for: gives back
        """Give the slot back."""
        slot, owner = current_slot.get(), self.owner
        task = trio.lowlevel.current_task()
        strand = None if slot is None else slot.strand_of(task)
        if owner is not None and (
            strand is None or slot is None or slot.keeper is not owner.keeper
        ):
            self._begin_outside(owner, slot, task)
        if slot is None or strand is None or task in slot.waits:
            # A wait within a wait, such as an approver that asks a model, is one wait.
            return  # noqa: ASYNC910  # nothing to give back
        self._slot, self._strand, self._task = slot, strand, task
        if self.lot is not None:
            self.has_deadline = slot.has_deadline()
        strand.waits += 1
        if slot.forked is not None:
            slot.forked.begin_wait(strand)
        slot.begin_wait(task, self)
        if slot.on_waiting is not None:
            slot.on_waiting()

    def _begin_outside(self, owner: Owner, slot: Slot | None, task: trio.lowlevel.Task) -> None:
        """Record the wait of a task outside of the pool's agents."""
        is_of_pool = slot is not None and slot.keeper is owner.keeper
        asker = feeds_for.get() if slot is None else None
        is_fed = asker is not None and asker.keeper is owner.keeper and asker.task is not None
        if not (is_of_pool or is_fed):
            # A task that an agent has left behind is where its nursery is, and no user's.
            owner.note_use()
        asker_id = asker.agent_id if asker is not None and is_fed else OWNER_ID
        if task not in owner.waits_for(asker_id):
            self._task, self._for = task, asker_id
            owner.begin(task, self, asker_id)
        if slot is not None and not is_of_pool:
            # Agents of two pools have the same numbers, and one pool knows nothing of the
            # other: for the caller's own pool, what happens here ends by itself.
            self.wait = Wait.other(f"{self.wait.text} of another pool", self.wait.reason)

    async def __aexit__(  # noqa: ASYNC910  # waits only when the slot is gone
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take a slot again."""
        slot, strand, task = self._slot, self._strand, self._task
        if self._for is not None and self.owner is not None and task is not None:
            self.owner.end(task, self._for)
        if slot is None or strand is None or task is None:
            return  # noqa: ASYNC910  # there is nothing to wait for
        slot.end_wait(task)
        strand.waits -= 1
        if slot.forked is not None:
            slot.forked.end_wait(strand)
        if strand.ended or slot.task is None or ends_the_program(error):
            # A call from a thread that was left behind: its agent has gone on, or has ended,
            # and the slot would not be given back. And what ends the program, such as Ctrl-C
            # at an approver's prompt, is not kept waiting.
            return  # noqa: ASYNC910  # it has been waited for
        if strand.waits:
            # Others of the strand still wait: it would not be given back when this task ends.
            if not slot.held:
                slot.keeper.look_again(slot)
        else:
            await slot.resume()  # noqa: ASYNC102  # it shields itself, up to the agent's deadline
