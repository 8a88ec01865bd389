"""Hooks into trio's scheduler, to choose which tasks take the next step.

No other module uses trio's private names for this. Trio has no public way, but since 0.12 it has
had two private names, for Hypothesis and pytest-trio. One is a flag that makes trio sort the tasks
of a batch before it shuffles them. The other is the ``random.Random`` that shuffles. We replace
that generator by an object that takes tasks out of the batch and puts them back into the queue of
runnable tasks. So this object alone decides which tasks run.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Final, final

import trio
from trio._core import _run  # pyright: ignore[reportPrivateUsage]  # what this file is for

from agentpool._errors import UsageError
from agentpool.testing._simulation.orders import Order

FLAG: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
DICE: Final = "_r"
CONTEXT: Final = "GLOBAL_RUN_CONTEXT"


def scheduler_dice(module: object = _run) -> Random:
    """Return the random generator with which trio orders tasks.

    Args:
        module: The module of trio that has it.

    Raises:
        UsageError: If this version of trio has no such generator. The error names the version.
    """
    dice: object = getattr(module, DICE, None)
    if (
        not isinstance(dice, Random)
        or not isinstance(getattr(module, FLAG, None), bool)
        or not hasattr(module, CONTEXT)
    ):
        raise UsageError(
            f"trio {trio.__version__} does not order its tasks by trio._core._run.{DICE}, "
            f"{FLAG} and {CONTEXT}; agentpool.testing needs a trio that does, such as 0.35"
        )
    return dice


@contextmanager
def ordered(order: Order, numbers: Mapping[trio.lowlevel.Task, int]) -> Generator[None]:
    """Let *order* decide the task order of every trio run inside the block.

    Args:
        order: The order that decides.
        numbers: The tasks about which *order* decides, each with its number. All other tasks are
            trio's own, and run immediately.

    Raises:
        UsageError: If this version of trio cannot be controlled.
    """
    dice = scheduler_dice()
    flag = bool(getattr(_run, FLAG))
    setattr(_run, FLAG, True)
    setattr(_run, DICE, _Hook(order, numbers))
    try:
        yield
    finally:
        setattr(_run, DICE, dice)
        setattr(_run, FLAG, flag)


@final
class _Hook(Random):
    """Replaces trio's random generator, which shuffles each batch of tasks."""

    def __init__(self, order: Order, numbers: Mapping[trio.lowlevel.Task, int]) -> None:
        """Make a hook that asks *order*."""
        super().__init__(0)
        self._order = order
        self._numbers = numbers

    def shuffle(self, x: list[trio.lowlevel.Task]) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # it is given tasks alone
        """Leave in *x* only the tasks that run now, in reverse order, and put the others back."""
        numbers = self._numbers
        own = [task for task in x if task not in numbers]
        waiting = {numbers[task]: task for task in x if task in numbers}
        if not waiting:
            return
        now = self._order.choose(list(waiting))
        chosen = [waiting.pop(number) for number in reversed(now)]
        x[:] = [*chosen, *own]
        if waiting:
            getattr(_run, CONTEXT).runner.runq.extend(waiting.values())
