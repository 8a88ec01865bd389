"""A trio parking lot that also knows which tasks wait in it, for deadlock detection."""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import msgspec
import trio
from outcome import Error

from agentpool._base import Live
from agentpool._scheduling.ctrl_c import unbroken


# A plain dict finds its first entry ever more slowly when its first ones keep going.
def _nobody() -> OrderedDict[trio.lowlevel.Task, None]:
    return OrderedDict()


@unbroken
@final
class Lot(Live):
    """Tasks that wait until they are woken, first come first served.

    It can raise an error in one of them, and it can say which tasks still wait. trio's own lot can
    do neither, and a cancel scope around each wait costs as much as the wait.
    """

    sleepers: OrderedDict[trio.lowlevel.Task, None] = msgspec.field(default_factory=_nobody)
    """The tasks that wait. To look whether it is empty takes a tenth of ``bool(lot)``."""

    def __len__(self) -> int:
        """Return the number of waiting tasks."""
        return len(self.sleepers)

    def __contains__(self, task: object) -> bool:
        """Return whether *task* waits here and was not woken."""
        return task in self.sleepers

    async def park(self) -> None:
        """Wait until woken.

        Raises:
            Exception: The error that was passed to ``fail``.

        Cancellation:
            No other task was woken in the caller's place.
        """
        task = trio.lowlevel.current_task()
        self.sleepers[task] = None

        def give_up(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            del self.sleepers[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def unpark(self, count: int) -> int:
        """Wake the first *count* tasks, or all if there are fewer. Return how many."""
        woken = 0
        while woken < count and self.sleepers:
            task, _ = self.sleepers.popitem(last=False)
            trio.lowlevel.reschedule(task)
            woken += 1
        return woken

    def unpark_all(self) -> None:
        """Wake all tasks."""
        self.unpark(len(self.sleepers))

    def fail(self, task: trio.lowlevel.Task, error: Exception) -> None:
        """Raise *error* in the wait of *task*."""
        del self.sleepers[task]
        trio.lowlevel.reschedule(task, Error(error))
