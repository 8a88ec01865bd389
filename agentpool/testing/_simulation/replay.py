"""Repeats a finding from its token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool.testing._simulation.orders import Plan
from agentpool.testing._simulation.run import refuse_inside_trio
from agentpool.testing._simulation.sweep import Cancel, Cancelling
from agentpool.testing._simulation.token import parse_token
from agentpool.testing._simulation.trial import Scenario
from agentpool.testing._simulation.watch import MAX_STEPS

Ts = TypeVarTuple("Ts")


def replay(
    async_fn: Callable[[*Ts], Awaitable[object]],
    token: str,
    *args: *Ts,
    check: Callable[[], object] | None = None,
    may_raise: tuple[type[Exception], ...] = (),
    max_steps: int = MAX_STEPS,
) -> None:
    """Run a scenario as *token* says, and raise its failure.

    The token contains every decision. So it repeats the failure in any process, under any Python,
    and in later versions of the kit, as long as the scenario takes the same steps.

    Args:
        async_fn: The scenario.
        token: The token, as the finding printed it.
        args: Its arguments.
        check: Called after the run, as in ``cancel_everywhere``.
        may_raise: The errors that the scenario may raise when it is cancelled.
        max_steps: The task steps after which a run counts as hanging.

    Raises:
        UsageError: If *token* is not a token, or the scenario no longer has the places in it.
        Exception: What the scenario raised.
    """
    expect_arguments(replay, locals(), but=("async_fn",))
    refuse_inside_trio()
    scenario = Scenario.of(async_fn, *args, max_steps=max_steps)
    finding = parse_token(token)
    plan = Plan(finding.preemptions, finding.delays)
    cancel: Cancel | None = None
    if finding.target is None:
        run = scenario.run(finding.seed, plan)
    else:
        cancel = Cancel(finding.target, finding.point)
        how = Cancelling(finding.target, check, may_raise)
        run = how.start(scenario.run(finding.seed, plan), cancel)
    run.run()
    if check is not None:
        check()
    last = max(finding.preemptions, default=-1)
    if last >= plan.places or (cancel is not None and not cancel.place):
        raise UsageError(
            f"{scenario.name} has changed: it ended without failing, before everything in the "
            f"token had happened; search for the fault again with explore"
        )
