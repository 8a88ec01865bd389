"""Measure agentpool against bare trio, side by side, and hold it against its targets.

    nox -s bench                                   everything, by the ways of the README
    nox -s bench -- W4,W5                          messages and aborts alone
    nox -s bench -- W1,W3 --n 100,1000 --rounds 9
    nox -s bench -- --gate --json figures.json
    nox -s bench -- --before ../older        an older copy of the project in the same rounds

Every round runs everything once, in turn, each in a process of its own. A ratio is taken
inside of its round, so that a machine which is slow for a while is slow for both sides;
the table has the median over the rounds, with the least and the most, and beside it what the
same took at 5cff005, when the targets were set, or what the older copy takes in the same rounds.
CPU time is judged: on a machine with other work on it, the clock tells more about that work. Only
T5 and what is said for each second go by the clock. ``benchmarks/lifetime.py`` has T4 and T13, the
memory.
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
    """Operations, or how many ask at once. 0 for an import."""
    is_before: bool = False
    """Whether the older copy is measured, by its own benchmarks."""

    @property
    def earlier(self) -> Run:
        """The same of the older copy."""
        return attrs.evolve(self, is_before=True)

    @property
    def command(self) -> tuple[str, ...]:
        """What to give to Python."""
        kind, _, what = self.workload.partition(":")
        if kind == "W6":
            return "imports.py", what
        script = "yardsticks.py" if is_yardstick(self) else "agents.py"
        if kind == "W9":
            script = "wire.py"
        return script, self.workload, "--n", str(self.n)


@final
@attrs.frozen
class Target:
    """How much dearer one run may be than another, in time per operation."""

    name: str
    of: Run
    over: Run
    at_most: float

    @property
    def by(self) -> str:
        """The time that counts."""
        return "wall_us" if self.of.workload.startswith("W2:") else "cpu_us"

    @property
    def before(self) -> str:
        """The ratio at 5cff005."""
        of_all = BEFORE.get(self.name, "")
        return BEFORE.get(f"{self.name} {self.of.n}", of_all) or "-"

    @property
    def over_before(self) -> Run:
        """What the older copy is divided by: the same yardstick, or its own smaller size."""
        return self.over if is_yardstick(self.over) else self.over.earlier


@final
@attrs.frozen
class Limit:
    """How much one run may take, all by itself."""

    name: str
    of: Run
    figure: str
    """Which of its figures."""
    times: float
    """What makes the figure what the name says."""
    at_most: float


YARDSTICKS: Final = ("naive", "reference", "full", "channel", "scoped")
"""What bare trio does; the rest is agentpool's."""

FOREIGN: Final = ("W6:trio", "W9:handmade", "W9:httpx")
"""Yardsticks in other scripts than that of bare trio."""


def is_yardstick(run: Run) -> bool:
    """Return whether *run* has nothing of agentpool in it."""
    return run.workload.partition(":")[2].startswith(YARDSTICKS) or run.workload in FOREIGN


SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "W1": (1_000, 10_000, 100_000),
    "W2": (2_000,),
    "W3": (100, 1_000, 10_000),
    "W4": (20_000,),
    "W5": (10_000,),
    "W6": (0,),
    "W7": (10_000,),
    "W8": (1, 10, 100, 1_000),
    "W10": (10, 1_000, 100_000),
    "W9": (10, 100, 1_000),
}
"""The workloads, and how many operations of each; of W8 how many observers, of W9 how many
at once, of W10 how many messages wait."""

EACH: Final = (
    ("T1 fan_out / reference pool", "W1:agents", "W1:reference", 2.0),
    ("T1 fan_out_nowait / reference pool", "W1:nowait", "W1:reference", 1.8),
    ("T1 fan_out / naive trio", "W1:agents", "W1:naive", 1.5),
    ("T2 spawn one by one / reference pool", "W1:spawn", "W1:reference", 2.2),
    ("T2 as_completed / reference pool", "W1:as-completed", "W1:reference", 2.5),
    ("T2 map / reference pool", "W1:map", "W1:reference", 2.5),
    ("T5 agents of 50 ms / reference pool, wall", "W2:agents", "W2:reference", 1.05),
    ("T6 turn / full loop", "W3:unwatched", "W3:full", 1.2),
    ("T6 turn with an observer / full loop", "W3:deadlines", "W3:full", 1.2),
    ("T7 stream / channel", "W4:stream", "W4:channel-stream", 1.3),
    ("T7 mesh / channel", "W4:mesh", "W4:channel-mesh", 1.5),
    ("T8 batch / channel", "W4:batch", "W4:channel-stream", 0.25),
    ("T9 ping-pong / channel", "W4:ping-pong", "W4:channel-ping-pong", 1.4),
    ("T9 ask and reply / channel", "W4:ask", "W4:channel-ping-pong", 1.8),
    ("T10 abort / scoped trio", "W5:running", "W5:scoped", 1.1),
    ("T12 import / trio", "W6:agentpool", "W6:trio", 1.4),
    ("T14 driver / h11 by hand", "W9:driver", "W9:handmade", 1.3),
    ("T14 driver / stock httpx", "W9:driver", "W9:httpx", 1.0),
)
"""Targets at each size: name, what, over what, at most."""

