"""simulate beside threads and child processes: its clock neither jumps, nor spins, nor hangs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from subprocess import PIPE

import pytest
import trio

from agentpool.testing import HangError, simulate
from agentpool.testing._simulation import clock as clock_room
from agentpool.testing._simulation import outside as outside_room

GENEROUS_SECONDS = 25.0
"""Far longer than any of this takes on a busy machine, and shorter than the kit's patience."""


def work(cpu_seconds: float) -> str:
    """Compute for so long, however long that takes on a busy machine."""
    end = time.thread_time() + cpu_seconds
    while time.thread_time() < end:
        pass
    return "worked"


def test_a_thread_that_works_is_never_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than the patience, and its deadline does not come: it does something."""
    monkeypatch.setattr(clock_room, "THREAD_PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(clock_room, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(outside_room, "LONGEST", 1000)

    async def scenario() -> tuple[str, float]:
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(work, 1.3), trio.current_time()

    assert simulate(scenario) == ("worked", 0.0)


def test_a_thread_that_computes_for_ever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience with one that works is long, and has an end all the same."""
    monkeypatch.setattr(clock_room, "THREAD_PATIENCE_SECONDS", 0.02)
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    async def scenario() -> float:
        with trio.move_on_after(60):
            await trio.to_thread.run_sync(spin, abandon_on_cancel=True)
        return trio.current_time()

    assert simulate(scenario) == 60.0
    over.set()


def test_one_that_was_waited_for_long_is_not_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or each tick of a timer beside a stuck thread would take as long in real time."""
    monkeypatch.setattr(clock_room, "THREAD_PATIENCE_SECONDS", 0.2)
    done = threading.Event()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.1)
            ticks += 1

    async def scenario() -> None:
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                await trio.to_thread.run_sync(done.wait, abandon_on_cancel=True)

    began = time.monotonic()
    simulate(scenario)
    assert time.monotonic() - began < GENEROUS_SECONDS
    assert ticks > 590
    done.set()


async def in_thread(event: threading.Event) -> None:
    """Wait for *event* in a thread."""
    await trio.to_thread.run_sync(event.wait)


def test_a_hang_beside_a_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it must know that it was a matter of real time."""
    monkeypatch.setattr(clock_room, "THREAD_PATIENCE_SECONDS", 0.05)
    done = threading.Event()

    async def run_child() -> None:
        child = await trio.lowlevel.open_process([sys.executable, "-c", "input()"], stdin=PIPE)
        try:
            await child.wait()
        finally:
            child.kill()
            with trio.CancelScope(shield=True):
                await child.wait()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, done)
            nursery.start_soon(run_child)

    with pytest.raises(
        HangError, match="a child process and a thread for which a task waits has not"
    ):
        simulate(scenario)
    done.set()


class AtOnce:
    """In place of a vigil: it is over at once, together with what is planned for its end."""

    plans: list[Callable[[], object]]

    def __init__(self, seconds: float, beat: float, then: Callable[[], object]) -> None:
        """Wait for nothing."""
        assert seconds > beat > 0
        self.then = then

    def start(self) -> None:
        """Do what is planned, and lose patience if that is planned as well."""
        if self.plans and self.plans.pop(0)():
            self.then()

    def end(self) -> None:
        """Nothing waits."""


def test_patience_that_ends_as_something_happens_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread ends as patience does, and the next one begins: it has all the patience again."""
    monkeypatch.setattr(clock_room, "Vigil", AtOnce)
    first, second = threading.Event(), threading.Event()

    async def scenario() -> None:
        started = trio.Event()
        token = trio.lowlevel.current_trio_token()
        AtOnce.plans = [lambda: token.run_sync_soon(started.set), second.set]

        async def one_after_the_other() -> None:
            await started.wait()
            with trio.fail_after(60):
                await trio.to_thread.run_sync(second.wait)
            first.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_after_the_other)
            nursery.start_soon(in_thread, first)

    simulate(scenario)
    assert AtOnce.plans == []


def test_a_thread_that_waits_for_a_task_does_not_stop_the_clock() -> None:
    """It called back into trio, and what it asked for takes time of the clock alone."""

    def call_back() -> float:
        trio.from_thread.run(trio.sleep, 100)
        return trio.from_thread.run_sync(trio.current_time)

    began = time.monotonic()
    assert simulate(trio.to_thread.run_sync, call_back) == 100.0
    assert time.monotonic() - began < GENEROUS_SECONDS


def test_a_thread_of_ones_own_is_waited_for() -> None:
    """That trio knows nothing of it does not matter; that it is there, and works, is enough."""

    async def scenario() -> None:
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def run() -> None:
            work(0.2)
            token.run_sync_soon(done.set)

        threading.Thread(target=run, daemon=True).start()
        with trio.fail_after(60):
            await done.wait()
        threading.Thread(target=run, daemon=True).start()
        done = trio.Event()
        await done.wait()

    simulate(scenario)


CHILD = "print(sum(range(3_000_000)) > 0, input())"


def test_a_child_process_has_real_time() -> None:
    """Its deadline is not there before it could have done anything."""

    async def scenario() -> bytes:
        with trio.fail_after(60):
            done = await trio.run_process(
                [sys.executable, "-c", CHILD], stdin=b"hello\n", capture_stdout=True
            )
        return done.stdout

    assert simulate(scenario).split() == [b"True", b"hello"]


def test_a_timer_beside_a_child_process_does_not_use_its_time_up() -> None:
    """Each tick takes real time, and the deadline behind them is as far away as it was."""

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:

            async def tick() -> None:
                while True:  # noqa: ASYNC110  # the timer that is meant
                    await trio.sleep(0.01)

            nursery.start_soon(tick)
            with trio.fail_after(60):
                await trio.run_process(
                    [sys.executable, "-c", CHILD], stdin=b"x", capture_stdout=True
                )
            nursery.cancel_scope.cancel()

    simulate(scenario)


def test_an_idle_child_process_costs_no_more_than_real_time() -> None:
    """A server that waits for what it is asked, beside a timer: the timer goes off."""

    async def scenario() -> float:
        async with trio.open_nursery() as nursery:
            command = [sys.executable, "-c", "input()"]
            child = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE)
            assert child.stdout is not None
            nursery.start_soon(child.stdout.receive_some)
            await trio.sleep(0.02)
            at = trio.current_time()
            child.kill()
            await child.wait()
            nursery.cancel_scope.cancel()
        await child.stdout.aclose()
        return at

    assert simulate(scenario) == 0.02
