"""The right to run, and how an agent gives it back while it waits.

An agent that waits for others (a child, an answer, room in an inbox, a retry) holds no
slot meanwhile, so a pool of one runs any tree of parents and children. It takes a slot
again before it goes on, ahead of agents that have not started.

An agent may run several tools side by side, each a branch. It waits when all of its
branches wait, and a branch waits when any of its tasks does: a tool that waits for two
children, or for one beside a task that reads a connection, keeps nobody from running. Tasks
that a tool starts inside itself belong to its branch, and so do calls back from its thread.
Tasks that it leaves in nurseries of others are not the agent's: they wait like the owner.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Self, final

import attrs
import trio

from agentpool._errors import DeadlockError
from agentpool._fair import PLAIN, Share
from agentpool._messages import AgentId
from agentpool._waits import Wait


@final
@attrs.define(eq=False, repr=False)
class Branch:
    """One of the things that an agent does side by side."""

    waits: int = 0
    """How many of its tasks wait."""
    ended: bool = False


class SlotKeeper(ABC):
    """Whoever hands out slots."""

    __slots__ = ()

    outer: Slot | None
    """The slot of the agent in which the keeper's pool was opened. ``None``: in none."""

    @abstractmethod
    def release(self, slot: Slot, wait: Wait) -> None:
        """Take back the slot of an agent that waits, and hand it on."""

    @abstractmethod
    def request(self, slot: Slot) -> None:
        """Grant *slot* now or later, before any newcomer, by ``slot.grant()``."""


# Written out: calling list[Branch] costs ten times as much, and every agent has both.
def _no_branches() -> list[Branch]:
    return []


def _no_waits() -> dict[trio.lowlevel.Task, parked]:
    return {}


@final
@attrs.define(eq=False, repr=False)
class Slot:
    """One running agent's right to run."""

    keeper: SlotKeeper
    agent_id: AgentId
    scope: trio.CancelScope
    """The agent's own scope: cancelled, it needs no slot to end."""
    share: Share = PLAIN
    """What part of a gate the agent may have."""
    held: bool = True
    lent: bool = False
    """Whether it is given back for agents that come back, and for no newcomer."""
    request_clock: trio.CancelScope | None = None
    """The time that the agent's request may take. ``None``: it makes none, or has no limit."""
    task: trio.lowlevel.Task | None = None
    """The agent's own task. ``None``: it has not taken its first step, or has ended."""
    branches: list[Branch] = attrs.field(factory=_no_branches)
    """What it does side by side. Empty until it first waits; one while it does one thing."""
    forked: bool = False
    """Whether its own task waits for branches side by side, and does nothing else."""
    waits: dict[trio.lowlevel.Task, parked] = attrs.field(factory=_no_waits)
    """Who of the agent waits, and for what."""
    on_waiting: Callable[[], None] | None = None
    """Called when a task of the agent begins to wait. ``None``: nobody counts on it."""
    _granted: trio.Event | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it to be granted."""
        return self._granted is not None

    def grant(self) -> None:
        """Let the agent go on."""
        self.held = True
        self.abandon()

    def abandon(self) -> None:
        """Wake whoever waits for the slot, granted or not."""
        if self._granted is not None:
            self._granted.set()
            self._granted = None

    def fork(self, count: int) -> list[Branch]:
        """Return *count* branches, which go on side by side instead of the agent's own."""
        self.forked = True
        self.branches = [Branch() for _ in range(count)]
        return self.branches.copy()

    def branch_ended(self, branch: Branch) -> None:
        """Go on with one branch less; after the last one, as the agent itself."""
        branch.ended = True
        self.branches.remove(branch)
        if not self.branches:
            self.forked = False
        elif self.waits:
            self.settle(next(iter(self.waits.values())).wait)

    def branch_of(self, task: trio.lowlevel.Task) -> Branch | None:
        """Return the branch that *task* belongs to. ``None``: it is not the agent's task."""
        branch = current_branch.get()
        if self.task is None or (branch is not None and branch.ended):
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
        if branch is not None or self.forked:
            # Forked, the own branch does nothing: whoever is of it was left behind.
            return branch
        if not self.branches:
            self.branches.append(Branch())
        return self.branches[0]

    def settle(self, wait: Wait) -> None:
        """Give the slot back if every branch waits, the last one for *wait*."""
        if self.held and all(branch.waits for branch in self.branches):
            self.held = False
            self.keeper.release(self, wait)

    async def resume(self) -> None:  # noqa: ASYNC910  # waits only when the slot is gone
        """Take a slot again, waiting for one.

        Cancellation:
            Not waited for when the agent itself is cancelled. If only a part of it is,
            the slot is waited for all the same: that part ends and the agent goes on.
        """
        if self.held or self.scope.cancel_called:
            return  # noqa: ASYNC910  # there is nothing to wait for
        if self._granted is None:
            self._granted = granted = trio.Event()
            self.keeper.request(self)
        else:
            granted = self._granted
        if not granted.is_set():
            # Shielded, since code that goes on without a slot would break the pool's
            # bound. The agent's own cancellation and deadline do end the wait: it then
            # ends without a slot.
            with trio.CancelScope(shield=True, deadline=self.scope.deadline):
                await granted.wait()
            if not granted.is_set():
                self.abandon()


