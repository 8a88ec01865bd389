"""Cancels a scenario at every possible point, one after the other.

Rules:

1. A point is the moment before one step of one task of the scenario. Nothing happens between two
   steps, so these are all the moments at which a cancellation can come.
2. Each point has its own run. All runs have the same seed, so they are the same up to the point.
3. Whatever was cancelled must end cleanly: without an error, with nothing left behind, with an
   outcome for every agent, and with a result for every tool call.
4. After the cancellation of an ``operation()``, the scenario goes on, and its code must find every
   promise kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVarTuple, assert_never, final

import attrs
import trio

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._pool.record import AgentRecord
from agentpool.testing._simulation.findings import CancelPointError, headline
from agentpool.testing._simulation.operation import Operation
from agentpool.testing._simulation.orders import Order, Orders, order_of
from agentpool.testing._simulation.report import attempt, tell
from agentpool.testing._simulation.run import Cut, ScenarioRun, refuse_inside_trio
from agentpool.testing._simulation.token import Finding, Target
from agentpool.testing._simulation.trial import Scenario
from agentpool.testing._simulation.watch import MAX_STEPS, Watch, describe, slot_of, tasks_below

Ts = TypeVarTuple("Ts")

BY: Final = "cancel_everywhere"
"""The name of the canceller in outcomes."""


@final
@attrs.frozen(kw_only=True)
class CancelReport:
    """The runs of ``cancel_everywhere``."""

    points: int
    """The number of runs, each of which was cancelled at a different point."""
    steps: int
    """The number of points in the uncancelled runs. Each schedule has one such run."""
    pools: int
    """The number of pools opened and checked in all runs together."""
    agents: int
    """The number of agents that started and have an outcome, in all runs together."""


def cancel_everywhere(
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    target: Target = "scenario",
    schedules: int = 1,
    seed: int = 0,
    points: Iterable[int] | None = None,
    check: Callable[[], object] | None = None,
    may_raise: tuple[type[Exception], ...] = (),
    orders: Orders = "mix",
    late_clock: bool = True,
    max_steps: int = MAX_STEPS,
) -> CancelReport:
    """Run a scenario once, and then once more for each point, cancelled at that point.

    After each run, as after ``simulate``, nothing may be left behind. No task may still run, and
    the pools may have no agent without an outcome, no slot in use, no registration, and no tool
    call without a result. Each schedule takes as many runs as the scenario has task steps.

    Args:
        async_fn: The scenario. It must make everything that it uses, so that no run affects
            another.
        args: Its arguments.
        target: What is cancelled. ``scenario``: the whole scenario. ``agents``: all agents, by
            ``abort_all``. ``agent``: the agent whose step comes next; steps of other tasks are not
            points then. ``scope``: an ``operation()``, at each step of any task while it is open.
            The scenario then goes on, and must itself check what must hold.
        schedules: The number of schedules, with the seeds from *seed* on.
        seed: Chooses the (first) order of its tasks.
        points: The numbers of the points to cancel at. ``None``: all points.
        check: Called after each run, outside of trio. It raises if something is wrong.
        may_raise: The errors that the scenario may raise when it is cancelled, alone or in a group.
        orders: The ways of ordering to choose from, as in ``explore``.
        late_clock: Whether the clock of some seeds may be late, as in ``explore``.
        max_steps: The task steps after which a run counts as hanging.

    Raises:
        CancelPointError: If a run fails. The error has the point, the cancelled tasks with their
            awaits, and a drawing. Its cause is the failure.
        UsageError: If the runs are not the same up to the point, if there are no points, or if it
            is called inside a trio run.
        Exception: What the scenario raises without a cancellation.
    """
    expect_arguments(cancel_everywhere, locals(), but=("async_fn", "orders"))
    refuse_inside_trio()
    if schedules < 1:
        raise UsageError(f"schedules must be >= 1, got {schedules!r}")
    scenario = Scenario.of(async_fn, *args, max_steps=max_steps)
    wanted = None if points is None else list(points)
    if wanted == []:
        raise UsageError(
            "points is empty, so nothing would be cancelled; leave it out for all points"
        )
    report = CancelReport(points=0, steps=0, pools=0, agents=0)
    for number in range(seed, seed + schedules):
        sweep = _Sweep(
            scenario, number, orders, late_clock, Cancelling(target, check, may_raise), wanted
        )
        report = sweep.run(report)
    return report


@final
@attrs.frozen
class Cancelling:
    """What to cancel, and what to check afterwards."""

    target: Target
    check: Callable[[], object] | None = None
    may_raise: tuple[type[Exception], ...] = ()

    def start(self, run: ScenarioRun[object], cancel: Cancel) -> ScenarioRun[object]:
        """Return *run* with *cancel* attached."""
        run = attrs.evolve(
            run,
            before_step=cancel.before_step,
            may_raise=self.may_raise if cancel.point is not None else (),
        )
        cancel.run = run
        return run


@final
@attrs.define(eq=False)
class Cancel:
    """Cancels one run at one point."""

    target: Target
    point: int | None
    """The number of the point. ``None``: only count the points."""
    run: ScenarioRun[object] | None = None
    seen: int = 0
    """The number of points passed so far."""
    place: str = ""
    """Which task would have gone on, and from where."""
    cancelled: list[str] = attrs.field(factory=list[str])
    """The cancelled tasks, each with its await."""

    def before_step(self, task: trio.lowlevel.Task) -> None:
        """Cancel when the point is reached."""
        run = self.run
        assert run is not None  # noqa: S101  # set before the run begins
        # The kit's own steps before and after the scenario are not points of it.
        if self.place or run.scope.cancel_called or not run.inside:
            return
        match self.target:
            case "scenario":
                self._at_point(task, list(run.watch.tasks), run.scope.cancel)
            case "agents":
                agents = [one for one in run.watch.tasks if slot_of(one) is not None]
                self._at_point(task, agents, self._abort_all)
            case "agent":
                handle = _agent_of(task, run.watch)
                if handle is not None:
                    slot = slot_of(task)
                    own = [one for one in run.watch.tasks if slot_of(one) is slot]
                    self._at_point(task, own, handle.cancel)
            case "scope":
                for operation in list(run.operations):
                    self._at_point(task, _tasks_in(operation), operation.scope.cancel)
            case _:
                assert_never(self.target)

    def _at_point(
        self,
        task: trio.lowlevel.Task,
        affected: Sequence[trio.lowlevel.Task],
        cancel: Callable[[str], object],
    ) -> None:
        self.seen += 1
        if self.seen == self.point:
            self.place = describe(task)
            self.cancelled = [describe(one) for one in affected]
            assert self.run is not None  # noqa: S101  # set before the run begins
            watch = self.run.watch
            # The step before which it comes has been counted.
            self.run.cut = Cut(watch.steps - 1, frozenset(watch.tasks[one] for one in affected))
            cancel(f"{BY}: point {self.point}")

    def _abort_all(self, reason: str) -> None:
        assert self.run is not None  # noqa: S101  # as above
        for agents in self.run.watch.pools:
            agents.abort(BY, reason.removeprefix(f"{BY}: "))


@final
@attrs.define(eq=False)
class _Sweep:
    """All runs of one schedule."""

    scenario: Scenario
    seed: int
    orders: Orders
    late_clock: bool
    how: Cancelling
    points: list[int] | None

    def order(self) -> Order:
        """Return a fresh order of the schedule."""
        return order_of(self.seed, self.orders, late_clock=self.late_clock)

    def start(self, order: Order, cancel: Cancel) -> ScenarioRun[object]:
        """Return a run that *cancel* cancels."""
        return self.how.start(self.scenario.run(self.seed, order), cancel)

    def run(self, report: CancelReport) -> CancelReport:
        """Run without a cancellation, then once for each point. Adds to *report*."""
        counter = Cancel(self.how.target, None)
        uncancelled = self.start(self.order(), counter)
        uncancelled.run()
        if self.how.check is not None:
            self.how.check()
        if self.how.target == "scope" and not counter.seen:
            raise UsageError(
                f"{self.scenario.name} has no operation to cancel; put `with operation():` around "
                "what its caller may give up"
            )
        idle = not uncancelled.watch.pools or not counter.seen
        if self.how.target in ("agent", "agents") and idle:
            raise UsageError(
                f"{self.scenario.name} starts no agent, so nothing would be cancelled; spawn one, "
                "or cancel the whole scenario with target='scenario'"
            )
        for point in range(1, counter.seen + 1) if self.points is None else self.points:
            watch = self._cancel_at(point)
            report = attrs.evolve(
                report,
                points=report.points + 1,
                pools=report.pools + len(watch.pools),
                agents=report.agents + sum(len(handles) for handles in watch.pools.values()),
            )
        return attrs.evolve(report, steps=report.steps + counter.seen)

    def _cancel_at(self, point: int) -> Watch:
        """Run once with a cancellation."""
        cancel = Cancel(self.how.target, point)
        run = self.start(self.order(), cancel)
        error = attempt(run, self.how.check)
        if error is not None:
            if cancel.place:
                raise self._found(cancel, run.watch.steps, error) from error
            raise error
        if not cancel.place:
            raise UsageError(
                f"{self.scenario.name} had no point {point}, so it is not the same in every run; "
                "let it make its own drivers, tools and pools"
            )
        return run.watch

    def _found(self, cancel: Cancel, steps: int, error: Exception) -> CancelPointError:
        target, point = self.how.target, cancel.point or 0
        finding = Finding(seed=self.seed, target=target, point=point)

        def start(order: Order, keep: int, most: int) -> ScenarioRun[object]:
            run = self.scenario.run(self.seed, order, keep=keep, most=most)
            return self.how.start(run, Cancel(target, point))

        told = tell(finding, start, self.how.check, (steps, error), self.order())
        name = self.scenario.name
        more = "" if target == "scenario" else f", target={target!r}"
        again = f"cancel_everywhere({name}{more}, seed={self.seed}, points=[{point}])"
        if told.token:
            again += f", or the drawn one with replay({name}, {told.token!r})"
        where = f"cancelled at point {point}, before a step of {cancel.place}, it fails"
        text = [
            f"{where}: {headline(error)}",
            "what was cancelled, and at which await:",
            *(f"  {line}" for line in cancel.cancelled),
            *told.lines,
            f"see it again with {again}",
        ]
        return CancelPointError("\n".join(text), self.seed, point, told.token, cancel.cancelled)


def _tasks_in(operation: Operation) -> list[trio.lowlevel.Task]:
    """Return the tasks that belong to an operation."""
    found = [operation.task]
    for nursery in operation.task.child_nurseries:
        if nursery not in operation.outer:
            found += tasks_below(nursery)
    return found


def _agent_of(task: trio.lowlevel.Task, watch: Watch) -> AgentRecord | None:
    slot = slot_of(task)
    if slot is None:
        return None
    return next(
        (
            handles.get(slot.agent_id)
            for agents, handles in watch.pools.items()
            if agents.admission is slot.keeper
        ),
        None,
    )
