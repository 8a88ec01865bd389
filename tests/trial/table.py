"""The table of the trial: what finds which fault, after how many runs.

``python -m tests.trial.table`` prints it, from the root of the repository; it takes some
minutes. The kit comes last, as it was written: no program knows how it is looked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import mean

import trio
from trio.testing import MockClock

from agentpool.testing import (
    CancelPointError,
    ScheduleError,
    cancel_everywhere,
    explore,
    explore_all,
)
from agentpool.testing._simulation import report, shrink
from tests.trial.connections import CONNECTIONS
from tests.trial.lifetimes import LIFETIMES, opened_for_a_task_that_never_ran
from tests.trial.locks import LOCKS
from tests.trial.streams import STREAMS

PROGRAMS: tuple[Callable[..., Awaitable[None]], ...] = (
    *LOCKS,
    *CONNECTIONS,
    *STREAMS,
    *LIFETIMES,
)
GIVEN_UP = frozenset({opened_for_a_task_that_never_ran})
"""Those whose fault no order of tasks shows, and ``cancel_everywhere`` does at once: somebody
gives up between two steps, and no timer of theirs is near."""
CAP = 500
FASTER = 100.0
"""By how much the clock of a plain run is faster than a real one, for programs that take
seconds: all of their latencies stay what they are among each other."""
FAR = 1_000_000
"""Seeds between two searches."""


def searched(program: Callable[..., Awaitable[None]], search: int, orders: str) -> int | None:
    """Return how many schedules *explore* took. ``None``: it did not find it."""
    first = search * FAR
    try:
        explore(
            partial(program, repaired=False),
            seed=first,
            schedules=CAP,
            orders=orders,  # type: ignore[arg-type]  # one of the two
        )
    except ScheduleError as found:
        return found.seed - first + 1
    return None


def systematic(program: Callable[..., Awaitable[None]], search: int) -> bool:
    """Return whether *explore_all* finds it."""
    try:
        late = 1.0 if program in LIFETIMES else 0.02
        explore_all(partial(program, repaired=False), seed=search, late_seconds=late)
    except ScheduleError:
        return True
    return False


def swept(program: Callable[..., Awaitable[None]]) -> str:
    """Return what *cancel_everywhere* finds, by the target with which it does."""
    for target in ("scenario", "scope"):
        try:
            cancel_everywhere(
                partial(program, repaired=False),
                target=target,
                schedules=4,
            )
        except CancelPointError:
            return target
        except Exception as error:  # noqa: BLE001  # fails without a cancellation, or has no operation
            del error
    return "-"


def plain(program: Callable[..., Awaitable[None]], runs: int) -> int:
    """Return how many of *runs* fail under ``trio.run``, with latencies of real time."""

    async def limited() -> None:
        with trio.fail_after(60 if program in LIFETIMES else 0.5):
            await program(repaired=False)

    failures = 0
    for _ in range(runs):
        try:
            trio.run(limited, clock=MockClock(rate=FASTER if program in LIFETIMES else 1.0))
        except Exception:  # noqa: BLE001  # whatever it is, it was noticed
            failures += 1
    return failures


def main(searches: int = 20, runs: int = 50) -> None:
    """Print the table."""
    # Only the first failure is timed, not how it is told.
    shrink.MAX_RUNS = 0  # type: ignore[misc]  # a constant for everybody else
    report.LONG = 0  # type: ignore[misc]  # the same
    print("| program | explore (mix) | rounds | explore_all | cancel_everywhere | plain trio |")  # noqa: T201  # what it is for
    print("|---|---|---|---|---|---|")  # noqa: T201
    found_all = 0
    for program in PROGRAMS:
        cells: list[str] = []
        for orders in ("mix", "rounds"):
            began = time.perf_counter()
            # Rounds find few, and each search that finds nothing takes its 500 schedules.
            times = searches if orders == "mix" else max(1, searches // 5)
            counts = [searched(program, nth, orders) for nth in range(times)]
            seconds = (time.perf_counter() - began) / times
            hits = [count for count in counts if count is not None]
            if orders == "mix":
                found_all += len(hits) == times
            text = f"{mean(hits):.1f} ({seconds:.2f} s)" if hits else "never"
            cells.append(text if len(hits) in {0, times} else f"{text}, {len(hits)} of {times}")
        hits_all = sum(systematic(program, nth) for nth in range(3))
        cells.append(f"{hits_all} of 3")
        cells.append(swept(program))
        cells.append(f"{plain(program, runs)} of {runs}")
        print(f"| {program.__name__} | {' | '.join(cells)} |", flush=True)  # noqa: T201
    print(f"found in every search: {found_all} of {len(PROGRAMS)}")  # noqa: T201


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
