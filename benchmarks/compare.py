"""Measure agentpool against bare trio, side by side, and hold it against its targets.

    nox -s bench                                   all there is
    nox -s bench -- W1,W3 --n 100,1000 --rounds 9
    nox -s bench -- --gate --json figures.json

Every round runs everything once, in turn, each in a process of its own. A ratio is taken
inside of its round, so that a machine which is slow for a while is slow for both sides;
the table has the median over the rounds. Only CPU time is judged: on a machine with other
work on it, the clock tells more about that work.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import os
import platform
import site
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias, cast, final

import attrs

HERE: Final = Path(__file__).parent

TOLERANCE: Final = 1.15
"""``--gate`` lets a target be missed by so much: medians still differ from day to day."""


@final
@attrs.frozen
class Run:
    """One process to measure."""

    workload: str
    """As the script calls it: ``W1:agents``."""
    n: int
    """Operations. 0 for an import."""

    @property
    def command(self) -> tuple[str, ...]:
        """What to give to Python."""
        kind, _, what = self.workload.partition(":")
        if kind == "W6":
            return "imports.py", what
        script = "yardsticks.py" if what in YARDSTICKS.get(kind, ()) else "agents.py"
        return script, self.workload, "--n", str(self.n)


@final
@attrs.frozen
class Target:
    """How much dearer one run may be than another, in CPU time per operation."""

    name: str
    of: Run
    over: Run
    at_most: float


YARDSTICKS: Final[Mapping[str, tuple[str, ...]]] = {
    "W1": ("naive", "reference"),
    "W3": ("full",),
    "W4": ("channel-stream", "channel-ping-pong", "channel-mesh"),
    "W5": ("scoped",),
}
"""What bare trio does; the rest is agentpool's."""

SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "W1": (1_000, 10_000, 100_000),
    "W3": (100, 1_000, 10_000),
    "W4": (20_000,),
    "W5": (10_000,),
    "W6": (0,),
    "W8": (100_000,),
}
"""The workloads, and how many operations of each."""

ALSO: Final[Mapping[str, tuple[str, ...]]] = {
    "W3": ("W3:agent",),
    "W4": ("W4:ask",),
    "W5": ("W5:queued",),
    "W8": ("W8:unheard", "W8:heard"),
}
"""What is measured and has no target over a yardstick."""

Figures: TypeAlias = dict[Run, list[dict[str, float]]]
"""What each run measured, a row for each round."""


def targets(workload: str, sizes: Sequence[int]) -> Iterator[Target]:
    """Yield what *workload* is held against, at each of *sizes*."""
    small, large = Run("", min(sizes)), Run("", max(sizes))
    match workload:
        case "W1":
            for n in sizes:
                agents = Run("W1:agents", n)
                yield Target("T2 agent / reference pool", agents, Run("W1:reference", n), 2.5)
                if n == 10_000:
                    yield Target("T2 agent / naive trio", agents, Run("W1:naive", n), 1.5)
            of, over = (attrs.evolve(run, workload="W1:agents") for run in (large, small))
            if of != over:
                yield Target("T3 agent, many / few", of, over, 1.2)
        case "W3":
            for n in sizes:
                turns = Run("W3:deadlines", n)
                yield Target("T6 turn / full loop", turns, Run("W3:full", n), 1.7)
            of, over = (attrs.evolve(run, workload="W3:deadlines") for run in (large, small))
            if of != over:
                yield Target("T6 turn, late / early", of, over, 1.2)
        case "W4":
            for n in sizes:
                for name, at_most in (("stream", 1.3), ("mesh", 1.3), ("ping-pong", 1.3)):
                    of, over = Run(f"W4:{name}", n), Run(f"W4:channel-{name}", n)
                    yield Target(f"T7 T9 {name} / channel", of, over, at_most)
                of, over = Run("W4:batch", n), Run("W4:channel-stream", n)
                yield Target("T8 batch / channel", of, over, 0.25)
        case "W5":
            for n in sizes:
                of, over = Run("W5:running", n), Run("W5:scoped", n)
                yield Target("T10 abort / scoped trio", of, over, 1.2)
        case "W6":
            yield Target("T12 import / trio", Run("W6:agentpool", 0), Run("W6:trio", 0), 1.5)


