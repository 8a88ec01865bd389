"""simulate and explore: one run on a clock that jumps, and many; each finds what it must."""

from __future__ import annotations

import gc
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Generator

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import AgentManifest, AgentStatus, SpawnConfig, UsageError, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, OverloadedError
from agentpool.testing import (
    CancelPointError,
    EventLog,
    HangError,
    LeakError,
    ScheduleError,
    explore,
    simulate,
)
from agentpool.testing._simulation import clock as clock_room
from agentpool.testing._simulation.orders import order_of
from agentpool.testing._simulation.run import ScenarioRun
from tests.support.broken_pools import CountingPool, open_slots, short_work, start_orphan
from tests.support.scenarios import crew, crowd, member

HOUR = 3600.0


# --- the clock


def test_an_hour_takes_no_time() -> None:
    """The clock begins at 0 and jumps to each deadline, exactly."""

    async def scenario() -> list[float]:
        seen = [trio.current_time()]
        for seconds in (0.25, 0.5, HOUR, 1e-9):
            await trio.sleep(seconds)
            seen.append(trio.current_time())
        return seen

    assert simulate(scenario) == [0.0, 0.25, 0.75, HOUR + 0.75, HOUR + 0.75 + 1e-9]


def test_arguments_and_results_go_through() -> None:
    """A scenario is an async function like any other."""

    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    assert simulate(double, 21) == 42


def test_time_stands_still_while_somebody_waits_for_rest() -> None:
    """wait_all_tasks_blocked comes before the jump, as it does without the kit."""

    async def scenario() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 5)
            await wait_all_tasks_blocked()
            return trio.current_time()  # noqa: ASYNC121  # nothing else is in there

    assert simulate(scenario) == 0.0


def test_the_clock_can_be_moved_by_hand() -> None:
    """A scenario may let time pass while tasks run."""

    async def scenario() -> float:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, clock_room.JumpingClock)
        clock.jump(5)
        clock.jump(-1)
        with trio.move_on_at(3):  # noqa: ASYNC125  # the clock begins at 0.0
            await trio.sleep_forever()
        return trio.current_time()

    assert simulate(scenario) == 5.0


def test_a_thread_has_real_time() -> None:
    """With trio's own autojump, a tool in a thread times out at once."""

    async def scenario() -> bool:
        done = threading.Event()
        threading.Timer(0.05, done.set).start()
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(done.wait)

    assert simulate(scenario)


def test_a_thread_that_never_ends_meets_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience has an end, so the deadline comes after all."""
    monkeypatch.setattr(clock_room, "THREAD_PATIENCE_SECONDS", 0.05)
    done = threading.Event()

    async def scenario() -> float:
        with trio.move_on_after(60):
            await trio.to_thread.run_sync(done.wait, abandon_on_cancel=True)
        return trio.current_time()

    assert simulate(scenario) == 60.0
    done.set()


def test_bytes_under_way_come_before_the_jump() -> None:
    """Sockets work, and a deadline behind them comes as well."""

    async def scenario() -> tuple[bytes, float]:
        async def serve(stream: trio.SocketStream) -> None:
            await stream.send_all(b"hello")
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            port = listener.socket.getsockname()[1]
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            heard = await stream.receive_some()
            with trio.move_on_after(7):
                await stream.receive_some()
            await stream.aclose()
            nursery.cancel_scope.cancel()
        return heard, trio.current_time()

    assert simulate(scenario) == (b"hello", 7.0)


# --- hangs


def test_a_hang_says_who_waits_and_where() -> None:
    """A parent that keeps its slot while its child waits for one: it would never end."""

    async def scenario() -> None:
        async with open_slots(1) as slots:

            async def child() -> None:
                async with slots:
                    await short_work()

            async with slots, trio.open_nursery() as nursery:  # noqa: ASYNC112  # what is described is such a task
                nursery.start_soon(child)

    with pytest.raises(HangError, match="no deadline is left") as caught:
        simulate(scenario)
    assert len(caught.value.waiting) == 2
    assert "test_simulate.py" in str(caught.value)
    assert "in child" in str(caught.value)


def test_a_hang_in_a_pool_names_the_agent_and_its_wait() -> None:
    """Two tasks of the owner's: nobody can know that neither of them sends."""

    async def scenario() -> None:
        async with crew() as pool, trio.open_nursery() as nursery:
            handle = await pool.spawn(member("critic hear"))
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(handle.wait)

    with pytest.raises(HangError) as caught:
        simulate(scenario)
    assert "agent 1 (critic): waits for a message, at " in str(caught.value)


