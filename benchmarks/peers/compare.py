"""Measure agentpool beside the agent frameworks that people use, in one interleaved run.

    nox -s bench-peers                                    all of them
    nox -s bench-peers -- --only agno,langgraph --rounds 5
    nox -s bench-peers -- --workloads agents,abort

Each contender is installed from the package index into an environment of its own, which is
kept for the next time. Every round measures everything once, in turn, each in a process of
its own. The tables have the median over the rounds, the least and the most, and the ratio to
agentpool inside of each round. What cannot be installed, or fails, is said and left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeAlias, cast

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from chart import Bars, page_of_bars  # noqa: E402 - lies in the folder above
from meter import Parser, at_least  # noqa: E402 - the same
from written_file import check_writable, write_whole  # noqa: E402 - the same

PACKAGES: Final = {
    "agno": "agno",
    "autogen": "autogen-core",
    "agent_framework": "agent-framework-core",
    "langgraph": "langgraph",
    "pydantic_ai": "pydantic-ai-slim",
    "openai_agents": "openai-agents",
    "strands": "strands-agents",
}
"""Module `with_<name>` beside this file, and what to install for it."""

OURS: Final = ("agentpool", "trio", "asyncio")
"""What runs in this environment."""

UNITS: Final = {
    "agents": ("cpu_us", "CPU µs for an agent that asks once", 1_000),
    "turns": ("cpu_us", "CPU µs for a turn with a tool call, in a run of 100", 100),
    "abort": ("cpu_us", "CPU µs to end an agent that waits for its model", 1_000),
    "memory": ("bytes", "bytes of an agent that waits for its model", 1_000),
    "import": ("ms", "CPU ms of the import", 1),
}
"""What each workload measures, in words, and how many operations it takes."""

GREEN, BLUE, GREY = "#2f9e44", "#4c6ef5", "#999999"

Row: TypeAlias = dict[str, float | str]
Figures: TypeAlias = dict[tuple[str, str], list[Row | None]]
"""The rows of each workload and contender, one for each round, and None where it failed."""


def environment(name: str, folder: Path) -> str | None:
    """Return the Python that has contender *name*, and install it there if need be.

    ``None``: It cannot be installed.
    """
    if name in OURS:
        return sys.executable
    home = folder / name
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    done = home / "installed"
    if not done.exists():
        say(f"installing {PACKAGES[name]} ...")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            venv.create(home, with_pip=True, clear=True)
            subprocess.run([*pip, PACKAGES[name]], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"{PACKAGES[name]} cannot be installed and is left out: {error}")
            return None
        # Byte code first: else the first round would measure the compiler.
        subprocess.run([str(python), "-m", "compileall", "-q", str(home)], check=False)
        done.touch()
    return str(python)


def measure(python: str, name: str, workload: str, n: int) -> Row | None:
    """Do one run in a process of its own. ``None``: it failed, and has said so."""
    command = [python, str(HERE / "one.py"), name, workload, "--n", str(n)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
        return cast("Row", json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        say(f"{name} {workload} failed and is left out of this round: {error}")
        return None


def say(line: str) -> None:
    """Tell how it goes, beside what is printed."""
    print(line, file=sys.stderr, flush=True)


def column(rows: Sequence[Row | None], key: str) -> list[float]:
    """Return one figure of each round that did not fail."""
    return [float(row[key]) for row in rows if row is not None]


def named(name: str, rows: Sequence[Row | None]) -> str:
    """Return the contender's name and version."""
    version = next(row["version"] for row in rows if row is not None)
    return f"{name.replace('_', '-')} {version}".strip()


def occasion(rounds: int) -> str:
    """Return when, on what and how often this is measured."""
    today = dt.datetime.now(dt.UTC).date()
    python = f"CPython {platform.python_version()}, {platform.system()}"
    return f"{today}, {python}, median of {rounds} round{'s' * (rounds > 1)}"


