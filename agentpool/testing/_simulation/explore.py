"""Runs a scenario in one task order, or in many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar, TypeVarTuple, cast, final

import attrs

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool.testing._simulation.findings import ScheduleError, alike, headline
from agentpool.testing._simulation.jobs import (
    Limit,
    in_processes,
    portable,
    shared_limit,
    shared_turns,
)
from agentpool.testing._simulation.orders import Order, Orders, order_of
from agentpool.testing._simulation.report import Start, attempt, tell
from agentpool.testing._simulation.run import ScenarioRun, refuse_inside_trio
from agentpool.testing._simulation.token import Finding
from agentpool.testing._simulation.trial import Scenario, name_of
from agentpool.testing._simulation.watch import MAX_STEPS, Meeting

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HUNDRED = 100
"""New meetings are counted separately for each group of this many schedules."""


def simulate(
    async_fn: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    seed: int = 0,
    orders: Orders = "mix",
    late_clock: bool = True,
    max_steps: int = MAX_STEPS,
) -> T:
    """Run a scenario on a virtual clock and return its result.

    The clock starts at 0.0. It stands still while any task can run, and then jumps to the next
    deadline, so an hour of waiting takes no time. The seed chooses the order in which tasks run.
    The same seed and the same scenario give the same run, event by event, as long as the scenario
    makes its own drivers, tools and pools. Threads and sockets work; they take real time, and the
    seed does not decide their order.

    When the scenario has ended, nothing may be left behind. No task may still run, and its pools
    may have no agent without an outcome, no slot in use, no registration, and no tool call without
    a result.

    Args:
        async_fn: The scenario.
        args: Its arguments.
        seed: Chooses the order. Each number gives a different order. With 0, all tasks that can run
            take one step in turn, on a clock that is never late.
        orders: The ways of ordering to choose from, as in ``explore``.
        late_clock: Whether the clock of some seeds may be late, as in ``explore``.
        max_steps: The number of task steps after which a scenario counts as hanging.

    Raises:
        HangError: If nothing more can happen. The error says which tasks wait, and where.
        LeakError: If something is left behind at the end.
        UsageError: If it is called inside a trio run.
        Exception: What the scenario raised.
    """
    expect_arguments(simulate, locals(), but=("async_fn", "orders"))
    refuse_inside_trio()
    name_of(async_fn)  # refuses what is not a function
    order = order_of(seed, orders, late_clock=late_clock)
    run = ScenarioRun[T](
        async_fn=partial(async_fn, *args), seed=seed, order=order, max_steps=max_steps
    )
    run.run()
    return cast("T", run.result)


@final
@attrs.frozen(kw_only=True, str=False)
class Exploration:
    """The runs of ``explore``, and whether more runs would find more.

    A meeting is a pair of lines: while one task waited at the first line, another task went on from
    the second. As long as a search still finds new meetings, more runs are worthwhile. If it has
    found no new meeting for a long time, more runs will hardly find anything new.
    """

    schedules: int
    """The number of runs, each with its own seed."""
    steps: int
    """The number of task steps in all runs together."""
    pools: int
    """The number of pools opened and checked in all runs together."""
    meetings: int
    """The number of different meetings in all runs together. 0: no two tasks ever took turns."""
    new_meetings: tuple[int, ...]
    """How many meetings were new, for each 100 schedules."""
    last_new: int
    """The number of the schedule that had the last new meeting. 0: there was no meeting."""
    likely_hangs: tuple[str, ...] = ()
    """Tools that timed out while nothing else happened, each with its agent and the place where it
    waited."""

    def __str__(self) -> str:
        """Return the report on one line."""
        new = ", ".join(map(str, self.new_meetings))
        return (
            f"{self.schedules} schedules, {self.steps} steps; {self.meetings} meetings of lines, "
            f"nothing new since schedule {self.last_new} (new per {HUNDRED}: {new})"
        )


def explore(
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    schedules: int = 1000,
    seed: int = 0,
    orders: Orders = "mix",
    late_clock: bool = True,
    jobs: int = 1,
    max_steps: int = MAX_STEPS,
) -> Exploration:
    """Run a scenario in many task orders, and raise for the first that fails.

    Each run is one ``simulate``, with the seeds ``seed``, ``seed + 1``, and so on. A failure is
    shrunk to the fewest preemptions of tasks that still cause it, and is then drawn.

    Args:
        async_fn: The scenario.
        args: Its arguments.
        schedules: How many orders to run.
        seed: The first seed.
        orders: With ``mix``, the seed picks one of four ways; in three of them, tasks may be late.
            With ``rounds``, all tasks that can run take one step in turn, as in plain trio, and the
            seed shuffles each round.
        late_clock: Whether the clock may be late in every second group of four seeds, so that
            timers near each other go off together. Pass ``False`` if the scenario asserts times.
        jobs: How many processes share the work. These processes are forks, so this process does not
            see what they change.
        max_steps: The number of task steps after which a run counts as hanging.

    Raises:
        ScheduleError: If a run fails. The text of the error has the seed, a drawing and the token
            of the shrunk run. The cause of the error is the failure.
        UsageError: If there is nothing to run, or it is called inside a trio run.
    """
    expect_arguments(explore, locals(), but=("async_fn", "orders"))
    if schedules < 1:
        raise UsageError(f"schedules must be >= 1, got {schedules!r}")
    if jobs < 1:
        raise UsageError(f"jobs must be >= 1, got {jobs!r}")
    refuse_inside_trio()
    scenario = Scenario.of(async_fn, *args, max_steps=max_steps)
    search = _Search(scenario, orders, late_clock, seed)
    seeds = range(seed, seed + schedules)
    if jobs == 1:
        part = search.run(seeds)
    else:
        search.limit = shared_limit()
        share = partial(search.share, shared_turns(seeds))
        part = _joined(in_processes([share] * min(jobs, schedules)))
    if part.failed is not None:
        raise search.found(part, schedules)
    return part.report(seed, schedules)


@final
@attrs.define(eq=False)
class Part:
    """The results of some of the runs."""

    steps: int = 0
    pools: int = 0
    meetings: dict[Meeting, int] = attrs.field(factory=dict[Meeting, int])
    """Each meeting, with the first seed that had this meeting."""
    likely_hangs: dict[str, None] = attrs.field(factory=dict[str, None])
    failed: int | None = None
    """The first seed that failed."""
    error: Exception | None = None
    """The error of that seed."""

    def report(self, seed: int, schedules: int) -> Exploration:
        """Return the report, for seeds from *seed* on."""
        new = [0] * -(-schedules // HUNDRED)
        for first in self.meetings.values():
            new[(first - seed) // HUNDRED] += 1
        last = max(self.meetings.values(), default=seed - 1) - seed + 1
        return Exploration(
            schedules=schedules,
            steps=self.steps,
            pools=self.pools,
            meetings=len(self.meetings),
            new_meetings=tuple(new),
            last_new=last,
            likely_hangs=tuple(self.likely_hangs),
        )


def _joined(parts: Sequence[Part]) -> Part:
    """Combine the results in *parts*."""
    whole = Part()
    for part in parts:
        whole.steps += part.steps
        whole.pools += part.pools
        for meeting, first in part.meetings.items():
            whole.meetings[meeting] = min(first, whole.meetings.get(meeting, first))
        whole.likely_hangs |= part.likely_hangs
        if part.failed is not None and (whole.failed is None or part.failed < whole.failed):
            whole.failed, whole.error = part.failed, part.error
    return whole


@final
@attrs.define(eq=False)
class _Search:
    """Runs a scenario with one seed after another."""

    scenario: Scenario
    orders: Orders
    late_clock: bool
    first: int
    limit: Limit = attrs.field(factory=Limit)

    def order(self, seed: int) -> Order:
        """Return the task order of one seed."""
        return order_of(seed, self.orders, late_clock=self.late_clock)

    def run(self, seeds: Iterable[int]) -> Part:
        """Run with each of *seeds* until one fails."""
        part = Part()
        for seed in seeds:
            if seed > self.limit.value:
                break
            run = self.scenario.run(seed, self.order(seed))
            part.error = attempt(run, None)
            if part.error is not None:
                part.failed = seed
                self.limit.value = min(seed, self.limit.value)
                break
            part.steps += run.watch.steps
            part.pools += len(run.watch.pools)
            for meeting in run.watch.meetings - part.meetings.keys():
                part.meetings[meeting] = seed
            part.likely_hangs.update(dict.fromkeys(run.likely_hangs))
        return part

    def share(self, seeds: Iterable[int]) -> Part:
        """Do the same as ``run``, in a process that then sends the result to its parent."""
        part = self.run(seeds)
        if part.error is not None:
            part.error = portable(part.error)
        return part

    def found(self, part: Part, schedules: int) -> ScheduleError:
        """Return the error for the seed of *part* that failed."""
        assert part.failed is not None  # noqa: S101  # the caller has looked
        assert part.error is not None  # noqa: S101  # it is set with the seed
        seed, first = part.failed, part.error
        # Once more: where it ran before, it may have been in another process.
        run = self.scenario.run(seed, self.order(seed))
        error = attempt(run, None)
        nth = f"the {ordinal(seed - self.first + 1)} of {schedules} schedules (seed {seed}) fails"
        if error is None or not alike(error, first):
            then = f"fails with {headline(error)}" if error else "does not fail"
            lost = ScheduleError(
                f"{nth}: {headline(first)}\n"
                f"and {then} when it is run again: the scenario is not the same in every run. "
                "Something that it uses comes from outside: a global, a file, the real time, a "
                "random number or a thread. Make everything inside the scenario, and draw random "
                "numbers from dice()",
                seed,
            )
            lost.__cause__ = first
            return lost
        start, failed = start_of(self.scenario, seed), (run.watch.steps, error)
        told = tell(Finding(seed=seed), start, None, failed, self.order(seed))
        more = "" if self.orders == "mix" else f", orders={self.orders!r}"
        more += "" if self.late_clock else ", late_clock=False"
        again = f"simulate({self.scenario.name}, seed={seed}{more})"
        if told.token:
            again += f", or the drawn one with replay({self.scenario.name}, {told.token!r})"
        text = [f"{nth}: {headline(error)}", *told.lines, f"see it again with {again}"]
        found = ScheduleError("\n".join(text), seed, told.token, told.preemptions)
        found.__cause__ = error
        return found


def ordinal(number: int) -> str:
    """Return *number* as an ordinal: 1st, 2nd, 3rd, 11th."""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def start_of(scenario: Scenario, seed: int) -> Start:
    """Return a function that starts *scenario* with a given order."""

    def start(order: Order, keep: int, most: int) -> ScenarioRun[object]:
        return scenario.run(seed, order, keep=keep, most=most)

    return start
