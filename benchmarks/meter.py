"""What one measured process does: run one workload once, print one line of JSON.

A script of contenders ends in ``main({"W1": w1, ...})`` and is called as

    python benchmarks/agents.py W1 --n 10000

Set-up, imports and a warm-up come before the measured part and do not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeAlias

import attrs
import trio

Workload: TypeAlias = Callable[[int, "Meter"], Awaitable[None]]
"""Does a number of operations, those that count inside ``with meter.running():``."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the command line, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Say it, without the usage: ``--help`` has that."""
        self.exit(2, f"{self.prog}: {message}\n")


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number of at least *least* from the command line."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            message = f"must be a whole number of at least {least}, got {text!r}"
            raise argparse.ArgumentTypeError(message)
        return number

    return read


def a_folder(text: str) -> Path:
    """Return the folder of that name, which must be there."""
    if not (folder := Path(text)).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return folder


KIB = 1024
"""Linux counts peak memory in these; macOS in bytes."""


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    if sys.platform == "linux":
        # What getrusage() says there is the most of this process and of the one that began it.
        _, _, peak = Path("/proc/self/status").read_text().partition("VmHWM:")
        return int(peak.split()[0]) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def load_settled() -> Callable[[], Awaitable[None]]:
    """Return what waits until no task can go on: called before anything is measured.

    It comes with ten megabytes of trio's testing kit, which are not for other workloads to weigh.
    """
    from trio.testing import wait_all_tasks_blocked  # noqa: PLC0415

    return wait_all_tasks_blocked


@attrs.define(eq=False)
class Meter:
    """How long the measured part of a workload took."""

    operations: int
    """What the time is divided by. A workload that repeats itself sets it anew."""
    cpu_seconds: float = 0.0
    """User and system time of this process."""
    wall_seconds: float = 0.0
    """Time on the clock."""

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Count the time inside of the block."""
        # What the warm-up left behind is not for the measured part to clean up.
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.cpu_seconds = time.process_time() - cpu
        self.wall_seconds = time.perf_counter() - wall

    def times(self, least: int, n: int) -> int:
        """Return how often to repeat *n* operations, to measure some *least* in all."""
        return max(1, least // n)

    def report(self) -> dict[str, float | str]:
        """Return what was measured, per operation in microseconds."""
        return {
            "cpu_us": self.cpu_seconds / self.operations * 1e6,
            "wall_us": self.wall_seconds / self.operations * 1e6,
            "peak_mb": peak_bytes() / 1e6,
            "python": platform.python_version(),
        }


def main(workloads: Mapping[str, Workload]) -> None:
    """Run the workload that the command line names."""
    parser = Parser(description="Run one workload and print a line of JSON.")
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("--n", type=at_least(1), default=1000, help="operations (default 1000)")
    options = parser.parse_args()
    meter = Meter(options.n)
    trio.run(workloads[options.workload], options.n, meter)
    print(json.dumps(meter.report()))
