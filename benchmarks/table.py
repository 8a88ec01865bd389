"""Print the table of targets from the figures of one run, as the docs have it.

    nox -s bench -- --json figures.json
    python benchmarks/table.py figures.json

Each row has the median over the rounds, the least and the most, and what the target measured when
it was set.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from targets import BEFORE, LIMITS, SIZES, Limit, Run, Target, targets

TOLERANCE: Final = 1.15
"""``--gate`` lets a target be missed by so much: medians still differ from day to day."""


MIN_ROUNDS: Final = 5
"""How many rounds a judgement takes, as when the targets were set."""

Row: TypeAlias = dict[str, float]
Figures: TypeAlias = dict[Run, list[Row | None]]
"""What each run measured, a row for each round, and None for a round in which it failed."""


def rounds(figures: Figures, run: Run) -> list[Row]:
    """Return the rows of the rounds in which *run* did not fail."""
    return [row for row in figures.get(run, ()) if row is not None]


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
            print(
                f"| {target.name} | {target.sizes} | {before} | failed | | {target.at_most} "
                "| **no** |"
            )
            continue
        ratio, at_most, holds = statistics.median(each), "-", "-"
        if target.is_usual:
            at_most, holds = str(target.at_most), "yes" if ratio <= target.at_most else "**no**"
            if ratio > target.at_most * TOLERANCE:
                missed.append(target)
        row = (target.name, target.sizes, before, shown(each), at_most, holds)
        print(f"| {' | '.join(row)} |")
    return missed


def print_limits(figures: Figures) -> list[Limit]:
    """Print whether what has no yardstick is within its limits, and return what is not for good."""
    missed: list[Limit] = []
    measured = any(run.is_before for run in figures)
    for limit in LIMITS:
        if limit.of not in figures:
            continue
        each, earlier = (
            [row[limit.figure] * limit.times for row in rounds(figures, run)]
            for run in (limit.of, limit.of.earlier)
        )
        before = BEFORE.get(limit.name, "-")
        if measured:
            before = shown(earlier) if earlier else "- | "
        found = statistics.median(each) if each else math.inf
        if found > limit.at_most * TOLERANCE:
            missed.append(limit)
        print(
            f"| {limit.name} | {limit.of.n:,} | {before} | {shown(each) if each else 'failed |'} "
            f"| {limit.at_most} | {'yes' if found <= limit.at_most else '**no**'} |"
        )
    return missed


def print_doubts(figures: Figures, wanted: Sequence[Target]) -> None:
    """Print in a line why these figures are no judgement, if they are none."""
    doubts: list[str] = []
    done = max(map(len, figures.values()))
    if not all(target.is_usual for target in wanted):
        doubts.append("other sizes than the usual ones, for which the targets are set")
    if done < MIN_ROUNDS:
        doubts.append(f"{done} of at least {MIN_ROUNDS} rounds")
    if doubts:
        print(f"\nNo judgement: {'; '.join(doubts)}.")


def read(path: Path) -> Figures:
    """Return the figures that ``py --json`` wrote."""
    figures: Figures = {}
    for row in json.loads(path.read_text()):
        run = Run(row.pop("workload"), row.pop("n"), row.pop("is_before", False))
        figures.setdefault(run, []).append(row or None)
    return figures


def measured(figures: Figures) -> list[Target]:
    """Return the targets for which there are figures."""
    found: list[Target] = []
    for workload in SIZES:
        sizes = sorted({run.n for run in figures if run.workload.startswith(f"{workload}:")})
        of_workload = targets(workload, sizes)
        found += (one for one in of_workload if one.of in figures and one.over in figures)
    return found


def main() -> None:
    """Print the table."""
    first = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first)
    parser.add_argument("figures", type=Path, help="what `nox -s bench -- --json` wrote")
    parser.add_argument("--runs", action="store_true", help="print what each run took as well")
    options = parser.parse_args()
    figures = read(options.figures)
    if options.runs:
        print_runs(figures)
    wanted = measured(figures)
    print_targets(figures, wanted)
    print_limits(figures)
    print_doubts(figures, wanted)


if __name__ == "__main__":
    main()
