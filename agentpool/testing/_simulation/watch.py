"""Watches the tasks of a run: their pools, and what they wait for.

Pools are found through the tasks of their agents, so that a scenario opens pools as usual, without
knowing the kit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Final, TypeAlias, final

import outcome
import trio

from agentpool._pool.nursery import AgentNursery
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.slot import Slot, current_slot
from agentpool.testing._simulation.places import Place, place_of, text_of

MAX_STEPS: Final = 1_000_000
"""The most task steps of one run: a minute of a busy loop. A test's scenario takes thousands."""

LAST_STEPS: Final = 20
"""How many steps are kept for the report of a failed run."""

MEETINGS: Final = 16
"""How many steps of other tasks, just before a step of a task, count as meetings with that task."""

Meeting: TypeAlias = tuple[Place, Place]
"""The place at which a task waited, and the place from which another task went on meanwhile."""

Step: TypeAlias = tuple[int, Place]
"""One step: the number of its task, and the place at which the task had waited."""


@final
class Watch(trio.abc.Instrument):
    """Watches the tasks of one run."""

    def __init__(
        self,
        before_step: Callable[[trio.lowlevel.Task], None] | None = None,
        keep: int = LAST_STEPS,
    ) -> None:
        """Make a watch that has seen no task yet.

        Args:
            before_step: Called before each step of a task of the scenario.
            keep: How many of the last steps are kept.
        """
        self.tasks: dict[trio.lowlevel.Task, int] = {}
        """The live tasks with their numbers: 0, 1, 2, … in the order of their start."""
        self.pools: dict[AgentNursery, dict[int, AgentRecord]] = {}
        """Every pool that has started an agent, with its agents."""
        self.steps = 0
        """The number of steps of the scenario's tasks so far."""
        self.names: dict[int, str] = {}
        """The names of the tasks, by their numbers."""
        self.meetings: set[Meeting] = set()
        """The pairs of places that met: a task waited at the first while another task went on from
        the second."""
        self.last: deque[Step] = deque(maxlen=keep)
        """The last steps."""
        self.over = False
        """Whether the run is being ended, so that steps are no longer kept."""
        self.error: BaseException | None = None
        """The error that ``before_step`` raised, which trio would only log."""
        self._before_step = before_step
        self._spawned = 0
        self._begun = False
        self._recent: deque[Place] = deque(maxlen=MEETINGS)
        self._steps_of: dict[int, int] = {}

    def begin(self) -> None:
        """Forget trio's own tasks. Called by the scenario's first task."""
        task = trio.lowlevel.current_task()
        task.name = "the scenario"
        # It is the same dict that the order of the run looks at.
        self.tasks.clear()
        self.tasks[task] = 0
        self.names[0] = task.name
        self._spawned = 1
        self._begun = True

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Record a new task, and the pool whose agent it belongs to."""
        if not self._begun:
            return
        self.tasks[task] = self._spawned
        # Where a function was made says less than what it is called.
        self.names[self._spawned] = task.name.rpartition("<locals>.")[2]
        self._spawned += 1
        frame: FrameType | None = getattr(task.coro, "cr_frame", None)
        found = frame.f_locals if frame is not None else {}
        agents, record = found.get("self"), found.get("record")
        if isinstance(agents, AgentNursery) and isinstance(record, AgentRecord):
            self.pools.setdefault(agents, {})[record.agent_id] = record

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget a task."""
        self.tasks.pop(task, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the steps of the scenario's tasks."""
        number = self.tasks.get(task)
        if number is None:
            return
        self.steps += 1
        self._note_place(number, place_of(task))
        if self._before_step is not None and self.error is None:
            try:
                self._before_step(task)
            except BaseException as raised:  # noqa: ASYNC103, BLE001  # raised when the run is over
                self.error = raised

    def _note_place(self, number: int, place: Place) -> None:
        """Record where a task goes on, and which tasks ran while it waited there."""
        between = self.steps - self._steps_of.get(number, self.steps) - 1
        self._steps_of[number] = self.steps
        if between > 0:
            recent = self._recent
            for index in range(max(0, len(recent) - between), len(recent)):
                self.meetings.add((place, recent[index]))
        self._recent.append(place)
        if not self.over:
            self.last.append((number, place))

    def last_step(self, number: int) -> int:
        """Return the number of the last step that the task *number* took. 0: it took no step."""
        return self._steps_of.get(number, 0)

    def others(self) -> list[trio.lowlevel.Task]:
        """Return the live tasks except the scenario's first one."""
        return [task for task, number in self.tasks.items() if number]


@final
class Evicted(BaseException):
    """Raised in tasks that ignore a cancellation, to end them."""


def evict(tasks: Iterable[trio.lowlevel.Task]) -> None:
    """Raise ``Evicted`` in all *tasks*, which are waiting, beginning with the innermost tasks.

    A task that waits for its nursery must not leave the nursery before the tasks inside have ended.
    Its turn comes after these.
    """
    for task in tasks:
        if not any(nursery.child_tasks for nursery in task.child_nurseries):
            trio.lowlevel.reschedule(task, outcome.Error(Evicted()))


def tasks_below(nursery: trio.Nursery) -> Iterator[trio.lowlevel.Task]:
    """Yield every task in *nursery* and in the nurseries below."""
    for task in nursery.child_tasks:
        yield task
        for inner in task.child_nurseries:
            yield from tasks_below(inner)


def slot_of(task: trio.lowlevel.Task) -> Slot | None:
    """Return the slot of the agent to which *task* belongs. ``None``: it belongs to no agent."""
    return task.context.get(current_slot)


def describe(task: trio.lowlevel.Task) -> str:
    """Return the name of *task*, what it waits for, and where."""
    slot = slot_of(task)
    wait = ""
    if slot is not None:
        parked = slot.waits.get(task)
        if parked is not None:
            wait = f" waits for {parked.wait.text},"
    return f"{who(task)}:{wait} at {text_of(place_of(task))}"


def who(task: trio.lowlevel.Task) -> str:
    """Return the name of *task*."""
    slot = slot_of(task)
    if slot is None:
        return task.name
    called = f"agent {slot.agent_id} ({slot.task.name if slot.task else task.name})"
    if slot.task is not None and slot.task is not task:
        called += f", in its task {task.name}"
    return called
