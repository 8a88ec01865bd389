"""An abort keeps the garbage collector from looking at objects that are all in use."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread

import pytest
from trio.testing import wait_all_tasks_blocked

from agentpool import AgentPool, AgentStatus, open_pool
from agentpool._pool.shutdown import _YOUNGEST_ONLY
from tests.support.fakes import hanging_driver, job, jobs


@contextmanager
def collections() -> Generator[list[int]]:
    """Collect as often as Python can, and note the generation of each collection."""
    seen: list[int] = []
    thresholds, collects = gc.get_threshold(), gc.isenabled()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    gc.set_threshold(1, 1, 1)
    try:
        yield seen
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(note)
        (gc.enable if collects else gc.disable)()


def _abort_counted(pool: AgentPool) -> list[int]:
    """Return the collections of older objects while *pool* is aborted."""
    with collections() as seen:
        pool.abort_all("done")
        return [generation for generation in seen if generation > 0]


async def test_abort_looks_at_older_objects_for_no_number_of_agents() -> None:
    """An abort of 200 agents makes no more collections of older objects than that of one."""
    counts: list[int] = []
    for n in (1, 200):
        async with open_pool(hanging_driver(), max_concurrent=n) as pool:
            await pool.fan_out(job("go") for _ in range(n))
            await wait_all_tasks_blocked()
            counts.append(len(_abort_counted(pool)))
            outcomes = await pool.join_all()
        assert {outcome.status for outcome in outcomes.values()} == {AgentStatus.CANCELLED}
    few, many = counts
    # A few come around it, from what the pool does before and after.
    assert many <= few + 3, counts


@pytest.mark.parametrize("collects", [True, False])
async def test_abort_leaves_the_collector_as_it_was(collects: bool) -> None:  # noqa: FBT001
    """Whether the collector is on, and how often it collects, is the program's choice."""
    thresholds = gc.get_threshold()
    async with open_pool(hanging_driver(), max_concurrent=3) as pool:
        await pool.fan_out(jobs("a", "b", "c"))
        await wait_all_tasks_blocked()
        was = gc.isenabled()
        try:
            (gc.enable if collects else gc.disable)()
            gc.set_threshold(701, 11, 12)
            pool.abort_all("done")
            assert gc.isenabled() is collects
            assert gc.get_threshold() == (701, 11, 12)
        finally:
            gc.set_threshold(*thresholds)
            (gc.enable if was else gc.disable)()


def test_aborts_in_two_threads_leave_the_collector_as_it_was() -> None:
    """The one that begins last may also end last, and has not seen how it was."""
    thresholds = gc.get_threshold()

    def end_of_other() -> None:
        with _YOUNGEST_ONLY:
            before.__exit__(None, None, None)

    before = _YOUNGEST_ONLY
    before.__enter__()  # ended by the other thread, in the middle of its own
    thread = Thread(target=end_of_other)
    thread.start()
    thread.join()
    assert gc.get_threshold() == thresholds
