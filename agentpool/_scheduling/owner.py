"""The owner's side of a pool: the tasks outside of agents that use it, and their waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final, Protocol, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import DeadlockError, UsageError
from agentpool._messages import OWNER_ID, AgentId
from agentpool._needs_trio import in_another_thread
from agentpool._opening import once
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.waits import Wait, WaitBook

looking_on: Final = ContextVar("agentpool_looking_on", default=False)
"""Whether the task only looks on. A task inherits it from the one that started it."""


@once
@contextmanager
def as_bystander() -> Generator[None]:
    """Declare that the current task, and tasks started in the block, send no messages.

    The task that opened a pool can always write to its agents, and so can every task that runs next
    to it. Therefore an agent that waits for a message gets no ``DeadlockError`` while such a task
    sleeps, serves or watches for signals. A bystander does not count. It may look at the pool, and
    cancel, interrupt and abort. What observers then do does not count as an act of the bystander.

    >>> import trio
    >>> async def tick() -> None:
    ...     with as_bystander():
    ...         await trio.sleep(1)
    """
    token = looking_on.set(True)
    try:
        yield
    finally:
        looking_on.reset(token)


def look_on() -> None:
    """Make the current context a bystander's."""
    looking_on.set(True)


def looks_on(task: trio.lowlevel.Task) -> bool:
    """Return whether *task* is a bystander."""
    return task.context.get(looking_on, False)


def refuse_bystander() -> None:
    """Raise if the current task is a bystander, because the call could end a wait.

    Raises:
        UsageError: If the current task is a bystander.
    """
    if looking_on.get():
        raise UsageError(
            "this task is a bystander but uses the pool, and agents may already have been told "
            "that no message can arrive; do this outside of `with as_bystander()`"
        )


class Way(Protocol):
    """One way of waiting: a task, and the event that wakes it."""

    wait: Wait
    """The reason for the wait."""

    @property
    def woken(self) -> bool:
        """Whether the awaited thing has happened, even if the task has not run since."""
        ...

    def fail(self, error: DeadlockError) -> None:
        """Raise an error in the wait."""


class WaitKeeper(Protocol):
    """Knows the waits of one pool."""

    outer_deadline: float
    """The deadline of everything around the pool. It does not count as a deadline of a wait."""
    book: WaitBook
    """The waits of the pool's agents and owner."""


@final
class OwnersWait(Live):
    """One wait of a task on the owner's side of a pool."""

    way: Way
    """How it waits."""
    wait: Wait
    """The reason for the wait."""
    has_deadline: bool
    """Whether it has a deadline that is not the pool's."""


_NO_WAITS: Final[Mapping[trio.lowlevel.Task, OwnersWait]] = MappingProxyType({})


@unbroken
@final
class Owner(Live):
    """The owner's side of a pool: the tasks outside of agents that use it, and their waits.

    It consists of the task that opened the pool and the tasks below it. When any other task uses
    the pool, the side grows: it then consists of the nearest common ancestor of both tasks and all
    tasks below that ancestor, since any of these may use the pool next.
    """

    keeper: WaitKeeper
    on_change: Callable[[AgentId], None]
    """Called when one of the tasks begins to wait in a call of the pool, or no longer does, with
    the agent or owner that it waits for."""
    task: trio.lowlevel.Task = msgspec.field(default_factory=trio.lowlevel.current_task)
    """The task that opened the pool."""
    root: trio.lowlevel.Task = msgspec.field(default_factory=trio.lowlevel.current_task)
    """The task that the side begins with."""
    thread: int = msgspec.field(default_factory=threading.get_ident)
    """The thread of the pool."""
    waits: dict[trio.lowlevel.Task, OwnersWait] = msgspec.field(
        default_factory=dict[trio.lowlevel.Task, OwnersWait]
    )
    """The waits in calls of the pool, in the order in which they began."""
    fed: dict[AgentId, dict[trio.lowlevel.Task, OwnersWait]] = msgspec.field(
        default_factory=dict[AgentId, dict[trio.lowlevel.Task, OwnersWait]]
    )
    """The waits of the sources of maps that agents opened, by agent: they count as the agent's."""
    _limited: int = 0
    """How many of these waits have their own deadline."""

    @property
    def has_deadline(self) -> bool:
        """Whether one of the waits has a deadline other than the pool's."""
        return self._limited > 0

    @property
    def is_everybody(self) -> bool:
        """Whether every task of the program is on this side, including trio's."""
        return self.root.parent_nursery is None

    def check_thread(self, call: str) -> None:
        """Raise if *call* was not made in the thread of the pool. Empty: its name is not known.

        Trio would not notice the changes of such a call before something else wakes trio.

        Raises:
            UsageError: If it was made in a different thread.
        """
        if threading.get_ident() != self.thread:
            raise in_another_thread(call)

    def note_use(self) -> None:
        """Record that the current task, which belongs to no agent, uses the pool.

        Raises:
            UsageError: If the task is not of the pool's thread.
        """
        one = task = trio.lowlevel.current_task()
        if task is self.task:
            return
        while one is not self.root:
            if one.parent_nursery is None:
                self.check_thread("")  # a task of another `trio.run` has no ancestor in this one
                above = dict.fromkeys(_line_of(task))
                self.root = next(one for one in _line_of(self.root) if one in above)
                return
            one = one.parent_nursery.parent_task

    def waits_for(self, asker: AgentId) -> Mapping[trio.lowlevel.Task, OwnersWait]:
        """Return the owner's own waits, or those of the sources of the maps of an agent."""
        return self.waits if asker == OWNER_ID else self.fed.get(asker, _NO_WAITS)

    def begin(self, task: trio.lowlevel.Task, way: Way, asker: AgentId) -> None:
        """Record that *task* waits on behalf of *asker*, and what it waits for."""
        has_deadline = trio.current_effective_deadline() < self.keeper.outer_deadline
        begun = OwnersWait(way, way.wait, has_deadline)
        if asker == OWNER_ID:
            self.waits[task] = begun
            self._limited += has_deadline
        else:
            self.fed.setdefault(asker, {})[task] = begun
        by_owner = asker == OWNER_ID
        self.keeper.book.add(way.wait, has_deadline=has_deadline, by_owner=by_owner)
        self.on_change(asker)

    def end(self, task: trio.lowlevel.Task, asker: AgentId) -> None:
        """Record that *task* has stopped waiting on behalf of *asker*."""
        waits = self.waits if asker == OWNER_ID else self.fed[asker]
        ended = waits.pop(task)
        if asker == OWNER_ID:
            self._limited -= ended.has_deadline
        elif not waits:
            del self.fed[asker]
        by_owner = asker == OWNER_ID
        self.keeper.book.remove(ended.wait, has_deadline=ended.has_deadline, by_owner=by_owner)
        if waits or not by_owner:
            # What the others wait for may now depend on this task, which is not known to end.
            self.on_change(asker)


def _line_of(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """Yield *task* and its ancestors, up to trio's first task."""
    one: trio.lowlevel.Task | None = task
    while one is not None:
        yield one
        one = None if one.parent_nursery is None else one.parent_nursery.parent_task
