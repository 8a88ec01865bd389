"""Who is on stage: the tasks of a run, the pools that they belong to, what they wait for.

Pools are found by their agents' tasks, so that a scenario opens them in its usual way and
knows nothing of the kit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, final

import outcome
import trio

from agentpool._pool.handle import AgentHandle
from agentpool._pool.nursery import AgentNursery
from agentpool._scheduling.slot import Slot, current_slot

MAX_STEPS: Final = 10_000_000
"""Task steps of one run. A minute of a busy loop; a scenario for a test takes thousands."""

_TRIO: Final = Path(trio.__file__).parent
_WRAPPERS: Final = ("contextlib.py", "_slot.py", "_inbox.py")
"""Files in which nobody means to wait: whoever called them does."""


@final
class Watch(trio.abc.Instrument):
    """Watches the tasks of one run."""

    def __init__(self, before_step: Callable[[trio.lowlevel.Task], None] | None = None) -> None:
        """Watch nothing yet.

        Args:
            before_step: Called before each step of a task of the scenario.
        """
        self.tasks: dict[trio.lowlevel.Task, int] = {}
        """The tasks that live, with their number: 0, 1, 2, … in the order of their start."""
        self.pools: dict[AgentNursery, dict[int, AgentHandle]] = {}
        """Every pool that has started an agent, with these agents."""
        self.steps = 0
        """Steps of the scenario's tasks so far."""
        self.schedule = 0
        """A number that two runs share only if their tasks took the same steps."""
        self.error: BaseException | None = None
        """What ``before_step`` raised: trio would only log it."""
        self._before_step = before_step
        self._spawned = 0
        self._begun = False

    def begin(self) -> None:
        """Forget the tasks of trio itself. The scenario's own first task calls it."""
        task = trio.lowlevel.current_task()
        task.name = "the scenario"
        self.tasks = {task: 0}
        self._spawned = 1
        self._begun = True

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Take note of a task, and of the pool whose agent it is."""
        self.tasks[task] = self._spawned
        self._spawned += 1
        if not self._begun:
            return
        frame: FrameType | None = getattr(task.coro, "cr_frame", None)
        found = frame.f_locals if frame is not None else {}
        agents, handle = found.get("self"), found.get("handle")
        if isinstance(agents, AgentNursery) and isinstance(handle, AgentHandle):
            self.pools.setdefault(agents, {})[handle.agent_id] = handle

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget a task."""
        self.tasks.pop(task, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the steps of the scenario's tasks."""
        number = self.tasks.get(task)
        if number is None or not self._begun:
            return
        self.steps += 1
        self.schedule = hash((self.schedule, number))
        if self._before_step is not None and self.error is None:
            try:
                self._before_step(task)
            except BaseException as raised:  # noqa: ASYNC103, BLE001  # raised when the run is over
                self.error = raised

    def others(self) -> list[trio.lowlevel.Task]:
        """Return the tasks that live, but for the scenario's own first one."""
        return [task for task, number in self.tasks.items() if number]


@final
class Evicted(BaseException):
    """Thrown into tasks that a cancellation could not end."""


def evict(tasks: Iterable[trio.lowlevel.Task]) -> None:
    """Throw out *tasks*, all of which wait, from the inside out.

    A task that waits for its nursery must not leave it before the tasks in there: its turn
    comes when they have gone.
    """
    for task in tasks:
        if not any(nursery.child_tasks for nursery in task.child_nurseries):
            trio.lowlevel.reschedule(task, outcome.Error(Evicted()))


def tasks_below(nursery: trio.Nursery) -> Iterator[trio.lowlevel.Task]:
    """Yield every task in *nursery*, and in the nurseries of these."""
    for task in nursery.child_tasks:
        yield task
        for inner in task.child_nurseries:
            yield from tasks_below(inner)


def slot_of(task: trio.lowlevel.Task) -> Slot | None:
    """Return the slot of the agent that *task* belongs to. ``None``: it is no agent's."""
    return task.context.get(current_slot)


def describe(task: trio.lowlevel.Task) -> str:
    """Return who *task* is, what it waits for, and where."""
    slot = slot_of(task)
    who = task.name
    wait = ""
    if slot is not None:
        who = f"agent {slot.agent_id} ({slot.task.name if slot.task else task.name})"
        if slot.task is not None and slot.task is not task:
            who += f", in its task {task.name}"
        parked = slot.waits.get(task)
        if parked is not None:
            wait = f" waits for {parked.wait.text},"
    return f"{who}:{wait} at {place_of(task)}"


def place_of(task: trio.lowlevel.Task) -> str:
    """Return where *task* waits: the innermost line that is neither trio's nor a wrapper."""
    place = "its start"
    for frame, line in task.iter_await_frames():
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(_TRIO) and path.name not in _WRAPPERS:
            place = f"{path.name}:{line} in {frame.f_code.co_name}"
    return place
