"""Cancels one operation whose caller goes on, at every step, under many schedules.

``cancel_everywhere`` cancels a whole scenario or an agent. What a *part* of an agent leaves
behind when only that part is cancelled, say by ``move_on_after`` around one call, is seen by
the agent that goes on, and by nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import trio

from agentpool.testing import simulate

Scenario = Callable[[trio.CancelScope], Awaitable[None]]
"""Enters the scope around one of its operations, and checks itself what came of it."""


@final
class _CancelAt(trio.abc.Instrument):
    """Cancels a scope before one step of any task."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Count down."""
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


def cancel_inner_everywhere(scenario: Scenario, *, schedules: int = 4) -> int:
    """Run *scenario* once for each step and schedule; return how often it was cancelled.

    Raises:
        AssertionError: With the step and the seed, if a run fails.
    """
    cancelled = 0
    for seed in range(schedules):
        step, goes_on = 0, True
        while goes_on:
            step += 1
            reached = False

            async def run(step: int = step) -> None:
                nonlocal reached
                scope = trio.CancelScope()
                instrument = _CancelAt(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await scenario(scope)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
                    reached = instrument.left <= 0

            try:
                simulate(run, seed=seed)
            except Exception as error:
                raise AssertionError(f"cancelled at step {step}, seed {seed}: {error!r}") from error
            goes_on = reached
            cancelled += reached
    return cancelled
