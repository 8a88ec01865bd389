"""Random numbers for scenarios, the same in each run with the same seed."""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from agentpool._checks import expect_arguments
from agentpool._scheduling.random import build_random

_dice: Final[trio.lowlevel.RunVar[dict[str, Random]]] = trio.lowlevel.RunVar("agentpool_dice")


def dice(name: str = "") -> Random:
    """Return a random generator derived from the seed of this run.

    A scenario that draws from this generator is the same in every run with the same seed, and
    differs with the next seed. If two parts of a scenario draw from one generator, their numbers
    depend on the order of their tasks. To avoid that, give each part its own *name*.

    Args:
        name: The name of the generator. During a run, the same name returns the same generator.

    Returns:
        A generator. Under a plain ``trio.run``, outside the testing kit, its seed is random.

    Raises:
        RuntimeError: If the function is called outside a trio run.
    """
    expect_arguments(dice, locals())
    try:
        found = _dice.get()
    except LookupError:
        found = dict[str, Random]()
        _dice.set(found)
    if name not in found:
        # Text is a seed as well, and no hash is taken of it.
        found[name] = Random(f"{name} {build_random(None).random()}")  # noqa: S311  # for scenarios; no secret
    return found[name]