current_slot: ContextVar[Slot | None] = ContextVar("agentpool_slot", default=None)
"""The slot of the agent that the current task belongs to. ``None``: not an agent."""

current_branch: ContextVar[Branch | None] = ContextVar("agentpool_branch", default=None)
"""The branch that the current task belongs to. ``None``: the agent's own."""


@final
@attrs.define(eq=False, repr=False)
class parked:  # noqa: N801  # used as a statement: async with parked(Wait.message())
    """``async with parked(wait):`` wait without a slot, and take one afterwards.

    Outside of an agent it does nothing. A time limit around it ends the wait, and the
    agent then waits for a slot like everybody: in a busy pool it goes on later than its
    limit said. Only the agent's own deadline and cancellation end that as well.

    Raises:
        DeadlockError: If the wait turns out to be one that never ends.
    """

    wait: Wait
    slot: Slot | None = None
    ends_at: float = 0.0
    """The nearest deadline of whoever waits, on trio's clock."""
    _branch: Branch | None = None
    _scope: trio.CancelScope | None = None
    _deadlock: DeadlockError | None = None

    def fail(self, error: DeadlockError) -> None:
        """End the wait: it would never end by itself."""
        self._deadlock = error
        assert self._scope is not None  # noqa: S101  # only a wait that has begun is found
        self._scope.cancel()

    async def __aenter__(self) -> Self:  # noqa: ASYNC910  # nothing to wait for: gives back
        """Give the slot back."""
        slot = current_slot.get()
        if slot is None:
            return self
        task = trio.lowlevel.current_task()
        self._branch = slot.branch_of(task)
        if self._branch is None:
            return self
        self.slot = slot
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        self.ends_at = trio.current_effective_deadline()
        slot.waits[task] = self
        self._branch.waits += 1
        slot.settle(self.wait)
        if slot.on_waiting is not None:
            slot.on_waiting()
        return self

    async def __aexit__(  # noqa: ASYNC910  # waits only when the slot is gone
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take a slot again."""
        if self.slot is None or self._scope is None or self._branch is None:
            return  # noqa: ASYNC910  # there is nothing to wait for
        del self.slot.waits[trio.lowlevel.current_task()]
        self._branch.waits -= 1
        caught = self._scope.__exit__(kind, error, traceback)
        await self.slot.resume()  # noqa: ASYNC102  # it shields itself, up to the agent's deadline
        if caught and self._deadlock is not None:  # nothing else cancels our scope
            raise self._deadlock from None
