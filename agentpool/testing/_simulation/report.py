"""The text of a finding: the failure, a drawing of the run, and how to repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs

from agentpool.testing._simulation.drawing import draw
from agentpool.testing._simulation.findings import summary
from agentpool.testing._simulation.orders import Order, Plan
from agentpool.testing._simulation.run import ScenarioRun
from agentpool.testing._simulation.shrink import shrink
from agentpool.testing._simulation.token import Finding, token_of
from agentpool.testing._simulation.watch import LAST_STEPS

Start = Callable[[Order, int, int], ScenarioRun[object]]
"""Returns a run for an order, the number of steps to keep, and the number of steps allowed."""

LONG: Final = 20_000
"""A run with more steps is not shrunk: shrinking would take minutes, and the drawing would be
unreadable."""

SLACK: Final = 1_000
"""How many steps a different order of a scenario may take beyond twice the steps of the failed run.
An endless polling loop takes more."""


@final
@attrs.frozen(kw_only=True)
class Told:
    """The drawing and the token that follow a finding's error."""

    lines: tuple[str, ...]
    """The drawing."""
    token: str
    """The token. Empty: there is none."""
    preemptions: int | None
    """The number of preemptions in the token. ``None``: there is no token."""


def attempt(run: ScenarioRun[object], after: Callable[[], object] | None) -> Exception | None:
    """Run, check afterwards, and return the failure."""
    try:
        run.run()
        if after is not None:
            after()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what was looked for
        return error
    return None


def tell(
    finding: Finding,
    start: Start,
    after: Callable[[], object] | None,
    failed: tuple[int, Exception],
    order: Order,
) -> Told:
    """Shrink a finding and draw it.

    Args:
        finding: The finding: its seed, and what was cancelled.
        start: Starts the scenario.
        after: Called after each run. It raises if something is wrong.
        failed: The number of steps until the failure, and the error.
        order: A fresh copy of the order that failed.
    """
    steps, error = failed
    if steps > LONG:
        return Told(lines=(f"not shrunk: it took {steps:,} steps",), token="", preemptions=None)
    most = 2 * steps + SLACK

    def once(tried: Order) -> tuple[int, Exception | None]:
        run = start(tried, LAST_STEPS, most)
        failure = attempt(run, after)
        return run.watch.steps, failure

    shrunk = shrink(once, order, error)
    if shrunk is None:
        said = f"{type(error).__name__} does not come back when the same order is run again"
        return Told(
            lines=(f"not shrunk: {said}; does the scenario itself make everything that it uses?",),
            token="",
            preemptions=None,
        )
    found = attrs.evolve(finding, preemptions=shrunk.preemptions, delays=shrunk.delays)
    plan = Plan(found.preemptions, found.delays)
    run = start(plan, most, most)
    drawn = attempt(run, after)
    count = len(found.preemptions)
    says = "no preemption" if not count else f"{count} preemption{'s' if count > 1 else ''}"
    if found.delays:
        late = ", ".join(f"{seconds:g}" for _, seconds in sorted(found.delays.items()))
        says += f" and a clock that is late by {late} seconds"
    return Told(
        lines=(
            f"the same with {says}:",
            *_differing(error, drawn),
            draw(list(run.watch.last), run.watch.names, plan, run.cut),
        ),
        token=token_of(found),
        preemptions=count,
    )


def _differing(error: Exception, drawn: Exception | None) -> list[str]:
    """Return the failure of the drawn run if its text differs from the text of *error*."""
    if drawn is not None and summary(drawn) == summary(error):
        return []
    said = "\n".join(sorted(summary(drawn))) if drawn is not None else "nothing"
    return [f"  which fails with {said}"]
