"""What the kit finds is shrunk, drawn, told in the user's own lines, and shown again."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import NoReturn

import pytest
import trio

from agentpool import AgentManifest, SpawnConfig, UsageError, open_pool
from agentpool.drivers import ScriptedDriver, call
from agentpool.testing import (
    CancelPointError,
    HangError,
    LeakError,
    ScheduleError,
    cancel_everywhere,
    explore,
    explore_all,
    operation,
    replay,
    simulate,
)
from agentpool.testing._simulation import explore as explore_room
from agentpool.testing._simulation import jobs as jobs_room
from agentpool.testing._simulation import report as report_room
from agentpool.testing._simulation import shrink as shrink_room
from agentpool.testing._simulation.orders import Order, Plan
from agentpool.testing._simulation.orders import _Walk as Walk
from agentpool.testing._simulation.token import Finding, parse_token, token_of
from agentpool.testing._simulation.trial import Scenario
from agentpool.tools import ToolRegistry, tool
from tests.support.broken_pools import start_orphan


async def lost_update(between: float = 0.0) -> None:
    """Let two tasks look at a counter, wait, and write it."""
    total = 0

    async def add(seconds: float) -> None:
        nonlocal total
        await trio.sleep(seconds)
        seen = total
        await trio.lowlevel.checkpoint()
        total = seen + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add, 1.0, name="adds one")
        nursery.start_soon(add, 1.0 + between, name="adds another")
    assert total == 2, f"the total is {total}"


async def lock_order() -> None:
    """Let three tasks take two of three locks each, in a circle."""
    locks = [trio.Lock() for _ in range(3)]

    async def take(nth: int) -> None:
        async with locks[nth]:
            await trio.lowlevel.checkpoint()
            async with locks[(nth + 1) % 3]:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for nth in range(3):
            nursery.start_soon(take, nth, name=f"takes {nth}")


def found_by(tool: Callable[..., object], *args: object, **settings: object) -> ScheduleError:
    """Return what *tool* finds."""
    with pytest.raises(ScheduleError) as caught:
        tool(*args, **settings)
    return caught.value


# --- shrunk, and drawn


def test_a_finding_is_shrunk_to_its_one_preemption() -> None:
    """A random walk preempts everywhere; one place is what it takes."""
    found = found_by(explore, lost_update, seed=1)
    assert found.preemptions == 1
    text = str(found)
    assert "AssertionError: the total is 1" in text
    assert "the same with 1 preemption:" in text
    assert " = adds one\n" in text
    assert " = adds another\n" in text
    preempted = next(line for line in text.splitlines() if "preempted" in line)
    assert "test_findings.py" in preempted
    assert "in add: await trio.lowlevel.checkpoint()" in preempted
    assert f"simulate(lost_update, seed={found.seed})" in text
    assert f"replay(lost_update, {found.token!r})" in text
    with pytest.raises(AssertionError, match="the total is 1"):
        simulate(lost_update, seed=found.seed)
    with pytest.raises(AssertionError, match="the total is 1"):
        replay(lost_update, found.token)


def test_a_finding_of_a_late_clock_says_how_late() -> None:
    """Two timers that are close: no order of tasks lets them meet, a late clock does."""
    explore(lost_update, 0.01, schedules=200, late_clock=False)
    explore(lost_update, 0.01, schedules=200, orders="rounds")
    found = found_by(explore, lost_update, 0.01, schedules=200)
    assert "and a clock that is late by " in str(found)
    with pytest.raises(AssertionError, match="the total is 1"):
        replay(lost_update, found.token, 0.01)


def test_the_line_that_shows_it_again_is_whole() -> None:
    """Settings that are not the usual ones are in it."""
    found = found_by(explore, lost_update, orders="rounds", late_clock=False)
    again = f"simulate(lost_update, seed={found.seed}, orders='rounds', late_clock=False)"
    assert again in str(found)


def test_a_hang_is_shrunk_too() -> None:
    """It takes two preemptions to let three tasks hold a lock each."""
    found = found_by(explore, lock_order, schedules=300)
    assert found.preemptions == 2
    assert isinstance(found.__cause__, HangError)
    with pytest.raises(HangError):
        replay(lock_order, found.token)


async def two_promises() -> None:
    """Let three tasks run, and promise two things of their order."""
    log: list[str] = []

    async def work(name: str) -> None:
        await trio.sleep(1)
        log.append(name)
        await trio.lowlevel.checkpoint()
        log.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(work, name, name=name)
    assert log[:2] != ["a", "a"], "money is lost"
    assert log[0] == "a", "the menu is in the wrong order"


def test_the_drawn_run_breaks_the_promise_of_the_headline() -> None:
    """Another assertion that is easier to break is another finding."""
    headlines: set[str] = set()
    for seed in range(120):
        with suppress(ScheduleError):
            explore(two_promises, schedules=1, seed=seed)
            continue
        found = found_by(explore, two_promises, schedules=1, seed=seed)
        headlines.add(str(found.__cause__).splitlines()[0])
        with pytest.raises(AssertionError) as caught:
            replay(two_promises, found.token)
        # Without what pytest adds to an assertion, which has other names in it.
        assert str(caught.value).splitlines()[0] == str(found.__cause__).splitlines()[0]
    assert len(headlines) == 2


def test_a_drawn_run_that_reads_otherwise_says_so() -> None:
    """The text of one assertion may have a number in it that depends on the order."""

    async def counts() -> None:
        order: list[int] = []

        async def work(nth: int) -> None:
            await trio.lowlevel.checkpoint()
            order.append(nth)

        async with trio.open_nursery() as nursery:
            for nth in range(5):
                nursery.start_soon(work, nth)
        wrong = sum(nth != place for place, nth in enumerate(order))
        assert not wrong, f"{wrong} of 5"

    texts = [str(found_by(explore, counts, schedules=20, seed=seed)) for seed in range(1, 30, 4)]
    assert any("  which fails with AssertionError: " in text for text in texts)


def test_fewer_preemptions_are_looked_for_when_leaving_out_does_not_help() -> None:
    """What is left after leaving parts out need not be the least."""
    fewest = found_by(explore_all, lock_order).preemptions
    for seed in range(0, 60, 3):
        with suppress(ScheduleError):
            explore(lock_order, seed=seed, schedules=20)
            continue
        assert found_by(explore, lock_order, seed=seed, schedules=20).preemptions == fewest


def taken_by(order: Order) -> list[int]:
    """Return who takes which step, of three tasks with three steps each and no wait."""
    left = [3, 3, 3]
    taken: list[int] = []
    while any(left):
        for number in order.choose([number for number in range(3) if left[number]]):
            left[number] -= 1
            taken.append(number)
    return taken


def test_another_plan_with_fewer_preemptions_is_found() -> None:
    """What nothing can be left out of is not the least, if two preemptions elsewhere do it too."""
    far = Walk(Random(5))  # noqa: S311  # no secret
    wanted = taken_by(Walk(Random(5)))  # noqa: S311  # the same
    simpler = taken_by(Plan({1: 1, 3: 1}))

    def attempt(order: Order) -> tuple[int, Exception | None]:
        taken = taken_by(order)
        return len(taken), ValueError("broken") if taken in (wanted, simpler) else None

    class Again(Order):
        """The same walk at each use."""

        def choose(self, ready: list[int]) -> Sequence[int]:
            return far.choose(ready)

    found = shrink_room.shrink(attempt, Again(), ValueError("broken"))
    assert found is not None
    assert found.preemptions == {1: 1, 3: 1}


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large scenario is not shrunk for hours; what there is by then is drawn."""
    monkeypatch.setattr(shrink_room, "MAX_RUNS", 4)
    found = found_by(explore, lock_order, schedules=300)
    assert found.preemptions is not None
    assert found.preemptions >= 2
    with pytest.raises(HangError):
        replay(lock_order, found.token)
    monkeypatch.setattr(shrink_room, "MAX_RUNS", 30)
    found_by(explore, lock_order, schedules=300)


