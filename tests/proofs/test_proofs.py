"""Every guarantee stands every schedule with one preemption; with two, ``nox -s proofs`` shows."""

from __future__ import annotations

import pytest
from hypothesis import settings

from agentpool.testing import cancel_everywhere, explore
from tests.proofs.scenarios import (
    GUARANTEES,
    LOGS,
    WORST,
    Scenario,
    d17_a_reply_is_lost,
    g15_determinism,
)
from tests.proofs.table import proven

pytestmark = pytest.mark.usefixtures("slots_handed_on")

PREEMPTIONS = 1 if settings().max_examples < 1000 else 2


@pytest.mark.parametrize("scenario", GUARANTEES, ids=lambda one: one.__name__)
def test_no_schedule_breaks_a_guarantee(scenario: Scenario) -> None:
    """All of them, with a clock that is exact and one that is always late."""
    exact, late = proven(scenario, PREEMPTIONS)
    # Fewer places than this, and nothing runs beside anything.
    assert exact >= 2
    assert late >= 2


@pytest.mark.parametrize("scenario", WORST, ids=lambda one: one.__name__)
def test_the_worst_faults_stay_away(scenario: Scenario) -> None:
    """Each was found by these ten lines, with what is called here, when it was put back."""
    explore(scenario, schedules=50)
    proven(scenario, PREEMPTIONS)
    if scenario is d17_a_reply_is_lost:
        cancel_everywhere(scenario, target="scope", schedules=4)


def test_every_guarantee_has_a_scenario() -> None:
    """G1 to G18, in their order."""
    numbers = [int(scenario.__name__[1:3]) for scenario in GUARANTEES]
    assert numbers == [*range(1, 19)]


def test_each_schedule_writes_the_same_log_every_time() -> None:
    """G15: what differs between two schedules is the schedule, and nothing else."""
    logs: list[list[str]] = []
    for _ in range(2):
        LOGS.clear()
        proven(g15_determinism, PREEMPTIONS)
        logs.append(list(LOGS))
    assert logs[0] == logs[1]
    assert len(set(logs[0])) > 1
