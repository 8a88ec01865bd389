"""Faults that people reported, as small programs: the kit finds them, and no others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from agentpool import UsageError
from agentpool.testing import CancelPointError, ScheduleError, cancel_everywhere, explore
from tests.trial.table import FASTER, GIVEN_UP, PROGRAMS, plain, searched, swept, systematic

Program = Callable[..., Awaitable[None]]
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)


@each_program
def test_the_fault_is_found(program: Program) -> None:
    """In some hundred schedules at most, most of them in ten."""
    found = found_in(partial(program, repaired=False), given_up=program in GIVEN_UP)
    assert found.token, str(found)


def found_in(
    broken: Callable[[], Awaitable[None]], *, given_up: bool
) -> ScheduleError | CancelPointError:
    """Return what is found, by chance or by a cancellation at every point."""
    if given_up:
        with pytest.raises(CancelPointError) as point:
            cancel_everywhere(broken, target="scope", schedules=4)
        return point.value
    with pytest.raises(ScheduleError) as schedule:
        explore(broken, schedules=500)
    return schedule.value


@each_program
def test_the_repaired_twin_is_left_alone(program: Program) -> None:
    """No false alarm, under any order, and wherever its caller gives up."""
    explore(partial(program, repaired=True), schedules=32)
    with suppress(UsageError):  # most of them have no operation that may be given up
        cancel_everywhere(partial(program, repaired=True), target="scope", schedules=2)


@each_program
def test_each_program_says_where_it_is_from(program: Program) -> None:
    """A report by somebody who met the fault, and the promise that was broken."""
    text = program.__doc__ or ""
    assert "Source: https://github.com/" in text
    assert "Promise: " in text


@each_program
def test_each_program_runs_without_the_kit(program: Program) -> None:
    """With trio alone, the repaired twin keeps its promise."""

    async def limited() -> None:
        with trio.fail_after(2000):
            await program(repaired=True)

    trio.run(limited, clock=MockClock(rate=FASTER))


def test_the_table_counts() -> None:
    """What the script prints is what it says."""
    program = PROGRAMS[-1]
    assert searched(program, 1, "mix") in range(1, 500)
    assert isinstance(systematic(program, 0), bool)
    assert swept(program) in {"scenario", "scope", "-"}
    assert 0 <= plain(program, 1) <= 1
