"""Chance for scenarios: dice from the seed of the run, the same in each run of that seed."""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from agentpool._scheduling.random import build_random

_dice: Final[trio.lowlevel.RunVar[dict[str, Random]]] = trio.lowlevel.RunVar("agentpool_dice")


def dice(name: str = "") -> Random:
    """Return the dice of this run, drawn from its seed.

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
