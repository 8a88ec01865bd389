"""The byte code instructions of one operation, by function: where the time is.

    python benchmarks/steps.py
    python benchmarks/steps.py W1:agents W1:reference
    python benchmarks/steps.py W3:deadlines --few 50 --many 150 --rows 20
    python benchmarks/steps.py --growth

Without a workload it counts all, beside their yardsticks, and names no function.

Each count is the difference of two runs, divided by how much more the second one did, so it is the
same on every machine, however busy, with the same version of Python. Only messages differ by up to
a tenth from run to run, since trio runs the tasks of one tick in any order. What comes once in
hundreds of operations counts as often as it came: trio clears old deadlines so, which is a
hundredth of a turn. Counts know nothing of what built-in functions take: those are shown by
``valgrind --tool=callgrind``, which takes fifty times as long.

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

BESIDE: Final[tuple[tuple[str, str, str], ...]] = (
    ("an agent by `fan_out`", "W1:agents", "W1:reference"),
    ("an agent by `fan_out_nowait`", "W1:nowait", "W1:reference"),
    ("an agent by `spawn`", "W1:spawn", "W1:reference"),
    ("an agent by `as_completed`", "W1:as-completed", "W1:reference"),
    ("an agent of a `map`", "W1:map", "W1:reference"),
    ("a turn with both deadlines, unwatched", "W3:unwatched", "W3:full"),
    ("a turn with both deadlines and an observer", "W3:deadlines", "W3:full"),
    ("a message of a stream", "W4:stream", "W4:channel-stream"),
    ("a message of a batch", "W4:batch", "W4:channel-stream"),
    ("a message of a ping-pong", "W4:ping-pong", "W4:channel-ping-pong"),
    ("a question or its answer", "W4:ask", "W4:channel-ping-pong"),
    ("a message of a mesh", "W4:mesh", "W4:channel-mesh"),
    ("the abort of an agent", "W5:running", "W5:scoped"),
    ("the abort of an agent that waits for its first slot", "W5:queued", ""),
)
"""What is counted beside its yardstick: what, its workload, and that of the yardstick."""

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

_WARM: Final = set[str]()
"""The workloads that were traced once: CPython 3.12 tells of code that it traces for the first time
half as many instructions again."""

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
    if workload not in _WARM:
        _WARM.add(workload)
        count(workload, LEAST.get(workload, 1))
    meter = StepMeter(n)
    trio.run(WORKLOADS[workload], n, meter)
    return meter.steps, meter.operations


def steps_of(workload: str, few: int, many: int) -> float:
    """Return the instructions of one operation."""
    least = max(few, LEAST.get(workload, 1))
    less, n = count(workload, least)
    more, m = count(workload, least + max(many - few, LEAST.get(workload, 1)))
    more.subtract(less)
    return more.total() / (m - n)


def print_beside(few: int, many: int) -> int:
    """Print what everything takes beside its yardstick."""
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"| instructions, CPython {version} | yardstick | agentpool | ratio |\n|---|---|---|---|")
    known: dict[str, float] = {}
    for what, workload, yardstick in BESIDE:
        ours = steps_of(workload, few, many)
        if yardstick and yardstick not in known:
            known[yardstick] = steps_of(yardstick, few, many)
        base = known.get(yardstick)
        beside = ("-", "-") if base is None else (f"{base:,.0f}", f"{ours / base:.2f}")
        print(f"| {what} | {beside[0]} | {ours:,.0f} | {beside[1]} |", flush=True)
    return 0


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
    if options.few >= options.many:
        parser.error(f"--many must be more than --few; got {options.few} and {options.many}")
    if not options.workloads:
        return print_beside(options.few, options.many)
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
        print(f"\n| {workload}, instructions | {total:,.0f} | % |\n|---|---|---|")
        for (file, function), steps in many.most_common(options.rows):
            each = steps / (m - n)
            share = 100 * each / total if total else 0.0
            print(f"| `{name_of(file, function)}` | {each:,.0f} | {share:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