def test_a_hang_under_a_shield_ends() -> None:
    """Who is deaf to cancellation is thrown out, from the inside to the outside."""

    async def deaf() -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # what is described is such a task
                nursery.start_soon(trio.sleep_forever)

    with pytest.raises(HangError, match=r"in sleep_forever|in deaf"):
        simulate(deaf)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_scenario_that_swallows_everything_ends() -> None:
    """The last way out: the run is broken off, and Python complains about what was left."""

    async def stubborn() -> None:
        while True:
            try:
                await trio.sleep_forever()
            except BaseException:  # noqa: ASYNC103, BLE001, S112  # the fault that is planted  # fmt: skip
                continue  # noqa: ASYNC104  # the fault that is planted

    with pytest.raises(HangError, match="no deadline is left"):
        simulate(stubborn)
    gc.collect()


@pytest.mark.parametrize("shield", [False, True])
def test_a_loop_that_goes_on_from_anything_is_ended(*, shield: bool) -> None:
    """In a process of its own: what does not end it would hang here, too, when it is left."""
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN.format(shield=shield)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.startswith("HangError the scenario took 500 task steps")
    assert done.stderr == ""


STUBBORN = """
import trio
from agentpool.testing import simulate

async def retries():
    with trio.CancelScope(shield={shield}):
        while True:
            try:
                await trio.sleep(1)
            except:
                pass

try:
    simulate(retries, max_steps=500)
except AssertionError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("shield", [False, True])
def test_a_retry_that_goes_on_from_a_cancellation_is_ended(*, shield: bool) -> None:
    """It asks for the time in each round, and must not be told there that all is over."""

    async def retries() -> None:
        while True:
            try:
                await trio.sleep(1)
            except BaseException:  # noqa: ASYNC103, BLE001, S112  # the fault that is planted  # fmt: skip
                continue  # noqa: ASYNC104  # the fault that is planted

    async def shielded() -> None:
        with trio.CancelScope(shield=shield):
            await retries()

    with pytest.raises(HangError, match="took 500 task steps"):
        simulate(shielded, max_steps=500)


def test_a_busy_loop_is_a_hang() -> None:
    """Something happens all the time, and nothing comes of it."""

    async def scenario() -> None:
        while True:  # noqa: ASYNC110  # the fault that is planted
            await trio.lowlevel.checkpoint()

    with pytest.raises(HangError, match="took 1,000 task steps"):
        simulate(scenario, max_steps=1000)


def test_an_error_on_the_way_out_of_a_hang_is_its_cause() -> None:
    """The hang is the finding; what cleanup then did is told as well."""

    async def scenario() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    with pytest.raises(HangError) as caught:
        simulate(scenario)
    assert isinstance(caught.value.__cause__, ValueError)


# --- what is left


def test_an_orphan_is_found() -> None:
    """A task that outlives whoever started it is named, with the place where it waits."""

    async def scenario() -> None:
        start_orphan(short_work)
        await trio.lowlevel.checkpoint()

    found = r"task orphan: at broken_pools.py:\d+ in short_work goes on"
    with pytest.raises(LeakError, match=found):
        simulate(scenario)


def test_a_task_that_is_about_to_end_is_none() -> None:
    """Who ends in the same moment is not an orphan."""

    async def moment() -> str:
        await trio.lowlevel.checkpoint()
        return "done"

    async def scenario() -> None:
        start_orphan(moment)
        await trio.lowlevel.checkpoint()

    simulate(scenario)


def test_a_wait_that_cannot_be_looked_into_has_a_place_all_the_same() -> None:
    """Somebody else's awaitable has no frames; whoever awaits it has."""

    class Opaque:
        def __await__(self) -> Generator[object, object, None]:
            return trio.sleep_forever().__await__()  # noqa: ASYNC105  # see above

    async def scenario() -> None:
        await Opaque()

    with pytest.raises(HangError, match="in scenario"):
        simulate(scenario)


def test_an_error_of_the_kit_comes_out() -> None:
    """Trio would log what an instrument raises, and take it away."""

    def fail(_: trio.lowlevel.Task) -> None:
        raise ZeroDivisionError

    order = order_of(0)
    run = ScenarioRun(async_fn=short_work, seed=0, order=order, max_steps=1000, before_step=fail)
    with pytest.raises(ZeroDivisionError):
        run.run()


# --- the rules of use


async def test_it_is_called_from_outside_of_trio() -> None:
    """It starts trio by itself; inside of a test that is async there is one already."""
    await trio.lowlevel.checkpoint()
    for tool in (simulate, explore):
        with pytest.raises(UsageError, match="without async"):
            tool(short_work)


def test_no_schedules_are_none() -> None:
    """A test that checks nothing must not pass."""
    with pytest.raises(UsageError, match="schedules must be >= 1, got 0"):
        explore(short_work, schedules=0)