def table(figures: Figures, workload: str) -> list[str]:
    """Return the lines of one workload's table, the cheapest contender first."""
    key, what, n = UNITS[workload]
    found = {name: rows for (of, name), rows in figures.items() if of == workload}
    medians = {
        name: statistics.median(each) for name, rows in found.items() if (each := column(rows, key))
    }
    lines = [
        f"**{what}** ({n:,} of them)" if n > 1 else f"**{what}**",
        "",
        "| contender | median | least to most | times agentpool |",
        "|---|---|---|---|",
    ]
    for name in sorted(medians, key=lambda name: medians[name]):
        rows = [row for row in found[name] if row is not None]
        who = named(name, rows)
        if left := max(float(row.get("left", 0)) for row in rows):
            who += f", of which {left:,.0f} were still running afterwards"
        each = column(rows, key)
        line = f"| {who} | {medians[name]:,.0f} | {min(each):,.0f} to {max(each):,.0f} "
        pairs = zip(found[name], found["agentpool"], strict=True)
        times = [float(one[key]) / float(ours[key]) for one, ours in pairs if one and ours]
        lines.append(f"{line}| {statistics.median(times):.2f} |" if times else f"{line}| - |")
    return [*lines, ""]


def chart(figures: Figures, workloads: Sequence[str]) -> str:
    """Return the medians as bars. Empty: there are none."""
    charts: list[Bars] = []
    for workload in workloads:
        key, what, _ = UNITS[workload]
        bars = [
            (
                named(name, rows),
                max(statistics.median(each), 1.0),
                GREEN if name == "agentpool" else GREY if name in OURS else BLUE,
            )
            for (of, name), rows in figures.items()
            if of == workload and (each := column(rows, key))
        ]
        if bars:
            done = len(figures[workload, "agentpool"])
            x_name = f"{occasion(done)}; less is better, each line is ten times the one before"
            title = what[0].upper() + what[1:]
            charts.append(Bars(title=title, x_name=x_name, bars=sorted(bars, key=itemgetter(1))))
    return page_of_bars(charts) if charts else ""


def parse() -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PACKAGES), help="peers; default: %(default)s")
    parser.add_argument("--workloads", default=",".join(UNITS), help="default: %(default)s")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path(".nox/peers"), help="for environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="where to draw, as SVG")
    options = parser.parse_args()
    for option, known in (("only", PACKAGES), ("workloads", UNITS)):
        names = list(dict.fromkeys(map(str.strip, getattr(options, option).split(","))))
        for name in names:
            if name not in known:
                parser.error(f"--{option}: no {name!r}; there are {', '.join(known)}")
        setattr(options, option, names)
    for option in ("json", "chart"):
        if (path := getattr(options, option)) is not None:
            check_writable(f"--{option}", path, parser)
    return options


def main() -> int:
    """Install, measure in turns, print."""
    options = parse()
    workloads = options.workloads
    folder = options.folder.absolute()
    pythons = {name: environment(name, folder) for name in (*OURS, *options.only)}
    figures: Figures = {
        (workload, name): [] for workload in workloads for name in pythons if pythons[name]
    }
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds} ...")
        for (workload, name), rows in figures.items():
            rows.append(measure(pythons[name] or "", name, workload, UNITS[workload][2]))

    print(f"{occasion(options.rounds)}\n")
    for workload in workloads:
        print(*table(figures, workload), sep="\n")
    is_whole = save(figures, options) and None not in pythons.values()
    return 0 if is_whole and all(None not in rows for rows in figures.values()) else 1


def save(figures: Figures, options: argparse.Namespace) -> bool:
    """Write the files that were asked for, and return whether all could be written."""
    every: list[Row] = [
        {"workload": workload, "contender": name} | (row or {})
        for (workload, name), rows in figures.items()
        for row in rows
    ]
    try:
        if options.json:
            write_whole(options.json, json.dumps(every, indent=1) + "\n")
        if options.chart and (drawn := chart(figures, options.workloads)):
            write_whole(options.chart, drawn)
    except OSError as error:
        say(f"{error.filename} cannot be written: {error.strerror}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
