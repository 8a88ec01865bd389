"""Runs a scenario in every order with a limited number of preemptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVarTuple, final

import attrs

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool.testing._simulation.explore import start_of
from agentpool.testing._simulation.findings import ScheduleError, headline
from agentpool.testing._simulation.orders import Plan
from agentpool.testing._simulation.report import attempt, tell
from agentpool.testing._simulation.run import refuse_inside_trio
from agentpool.testing._simulation.token import Finding
from agentpool.testing._simulation.trial import Scenario
from agentpool.testing._simulation.watch import MAX_STEPS

Ts = TypeVarTuple("Ts")

MAX_RUNS: Final = 100_000
"""The most runs of a search: some minutes."""


@final
@attrs.frozen(kw_only=True)
class Proof:
    """The runs of ``explore_all``, which tried every order without a failure."""

    preemptions: int
    """The most preemptions in one run."""
    runs: int
    """How many schedules there are with at most that many preemptions."""
    places: int
    """How many places for a preemption the run without preemptions has."""


def explore_all(
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    preemptions: int = 2,
    late_seconds: float = 0.0,
    seed: int = 0,
    max_runs: int = MAX_RUNS,
    max_steps: int = MAX_STEPS,
) -> Proof:
    """Run a scenario in every order that has at most *preemptions* preemptions.

    Normally, a task runs until it waits, and then the task that has waited longest runs. At a place
    where another task can run, a preemption sends the task whose turn it is to the end of the line.
    Two preemptions at one place send two tasks. All orders with one preemption are tried before
    those with two, so a failure is found with the fewest preemptions. Most faults need one or two.
    The seed is only used for ``dice()``.

    A scenario with n places takes 1 + n runs for one preemption, and about n * n / 2 runs for two,
    so keep the scenario small.

    Args:
        async_fn: The scenario.
        args: Its arguments.
        preemptions: The most preemptions in one run.
        late_seconds: How late the clock is at every jump. Timers that are less than this apart go
            off together, and the search tries their tasks in every order.
        seed: The seed of the scenario's ``dice()``.
        max_runs: The most runs before the search gives up.
        max_steps: The task steps after which a run counts as hanging.

    Raises:
        ScheduleError: If a run fails. The text of the error has a drawing, and its cause is the
            failure.
        UsageError: If there are more runs than *max_runs*, or it is called inside a trio run.
    """
    expect_arguments(explore_all, locals(), but=("async_fn",))
    if preemptions < 0:
        raise UsageError(f"preemptions must be >= 0, got {preemptions!r}")
    refuse_inside_trio()
    scenario = Scenario.of(async_fn, *args, max_steps=max_steps)
    search = _Systematic(scenario, seed, late_seconds, max_runs)
    layer: list[tuple[tuple[int, ...], int]] = [((), search.run(()))]
    places = layer[0][1]
    for _ in range(preemptions):
        below: list[tuple[tuple[int, ...], int]] = []
        for before, count in layer:
            for place in range(before[-1] if before else 0, count):
                plan = (*before, place)
                below.append((plan, search.run(plan)))
        layer = below
    return Proof(preemptions=preemptions, runs=search.runs, places=places)


@final
@attrs.define(eq=False)
class _Systematic:
    """The state of one systematic search."""

    scenario: Scenario
    seed: int
    late: float
    max_runs: int
    runs: int = 0

    def run(self, at: tuple[int, ...]) -> int:
        """Run with preemptions at the places *at*, and return the number of places in the run."""
        if self.runs >= self.max_runs:
            raise UsageError(
                f"{self.scenario.name} has more than {self.max_runs} schedules with that many "
                "preemptions; use fewer tasks, steps or preemptions, or increase max_runs"
            )
        self.runs += 1
        plan = self._plan(at)
        run = self.scenario.run(self.seed, plan)
        error = attempt(run, None)
        if error is not None:
            raise self._found(at, run.watch.steps, error) from error
        return plan.places

    def _plan(self, at: tuple[int, ...]) -> Plan:
        return Plan({place: at.count(place) for place in at}, late=self.late)

    def _found(self, at: tuple[int, ...], steps: int, error: Exception) -> ScheduleError:
        start = start_of(self.scenario, self.seed)
        told = tell(Finding(seed=self.seed), start, None, (steps, error), self._plan(at))
        text = [
            f"run {self.runs}, the first with {len(at)} preemptions to fail: {headline(error)}",
            *told.lines,
        ]
        if told.token:
            text.append(f"see it again with replay({self.scenario.name}, {told.token!r})")
        return ScheduleError("\n".join(text), self.seed, told.token, told.preemptions)
