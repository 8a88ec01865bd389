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
T5, the milliseconds of T14 and what is said for each second go by the clock. Other sizes than the
usual ones have no target. ``benchmarks/lifetime.py`` has T13, the memory of an agent.

Wrong input is told before anything is measured, with exit code 2. It is 1 if nothing at all could
be measured, if the figures could not be written in the end, or if ``--gate`` finds a target missed.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import os
import platform
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Final, cast

import attrs
from meter import Parser, at_least
from table import Figures, Row, print_doubts, print_limits, print_runs, print_targets, rounds
from targets import ALSO, LEAST, SIZES, WORDS, Run, Target, is_yardstick, targets
from written_file import check_writable, write_whole

HERE: Final = Path(__file__).parent


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
    try:
        return cast("Row", json.loads(done.stdout))
    except ValueError:
        what = f"{run.workload} {run.n:,} printed no figures and is left out of this round"
        print(f"{what}: {done.stdout[:100]!r}", file=sys.stderr)
        return None


def save(figures: Figures, path: Path) -> None:
    """Write all *figures* so far as JSON; a run that failed has a row without figures.

    Raises:
        OSError: They cannot be written.
    """
    rows = [attrs.asdict(run) | (row or {}) for run, each in figures.items() for row in each]
    write_whole(path, json.dumps(rows, indent=1) + "\n")


def compile_all(before: Path | None) -> None:
    """Write byte code, or a machine that keeps none would measure the compiler."""
    found = importlib.util.find_spec("agentpool")
    ours = found.submodule_search_locations if found is not None else None
    old = () if before is None else (str(before / "agentpool"),)
    for folder in {*site.getsitepackages(), *(ours or ()), *old}:
        compileall.compile_dir(folder, quiet=2)


def sizes_of(text: str) -> tuple[int, ...]:
    """Read what ``--n`` says, each once."""
    return tuple(dict.fromkeys(at_least(1)(part.strip()) for part in text.split(",")))


def parse() -> argparse.Namespace:
    """Read the command line, or say in one line what is wrong with it."""
    first, _, rest = (__doc__ or "").partition("\n\n")
    told = "\n".join(f"    {name:<4}{words}" for name, words in WORDS.items())
    parser = Parser(
        description=f"{first}\n\nThe workloads:\n\n{told}",
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "workloads", nargs="?", default=",".join(SIZES), help="default: %(default)s"
    )
    parser.add_argument(
        "--n", type=sizes_of, help="operations, such as 100,1000; default: by workload"
    )
    parser.add_argument("--rounds", type=at_least(1), default=5, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--python", default=sys.executable, help="default: this one")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="an older copy, with benchmarks of its own"
    )
    parser.add_argument(
        "--gate", action="store_true", help="exit with 1 if a target is missed by over 15 %%"
    )
    options = parser.parse_args()
    options.workloads = list(dict.fromkeys(map(str.strip, options.workloads.split(","))))
    for workload in options.workloads:
        if workload not in SIZES:
            parser.error(f"there is no workload {workload!r}; there are {', '.join(WORDS)}")
        if options.n and min(options.n) < (least := LEAST.get(workload, 1)):
            parser.error(f"{workload} needs --n of at least {least}; got {min(options.n)}")
    if shutil.which(options.python) is None:
        parser.error(f"--python: there is no program {options.python!r}")
    for name in ("agentpool/__init__.py", "benchmarks/agents.py"):
        if options.before is not None and not (options.before / name).is_file():
            copy = options.before
            parser.error(f"--before must be a copy of the project, and {copy} has no {name}")
    if options.json is not None:
        check_writable("--json", options.json, parser)
    return options


def main() -> int:
    """Measure, print, judge."""
    options = parse()
    wanted: list[Target] = []
    runs: list[Run] = []
    for workload in options.workloads:
        sizes = SIZES[workload]
        if options.n and sizes != (0,):
            sizes = options.n
        wanted += targets(workload, sizes)
        runs += (Run(name, n) for name in ALSO if name.startswith(f"{workload}:") for n in sizes)
    for target in wanted:
        runs += (target.of, target.over)
    if options.before is not None:
        runs += [run.earlier for run in runs if not is_yardstick(run)]
    figures: Figures = {
        run: [] for run in sorted(runs, key=lambda run: (run.workload, run.n, run.is_before))
    }
    failure = measure_all(figures, options)

    print(f"Median of {options.rounds} rounds, {platform.platform()}\n")
    print_runs(figures)
    missed = [*print_targets(figures, wanted), *print_limits(figures)]
    print_doubts(figures, wanted)
    if failure or not any(rounds(figures, run) for run in figures):
        return 1
    if options.gate and missed:
        names = "; ".join(f"{one.name} ({one.of.n:,})" for one in missed)
        print(f"\nThe gate is shut: missed by over 15 %: {names}.")
        return 1
    return 0


def measure_all(figures: Figures, options: argparse.Namespace) -> OSError | None:
    """Do each run once in each round. Return why the figures could not be written in the end."""
    compile_all(options.before)
    failure: OSError | None = None
    was_told = False
    for number in range(1, options.rounds + 1):
        for run, rows in figures.items():
            # Told on a line each: a whole run takes half an hour.
            when = " before" * run.is_before
            print(f"round {number}: {run.workload} {run.n:,}{when}", file=sys.stderr)
            rows.append(measure(run, options.python, options.before))
        if options.json is None:
            continue
        try:
            save(figures, options.json)
            failure = None
        except OSError as error:
            failure = error
            if not was_told:
                # The others have taken many minutes, and the table is still to come.
                what = f"{options.json} cannot be written: {error.strerror}"
                print(f"{what}; it is tried again after each round", file=sys.stderr)
            was_told = True
    return failure


if __name__ == "__main__":
    sys.exit(main())
