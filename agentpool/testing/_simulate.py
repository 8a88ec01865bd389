"""Runs a scenario under one order of its tasks, or under many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, TypeVarTuple, cast, final

import attrs

from agentpool._errors import UsageError
from agentpool.testing._findings import ScheduleError
from agentpool.testing._run import ScenarioRun, refuse_inside_trio
from agentpool.testing._watch import MAX_STEPS

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def simulate(
    async_fn: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    seed: int = 0,
    max_steps: int = MAX_STEPS,
) -> T:
    """Run a scenario with trio, on a clock that jumps, and return what it returned.

    The clock starts at 0.0, stands still while any task can run, and then jumps to the next
    deadline: an hour of waiting takes no time. The seed chooses the order in which tasks
    run. The same seed and the same scenario give the same run, event by event, as long as
    the scenario makes its drivers, tools and pools itself. Threads and sockets work; real
    time passes for them, and their order is not the seed's.

    When it has ended, nothing may be left: no task, and of its pools no agent without
    its outcome, no slot, no registration, no tool call without its result.

    Args:
        async_fn: The scenario.
        args: Its arguments.
        seed: Chooses the order. Each number is another one.
        max_steps: Task steps after which a scenario counts as one that hangs.

    Raises:
        HangError: If nothing can happen any more. Says who waits, and where.
        LeakError: If something is left.
        UsageError: If it is called inside of a trio run.
        Exception: Whatever the scenario raised.
    """
    refuse_inside_trio()
    run = ScenarioRun[T](partial(async_fn, *args), seed, max_steps)
    run.run()
    return cast("T", run.result)


@final
@attrs.frozen(kw_only=True)
class Exploration:
    """What ``explore`` has run."""

    schedules: int
    """Runs, each with a seed of its own."""
    distinct: int
    """Different orders of task steps among them."""
    steps: int
    """Task steps of all runs together."""
    pools: int
    """Pools that were opened and checked, in all runs together."""


def explore(
    async_fn: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    schedules: int = 1000,
    seed: int = 0,
    max_steps: int = MAX_STEPS,
) -> Exploration:
    """Run a scenario under many orders of its tasks; raise for the first that fails.

    Each run is one ``simulate``, with the seeds ``seed``, ``seed + 1``, and so on.

    Args:
        async_fn: The scenario.
        args: Its arguments.
        schedules: How many orders.
        seed: The first seed.
        max_steps: Task steps after which a run counts as one that hangs.

    Raises:
        ScheduleError: If a run fails. Its text has the seed, its cause the failure.
        UsageError: If there is nothing to run, or inside of a trio run.
    """
    if schedules < 1:
        raise UsageError(f"schedules must be >= 1, got {schedules!r}")
    refuse_inside_trio()
    distinct: set[int] = set()
    steps = pools = 0
    for number in range(seed, seed + schedules):
        run = ScenarioRun(partial(async_fn, *args), number, max_steps)
        try:
            run.run()
        except Exception as error:
            nth = number - seed + 1
            raise ScheduleError(
                f"{nth} of {schedules} schedules, with seed {number}, fails: "
                f"{type(error).__name__}: {error}\n"
                f"see it again with simulate({name_of(async_fn)}, seed={number})",
                number,
            ) from error
        distinct.add(run.watch.schedule)
        steps += run.watch.steps
        pools += len(run.watch.pools)
    return Exploration(schedules=schedules, distinct=len(distinct), steps=steps, pools=pools)


def name_of(async_fn: Callable[..., object]) -> str:
    """Return what a person calls *async_fn*."""
    return getattr(async_fn, "__name__", None) or repr(async_fn)
