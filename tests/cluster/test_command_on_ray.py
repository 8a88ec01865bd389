"""The command line on the nodes of a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.conftest import ON_RAY
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
