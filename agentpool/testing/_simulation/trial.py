"""A scenario to run repeatedly, each time in another order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import attrs

from agentpool._checks import expect_function
from agentpool.testing._simulation.orders import Order
from agentpool.testing._simulation.run import ScenarioRun
from agentpool.testing._simulation.watch import LAST_STEPS


@final
@attrs.frozen(kw_only=True)
class Scenario:
    """The function to run, and what counts as its failure."""

    async_fn: Callable[[], Awaitable[object]]
    """Makes all that it uses by itself, so that no run sees another."""
    name: str
    """What a person calls it."""
    max_steps: int
    """Task steps after which a run counts as one that hangs."""

    def run(
        self, seed: int, order: Order, *, keep: int = LAST_STEPS, most: int | None = None
    ) -> ScenarioRun[object]:
        """Return a new run, which has not begun.

        Args:
            seed: What its own dice begin with.
            order: The order of the tasks.
            keep: How many of its last steps are kept.
            most: How many steps it may take. ``None``: ``max_steps``.
        """
        steps = self.max_steps if most is None else min(most, self.max_steps)
        return ScenarioRun[object](
            self.async_fn, seed=seed, order=order, max_steps=steps, keep=keep
        )


def name_of(async_fn: Callable[..., object]) -> str:
    """Return the name of *async_fn*.

    Raises:
        UsageError: If it is not a function: for example ``main()`` instead of ``main``.
    """
    expect_function(
        async_fn, "the scenario must be an async function", "pass main, not what main() returns"
    )
    return getattr(async_fn, "__name__", None) or repr(async_fn)