def test_patience_is_also_a_matter_of_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hang beside a socket takes seconds in each run; what is known by then is told."""
    monkeypatch.setattr(shrink_room, "MAX_SECONDS", 0.0)
    found = found_by(explore, lock_order, schedules=300)
    with pytest.raises(HangError):
        replay(lock_order, found.token)


def test_a_very_long_run_is_not_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take minutes, and nobody could read it. Its seed is there."""
    monkeypatch.setattr(report_room, "LONG", 5)
    found = found_by(explore, lost_update, seed=1)
    assert (found.token, found.preemptions) == ("", None)
    assert "not shrunk: it took " in str(found)
    assert "see it again with simulate(lost_update, seed=1)" in str(found)
    assert "replay" not in str(found)
    assert "see it again" not in str(found_by(explore_all, lost_update))
    with pytest.raises(CancelPointError, match=r"points=\[\d+\]\)$"):
        cancel_everywhere(gives_up, target="scope")


@pytest.mark.parametrize("good_runs", [0, 1, 2, 3, 4])
def test_a_scenario_that_differs_from_run_to_run_is_said_to(good_runs: int) -> None:
    """Nothing can be shrunk that does not come back; the kit says what to do."""
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        await trio.lowlevel.checkpoint()
        assert not 1 <= runs <= good_runs, "only sometimes"
        if not good_runs:
            assert runs != 1, "only once"

    found = found_by(explore, scenario, schedules=1)
    assert found.token == ""
    words = "is not the same in every run" if good_runs < 2 else "does not come back when"
    assert words in str(found)