FLAT: Final = (
    ("T3 agent, many / few", "W1:agents", 1.1),
    ("growth: turn, late / early", "W3:deadlines", 1.2),
    ("growth: message, many waiting / few", "W10:waiting", 1.2),
    ("growth: event, many observers / few, each", "W8:observers", 1.2),
    ("growth: completion, many at once / few", "W9:driver", 1.2),
)
"""Targets of the largest size over the smallest: name, what, at most."""

LIMITS: Final = (
    Limit("T4 peak MB of 100,000 agents", Run("W1:agents", 100_000), "peak_mb", 1.0, 80.0),
    Limit("T11 abort of 10,000 queued, ms", Run("W5:queued", 10_000), "cpu_us", 10.0, 10.0),
    Limit("T14 ms on the clock at 1,000 at once", Run("W9:driver", 1_000), "wall_us", 1e-3, 0.2),
    Limit("T15 event unheard, us", Run("W8:unheard", 1), "cpu_us", 1.0, 0.4),
    Limit("T15 event heard once, us", Run("W8:heard", 1), "cpu_us", 1.0, 0.8),
)
"""Targets over no yardstick: what one of them takes, or of T11 all."""

BEFORE: Final[Mapping[str, str]] = {
    "T1 fan_out / reference pool": "3.5",
    "T1 fan_out_nowait / reference pool": "2.2",
    "T2 spawn one by one / reference pool": "3.7-3.9",
    "T2 as_completed / reference pool": "4.5",
    "T2 map / reference pool": "4.5",
    "T3 agent, many / few": "1.05",
    "T4 peak MB of 100,000 agents": "122",
    "T5 agents of 50 ms / reference pool, wall": "1.10",
    "T6 turn / full loop 100": "1.57",
    "T6 turn / full loop 1000": "1.27",
    "T6 turn / full loop 10000": "1.18",
    "T7 stream / channel": "2.1",
    "T7 mesh / channel": "3.2",
    "T8 batch / channel": "0.35",
    "T9 ping-pong / channel": "2.45",
    "T10 abort / scoped trio": "1.95",
    "T12 import / trio": "1.46",
    "T14 driver / h11 by hand 10": "1.25",
    "T14 driver / h11 by hand 100": "1.63",
    "T14 driver / h11 by hand 1000": "1.47",
    "T14 ms on the clock at 1,000 at once": "0.55",
}
"""What the targets measured at 5cff005, on a quiet machine with CPython 3.11.7."""

ONLY: Final = {"W1:naive": 10_000}
"""The size of a target over a yardstick that gets dearer with the size."""

ALSO: Final = ("W1:remembering", "W3:agent", "W5:queued", "W7:waiting", "W8:unheard", "W8:heard")
"""What is measured and has no target over a yardstick."""

Row: TypeAlias = dict[str, float]
Figures: TypeAlias = dict[Run, list[Row | None]]
"""What each run measured, a row for each round, and None for a round in which it failed."""


def targets(workload: str, sizes: Sequence[int]) -> Iterator[Target]:
    """Yield what *workload* is held against, at each of *sizes*."""
    for name, of, over, at_most in EACH:
        if of.startswith(f"{workload}:"):
            for n in sizes:
                if ONLY.get(over, n) == n:
                    yield Target(name, Run(of, n), Run(over, n), at_most)
    for name, of, at_most in FLAT:
        if of.startswith(f"{workload}:") and len(sizes) > 1:
            yield Target(name, Run(of, max(sizes)), Run(of, min(sizes)), at_most)


