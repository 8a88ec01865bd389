"""The byte code instructions of one operation, by function: where the time is.

    python benchmarks/steps.py W1:agents W1:reference
    python benchmarks/steps.py W3:deadlines --few 50 --many 150 --rows 20
    python benchmarks/steps.py --growth

Each count is the difference of two runs, divided by how much more the second one did, so it is
exact and the same on every machine, however busy. What comes once in hundreds of operations
counts as often as it came: trio clears old deadlines so, which is a hundredth of a turn. It knows
nothing of what built-in functions take: those are shown by ``valgrind --tool=callgrind``, which
takes fifty times as long.

``--growth`` counts lines in place of instructions, which is quicker: what one of few takes and
one of many, of agents, turns, messages, requests and events. It exits with 1 if one of many takes
more than 1.2 times as much.
"""

from __future__ import annotations

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
import wire
import yardsticks
from meter import Meter, Parser, Workload, at_least

if TYPE_CHECKING:
    from _typeshed import TraceFunction

WORKLOADS: Final[Mapping[str, Workload]] = {**yardsticks.WORKLOADS, **agents.WORKLOADS}

LEAST: Final[Mapping[str, int]] = {
    "W4:channel-mesh": yardsticks.MESH,
    "W4:mesh": yardsticks.MESH,
    "W5:queued": yardsticks.SLOTS,
}
"""What ``--few`` must be at least: everybody of a mesh sends once, and as many agents run in the
first run as in the second, the rest are queued."""

GROWTH: Final[tuple[tuple[str, Workload, tuple[int, ...]], ...]] = (
    ("an agent, among so many", agents.w1_agents, (1_000, 10_000, 100_000)),
    ("a turn, in a run of so many", agents.w3_deadlines, (100, 1_000, 10_000)),
    ("a request over HTTP, so many at once", wire.driver, (10, 100, 1_000)),
    ("a message, for an inbox with so many", agents.w10_waiting, (10, 1_000, 100_000)),
    ("an event for one of so many observers", agents.w8_observers, (1, 10, 100, 1_000)),
)
"""What must not grow: what, how, and how many of them."""

MOST_GROWTH: Final = 1.2
"""One of the most over one of the fewest."""


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

    def times(self, least: int, n: int) -> int:
        """Return 1: what begins and ends a run is in both of two runs once, so it goes out."""
        return 1

    def trace(self, frame: FrameType, event: str, argument: object) -> TraceFunction:
        """Count one instruction. What Python calls for each."""
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            code = frame.f_code
            self.steps[code.co_filename, code.co_qualname] += 1
        return self.trace


@final
@attrs.define(eq=False)
class LineMeter(Meter):
    """Counts lines in place of seconds: four times as quick as instructions, and as exact."""

    lines: int = 0

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Count inside the block."""

        def trace(_: FrameType, event: str, __: object) -> TraceFunction:
            if event == "line":
                self.lines += 1
            return trace

        sys.settrace(trace)
        yield
        sys.settrace(None)


def print_growth() -> int:
    """Print what one of few takes, and one of many. Return 1 if it grows too much."""
    worst = 0.0
    print("| what | how many: lines of each | the most over the fewest |\n|---|---|---|")
    for name, workload, sizes in GROWTH:
        each: list[float] = []
        for n in sizes:
            meter = LineMeter(n)
            trio.run(workload, n, meter)
            each.append(meter.lines / meter.operations)
        told = "; ".join(f"{n:,}: {lines:,.1f}" for n, lines in zip(sizes, each, strict=True))
        growth = each[-1] / each[0]
        worst = max(worst, growth)
        print(f"| {name} | {told} | {growth:.2f} |", flush=True)
    return 1 if worst > MOST_GROWTH else 0


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


def main() -> int:
    """Print a table for each workload."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--growth", action="store_true", help="count one of few and one of many")
    parser.add_argument("--few", type=at_least(1), default=400, help="default: %(default)s")
    parser.add_argument("--many", type=at_least(1), default=1_200, help="default: %(default)s")
    parser.add_argument("--rows", type=at_least(0), default=12, help="default: %(default)s")
    options = parser.parse_args()
    if options.growth:
        if options.workloads:
            parser.error("--growth has workloads of its own; name none")
        return print_growth()
    if not options.workloads:
        parser.error(f"name some of {', '.join(WORKLOADS)}")
    if options.few >= options.many:
        parser.error(f"--many must be more than --few; got {options.few} and {options.many}")
    for workload in options.workloads:
        if workload not in WORKLOADS:
            parser.error(f"there is no workload {workload!r}; there are {', '.join(WORKLOADS)}")
        if options.few < (least := LEAST.get(workload, 1)):
            parser.error(f"{workload} needs --few of at least {least}; got {options.few}")
    for workload in options.workloads:
        few, n = count(workload, options.few)
        many, m = count(workload, options.many)
        if n == m:
            parser.error(
                f"{workload} does as much by --few {options.few} as by --many {options.many}; "
                "take them further apart"
            )
        many.subtract(few)
        total = many.total() / (m - n)
        print(f"\n| {workload} | {total:,.0f} | % |\n|---|---|---|")
        for (file, function), steps in many.most_common(options.rows):
            each = steps / (m - n)
            share = 100 * each / total if total else 0.0
            print(f"| `{name_of(file, function)}` | {each:,.0f} | {share:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