def test_a_run_with_many_tasks_is_drawn_as_far_as_it_matters() -> None:
    """The end, and what is around each preemption; the rest is left out."""

    async def scenario() -> None:
        order: list[int] = []

        async def work(nth: int) -> None:
            for _ in range(4):
                await trio.lowlevel.checkpoint()
            order.append(nth)

        async with trio.open_nursery() as nursery:
            for nth in range(30):
                nursery.start_soon(work, nth, name=f"task {nth}")
        assert order[0] == 0 or order[-1] != 29

    text = str(found_by(explore, scenario))
    assert "    …" in text
    assert text.count("preempted, while at") <= 3 * 10
    assert len(text.splitlines()) < 120


# --- tokens


def test_tokens_are_one_word_and_come_back() -> None:
    """Seed, preemptions, delays and what is cancelled: all that it takes."""
    whole = Finding(
        seed=-3, preemptions={0: 2, 41: 1}, delays={5: 0.125, 6: 1e-05}, target="agent", point=9
    )
    for finding in (Finding(seed=0), whole):
        token = token_of(finding)
        assert parse_token(f" {token}\n") == finding
        assert set(token) <= set("0123456789abcdefghijklmnopqrstuvwxyz_.-+")


@pytest.mark.parametrize(
    "token",
    ["", "1", "2_s1", "1_p3x1", "1_s1_p3", "1_s1x2", "1_s1_q3x1", "1_s1_cnobodyx1", "1_s1_p3x1.5"],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    """A word that was cut when it was copied, or comes from another version."""
    with pytest.raises(UsageError, match="is not a token of this kit; copy the whole word"):
        replay(lost_update, token)


def test_a_token_of_another_scenario_is_noticed() -> None:
    """Nothing fails, and that proves nothing: the places are not there any more."""
    with pytest.raises(UsageError, match="lost_update has changed"):
        replay(lost_update, "1_s0_p99x1")
    with pytest.raises(UsageError, match="lost_update has changed"):
        replay(lost_update, "1_s0_cscopex1")
    replay(lost_update, "1_s0", 5.0)
    checked: list[int] = []
    replay(lost_update, "1_s0", 5.0, check=lambda: checked.append(1))
    assert checked == [1]


CHILD = """
from agentpool.testing import replay
from tests.testing.test_findings import lost_update
try:
    replay(lost_update, {token!r}, 0.01)
except AssertionError as error:
    print(error)
"""


def test_a_token_shows_the_failure_in_another_process() -> None:
    """Whatever the hashes are there."""
    token = found_by(explore, lost_update, 0.01, schedules=200).token
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD.format(token=token)],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip().startswith("the total is 1")


# --- all schedules


def test_all_schedules_with_two_preemptions() -> None:
    """What needs two is found with two, and not with one; what has no fault has a number."""
    proof = explore_all(lock_order, preemptions=1)
    assert (proof.preemptions, proof.runs) == (1, 1 + proof.places)
    found = found_by(explore_all, lock_order)
    assert found.preemptions == 2
    assert "the first with 2 preemptions to fail: HangError: nothing can happen" in str(found)
    with pytest.raises(HangError):
        replay(lock_order, found.token)
    found = found_by(explore_all, lost_update)
    assert "the first with 1 preemptions to fail" in str(found)


def test_timers_that_are_close_are_one_more_choice() -> None:
    """With a clock that is always late, what needs it is found systematically too."""
    explore_all(lost_update, 0.01)
    found = found_by(partial(explore_all, late_seconds=0.05), lost_update, 0.01)
    assert "late by 0.05 seconds" in str(found)
    with pytest.raises(AssertionError, match="the total is 1"):
        replay(lost_update, found.token, 0.01)


