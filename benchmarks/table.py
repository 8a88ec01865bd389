"""Print the table of targets from the figures of one run, as the docs have it.

    nox -s bench -- --json figures.json
    python benchmarks/table.py figures.json

Each row has the median over the rounds, the least and the most, and what the target measured when
it was set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import compare
from compare import Figures, Run, Target


def read(path: Path) -> Figures:
    """Return the figures that ``compare.py --json`` wrote."""
    figures: Figures = {}
    for row in json.loads(path.read_text()):
        run = Run(row.pop("workload"), row.pop("n"), row.pop("is_before", False))
        figures.setdefault(run, []).append(row or None)
    return figures


def measured(figures: Figures) -> list[Target]:
    """Return the targets for which there are figures."""
    found: list[Target] = []
    for workload in compare.SIZES:
        sizes = sorted({run.n for run in figures if run.workload.startswith(f"{workload}:")})
        of_workload = compare.targets(workload, sizes)
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
        compare.print_runs(figures)
    compare.print_targets(figures, measured(figures))
    compare.print_limits(figures)


if __name__ == "__main__":
    main()