def measure(run: Run, python: str) -> dict[str, float]:
    """Do *run* in a process of its own and return what it measured."""
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    script, *arguments = run.command
    done = subprocess.run(
        [python, str(HERE / script), *arguments],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return cast("dict[str, float]", json.loads(done.stdout))


def compile_all() -> None:
    """Write byte code, or a machine that keeps none would measure the compiler."""
    found = importlib.util.find_spec("agentpool")
    ours = found.submodule_search_locations if found is not None else None
    for folder in {*site.getsitepackages(), *(ours or ())}:
        compileall.compile_dir(folder, quiet=2)


def ratios(figures: Figures, of: Run, over: Run) -> list[float]:
    """Return the ratio of each round."""
    return [
        one["cpu_us"] / other["cpu_us"]
        for one, other in zip(figures[of], figures[over], strict=True)
    ]


def print_runs(figures: Figures) -> None:
    """Print what each run took."""
    print("| run | n | CPU µs each | min-max | peak MB |")
    print("|---|---|---|---|---|")
    for run, rows in figures.items():
        cpu = [row["cpu_us"] for row in rows]
        peak = statistics.median(row["peak_mb"] for row in rows)
        print(
            f"| {run.workload} | {run.n:,} | {statistics.median(cpu):,.2f} "
            f"| {min(cpu):,.2f}-{max(cpu):,.2f} | {peak:.0f} |"
        )


def print_targets(figures: Figures, wanted: Sequence[Target]) -> list[Target]:
    """Print whether each target holds, and return those that are missed for good."""
    missed: list[Target] = []
    print("\n| target | n | ratio | min-max | at most | holds |")
    print("|---|---|---|---|---|---|")
    for target in wanted:
        each = ratios(figures, target.of, target.over)
        ratio = statistics.median(each)
        if ratio > target.at_most * TOLERANCE:
            missed.append(target)
        sizes = f"{target.of.n:,}"
        if target.of.n != target.over.n:
            sizes += f" / {target.over.n:,}"
        print(
            f"| {target.name} | {sizes} | {ratio:.2f} | {min(each):.2f}-{max(each):.2f} "
            f"| {target.at_most} | {'yes' if ratio <= target.at_most else '**no**'} |"
        )
    return missed


def parse() -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "workloads", nargs="?", default=",".join(SIZES), help="default: %(default)s"
    )
    parser.add_argument("--n", help="operations, such as 100,1000; default: by workload")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--python", default=sys.executable, help="default: this one")
    parser.add_argument(
        "--gate", action="store_true", help="exit with 1 if a target is missed by over 15 %%"
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print, judge."""
    options = parse()
    wanted: list[Target] = []
    runs: list[Run] = []
    for workload in options.workloads.split(","):
        sizes = SIZES[workload]
        if options.n and sizes != (0,):
            sizes = tuple(int(n) for n in options.n.split(","))
        wanted += targets(workload, sizes)
        runs += (Run(name, n) for name in ALSO.get(workload, ()) for n in sizes)
    for target in wanted:
        runs += (target.of, target.over)
    figures: Figures = {run: [] for run in sorted(runs, key=lambda run: (run.workload, run.n))}

    compile_all()
    for _ in range(options.rounds):
        for run, rows in figures.items():
            rows.append(measure(run, options.python))

    print(f"Median of {options.rounds} rounds, {platform.platform()}\n")
    print_runs(figures)
    missed = print_targets(figures, wanted)
    if options.json:
        rows = [attrs.asdict(run) | row for run, found in figures.items() for row in found]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if options.gate and missed else 0


if __name__ == "__main__":
    sys.exit(main())