def test_a_task_that_only_looks_does_not_keep_the_others_from_running() -> None:
    """Whose turn it is goes around after a while, also in a plan."""

    async def scenario() -> None:
        done = False

        async def work() -> None:
            nonlocal done
            await trio.lowlevel.checkpoint()
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            while not done:  # noqa: ASYNC110  # the loop that is meant
                await trio.lowlevel.checkpoint()

    assert explore_all(scenario, preemptions=1, max_steps=500).runs > 30


def test_a_search_of_all_schedules_has_limits() -> None:
    """Numbers that mean nothing are refused, and a scenario that is too large is told so."""
    with pytest.raises(UsageError, match="preemptions must be >= 0, got -1"):
        explore_all(lock_order, preemptions=-1)
    with pytest.raises(UsageError, match="lock_order has more than 10 schedules with that many"):
        explore_all(lock_order, max_runs=10)
    assert explore_all(lock_order, preemptions=0).runs == 1


# --- one operation that is given up


async def gives_up() -> None:
    """Take a job in two steps, and give up between them."""
    send, receive = trio.open_memory_channel[str](1)
    taken: list[str] = []

    async def take() -> None:
        job = await receive.receive()
        await trio.lowlevel.checkpoint()  # such as a line in a log
        taken.append(job)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send.send, "job")
        with operation():
            await take()
    left = receive.statistics().current_buffer_used
    assert len(taken) + left == 1, "a job is lost"


def test_an_operation_whose_caller_goes_on() -> None:
    """Cancelling everything hides it: nobody is left who could miss the job."""
    cancel_everywhere(gives_up)
    with pytest.raises(CancelPointError, match="a job is lost") as caught:
        cancel_everywhere(gives_up, target="scope", schedules=3)
    found = caught.value
    assert "what was cancelled, and at which await:\n  the scenario: at test_findings.py:" in str(
        found
    )
    assert f"target='scope', seed=0, points=[{found.point}]" in str(found)
    with pytest.raises(AssertionError, match="a job is lost"):
        replay(gives_up, found.token)


def test_what_an_operation_is_made_of_is_cancelled_with_it() -> None:
    """The tasks in its own nurseries are named, those around it are not."""

    async def scenario() -> None:
        async with trio.open_nursery() as around:
            around.start_soon(trio.sleep, 1, name="stays")
            with operation() as scope:
                async with trio.open_nursery() as inside:  # noqa: ASYNC112  # its tasks are what is named
                    inside.start_soon(trio.sleep, 1, name="goes")
            assert not scope.cancelled_caught

    with pytest.raises(CancelPointError) as caught:
        cancel_everywhere(scenario, target="scope", points=[4])
    assert [line.split(":")[0] for line in caught.value.cancelled] == ["the scenario", "goes"]
    drawn = str(caught.value).splitlines()
    (cancelled,) = (line for line in drawn if line.endswith("  cancelled"))
    assert cancelled.split()[:-1].count("c") == 2
    assert " = test_what_an" not in str(caught.value)


def test_a_kept_promise_stands_many_orders() -> None:
    """The report counts the points of all schedules."""

    async def scenario() -> None:
        for _ in range(2):
            with operation():
                await trio.sleep(1)

    report = cancel_everywhere(scenario, target="scope", schedules=4)
    assert report.points == report.steps >= 8


def test_an_operation_is_a_scope_outside_of_the_kit() -> None:
    """A scenario runs under trio.run as well."""

    async def scenario() -> bool:
        with operation() as scope:
            scope.cancel()
            await trio.sleep(1)
        return scope.cancelled_caught

    assert trio.run(scenario)

    async def undisturbed() -> bool:
        with operation() as scope:
            await trio.lowlevel.checkpoint()
        return scope.cancelled_caught

    assert not trio.run(undisturbed)


def test_a_sweep_says_what_it_needs() -> None:
    """No operation, no schedule, no token of this scenario."""
    with pytest.raises(UsageError, match="lost_update has no operation to cancel; put `with op"):
        cancel_everywhere(lost_update, 5.0, target="scope")
    with pytest.raises(UsageError, match="schedules must be >= 1, got 0"):
        cancel_everywhere(gives_up, schedules=0)


# --- reports


