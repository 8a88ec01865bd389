"""Measure agentpool beside the agent frameworks that people use, in one interleaved run.

    nox -s bench-peers                                    all of them
    nox -s bench-peers -- --only agno,langgraph --rounds 5
    nox -s bench-peers -- --workloads agents,abort

Each contender is installed from the package index into an environment of its own, which is
kept for the next time. Every round measures everything once, in turn, each in a process of
its own. The table has the median over the rounds, and the ratio to agentpool inside of
each round.
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
from pathlib import Path
from typing import Final, TypeAlias, cast

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from chart import Bars, page_of_bars  # noqa: E402 - lies in the folder above

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

Figures: TypeAlias = dict[tuple[str, str], list[dict[str, float | str]]]
"""The rows of each workload and contender, one for each round."""


def environment(name: str, folder: Path) -> str:
    """Return the Python that has contender *name*, and install it there if need be."""
    if name in OURS:
        return sys.executable
    home = folder / name
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    done = home / "installed"
    if not done.exists():
        print(f"installing {PACKAGES[name]} ...", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, PACKAGES[name]], check=True)
        # Byte code first: else the first round would measure the compiler.
        subprocess.run([str(python), "-m", "compileall", "-q", str(home)], check=False)
        done.touch()
    return str(python)


def measure(python: str, name: str, workload: str, n: int) -> dict[str, float | str]:
    """Do one run in a process of its own."""
    command = [python, str(HERE / "one.py"), name, workload, "--n", str(n)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    return cast("dict[str, float | str]", json.loads(done.stdout.splitlines()[-1]))


def column(rows: Sequence[dict[str, float | str]], key: str) -> list[float]:
    """Return one figure of each round."""
    return [float(row[key]) for row in rows]


def table(figures: Figures, workload: str, names: Sequence[str]) -> list[str]:
    """Return the lines of one workload's table, the cheapest contender first."""
    key, what, n = UNITS[workload]
    found = {name: column(figures[workload, name], key) for name in names}
    lines = [
        f"**{what}** ({n:,} of them)" if n > 1 else f"**{what}**",
        "",
        "| contender | median | least to most | times agentpool |",
        "|---|---|---|---|",
    ]
    for name in sorted(names, key=lambda name: statistics.median(found[name])):
        version = figures[workload, name][0]["version"]
        each = found[name]
        times = statistics.median(
            one / ours for one, ours in zip(each, found["agentpool"], strict=True)
        )
        row = f"| {name.replace('_', '-')} {version} | {statistics.median(each):,.0f} "
        row += f"| {min(each):,.0f} to {max(each):,.0f} | {times:.2f} |"
        left = max(float(row.get("left", 0)) for row in figures[workload, name])
        lines.append(row + (f" {left:,.0f} were still running afterwards" if left else ""))
    return [*lines, ""]


def chart(figures: Figures, workloads: Sequence[str], names: Sequence[str]) -> str:
    """Return the medians as bars."""
    charts = []
    for workload in workloads:
        key, what, _ = UNITS[workload]
        bars = [
            (
                name.replace("_", "-"),
                max(statistics.median(column(figures[workload, name], key)), 1.0),
                GREEN if name == "agentpool" else GREY if name in OURS else BLUE,
            )
            for name in names
        ]
        charts.append(
            Bars(
                title=what[0].upper() + what[1:],
                x_name="less is better; each line is ten times the one before",
                bars=sorted(bars, key=lambda bar: bar[1]),
            )
        )
    return page_of_bars(charts)


def parse() -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PACKAGES), help="peers; default: %(default)s")
    parser.add_argument("--workloads", default=",".join(UNITS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path(".nox/peers"), help="for environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="where to draw, as SVG")
    options = parser.parse_args()
    for name in options.only.split(","):
        if name not in PACKAGES:
            parser.error(f"--only: no peer {name!r}; there are {', '.join(PACKAGES)}")
    for name in options.workloads.split(","):
        if name not in UNITS:
            parser.error(f"--workloads: no workload {name!r}; there are {', '.join(UNITS)}")
    if options.rounds < 1:
        parser.error(f"--rounds: at least 1, not {options.rounds}")
    return options


def main() -> None:
    """Install, measure in turns, print."""
    options = parse()
    names = [*OURS, *options.only.split(",")]
    workloads = options.workloads.split(",")
    pythons = {name: environment(name, options.folder.absolute()) for name in names}
    figures: Figures = {(workload, name): [] for workload in workloads for name in names}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds} ...", file=sys.stderr, flush=True)
        for (workload, name), rows in figures.items():
            rows.append(measure(pythons[name], name, workload, UNITS[workload][2]))

    today = dt.datetime.now(dt.UTC).date()
    print(f"{today}, CPython {platform.python_version()}, {platform.system()}, median of", end=" ")
    print(f"{options.rounds} rounds\n")
    for workload in workloads:
        print(*table(figures, workload, names), sep="\n")
    if options.chart:
        options.chart.write_text(chart(figures, workloads, names), encoding="utf-8")
    if options.json:
        rows = [
            {"workload": workload, "contender": name} | row
            for (workload, name), found in figures.items()
            for row in found
        ]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
