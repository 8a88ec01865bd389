"""The order of tasks is the seed's, and trio gets its own dice back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio._core import _run

from agentpool import UsageError
from agentpool.testing import dice, explore, simulate
from agentpool.testing._simulation.orders import Orders, order_of
from agentpool.testing._simulation.schedule import CONTEXT, DICE, FLAG, ordered, scheduler_dice

SEEDS = 24
"""All four ways, with and without a late clock, three times each."""


async def order_of_five() -> str:
    """Return the order in which five tasks got their turns, and when."""
    order: list[str] = []

    async def step(name: str) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            order.append(name)
        await trio.sleep(ord(name) / 1000)
        order.append(f"{name} {trio.current_time():g} {dice().randrange(1000)}")

    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(step, name)
    return " ".join(order)


def digest() -> str:
    """Return what some seeds came to."""
    return "\n".join(simulate(order_of_five, seed=seed) for seed in range(SEEDS))


def test_this_trio_can_be_ordered() -> None:
    """The guard of the private names: a trio that moved them fails here, by its number."""
    assert isinstance(scheduler_dice(), random.Random), f"trio {trio.__version__}"
    broken = f"trio {trio.__version__} no longer orders its tasks by {DICE}, {FLAG} and {CONTEXT}"
    first: list[str] = []
    kinds: tuple[Orders, ...] = ("mix", "rounds")
    for kind in kinds:
        first = [simulate(order_of_five, seed=seed, orders=kind) for seed in range(SEEDS)]
        assert first == [
            simulate(order_of_five, seed=seed, orders=kind) for seed in range(SEEDS)
        ], broken
        assert len(set(first)) == SEEDS, broken
    # In rounds everybody takes a first step before anybody takes a second.
    alone = tuple(f"{name} {name} {name} " for name in "abcde")
    assert not any(one.startswith(alone) for one in first), broken
    assert any(one.startswith(alone) for one in digest().splitlines()), broken


@pytest.mark.parametrize("missing", [DICE, FLAG, CONTEXT])
def test_a_trio_without_the_names_is_named(missing: str) -> None:
    """Who cannot be deterministic says so, instead of being random in silence."""
    names: dict[str, object] = {
        DICE: random.Random(1),  # noqa: S311  # trio's dice
        FLAG: False,
        CONTEXT: object(),
    }
    del names[missing]
    with pytest.raises(UsageError, match=f"trio {trio.__version__} does not order"):
        scheduler_dice(types.SimpleNamespace(**names))


@pytest.mark.parametrize("flag", [True, False])
def test_the_dice_are_given_back(flag: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001  # a parameter of the test
    """What Hypothesis or a user set is there afterwards, also when the scenario fails."""
    monkeypatch.setattr(_run, FLAG, flag)
    before = scheduler_dice()
    state = before.getstate()

    def fail() -> None:
        assert getattr(_run, FLAG) is True
        assert scheduler_dice() is not before
        scheduler_dice().random()
        raise ZeroDivisionError

    nobody: Mapping[trio.lowlevel.Task, int] = {}
    with pytest.raises(ZeroDivisionError), ordered(order_of(7), nobody):
        fail()
    assert getattr(_run, FLAG) is flag
    assert scheduler_dice() is before
    assert before.getstate() == state


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_is_the_same_run_in_every_process(hash_seed: str) -> None:
    """Whatever is behind a seed, it does not depend on hashes, addresses or what ran before."""
    code = "from tests.testing.test_schedule import digest; print(digest())"
    # The tests' own root comes last: agentpool is the one that is tested here.
    path = os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest()


def test_there_are_only_these_orders() -> None:
    """A word that was mistyped is refused, with those that there are."""
    wrong: Orders = "round"  # type: ignore[assignment]  # what a person might type
    with pytest.raises(UsageError, match="orders must be one of mix, rounds, got 'round'"):
        explore(order_of_five, schedules=1, orders=wrong)


def test_a_late_clock_lets_timers_meet() -> None:
    """Two timers that are near each other go off together under some seeds, and only late."""

    async def two() -> tuple[float, float]:
        ends: list[float] = []

        async def end(seconds: float) -> None:
            await trio.sleep(seconds)
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, 1.0)
            nursery.start_soon(end, 1.01)
        first, second = ends
        return first, second

    late = [simulate(two, seed=seed) for seed in range(200)]
    assert (1.0, 1.01) in late
    assert any(first == second for first, second in late)
    assert all(first >= 1.0 and second >= 1.01 for first, second in late)
    exact = {simulate(two, seed=seed, late_clock=False) for seed in range(200)}
    assert exact == {(1.0, 1.01)}
    assert {simulate(two, seed=seed, orders="rounds") for seed in range(200)} == exact


def test_a_task_that_only_looks_does_not_keep_the_others_from_running() -> None:
    """Every order lets everybody go on in the end, also beside a loop that never waits."""

    async def scenario() -> None:
        done = False

        async def work() -> None:
            nonlocal done
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            while not done:  # noqa: ASYNC110  # the loop that is meant
                await trio.lowlevel.checkpoint()

    explore(scenario, schedules=SEEDS, max_steps=5000)


def test_explore_says_whether_more_would_show_more() -> None:
    """A scenario with one order is noticed, and so is a search that has seen what there is."""

    async def alone() -> None:
        await trio.sleep(1)

    report = explore(alone, schedules=20)
    assert (report.meetings, report.last_new, report.new_meetings) == (0, 0, (0,))
    report = explore(order_of_five, schedules=300, seed=1000)
    assert (report.schedules, report.pools) == (300, 0)
    first, _, third = report.new_meetings
    assert first > 5 > third
    assert sum(report.new_meetings) == report.meetings
    assert 0 < report.last_new <= 300
    assert f"nothing new since schedule {report.last_new}" in str(report)
