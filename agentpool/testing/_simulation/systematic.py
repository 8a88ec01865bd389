"""Runs a scenario in every order with a limited number of preemptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
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
from agentpool.testing._simulation.trial import Scenario, name_of
from agentpool.testing._simulation.watch import MAX_STEPS

Ts = TypeVarTuple("Ts")

MAX_RUNS: Final = 100_000
"""Runs after which a search gives up: some minutes."""


@final
@attrs.frozen(kw_only=True)
class Proof:
    """The runs of ``explore_all``: every order, without a failure."""

    preemptions: int
    """The most preemptions in each run."""
    runs: int
    """How many schedules there are with that number of preemptions."""
    places: int
    """Places for a preemption in the run that has none."""


def explore_all(
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    preemptions: int = 2,
    late_seconds: float = 0.0,
    seed: int = 0,
    max_runs: int = MAX_RUNS,
    max_steps: int = MAX_STEPS,
) -> Proof:
    """Run a scenario in every order with at most that many preemptions.

    By itself, a task runs until it waits, and then the one that has waited for longest. A
    preemption sends the one whose turn it is to the end of the line, at any place where
    another one can run; two at one place send two. All places for one are tried before all
    for two, so what is found has the fewest. Most faults need one or two. The
    seed draws ``dice()`` alone.

    With n places it takes 1 + n runs for one preemption, and about n * n / 2 for two: keep
    the scenario small.

    Args:
        async_fn: The scenario.
        args: Its arguments.
        preemptions: The most in one run.
        late_seconds: By how much the clock is late, always. Timers that are closer than that
            go off together, and which of their tasks goes first is up to the search.
        seed: What the scenario's own dice begin with.
        max_runs: Runs after which the search gives up.
        max_steps: Task steps after which a run counts as one that hangs.

    Raises:
        ScheduleError: If a run fails. Its text has a drawing, its cause is the failure.
        UsageError: If there are more runs than *max_runs*, or inside of a trio run.
    """
    expect_arguments(explore_all, locals(), but=("async_fn",))
    if preemptions < 0:
        raise UsageError(f"preemptions must be >= 0, got {preemptions!r}")
    refuse_inside_trio()
    scenario = Scenario(
        name=name_of(async_fn), async_fn=partial(async_fn, *args), max_steps=max_steps
    )
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
        """Run with preemptions *at* these places, and return how many places there were."""
        if self.runs >= self.max_runs:
            raise UsageError(
                f"{self.scenario.name} has more than {self.max_runs} schedules with that many "
                "preemptions; use fewer tasks, steps or preemptions, or raise max_runs"
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
