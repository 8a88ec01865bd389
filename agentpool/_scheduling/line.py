"""A line of tasks, in which one that was woken in vain keeps its place."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import final

import msgspec
import trio

from agentpool._base import Live
from agentpool._scheduling.ctrl_c import unbroken

_FEWEST = 16
"""Places in the heap that are not worth tidying up."""


@unbroken
@final
class Line(Live):
    """Tasks that wait until they are woken, in the order of their places.

    In trio's own lot a task that waits again is the last one.
    """

    _waiting: dict[int, trio.lowlevel.Task] = msgspec.field(
        default_factory=dict[int, trio.lowlevel.Task]
    )
    """The tasks that wait, by their places."""
    _heap: list[int] = msgspec.field(default_factory=list[int])
    """Their places, and some that were given up."""
    _last: int = 0

    def __len__(self) -> int:
        """Return the number of waiting tasks."""
        return len(self._waiting)

    def new_place(self) -> int:
        """Return the place behind all others."""
        self._last += 1
        return self._last

    async def park(self, place: int) -> None:
        """Wait at *place* until woken.

        Cancellation:
            No other task was woken in the caller's stead.
        """
        self._waiting[place] = trio.lowlevel.current_task()
        heappush(self._heap, place)

        def give_up(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            del self._waiting[place]
            if len(self._heap) > 2 * len(self._waiting) + _FEWEST:
                self._heap = list(self._waiting)
                heapify(self._heap)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def unpark(self, count: int) -> None:
        """Wake the first *count* tasks, or all if there are fewer."""
        while count > 0 and self._waiting:
            task = self._waiting.pop(heappop(self._heap), None)
            if task is not None:
                trio.lowlevel.reschedule(task)
                count -= 1

    def unpark_all(self) -> None:
        """Wake all tasks."""
        self.unpark(len(self._waiting))
