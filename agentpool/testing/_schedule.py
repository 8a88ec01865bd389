"""The order in which trio runs tasks, chosen by a seed.

The only file that uses trio's private names for it. trio has had them for Hypothesis and
pytest-trio since 0.12 and offers no public way: a flag that makes it sort the tasks of a
batch before it shuffles them, and the ``random.Random`` that shuffles.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from random import Random
from typing import Final

import trio
from trio._core import _run  # pyright: ignore[reportPrivateUsage]  # what this file is for

from agentpool._errors import UsageError

FLAG: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
DICE: Final = "_r"


def scheduler_dice(module: object = _run) -> Random:
    """Return the generator that orders trio's tasks.

    Args:
        module: Where trio keeps it.

    Raises:
        UsageError: If this trio has no such thing. Says which trio it is.
    """
    dice: object = getattr(module, DICE, None)
    if not isinstance(dice, Random) or not isinstance(getattr(module, FLAG, None), bool):
        raise UsageError(
            f"trio {trio.__version__} does not order its tasks by trio._core._run.{DICE} and "
            f"{FLAG}; agentpool.testing needs a trio that does, such as 0.35"
        )
    return dice


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Order the tasks of every trio run inside by *seed*; then all is as it was.

    Raises:
        UsageError: If this trio has no seed to set.
    """
    dice = scheduler_dice()
    state, flag = dice.getstate(), bool(getattr(_run, FLAG))
    setattr(_run, FLAG, True)
    dice.seed(seed)
    try:
        yield
    finally:
        dice.setstate(state)
        setattr(_run, FLAG, flag)
