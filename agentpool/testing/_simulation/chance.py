"""Random numbers for scenarios, the same in each run with the same seed."""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from agentpool._scheduling.random import build_random

_dice: Final[trio.lowlevel.RunVar[dict[str, Random]]] = trio.lowlevel.RunVar("agentpool_dice")


def dice(name: str = "") -> Random:
    """Return a random generator derived from the seed of this run.

    A scenario that draws from them is the same at every run of a seed, and another one with
    the next seed. Two parts that draw by turns get other numbers when their tasks run in
    another order; give each its own *name* if that should not be.

    Args:
        name: Which dice. The same name is the same dice, for the whole run.

    Returns:
        A generator. Outside of the kit, under a plain ``trio.run``, chance seeds it.

    Raises:
        RuntimeError: Outside of trio.
    """
    try:
        found = _dice.get()
    except LookupError:
        found = dict[str, Random]()
        _dice.set(found)
    if name not in found:
        # Text is a seed as well, and no hash is taken of it.
        found[name] = Random(f"{name} {build_random(None).random()}")  # noqa: S311  # for scenarios; no secret
    return found[name]
