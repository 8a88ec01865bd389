"""The order of tasks is the seed's, and trio gets its own dice back."""

from __future__ import annotations

import random
import types

import pytest
import trio
from trio._core import _run

from agentpool import UsageError
from agentpool.testing import explore, simulate
from agentpool.testing._schedule import DICE, FLAG, scheduler_dice, seeded


async def order_of_five() -> str:
    """Return the order in which five tasks got their turns."""
    order: list[str] = []

    async def step(name: str) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            order.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(step, name)
    return "".join(order)


def test_this_trio_can_be_seeded() -> None:
    """The guard of the private names: a trio that moved them fails here, by its number."""
    assert isinstance(scheduler_dice(), random.Random), f"trio {trio.__version__}"
    assert simulate(order_of_five, seed=3) == simulate(order_of_five, seed=3), (
        f"trio {trio.__version__} no longer orders its tasks by {DICE} and {FLAG}"
    )
    orders = {simulate(order_of_five, seed=seed) for seed in range(30)}
    assert len(orders) == 30, f"trio {trio.__version__} has few orders: {len(orders)}"


def test_a_trio_without_the_names_is_named() -> None:
    """Who cannot be deterministic says so, instead of being random in silence."""
    with pytest.raises(UsageError, match=f"trio {trio.__version__} does not order"):
        scheduler_dice(types.SimpleNamespace(_r=random.Random(1)))  # noqa: S311  # trio's dice


@pytest.mark.parametrize("flag", [True, False])
def test_the_dice_are_given_back(flag: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001  # a parameter of the test
    """What Hypothesis or a user set is there afterwards, also when the scenario fails."""
    monkeypatch.setattr(_run, FLAG, flag)
    state = scheduler_dice().getstate()

    def fail() -> None:
        assert getattr(_run, FLAG) is True
        scheduler_dice().random()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), seeded(7):
        fail()
    assert getattr(_run, FLAG) is flag
    assert scheduler_dice().getstate() == state


def test_explore_counts_different_orders() -> None:
    """The report says how much was seen, so that a scenario with one order is noticed."""

    async def alone() -> None:
        await trio.sleep(1)

    assert explore(alone, schedules=20).distinct == 1
    report = explore(order_of_five, schedules=50)
    assert (report.schedules, report.distinct, report.pools) == (50, 50, 0)
