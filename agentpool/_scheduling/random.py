"""Random numbers: from the system, or repeatable from the seed of a run."""

from __future__ import annotations

from random import Random

import trio

run_seed: trio.lowlevel.RunVar[int | None] = trio.lowlevel.RunVar("agentpool_seed", default=None)
"""The default ``random_seed`` in this run of trio. ``simulate`` sets it."""


def build_random(seed: int | None) -> Random:
    """Return a random generator with *seed*. ``None``: with the seed of the run or the system."""
    return Random(run_seed.get() if seed is None else seed)  # noqa: S311  # spreads retries; no secret
