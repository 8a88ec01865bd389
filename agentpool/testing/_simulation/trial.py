"""Holds a scenario that is run repeatedly, each time in a different order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self, final

import attrs

from agentpool._checks import expect_function
from agentpool.testing._simulation.orders import Order
from agentpool.testing._simulation.run import ScenarioRun
from agentpool.testing._simulation.watch import LAST_STEPS


@final
@attrs.frozen(kw_only=True)
class Scenario:
    """The function to run, and the number of steps after which it counts as hanging."""

    async_fn: Callable[[], Awaitable[object]]
    """The function. It makes everything that it uses, so that no run affects another."""
    name: str
    """Its name, for messages."""
    max_steps: int
    """The task steps after which a run counts as hanging."""

    @classmethod
    def of(cls, async_fn: Callable[..., Awaitable[object]], *args: object, max_steps: int) -> Self:
        """Make the scenario that calls *async_fn* with *args*.

        Raises:
            UsageError: If *async_fn* is not a function: for example ``main()`` instead of ``main``.
        """
        return cls(name=name_of(async_fn), async_fn=partial(async_fn, *args), max_steps=max_steps)

    def run(
        self, seed: int, order: Order, *, keep: int = LAST_STEPS, most: int | None = None
    ) -> ScenarioRun[object]:
        """Return a new run, which has not begun.

        Args:
            seed: The seed of the scenario's ``dice()``.
            order: The order of the tasks.
            keep: How many of its last steps to keep.
            most: How many steps it may take. ``None``: ``max_steps``.
        """
        steps = self.max_steps if most is None else min(most, self.max_steps)
        return ScenarioRun[object](
            async_fn=self.async_fn, seed=seed, order=order, max_steps=steps, keep=keep
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
