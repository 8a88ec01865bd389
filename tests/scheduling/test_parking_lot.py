"""Where tasks wait: in order, and each can be failed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import DeadlockError
from agentpool._scheduling.parking_lot import Lot


async def test_who_waits_first_is_woken_first() -> None:
    """And no more of them than were asked for."""
    lot, woken = Lot(), list[int]()

    async def wait(number: int) -> None:
        await lot.park()
        woken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        assert len(lot) == 4
        assert lot.unpark(1) == 1
        await wait_all_tasks_blocked()
        assert woken == [0]
        assert lot.unpark(2) == 2
        await wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]
        lot.unpark_all()
    assert woken[-1] == 3
    assert lot.unpark(1) == 0


async def test_one_is_failed_and_the_others_wait_on() -> None:
    """The error comes out of the wait itself, so what would follow does not happen."""
    lot, tasks, went_on = Lot(), list[trio.lowlevel.Task](), list[int]()

    async def wait(number: int) -> None:
        tasks.append(trio.lowlevel.current_task())
        await lot.park()
        went_on.append(number)

    async def fail() -> None:
        with pytest.raises(DeadlockError, match="in a circle"):
            await wait(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, 1)
        await wait_all_tasks_blocked()
        assert tasks[0] in lot
        lot.fail(tasks[0], DeadlockError("in a circle", agent_ids=(1,)))
        assert tasks[0] not in lot
        await wait_all_tasks_blocked()
        assert not went_on
        lot.unpark_all()
    assert went_on == [1]


async def test_a_cancelled_wait_leaves_its_place(autojump_clock: MockClock) -> None:
    """Nobody wakes a task that is not there, and the next one gets the turn."""
    lot = Lot()
    with trio.move_on_after(1) as scope:
        await lot.park()
    assert scope.cancelled_caught
    assert len(lot) == 0
    assert lot.unpark(1) == 0
