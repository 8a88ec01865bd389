"""Locks and queues that people wrote themselves: who waits is woken once, and not for nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing

from agentpool.testing import latency, operation

TICK = 0.001
"""About as long as anything takes here, in seconds."""


@attrs.define(eq=False)
class Gate:
    """Some places, and those who wait for one, each with an event of its own."""

    free: int = 1
    waiters: deque[trio.Event] = attrs.field(factory=deque)

    def wake_one(self) -> None:
        """Wake who has waited for longest."""
        for waiter in self.waiters:
            if not waiter.is_set():
                waiter.set()
                return

    def release(self) -> None:
        """Give a place back."""
        self.free += 1
        self.wake_one()


async def _users(
    gate: Gate, acquire: Callable[[Gate], Awaitable[None]], count: int = 3
) -> list[int]:
    """Let some tasks use a gate, of which the second gives up after a while."""
    done: list[int] = []

    async def use(number: int) -> None:
        await trio.sleep(latency(TICK))
        await acquire(gate)
        try:
            await trio.sleep(latency(TICK))
        finally:
            gate.release()
        done.append(number)

    async def give_up() -> None:
        with trio.move_on_after(latency(2 * TICK)), operation():
            await use(-1)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(use, number)
        nursery.start_soon(give_up)
    return done


async def woken_and_cancelled(*, repaired: bool) -> None:
    """A waiter that was woken is cancelled before it goes on, and the wake-up is lost.

    Promise: everybody who does not give up gets the lock.
    Source: https://github.com/python/cpython/pull/1031
    """

    async def acquire(gate: Gate) -> None:
        while not gate.free:
            waiter = trio.Event()
            gate.waiters.append(waiter)
            try:
                await waiter.wait()
                await trio.lowlevel.checkpoint_if_cancelled()
            except trio.Cancelled:
                if repaired and waiter.is_set():
                    gate.waiters.remove(waiter)
                    gate.wake_one()
                raise
            finally:
                if waiter in gate.waiters:
                    gate.waiters.remove(waiter)
        gate.free -= 1

    assert len([n for n in await _users(Gate(), acquire) if n >= 0]) == 3


async def given_to_who_has_gone(*, repaired: bool) -> None:
    """The owner is written down at release, for a waiter that is being cancelled.

    Promise: in the end the lock is free.
    Source: https://github.com/agronholm/anyio/issues/387
    """
    owner: list[object] = []
    waiting: deque[tuple[object, trio.Event]] = deque()

    async def acquire(me: object) -> None:
        if not owner:
            owner.append(me)
            return
        event = trio.Event()
        waiting.append((me, event))
        try:
            await event.wait()
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            if (me, event) in waiting:
                waiting.remove((me, event))
            elif repaired:
                release()
            raise

    def release() -> None:
        owner.clear()
        if waiting:
            me, event = waiting.popleft()
            owner.append(me)
            event.set()

    async def use(seconds: float) -> None:
        me = object()
        await trio.sleep(latency(TICK))
        with trio.move_on_after(seconds), operation():
            await acquire(me)
            try:
                await trio.sleep(latency(TICK))
            finally:
                release()

    async with trio.open_nursery() as nursery:
        for seconds in (1.0, latency(TICK), latency(TICK)):
            nursery.start_soon(use, seconds)
    assert not owner, "the lock is held by a task that has ended"


async def token_lost(*, repaired: bool) -> None:
    """A token was granted in the tick in which its waiter was cancelled.

    Promise: no token is lost.
    Source: https://github.com/agronholm/anyio/issues/947
    """
    tokens, queue = 1, deque[trio.Event]()

    def give_back() -> None:
        nonlocal tokens
        if queue:
            queue.popleft().set()
        else:
            tokens += 1

    async def borrow() -> None:
        nonlocal tokens
        if tokens:
            tokens -= 1
            return
        event = trio.Event()
        queue.append(event)
        try:
            await event.wait()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            if event in queue:
                queue.remove(event)
            elif repaired:
                give_back()
            raise

    async def use(seconds: float) -> None:
        with trio.move_on_after(seconds), operation():
            await borrow()
            try:
                await trio.sleep(latency(TICK))
            finally:
                give_back()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, latency(2 * TICK))
    assert tokens == 1, f"{tokens} tokens of 1"


async def one_wake_up_for_two(*, repaired: bool) -> None:
    """Two places come free, and the second wake-up goes to the one that is awake already.

    Promise: everybody gets a place.
    Source: https://github.com/python/cpython/issues/90155
    """
    gate = Gate(free=2)

    async def acquire(gate: Gate) -> None:
        while not gate.free:
            waiter = trio.Event()
            gate.waiters.append(waiter)
            await waiter.wait()
            gate.waiters.remove(waiter)
        gate.free -= 1

    def release() -> None:
        gate.free += 1
        if repaired:
            gate.wake_one()
        elif gate.waiters:
            gate.waiters[0].set()

    together, inside = trio.Event(), 0

    async def use(pair: str) -> None:
        nonlocal inside
        await acquire(gate)
        if pair == "first":
            await trio.sleep(latency(TICK))
        else:
            inside += 1
            if inside == 2:
                together.set()
            await together.wait()  # each needs the other
        release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "first")
        nursery.start_soon(use, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(use, "second")
        nursery.start_soon(use, "second")


async def two_owners(*, repaired: bool) -> None:
    """A newcomer takes the lock between a release and the step of the waiter it woke.

    Promise: one owner at a time.
    Source: https://github.com/python/cpython/pull/5466
    """
    locked, inside = False, 0
    waiting: deque[trio.Event] = deque()

    async def use() -> None:
        nonlocal locked, inside
        await trio.sleep(latency(TICK))
        while locked:
            event = trio.Event()
            waiting.append(event)
            await event.wait()
            if not repaired:
                break
        locked = True
        inside += 1
        assert inside == 1, f"{inside} own the lock"
        await trio.sleep(latency(TICK))
        inside -= 1
        locked = False
        if waiting:
            waiting.popleft().set()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(use)


async def overtaken(*, repaired: bool) -> None:
    """Who comes later takes a place that was given to somebody who waits.

    Promise: places go in the order in which they were asked for.
    Source: https://github.com/python/cpython/pull/31910
    """
    free, asked, got = 1, list[int](), list[int]()
    waiting: deque[trio.Event] = deque()

    async def use(number: int) -> None:
        nonlocal free
        await trio.sleep(latency(TICK))
        asked.append(number)
        while not free or (repaired and waiting):
            event = trio.Event()
            waiting.append(event)
            await event.wait()
            waiting.remove(event)
            if repaired:
                break
        free -= 1
        got.append(number)
        await trio.sleep(latency(TICK))
        free += 1
        if waiting:
            waiting[0].set()

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(use, number)
    assert asked == got


async def woken_for_nothing(*, repaired: bool) -> None:
    """An item is handed to a getter that is being cancelled, and nobody has it.

    Promise: every item that was put is got, or still there.
    Source: https://github.com/python/asyncio/pull/269
    """
    items, getters = deque[int](), deque[tuple[trio.Event, list[int]]]()
    got: list[int] = []

    async def get() -> None:
        if items:
            got.append(items.popleft())
            return
        event, box = trio.Event(), list[int]()
        getters.append((event, box))
        try:
            await event.wait()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            if (event, box) in getters:
                getters.remove((event, box))
            elif repaired:
                items.extendleft(box)
            raise
        got.extend(box)

    async def put(item: int) -> None:
        await trio.sleep(latency(TICK))
        if getters:
            event, box = getters.popleft()
            box.append(item)
            event.set()
        else:
            items.append(item)

    async with trio.open_nursery() as nursery:
        for item in range(2):
            nursery.start_soon(put, item)
        with trio.move_on_after(latency(TICK)), operation():
            await get()
    assert len(got) + len(items) == 2, "an item is gone"


async def flag_without_a_waiter(*, repaired: bool) -> None:
    """The reader looks at the flag, waits for a moment, and then waits for the next change.

    Promise: the reader hears of every change.
    Source: https://github.com/agronholm/anyio/pull/537
    """
    changed, value = trio.Event(), 0

    async def write() -> None:
        nonlocal changed, value
        await trio.sleep(latency(TICK))
        value = 1
        changed.set()
        changed = trio.Event()

    async def read() -> None:
        await trio.sleep(latency(TICK))
        event = changed
        if value == 0:
            await trio.lowlevel.checkpoint()  # such as a line in a log
            await (event if repaired else changed).wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(read)


LOCKS = (
    woken_and_cancelled,
    given_to_who_has_gone,
    token_lost,
    one_wake_up_for_two,
    two_owners,
    overtaken,
    woken_for_nothing,
    flag_without_a_waiter,
)