def test_groups_are_looked_into() -> None:
    """A nursery wraps everything; the leaves are what happened, and what may happen."""

    async def scenario() -> None:
        async def fail(error: Exception) -> NoReturn:
            try:
                await trio.sleep_forever()
            finally:
                raise error

        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(fail, ValueError("a"))
            inner.start_soon(fail, KeyError("b"))
            await trio.sleep(1)
            outer.cancel_scope.cancel()

    allowed: list[type[Exception]] = [ValueError, KeyError]
    with pytest.raises(ExceptionGroup):  # noqa: ASYNC401  # which of both comes, and how deep, is the schedule's
        cancel_everywhere(scenario, may_raise=tuple(allowed))
    found = found_by(explore, scenario, schedules=1)
    assert "ValueError: a\n" in str(found)
    assert "KeyError: 'b'\n" in str(found)

    async def quiet() -> None:
        with suppress(BaseExceptionGroup):
            await scenario()

    # It fails at every point, in a group, and each time in one of the allowed ways.
    async def only_when_cancelled() -> None:
        async def fail() -> None:
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                raise ValueError("cleanup") from None  # noqa: ASYNC104  # the fault that is planted

        async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # the error comes in a group
            nursery.start_soon(fail)

    cancel_everywhere(only_when_cancelled, may_raise=(ValueError,))
    with pytest.raises(CancelPointError, match="ValueError: cleanup"):
        cancel_everywhere(only_when_cancelled, may_raise=(KeyError,))
    explore(quiet, schedules=1)


def test_a_hang_tells_its_last_steps() -> None:
    """How it came to that: who went on from where, the last twenty times."""
    with pytest.raises(ScheduleError) as caught:
        explore(lock_order)
    hang = caught.value.__cause__
    assert isinstance(hang, HangError)
    assert 1 <= len(hang.last_steps) <= 20
    assert "takes 0 went on from test_findings.py:" in "".join(hang.last_steps)
    assert "the last steps before:" in str(hang)
    assert str(HangError("bare", ["a waits"])) == "bare\n  a waits"


def test_a_hang_in_a_pool_names_the_line_of_the_user() -> None:
    """Not the line of ours in which the wait is made."""

    async def scenario() -> None:
        async with open_pool(ScriptedDriver(["never"])) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.receive_many, name="owner")
            nursery.start_soon(waits_for_post, pool.receive_many, name="helper")
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(HangError) as caught:
        simulate(scenario)
    (line,) = (line for line in caught.value.waiting if line.startswith("helper"))
    assert "test_findings.py" in line
    assert "in waits_for_post" in line


async def waits_for_post(receive: Callable[[], Awaitable[object]]) -> None:
    """Wait in a call of the pool's."""
    await receive()


def test_a_tool_that_times_out_while_nothing_happens_is_a_likely_hang() -> None:
    """The pool goes on, the test is green or fails elsewhere; the tool is named all the same."""

    async def scenario(wanted: str) -> None:
        @tool
        async def stuck() -> str:
            """Wait for an event that nobody sets."""
            await trio.Event().wait()
            return "never"

        manifest = AgentManifest(name="worker", capabilities=())
        async with open_pool(
            ScriptedDriver([call("stuck"), "done"]), tools=ToolRegistry([stuck])
        ) as pool:
            outcome = await (await pool.spawn(SpawnConfig(manifest, "go"))).wait()
        assert outcome.text == wanted

    report = explore(scenario, "done", schedules=2)
    (line,) = report.likely_hangs
    assert line.startswith("a likely hang: agent 1 (worker) waited in its tool 'stuck', at test_f")
    assert "in stuck, until its time was up; for " in line
    assert "a likely hang: agent 1 (worker)" in str(found_by(explore, scenario, "?", schedules=1))
    with pytest.raises(AssertionError) as caught:
        simulate(scenario, "?")
    assert [note for note in caught.value.__notes__ if "a likely hang" in note]


def test_a_leak_is_a_finding_like_any_other() -> None:
    """An orphan under the order that it takes."""

    async def scenario() -> None:
        async def long() -> str:
            await trio.sleep(1)
            return ""

        start_orphan(long)
        await trio.lowlevel.checkpoint()

    assert isinstance(found_by(explore, scenario).__cause__, LeakError)


# --- processes


