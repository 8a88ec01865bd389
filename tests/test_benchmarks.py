"""The scripts in benchmarks/: what they refuse, what they count and what they judge.

Nothing here is measured: wrong input ends before the first round, and counts are the same on
every machine. A round that has to be there is done by a stand-in for Python.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

import pytest

FOLDER: Final = Path(__file__).parents[1] / "benchmarks"

ALL_SAY: Final = """\
#!{python}
import json, sys
print(json.dumps({{"cpu_us": {us}, "wall_us": {us}, "peak_mb": 50.0}}))
"""
"""A Python that measures the same whatever it is given."""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one script to its end, as a user does, who finds its neighbours beside it."""
    command = [sys.executable, str(FOLDER / script), *arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=300
    )


def test_nox_lets_each_script_find_its_neighbours() -> None:
    """As ``run`` does here: tests run with the script's own folder off the path."""
    sessions = (FOLDER.parent / "noxfile.py").read_text(encoding="utf-8").split("@nox.session")
    ours = [session for session in sessions if '"benchmarks/' in session]
    assert len(ours) == 2
    assert all("session.env.update(BESIDE_THE_SCRIPT)" in session for session in ours)


def refusal(script: str, *arguments: str) -> str:
    """Return the one line that a script says to wrong input."""
    done = run(script, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix(f"{script}: ")


def stand_in(folder: Path, us: float = 1.0) -> str:
    """Write a Python that measures *us* of everything, and return its path."""
    path = folder / "python"
    path.write_text(ALL_SAY.format(python=sys.executable, us=us))
    path.chmod(0o755)
    return str(path)


# --- dispatch.py


def test_dispatch_prints_a_line_for_each_length() -> None:
    """And refuses no rounds at all. What it measures is nobody's to judge."""
    done = run("dispatch.py", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^\| ([\d,]+) \| \d+\.\d\d \|$", done.stdout, re.MULTILINE)
    lengths = [int(line.replace(",", "")) for line in lines]
    assert lengths == sorted(lengths)
    assert (len(lengths), lengths[0] < 1000, lengths[-1] > 20_000) == (11, True, True)
    assert refusal("dispatch.py", "--rounds", "0") == (
        "argument --rounds: must be a whole number of at least 1, got '0'"
    )


# --- steps.py


def steps_of(workload: str, few: int, many: int) -> float:
    """Return the instructions of one operation."""
    done = run("steps.py", workload, "--few", str(few), "--many", str(many), "--rows", "0")
    assert done.returncode == 0, done.stderr
    found = re.search(rf"^\| {workload}, instructions \| ([\d,.]+) \|", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    return float(found[1].replace(",", ""))


def test_counts_everything_beside_its_yardstick() -> None:
    """Without a workload there is one line for each, and its ratio."""
    done = run("steps.py", "--few", "50", "--many", "100")
    assert done.returncode == 0, done.stderr
    head, _, *lines = done.stdout.splitlines()
    assert "ratio" in head
    ratios = {line.split(" | ")[0]: line.split(" | ")[-1].rstrip(" |") for line in lines}
    assert 1.5 < float(ratios["| an agent by `fan_out`"]) < 2.5
    assert 0.2 < float(ratios["| a message of a stream"]) < 0.8
    assert ratios["| the abort of an agent that waits for its first slot"] == "-"


@pytest.mark.parametrize("workload", ["W3:full", "W3:unwatched", "W3:deadlines"])
def test_counts_a_turn_of_few_as_one_of_many(workload: str) -> None:
    """The runs of a few turns are not repeated, so their difference is turns and nothing else."""
    # Below what makes trio clear its old deadlines, which is a hundredth of a turn.
    figure = steps_of(workload, 80, 240)
    assert steps_of(workload, 50, 150) == pytest.approx(figure, rel=0.01)


def test_counts_a_turn_by_its_example_as_by_its_defaults() -> None:
    """The defaults are where old deadlines are cleared as well."""
    figure = steps_of("W3:deadlines", 400, 1_200)
    assert steps_of("W3:deadlines", 50, 150) == pytest.approx(figure, rel=0.01)


def test_counts_a_message_that_waits_by_small_numbers() -> None:
    """One inbox, however few messages wait in it."""
    figure = steps_of("W10:waiting", 320, 640)
    assert steps_of("W10:waiting", 64, 160) == pytest.approx(figure, rel=0.01)


def test_counts_an_event_by_small_numbers() -> None:
    """As many events as were asked for."""
    figure = steps_of("W8:heard", 320, 640)
    # Of some eighty, in whole numbers; CPython 3.13 has one less in the first run.
    assert steps_of("W8:heard", 64, 160) == pytest.approx(figure, abs=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("W1:agents --few 1200 --many 400", "--many must be more than --few; got 1200 and 400"),
        ("W3:full --few 100 --many 100", "--many must be more than --few; got 100 and 100"),
        ("W3:full --few 0", "argument --few: must be a whole number of at least 1, got '0'"),
        ("W3:full --few -5", "argument --few: must be a whole number of at least 1, got '-5'"),
        ("W3:full --many x", "argument --many: must be a whole number of at least 1, got 'x'"),
        ("W3:full --rows -1", "argument --rows: must be a whole number of at least 0, got '-1'"),
        ("W5:queued --few 50", "W5:queued needs --few of at least 100; got 50"),
        ("W4:mesh --few 10 --many 20", "W4:mesh needs --few of at least 100; got 10"),
        (
            "W4:channel-mesh --few 110 --many 120",
            "W4:channel-mesh does as much by --few 110 as by --many 120; take them further apart",
        ),
        ("--growth W3:full", "--growth has workloads of its own; name none"),
    ],
)
def test_steps_refuses_numbers_that_give_no_count(arguments: str, said: str) -> None:
    """Nothing is divided by nothing, or by less."""
    assert refusal("steps.py", *arguments.split()) == said


def test_steps_says_which_workload_is_unknown() -> None:
    """And which there are."""
    line = refusal("steps.py", "W3:full", "W3:ful")
    assert line.startswith("there is no workload 'W3:ful'; there are W1:naive, ")


# --- compare.py

NAMES: Final = "W1, W2, W3, W4, W5, W6, W7, W8, W9, W10"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("W99",), f"there is no workload 'W99'; there are {NAMES}"),
        (("w3",), f"there is no workload 'w3'; there are {NAMES}"),
        (("",), f"there is no workload ''; there are {NAMES}"),
        (("W3, W99",), f"there is no workload 'W99'; there are {NAMES}"),
        (("--n", "abc"), "argument --n: must be a whole number of at least 1, got 'abc'"),
        (("--n", "100,0"), "argument --n: must be a whole number of at least 1, got '0'"),
        (("--n=-5",), "argument --n: must be a whole number of at least 1, got '-5'"),
        (("W4", "--n", "20"), "W4 needs --n of at least 100; got 20"),
        (("--rounds", "0"), "argument --rounds: must be a whole number of at least 1, got '0'"),
        (("--rounds=-1",), "argument --rounds: must be a whole number of at least 1, got '-1'"),
        (("--python", "/nope/python"), "--python: there is no program '/nope/python'"),
    ],
)
def test_compare_refuses_wrong_input_before_it_measures(
    arguments: tuple[str, ...], said: str
) -> None:
    """One line, and exit code 2."""
    assert refusal("compare.py", *arguments) == said


