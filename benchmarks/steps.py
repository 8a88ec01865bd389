"""The byte code instructions of one operation, by function: where the time is.

    python benchmarks/steps.py W1:agents W1:reference
    python benchmarks/steps.py W3:deadlines --few 50 --many 150 --rows 20

Each count is the difference of two runs, divided by the difference of their sizes, so it is exact
and the same on every machine, however busy. It knows nothing of what built-in functions take:
those are shown by ``valgrind --tool=callgrind``, which takes fifty times as long.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, final

import agents
import attrs
import trio
import yardsticks
from meter import Meter, Workload

if TYPE_CHECKING:
    from _typeshed import TraceFunction

WORKLOADS: Final[Mapping[str, Workload]] = {**yardsticks.WORKLOADS, **agents.WORKLOADS}


@final
@attrs.define(eq=False)
class StepMeter(Meter):
    """Counts instructions in place of seconds."""

    steps: Counter[tuple[str, str]] = attrs.field(factory=Counter[tuple[str, str]])
    """How many, by file and function."""

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Count inside the block."""
        sys.settrace(self.trace)
        yield
        sys.settrace(None)

    def trace(self, frame: FrameType, event: str, argument: object) -> TraceFunction:
        """Count one instruction. What Python calls for each."""
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            code = frame.f_code
            self.steps[code.co_filename, code.co_qualname] += 1
        return self.trace


def count(workload: str, n: int) -> tuple[Counter[tuple[str, str]], int]:
    """Return the instructions of *n* operations by function, and how many were measured."""
    meter = StepMeter(n)
    trio.run(WORKLOADS[workload], n, meter)
    return meter.steps, meter.operations


def name_of(file: str, function: str) -> str:
    """Return a short name for a function."""
    path = Path(file)
    if "agentpool" in path.parts:
        return f"{path.stem}.{function}"
    return f"{'trio' if 'trio' in path.parts else path.stem}: {function}"


def main() -> None:
    """Print a table for each workload."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS, metavar="WORKLOAD")
    parser.add_argument("--few", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--many", type=int, default=1_200, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=12, help="default: %(default)s")
    options = parser.parse_args()
    for workload in options.workloads:
        few, n = count(workload, options.few)
        many, m = count(workload, options.many)
        many.subtract(few)
        total = many.total() / (m - n)
        print(f"\n| {workload} | {total:,.0f} | % |\n|---|---|---|")
        for (file, function), steps in many.most_common(options.rows):
            each = steps / (m - n)
            print(f"| `{name_of(file, function)}` | {each:,.0f} | {100 * each / total:.1f} |")


if __name__ == "__main__":
    main()
