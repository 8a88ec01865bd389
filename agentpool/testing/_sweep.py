"""Cancels a scenario at every point at which it can be cancelled, one after the other.

Rules:

1. A point is the moment before one step of one task of the scenario. Between two steps
   nothing happens, so these are all moments at which a cancellation can come.
2. Each point has a run of its own, with the same seed: up to the point, it is the same run.
3. What was cancelled ends as if it had been asked to: without an error, with nothing left,
   with every outcome there and a result for every tool call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, Literal, TypeAlias, TypeVarTuple, assert_never, final

import attrs
import trio

from agentpool._errors import UsageError
from agentpool._pool.handle import AgentHandle
from agentpool.testing._findings import CancelPointError
from agentpool.testing._run import ScenarioRun, refuse_inside_trio
from agentpool.testing._simulate import name_of
from agentpool.testing._watch import MAX_STEPS, Watch, describe, slot_of

Ts = TypeVarTuple("Ts")

Target: TypeAlias = Literal["scenario", "agents", "agent"]
"""What is cancelled: the scope around the scenario, every agent of every pool as
``abort_all`` does, or the one agent whose step comes next as ``handle.cancel`` does."""

BY: Final = "cancel_everywhere"
"""Who cancelled, in outcomes."""


@final
@attrs.frozen(kw_only=True)
class CancelReport:
    """What ``cancel_everywhere`` has run."""

    points: int
    """Runs, each cancelled at a point of its own."""
    steps: int
    """Points that the uncancelled run has."""
    pools: int
    """Pools that were opened and checked, in all runs together."""
    agents: int
    """Agents that were started and have their outcome, in all runs together."""


def cancel_everywhere(
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    target: Target = "scenario",
    seed: int = 0,
    points: Iterable[int] | None = None,
    check: Callable[[], object] | None = None,
    may_raise: tuple[type[Exception], ...] = (),
    max_steps: int = MAX_STEPS,
) -> CancelReport:
    """Run a scenario once, then cancel it at its 1st, 2nd, 3rd … point, a run for each.

    After each run, as after ``simulate``, nothing may be left: no task, and of its
    pools no agent without its outcome, no slot, no registration, no tool call without its
    result. That takes as many runs as the scenario has task steps.

    Args:
        async_fn: The scenario. It makes what it uses itself, so that no run sees another.
        args: Its arguments.
        target: What is cancelled: ``scenario``, ``agents`` (all of them, by ``abort_all``)
            or ``agent`` (the one whose step comes next; other steps are no points then).
        seed: Chooses the order of its tasks.
        points: Which of the points. ``None``: all.
        check: Called after each run, outside of trio; it raises if something is wrong.
        may_raise: What the scenario may raise when it is cancelled.
        max_steps: Task steps after which a run counts as one that hangs.

    Raises:
        CancelPointError: If a run fails. Its text has the point, its cause the failure.
        UsageError: If the runs are not the same up to the point, or inside of a trio run.
        Exception: Whatever the scenario raises without any cancellation.
    """
    refuse_inside_trio()
    scenario = partial(async_fn, *args)
    counter = _Cancel(target, None)
    first = ScenarioRun(scenario, seed, max_steps, counter.before_step)
    counter.run = first
    first.run()
    if check is not None:
        check()
    sweep = _Sweep(scenario, name_of(async_fn), seed, max_steps, check, may_raise)
    wanted = range(1, counter.seen + 1) if points is None else points
    done = 0
    for point in wanted:
        sweep.cancel_at(_Cancel(target, point))
        done += 1
    return CancelReport(points=done, steps=counter.seen, pools=sweep.pools, agents=sweep.agents)


@final
@attrs.define(eq=False)
class _Cancel:
    """Cancels one run at one point."""

    target: Target
    point: int | None
    """``None``: only count the points."""
    run: ScenarioRun[object] | None = None
    seen: int = 0
    """Points that came by."""
    place: str = ""
    """Who would have gone on, and from where."""

    def before_step(self, task: trio.lowlevel.Task) -> None:
        """Cancel if the point has come."""
        run = self.run
        assert run is not None  # noqa: S101  # set before the run begins
        # The kit's own steps before and after the scenario are no points of it.
        if run.scope.cancel_called or not run.inside:
            return
        agent = _agent_of(task, run.watch) if self.target == "agent" else None
        if self.target == "agent" and agent is None:
            return
        self.seen += 1
        if self.seen != self.point:
            return
        self.place = describe(task)
        match self.target:
            case "scenario":
                run.scope.cancel(f"{BY}: point {self.point}")
            case "agents":
                for agents in run.watch.pools:
                    agents.abort(BY, f"point {self.point}")
            case "agent":
                assert agent is not None  # noqa: S101  # returned above
                agent.cancel(f"{BY}: point {self.point}")
            case _:
                assert_never(self.target)


@final
@attrs.define(eq=False)
class _Sweep:
    """All runs of one sweep."""

    scenario: Callable[[], Awaitable[object]]
    name: str
    seed: int
    max_steps: int
    check: Callable[[], object] | None
    may_raise: tuple[type[Exception], ...]
    pools: int = 0
    agents: int = 0

    def cancel_at(self, cancel: _Cancel) -> None:
        """Run once and cancel."""
        run = ScenarioRun(
            self.scenario, self.seed, self.max_steps, cancel.before_step, self.may_raise
        )
        cancel.run = run
        try:
            run.run()
            if self.check is not None:
                self.check()
        except Exception as error:
            if cancel.place:
                raise self._found(cancel, error) from error
            raise
        if not cancel.place:
            raise UsageError(
                f"{self.name} had no point {cancel.point}: it is not the same at every run; let "
                "it make its own drivers, tools and pools"
            )
        self.pools += len(run.watch.pools)
        self.agents += sum(len(handles) for handles in run.watch.pools.values())

    def _found(self, cancel: _Cancel, error: Exception) -> CancelPointError:
        point = cancel.point or 0
        other = "" if cancel.target == "scenario" else f", target={cancel.target!r}"
        return CancelPointError(
            f"cancelled at point {point}, before a step of {cancel.place}, it fails: "
            f"{type(error).__name__}: {error}\n"
            f"see it again with cancel_everywhere({self.name}{other}, seed={self.seed}, "
            f"points=[{point}])",
            self.seed,
            point,
        )


def _agent_of(task: trio.lowlevel.Task, watch: Watch) -> AgentHandle | None:
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