@pytest.mark.parametrize("lacking", ["agentpool/__init__.py", "benchmarks/agents.py"])
def test_compare_refuses_an_older_copy_that_is_not_whole(tmp_path: Path, lacking: str) -> None:
    """Else what is installed would be measured as the older one."""
    for name in ("agentpool/__init__.py", "benchmarks/agents.py"):
        if name != lacking:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
    line = refusal("compare.py", "--before", str(tmp_path))
    assert line == f"--before must be a copy of the project, and {tmp_path} has no {lacking}"


def test_compare_refuses_figures_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Before the first round, not after it."""
    path = tmp_path / "none" / "figures.json"
    line = refusal("compare.py", "--json", str(path))
    assert line == f"--json cannot be written: No such file or directory: {path}"


def test_compare_refuses_figures_in_what_is_no_file(tmp_path: Path) -> None:
    """A file beside it takes its place, so it must be one."""
    for path in (tmp_path, Path("/dev/null")):
        line = refusal("compare.py", "--json", str(path))
        assert line == f"--json must be a file, and {path} is none"


def test_compare_keeps_a_file_of_figures_when_it_refuses_the_rest(tmp_path: Path) -> None:
    """To look whether it can be written changes nothing."""
    path = tmp_path / "figures.json"
    path.write_text("[]")
    refusal("compare.py", "W99", "--json", str(path))
    assert (path.read_text(), list(tmp_path.iterdir())) == ("[]", [path])


def test_compare_takes_workloads_with_blanks_and_only_once(tmp_path: Path) -> None:
    """As people write lists."""
    path = tmp_path / "figures.json"
    options = ("--rounds", "2", "--python", stand_in(tmp_path), "--json", str(path))
    done = run("compare.py", "W3, W6 ,W3", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| T12 import / trio | 0 | 1.41 | 1.00 | 1.00-1.00 | 1.4 | yes |") == 1
    assert "| T6 turn / full loop | 100 | 1.42 | 1.00 | 1.00-1.00 | 1.2 | yes |" in done.stdout
    rows = json.loads(path.read_text())
    assert [row["n"] for row in rows if row["workload"] == "W6:trio"] == [0, 0]
    assert sorted(child.name for child in tmp_path.iterdir()) == ["figures.json", "python"]


def test_compare_goes_on_when_its_figures_can_no_longer_be_written(tmp_path: Path) -> None:
    """The table is still worth its half hour."""
    folder = tmp_path / "figures"
    folder.mkdir()
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport shutil\nshutil.rmtree({str(folder)!r}, True)\n"
        + ALL_SAY.format(python=sys.executable, us=1.0)
    )
    python.chmod(0o755)
    path = folder / "figures.json"
    done = run("compare.py", "W6", "--rounds", "3", "--python", str(python), "--json", str(path))
    assert done.stderr.count(f"{path} cannot be written: No such file or directory") == 1
    assert "Traceback" not in done.stderr
    assert "| T12 import / trio |" in done.stdout
    assert done.returncode == 1


def test_compare_says_by_its_exit_code_that_everything_failed(tmp_path: Path) -> None:
    """A table without a figure is no success."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no figures\n")
    python.chmod(0o755)
    done = run("compare.py", "W6,W5", "--rounds", "1", "--python", str(python))
    assert "Traceback" not in done.stderr
    assert "| T12 import / trio | 0 | 1.41 | failed | | 1.4 | **no** |" in done.stdout
    assert (
        "| T11 abort of 10,000 queued, ms | 10,000 | 29 | failed | | 10.0 | **no** |" in done.stdout
    )
    assert done.returncode == 1