def test_a_share_stops_where_another_has_failed() -> None:
    """Seeds behind the first that failed need not be run."""
    scenario = Scenario(async_fn=partial(lost_update, 5.0), name="x", max_steps=1000)
    search = explore_room._Search(scenario, "mix", late_clock=True, first=0)
    search.limit.value = 3
    assert search.run(range(0, 100, 2)).steps < search.run([0, 2, 2, 2]).steps
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with ours:
        jobs_room._work(lambda: 5, theirs)
        assert ours.recv() == 5
    assert search.share([0]).error is None
    fails = Scenario(async_fn=lost_update, name="x", max_steps=1000)
    failing = explore_room._Search(fails, "mix", late_clock=True, first=0)
    assert isinstance(failing.share(range(50)).error, AssertionError)
    assert type(jobs_room.portable(Torn("peer", 5))) is AssertionError
    turns = jobs_room.shared_turns(range(7, 10))
    first = iter(turns)
    assert (next(first), list(turns), list(first)) == (7, [8, 9], [])


def test_processes_share_the_work() -> None:
    """The report is the same, and so is the first seed that fails."""
    alone = explore(lost_update, 5.0, schedules=60)
    assert explore(lost_update, 5.0, schedules=60, jobs=3) == alone
    expected = found_by(explore, lost_update, 0.01, schedules=200)
    found = found_by(explore, lost_update, 0.01, schedules=200, jobs=2)
    assert (found.seed, str(found)) == (expected.seed, str(expected))
    with pytest.raises(UsageError, match="jobs must be >= 1, got 0"):
        explore(lost_update, jobs=0)


def test_a_failure_that_stays_in_its_process_is_said_to() -> None:
    """A fork that fails by what only it has seen."""

    async def scenario() -> None:
        await trio.lowlevel.checkpoint()
        assert multiprocessing.parent_process() is None

    found = found_by(explore, scenario, schedules=4, jobs=2)
    assert "does not fail when it is run again" in str(found)


class Torn(Exception):  # noqa: N818  # as an application's own may be called
    """An error that a process cannot receive: it wants two arguments."""

    def __init__(self, peer: str, size: int) -> None:
        """Make it of *peer*, which sent *size* bytes."""
        super().__init__(f"{peer} closed after {size} bytes")


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("error", [ConnectionResetError("peer closed"), Torn("peer", 5)])
def test_a_failure_that_does_not_come_back_is_kept(
    jobs: int, error: Exception, tmp_path: Path
) -> None:
    """A fault of real threads or sockets may be seen once in a night: it must not be lost."""
    mark = tmp_path / "seen"

    async def rare() -> None:
        await trio.lowlevel.checkpoint()
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return
        raise error

    found = found_by(explore, rare, schedules=6, jobs=jobs)
    assert f"{type(error).__name__}: {error}" in str(found)
    for word in ("does not fail when it is run again", "a global", "a thread", "the real time"):
        assert word in str(found)
    told = "".join(traceback.format_exception(found))
    assert type(error).__name__ in told
    assert "in rare" in told  # the line of the fault
    sendable = jobs == 1 or not isinstance(error, Torn)
    assert type(found.__cause__) is (type(error) if sendable else AssertionError)


def test_a_failure_that_comes_back_as_another_is_told_with_both() -> None:
    """The first is the finding; that the second differs says what is wrong with the scenario."""
    runs = 0

    async def scenario() -> None:
        nonlocal runs
        runs += 1
        await trio.lowlevel.checkpoint()
        if runs == 1:
            raise ValueError("first")
        raise KeyError("second")

    found = found_by(explore, scenario)
    assert "ValueError: first\nand fails with KeyError: 'second' when it is run again" in str(found)
    assert str(found.__cause__) == "first"


def test_the_ordinal_of_a_schedule_is_said_as_people_do() -> None:
    """Nobody takes "the 14th" for fourteen failures."""
    said = [explore_room.ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 112, 122)]
    assert said == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th", "122nd"]
    assert "the 1st of 5 schedules (seed 1) fails: Ass" in str(
        found_by(explore, lost_update, seed=1, schedules=5)
    )


def test_a_process_that_dies_is_noticed() -> None:
    """What it would have found is not known."""

    async def scenario() -> None:
        import os
        import signal

        await trio.lowlevel.checkpoint()
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UsageError, match="2 of 2 processes ended before their work was done"):
        explore(scenario, schedules=4, jobs=2)


def test_a_system_without_forks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, one process is what there is."""
    monkeypatch.setattr(jobs_room, "FORK", "no such thing")
    with pytest.raises(UsageError, match="needs a system that can fork processes; use jobs=1"):
        explore(lost_update, jobs=2)
