"""Runs trio as a guest of synchronous code, one step at a time.

Between two steps of a state machine time stands still and no task runs, so the machine sees the
pool at one moment.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Final, TypeVar, cast, final

import attrs
import outcome
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool._errors import UsageError
from agentpool.testing._simulation.findings import HangError
from agentpool.testing._simulation.orders import Order, order_of
from agentpool.testing._simulation.schedule import ordered
from agentpool.testing._simulation.watch import describe, evict, tasks_below

T = TypeVar("T")

MAX_EVICTIONS: Final = 20
"""How often tasks that survive a cancellation are forced to end. Each level of nurseries needs this
once."""

REAL_SECONDS: Final = 20.0
"""The longest time that the host waits for trio in real time. The tasks never wait in real time, so
the limit matters only on a busy machine."""


@final
@attrs.define(eq=False)
class _Job:
    async_fn: Callable[[], Awaitable[object]]
    done: outcome.Outcome[object] | None = None


@final
@attrs.define(eq=False)
class ChangingOrder(Order):
    """A task order that can be replaced while the run goes on."""

    now: Order = attrs.field(factory=lambda: order_of(0, "rounds"))
    """The current order."""

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Ask the current order."""
        return self.now.choose(ready)


@final
class _Numbers(trio.abc.Instrument):
    """Numbers the tasks of a run in the order of their start."""

    def __init__(self) -> None:
        self.tasks: dict[trio.lowlevel.Task, int] = {}
        self._spawned = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Give a new task the next number, unless it is trio's own."""
        if self._spawned or task.parent_nursery is not None:
            self.tasks[task] = self._spawned
            self._spawned += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget the task."""
        self.tasks.pop(task, None)


@final
class GuestRun:
    """One trio run, advanced step by step by synchronous code."""

    def __init__(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        """Start a run whose first task is *async_fn*, but take no step yet."""
        self.clock: MockClock = MockClock()
        self.order: ChangingOrder = ChangingOrder()
        numbers = _Numbers()
        self._ordered = ExitStack()
        self._ordered.enter_context(ordered(self.order, numbers.tasks))
        self._host: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._end: outcome.Outcome[object] | None = None
        self._settled = False
        self._send: trio.MemorySendChannel[_Job] | None = None
        self._hang: HangError | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            async_fn,
            run_sync_soon_threadsafe=self._host.put,
            done_callback=self._note_end,
            clock=self.clock,
            instruments=[numbers],
        )

    def settle(self) -> None:
        """Run until all tasks wait."""
        self.call(_nothing)

    def call(self, sync_fn: Callable[[], T]) -> T:
        """Call a function in a new task, run until all tasks wait, and return its result.

        Raises:
            Exception: What the function raised.
        """

        async def job() -> T:
            await trio.lowlevel.checkpoint()
            return sync_fn()

        return self.run(job)

    def run(self, async_fn: Callable[[], Awaitable[T]]) -> T:
        """Run a short async function, then run until all tasks wait.

        Raises:
            Exception: What the function raised.
        """
        job = _Job(async_fn)
        while self._send is None:
            self._tick()
        self._settled = False
        self._send.send_nowait(job)
        while not self._settled:
            self._tick()
        if job.done is None:
            raise UsageError(
                "the function waits for something and has not ended; start it in a nursery instead"
            )
        return cast("T", job.done.unwrap())

    def jump(self, seconds: float) -> None:
        """Advance the clock by *seconds* in one jump."""
        self.clock.jump(seconds)
        self.settle()

    def finish(self) -> None:
        """Run to the end, and raise what the first task raised.

        Raises:
            HangError: If the run does not end by itself. It is then cancelled.
            Exception: Whatever the first task raised.
        """
        while self._send is None:
            self._tick()
        self._send.close()
        while self._end is None:
            self._tick()
        if self._hang is not None:
            raise self._hang
        self._end.unwrap()

    def _tick(self) -> None:
        if self._end is not None:
            self._end.unwrap()
            raise UsageError("the trio run has ended")
        try:
            step = self._host.get(timeout=REAL_SECONDS)
        except queue.Empty:
            raise HangError(f"nothing happened for {REAL_SECONDS:g} real seconds") from None
        step()

    def _note_end(self, end: outcome.Outcome[object]) -> None:
        self._end = end
        self._ordered.close()

    async def _main(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        self._send, receive = trio.open_memory_channel[_Job](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(async_fn)
            async for job in receive:
                nursery.start_soon(self._perform, job)
                await wait_all_tasks_blocked()
                self._settled = True
            await self._see_out(nursery)

    async def _see_out(self, nursery: trio.Nursery) -> None:
        """Advance the clock until all tasks have ended, or until no task can go on."""
        await wait_all_tasks_blocked()
        while nursery.child_tasks:
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if seconds == math.inf:
                waiting = sorted(describe(task) for task in tasks_below(nursery))
                self._hang = HangError("the run does not end, and no deadline is left", waiting)
                await self._end_all(nursery)
                return
            self.clock.jump(seconds)
            await wait_all_tasks_blocked()

    @staticmethod
    async def _end_all(nursery: trio.Nursery) -> None:
        """Cancel all tasks, and force those that ignore the cancellation to end."""
        with trio.CancelScope(shield=True):
            nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            for _ in range(MAX_EVICTIONS):
                evict(list(tasks_below(nursery)))
                await wait_all_tasks_blocked()

    @staticmethod
    async def _perform(job: _Job) -> None:
        job.done = await outcome.acapture(job.async_fn)


def _nothing() -> None:
    """Do nothing. Calling it makes the run settle."""