@pytest.mark.parametrize(("us", "code"), [(0.9, 0), (1.1, 0), (1.2, 1)])
def test_the_gate_judges_limits_with_the_same_tolerance(
    tmp_path: Path, us: float, code: int
) -> None:
    """15 percent, as the ratios have."""
    python = stand_in(tmp_path, us)  # T11 is ten times that, and may be 10
    done = run("compare.py", "W5", "--rounds", "1", "--gate", "--python", python)
    holds = "yes" if us < 1.0 else r"\*\*no\*\*"
    assert re.search(rf"^\| T11 .* \| {holds} \|$", done.stdout, re.MULTILINE), done.stdout
    assert done.returncode == code


def test_the_gate_misses_a_limit_whose_run_failed(tmp_path: Path) -> None:
    """What was not measured does not hold."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\nif 'W5:queued' in sys.argv: sys.exit(1)\n"
        + ALL_SAY.format(python=sys.executable, us=0.5)
    )
    python.chmod(0o755)
    done = run("compare.py", "W5", "--rounds", "1", "--gate", "--python", str(python))
    assert "| T10 abort / scoped trio | 10,000 | 2.12 | 1.00 |" in done.stdout
    assert (
        "| T11 abort of 10,000 queued, ms | 10,000 | 29 | failed | | 10.0 | **no** |" in done.stdout
    )
    assert done.returncode == 1


def test_figures_of_other_sizes_stand_beside_none_and_are_no_judgement(tmp_path: Path) -> None:
    """5cff005 was measured at the usual sizes."""
    python = stand_in(tmp_path)
    other = run("compare.py", "W1,W4", "--rounds", "5", "--n", "1000", "--python", python)
    assert "| T7 mesh / channel | 1,000 | - | 1.00 |" in other.stdout
    assert "| T1 fan_out / reference pool | 1,000 | 3.5 | 1.00 |" in other.stdout
    assert other.stdout.splitlines()[-1].startswith("No judgement: other sizes than the usual")

    usual = run("compare.py", "W4", "--rounds", "5", "--python", python)
    assert "| T7 mesh / channel | 20,000 | 3.2 | 1.00 |" in usual.stdout
    assert "No judgement" not in usual.stdout


def test_growth_between_other_sizes_stands_beside_none(tmp_path: Path) -> None:
    """Both sizes count."""
    python = stand_in(tmp_path)
    done = run("compare.py", "W1", "--rounds", "1", "--n", "100,1000", "--python", python)
    for row in (
        "T3 agent, many / few | 1,000 / 100 | - | 1.00 | 1.00-1.00 | - | -",
        "T1 fan_out / reference pool | 1,000 | 3.5 | 1.00 | 1.00-1.00 | 2.0 | yes",
        "T1 fan_out / reference pool | 100 | - | 1.00 | 1.00-1.00 | - | -",
    ):
        assert f"| {row} |" in done.stdout


def test_fewer_rounds_than_five_are_no_judgement(tmp_path: Path) -> None:
    """As the targets were set."""
    done = run("compare.py", "W6", "--rounds", "2", "--python", stand_in(tmp_path))
    assert done.stdout.splitlines()[-1] == "No judgement: 2 of at least 5 rounds."


SCRIPTS: Final = sorted(
    path.name
    for path in FOLDER.glob("*.py")
    if "sys.argv" in (text := path.read_text()) or "__main__" in text
)


def test_each_script_says_what_it_does_and_measures_nothing() -> None:
    """Some took ``--help`` for a name, and others began."""
    with ThreadPoolExecutor(4) as several:
        told = list(several.map(run, SCRIPTS, repeat("--help")))
    for script, done in zip(SCRIPTS, told, strict=True):
        assert done.returncode == 0, done.stderr
        is_usage = f"usage: {script}" in done.stdout
        assert is_usage or f"Called as ``python benchmarks/{script}" in done.stdout
        assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("levelling.py nowhere", "argument folder: there is no folder 'nowhere'"),
        ("imports.py no_such_package", "No module named 'no_such_package'; install it first"),
        ("journals.py --rounds 0", "argument --rounds: must be a whole number of at least 1"),
    ],
)
def test_scripts_refuse_wrong_input(command: str, said: str) -> None:
    """In one line, and with exit code 2."""
    assert refusal(*command.split()).startswith(said)


def test_compare_says_what_its_workloads_are() -> None:
    """A line each."""
    told = run("compare.py", "--help").stdout
    for name in NAMES.split(", "):
        assert re.search(rf"^ +{name} +\w.+", told, re.MULTILINE), name


# --- lifetime.py


@pytest.mark.parametrize("agents", ["5", "0", "-1", "many"])
def test_lifetime_refuses_too_few_agents(agents: str) -> None:
    """It forgets a tenth at a time."""
    line = refusal("lifetime.py", f"--agents={agents}")
    assert line == f"argument --agents: must be a whole number of at least 10, got '{agents}'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--only langraph", "--only: no 'langraph'; there are agno, autogen, agent_framework,"),
        ("--workloads turn", "--workloads: no 'turn'; there are agents, turns, abort, memory,"),
        ("--rounds 0", "argument --rounds: must be a whole number of at least 1, got '0'"),
        ("--json nowhere/figures.json", "--json cannot be written: No such file or directory"),
        ("--chart .", "--chart must be a file, and . is none"),
    ],
)
def test_the_bench_of_peers_refuses_wrong_input(arguments: str, said: str) -> None:
    """Before anything is installed."""
    assert said in refusal("peers/compare.py", *arguments.split())


def test_a_peer_that_cannot_be_installed_is_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is measured, and the exit code says that it is not all."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    figures, drawn = tmp_path / "figures.json", tmp_path / "drawn.svg"
    done = run(
        "peers/compare.py", "--only", "agno", "--workloads", "import", "--rounds", "1",
        "--folder", str(tmp_path / "peers"), "--json", str(figures), "--chart", str(drawn),
    )  # fmt: skip
    assert done.returncode == 1
    assert "agno cannot be installed and is left out" in done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^\| agentpool \S+ \| [\d,]+ \|.*\| 1\.00 \|$", done.stdout, re.MULTILINE)
    assert "agno" not in done.stdout
    kept = {row["contender"] for row in json.loads(figures.read_text())}
    assert kept == {"agentpool", "trio", "asyncio"}
    assert re.search(r">agentpool \S+</text>", drawn.read_text())
