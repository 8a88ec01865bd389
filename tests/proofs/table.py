"""The proofs: every guarantee's scenario under all schedules with up to two preemptions.

``python -m tests.proofs.table`` prints how many there are, from the root of the repository;
it takes some minutes. ``nox -s proofs`` does the same with the wheel.
"""

from __future__ import annotations

import logging
import sys
import time

from agentpool.testing import explore_all
from tests.proofs.scenarios import GUARANTEES, Scenario

LATE_SECONDS = 1.5
"""The second half of each proof: timers that are closer than this go off together."""


def proven(scenario: Scenario, preemptions: int) -> tuple[int, int]:
    """Return under how many schedules *scenario* was run, on an exact clock and on a late one."""
    exact = explore_all(scenario, preemptions=preemptions)
    late = explore_all(scenario, preemptions=preemptions, late_seconds=LATE_SECONDS)
    return exact.runs, late.runs


def main(preemptions: int = 2) -> None:
    """Print the table."""
    # Agents that are told of an error are what some scenarios are about.
    logging.disable(logging.CRITICAL)
    print("| guarantee | schedules | with a late clock | seconds |\n|---|---|---|---|")  # noqa: T201  # what it is for
    total = 0
    for scenario in GUARANTEES:
        began = time.perf_counter()
        exact, late = proven(scenario, preemptions)
        seconds = time.perf_counter() - began
        print(f"| {scenario.__name__} | {exact:,} | {late:,} | {seconds:.1f} |", flush=True)  # noqa: T201
        total += exact + late
    print(f"{total:,} schedules, none failed")  # noqa: T201


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
