"""Pools as one would write them in an afternoon, each with a fault that people reported.

The testing kit must find every one of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

Work = Callable[[], Awaitable[str]]


@attrs.define(eq=False)
class CountingPool:
    """Counts who runs, and looks at the count before an await and not after it."""

    limit: int
    running: int = 0
    peak: int = 0
    outcomes: list[str] = attrs.field(factory=list)

    async def run(self, work: Work) -> None:
        """Run *work* when there is room."""
        while self.running >= self.limit:  # noqa: ASYNC110  # the fault that is planted
            await trio.sleep(0.1)
        await trio.lowlevel.checkpoint()  # such as a line in a log
        self.running += 1
        self.peak = max(self.peak, self.running)
        text = await work()
        self.running -= 1
        self.outcomes.append(text)


@attrs.define(eq=False)
class SlotPool:
    """Gives its slot back on the way that was thought of, and on no other."""

    slots: trio.Semaphore
    started: int = 0
    outcomes: list[str] = attrs.field(factory=list)

    async def run(self, work: Work) -> None:
        """Run *work* with a slot."""
        await self.slots.acquire()
        self.started += 1
        text = await work()
        self.slots.release()
        self.outcomes.append(text)


@attrs.define(eq=False)
class CarelessPool:
    """Gives slots back, and writes the outcome down after one more await."""

    slots: trio.Semaphore
    started: int = 0
    outcomes: list[str] = attrs.field(factory=list)

    async def run(self, work: Work) -> None:
        """Run *work* with a slot."""
        async with self.slots:
            self.started += 1
            try:
                text = await work()
            except BaseException:
                self.outcomes.append("cancelled")
                raise
        await trio.lowlevel.checkpoint()  # such as telling an observer
        self.outcomes.append(text)


def start_orphan(work: Work) -> None:
    """Start *work* in a task that belongs to nobody."""
    trio.lowlevel.spawn_system_task(work, name="orphan")


@asynccontextmanager
async def open_slots(slots: int) -> AsyncGenerator[trio.CapacityLimiter, None]:
    """Open so many slots that a parent keeps while it waits for its child."""
    await trio.lowlevel.checkpoint()
    yield trio.CapacityLimiter(slots)


async def short_work() -> str:
    """Take a moment."""
    await trio.sleep(1)
    return "done"