@pytest.mark.parametrize(
    "error",
    [
        HangError("hang", ["a waits", "b waits"]),
        LeakError("leak", ["a task"]),
        ScheduleError("schedule", 3),
        CancelPointError("point", 3, 4),
    ],
)
def test_findings_survive_pickle(error: AssertionError) -> None:
    """Test runners send them from one process to another."""
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


# --- explore


async def overshoot(jobs: int = 4) -> None:
    """Let a naive pool of two slots run some jobs."""
    pool = CountingPool(limit=2)
    async with trio.open_nursery() as nursery:
        for _ in range(jobs):
            nursery.start_soon(pool.run, short_work)
    assert pool.peak <= pool.limit, f"{pool.peak} at once, limit {pool.limit}"


def test_a_race_is_found_and_its_seed_shows_it_again() -> None:
    """The limit holds when the tasks happen to come one after the other, and not else."""

    async def rare() -> None:
        order: list[str] = []

        async def step(name: str) -> None:
            await trio.lowlevel.checkpoint()
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(step, name)
        assert order != ["d", "c", "b", "a"]

    with pytest.raises(ScheduleError) as caught:
        explore(rare, schedules=500)
    seed = caught.value.seed
    assert 0 < seed < 500
    assert f"see it again with simulate(rare, seed={seed})" in str(caught.value)
    assert isinstance(caught.value.__cause__, AssertionError)
    with pytest.raises(AssertionError, match="'d', 'c', 'b', 'a'"):
        simulate(rare, seed=seed)
    simulate(rare, seed=seed - 1)


def test_a_limit_that_overshoots_is_found() -> None:
    """Check, then wait, then act: the oldest of all races."""
    with pytest.raises(ScheduleError, match="at once, limit 2"):
        explore(overshoot, schedules=50)


def test_seeds_begin_where_they_are_told() -> None:
    """So that a long search goes on where the last one ended."""
    report = explore(short_work, schedules=3, seed=100)
    assert report.steps == 3 * (1 + 1 + 3)  # to the scenario, of it, and to the end


def test_a_crowd_is_the_same_every_time() -> None:
    """G15: 20 agents that spawn, ask and are cancelled, event by event."""
    logs = [EventLog(), EventLog(), EventLog()]
    ends = [simulate(crowd, log, seed=seed) for log, seed in zip(logs, (5, 5, 6), strict=True)]
    assert ends[0] == {AgentStatus.COMPLETED: 15, AgentStatus.CANCELLED: 5}
    assert logs[0].text() == logs[1].text() != logs[2].text()
    for log in logs:
        log.check()


def test_a_crowd_stands_many_orders() -> None:
    """The figure of 1,000 schedules is in the docs; here are enough to notice a break."""
    report = explore(crowd, schedules=20)
    assert (report.schedules, report.pools) == (20, 20)
    assert report.meetings > 100


def test_the_observer_of_a_fault_is_told() -> None:
    """A log that is not in order says where."""
    log = EventLog()

    async def scenario() -> None:
        driver = FunctionDriver(lambda _: "done")
        async with open_pool(driver, observers=[log]) as pool:
            await pool.spawn(SpawnConfig(AgentManifest(capabilities=()), "hi", name="one"))

    simulate(scenario)
    log.check()
    assert log.text().count("\n") == len(log.events)
    for broken, text in (
        (log.events[1:], "does not begin with one spawn"),
        (log.events[:-1], "does not end with one finish"),
        ([*log.events, log.events[-1]], "does not end with one finish"),
        (log.events[:2] + log.events[1:], "started 2 times"),
        (log.events[::-1], "comes after event"),
        (
            [msgspec.structs.replace(log.events[0], at_seconds=9.0), *log.events[1:]],
            "at 0, after 9",
        ),
    ):
        with pytest.raises(LeakError, match=text):
            EventLog(list(broken)).check()
    assert math.isclose(log.events[-1].at_seconds, 0.0)


def test_the_seed_also_draws_the_jitter_of_retries() -> None:
    """Or a pool without a seed of its own would retry at another time in each run."""

    async def scenario() -> float:
        failures = iter([OverloadedError("busy"), OverloadedError("busy")])

        async def answer(_: CompletionRequest) -> str:
            await trio.lowlevel.checkpoint()
            for failure in failures:
                raise failure
            return "done"

        async with open_pool(FunctionDriver(answer)) as pool:
            handle = await pool.spawn(SpawnConfig(AgentManifest(), "go"))
            return (await handle.wait()).finished_at

    assert simulate(scenario, seed=1) == simulate(scenario, seed=1)
    assert simulate(scenario, seed=1) != simulate(scenario, seed=2)
