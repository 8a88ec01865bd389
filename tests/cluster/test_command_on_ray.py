"""The command line on the nodes of a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.cluster.conftest import ON_RAY
from tests.support import node_work
from tests.support.cli_runner import READER
from tests.support.ray_nodes import environment

pytestmark = list(ON_RAY)

ECHO = ("--cluster-driver", "agentpool.cluster:open_echo", "--cluster-privacy", "sovereign")


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "agentpool", *words], cwd=folder,
        env={**os.environ, **environment()},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_map_over_machines(tmp_path: Path, ray_address: str) -> None:
    """With the exit codes of any map, also where nobody is."""
    Path(tmp_path, "reader.toml").write_text(READER)
    for name in ("a", "b"):
        Path(tmp_path, f"{name}.txt").write_text(name)
    words = ("map", "reader.toml", "--each", "a.txt", "b.txt", *ECHO, "--cluster")
    done = call(tmp_path, *words, ray_address)
    assert (done.returncode, done.stdout) == (0, "## a.txt\n\na\n\n## b.txt\n\nb\n\n"), done.stderr
    nobody = call(tmp_path, *words, "127.0.0.1:1")
    assert nobody.returncode == 2
    assert "agentpool: error: nothing answers at '127.0.0.1:1'" in nobody.stderr


def test_the_status_of_machines(tmp_path: Path, ray_address: str) -> None:
    """One line for each."""
    done = call(tmp_path, "cluster", "status", ray_address, "--json")
    assert done.returncode == 0, done.stderr
    nodes = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(node["name"] for node in nodes) == ["w0", "w1"]
    assert {node["state"] for node in nodes} == {"working"}


def test_a_map_that_is_killed_goes_on_from_its_journal(tmp_path: Path, ray_address: str) -> None:
    """What had ended is not asked again; what was under way is."""
    Path(tmp_path, "reader.toml").write_text(READER)
    marks = tmp_path / "marks"
    names = [f"{number}.txt" for number in range(6)]
    for number, name in enumerate(names):
        do = "say done" if number < 3 else "sleep 3"
        Path(tmp_path, name).write_text(f"mark {marks} {name} {do}")
    words = ("map", "reader.toml", "--each", *names, "--cluster", ray_address, "--cluster-driver",
             "tests.support.node_work:open_model", "--cluster-privacy", "sovereign",
             "--journal", "j.db", "--max-concurrent", "1")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "agentpool", *words], cwd=tmp_path,
        env={**os.environ, **environment()}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while len(asked := node_work.marks(marks)) < 4:
            assert time.monotonic() < until, asked
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    done = call(tmp_path, "runs", "resume", "j.db")
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(f"## {name}\n") for name in names] == [1] * 6
    assert Counter(node_work.marks(marks)) == Counter([*names, names[3]])