def measure(run: Run, python: str, before: Path | None) -> Row | None:
    """Do *run* in a process of its own and return what it measured, or None if it failed."""
    here, paths = HERE, [str(HERE), os.environ.get("PYTHONPATH")]
    if run.is_before and before is not None:
        here = before / "benchmarks"
        paths = [str(before), str(here)]
    script, *arguments = run.command
    done = subprocess.run(
        [python, "-P", str(here / script), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        # Its error is above. The others have taken many minutes, and are worth keeping.
        print(f"{run.workload} {run.n:,} failed and is left out of this round", file=sys.stderr)
        return None
    return cast("Row", json.loads(done.stdout))


def rounds(figures: Figures, run: Run) -> list[Row]:
    """Return the rows of the rounds in which *run* did not fail."""
    return [row for row in figures.get(run, ()) if row is not None]


def save(figures: Figures, path: Path) -> None:
    """Write all *figures* so far as JSON; a run that failed has a row without figures."""
    rows = [attrs.asdict(run) | (row or {}) for run, each in figures.items() for row in each]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def compile_all(before: Path | None) -> None:
    """Write byte code, or a machine that keeps none would measure the compiler."""
    found = importlib.util.find_spec("agentpool")
    ours = found.submodule_search_locations if found is not None else None
    old = () if before is None else (str(before / "agentpool"),)
    for folder in {*site.getsitepackages(), *(ours or ()), *old}:
        compileall.compile_dir(folder, quiet=2)


def ratios(figures: Figures, of: Run, over: Run, by: str) -> list[float]:
    """Return the ratio of each round in which neither failed."""
    pairs = zip(figures.get(of, ()), figures.get(over, ()), strict=False)
    return [one[by] / other[by] for one, other in pairs if one is not None and other is not None]


def shown(each: Sequence[float]) -> str:
    """Return the median of some figures, with the least and the most."""
    return f"{statistics.median(each):.2f} | {min(each):.2f}-{max(each):.2f}"


def print_runs(figures: Figures) -> None:
    """Print what each run took."""
    print("| run | n | CPU µs each | min-max | each second | peak MB |")
    print("|---|---|---|---|---|---|")
    for run in figures:
        rows = rounds(figures, run)
        name = f"{run.workload}{' before' * run.is_before}"
        if not rows:
            print(f"| {name} | {run.n:,} | failed | | | |")
            continue
        cpu = [row["cpu_us"] for row in rows]
        peak = statistics.median(row["peak_mb"] for row in rows)
        # By the clock, so this one is about the machine as much as about the run.
        rate = 1e6 / statistics.median(row["wall_us"] for row in rows)
        print(
            f"| {name} | {run.n:,} | {statistics.median(cpu):,.2f} "
            f"| {min(cpu):,.2f}-{max(cpu):,.2f} | {rate:,.0f} | {peak:.0f} |"
        )


def print_targets(figures: Figures, wanted: Sequence[Target]) -> list[Target]:
    """Print whether each target holds, and return those that are missed for good."""
    missed: list[Target] = []
    measured = any(run.is_before for run in figures)
    print(f"\n| target | n | {'before | min-max' if measured else 'at 5cff005'} "
          "| now | min-max | at most | holds |")  # fmt: skip
    print(f"|---|---|---|{'---|' * measured}---|---|---|---|")
    for target in wanted:
        before = target.before
        if measured:
            earlier = ratios(figures, target.of.earlier, target.over_before, target.by)
            before = shown(earlier) if earlier else "- | "
        each = ratios(figures, target.of, target.over, target.by)
        if not each:
            missed.append(target)
            print(f"| {target.name} | | {before} | failed | | {target.at_most} | **no** |")
            continue
        ratio = statistics.median(each)
        if ratio > target.at_most * TOLERANCE:
            missed.append(target)
        sizes = f"{target.of.n:,}"
        if target.of.n != target.over.n:
            sizes += f" / {target.over.n:,}"
        print(
            f"| {target.name} | {sizes} | {before} | {shown(each)} | {target.at_most} "
            f"| {'yes' if ratio <= target.at_most else '**no**'} |"
        )
    return missed


def print_limits(figures: Figures) -> None:
    """Print whether what has no yardstick is within its limits."""
    measured = any(run.is_before for run in figures)
    for limit in LIMITS:
        each, earlier = (
            [row[limit.figure] * limit.times for row in rounds(figures, run)]
            for run in (limit.of, limit.of.earlier)
        )
        before = BEFORE.get(limit.name, "-")
        if measured:
            before = shown(earlier) if earlier else "- | "
        if each:
            holds = statistics.median(each) <= limit.at_most
            print(
                f"| {limit.name} | {limit.of.n:,} | {before} | {shown(each)} | {limit.at_most} "
                f"| {'yes' if holds else '**no**'} |"
            )


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
        "--before", type=Path, metavar="FOLDER", help="an older copy, with benchmarks of its own"
    )
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
        runs += (Run(name, n) for name in ALSO if name.startswith(f"{workload}:") for n in sizes)
    for target in wanted:
        runs += (target.of, target.over)
    if options.before is not None:
        runs += [run.earlier for run in runs if not is_yardstick(run)]
    figures: Figures = {
        run: [] for run in sorted(runs, key=lambda run: (run.workload, run.n, run.is_before))
    }

    compile_all(options.before)
    for number in range(1, options.rounds + 1):
        for run, rows in figures.items():
            # Told on a line each: a whole run takes half an hour.
            when = " before" * run.is_before
            print(f"round {number}: {run.workload} {run.n:,}{when}", file=sys.stderr)
            rows.append(measure(run, options.python, options.before))
        if options.json:
            save(figures, options.json)

    print(f"Median of {options.rounds} rounds, {platform.platform()}\n")
    print_runs(figures)
    missed = print_targets(figures, wanted)
    print_limits(figures)
    return 1 if options.gate and missed else 0


if __name__ == "__main__":
    sys.exit(main())
