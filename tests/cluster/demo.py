"""The demo on two nodes with the packaged model on each, killed in the middle: what it took.

``python -m tests.cluster.demo`` starts two nodes of a Ray cluster on this machine and runs the
map of the how-to on them. It kills the command with SIGKILL after three results, and resumes it
from its journal. It prints what was found as JSON, and fails if that is not as promised.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time

from tests.support.ray_nodes import ROOT, RayCluster, command, environment, family, ray_cluster

EXAMPLES = ROOT / "examples"
NOTES = 3
"""Results after which the command is killed."""


def start(folder: str, *words: str) -> subprocess.Popen[str]:
    """Start the command in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "agentpool", *words], cwd=folder,
        env={**os.environ, **environment()}, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def models(cluster: RayCluster) -> dict[str, list[int]]:
    """Return the processes of models, by node."""
    return {
        name: [one for one in family(node.process.pid) if "_local_child" in command(one)]
        for name, node in cluster.nodes.items()
    }


def alive(pids: list[int]) -> list[int]:
    """Return those that still are there."""
    return [pid for pid in pids if command(pid)]


def outcomes(lines: list[str]) -> dict[str, str]:
    """Return what became of each text."""
    found = [json.loads(line) for line in lines]
    return {one["input"]: one["text"] for one in found if one["type"] == "outcome"}


def main() -> None:
    """Print what was found."""
    with ray_cluster("first", "second") as cluster, tempfile.TemporaryDirectory() as folder:
        texts = sorted(str(one) for one in (EXAMPLES / "texts").glob("*.txt"))
        began = time.monotonic()
        process = start(
            folder, "map", str(EXAMPLES / "reader.toml"), "--each", *texts, "--cluster",
            cluster.address, "--cluster-privacy", "sovereign", "--journal", "night.db",
            "--max-concurrent", "2", "--lease", "20", "--json",
        )  # fmt: skip
        timer = threading.Timer(400, process.kill)
        timer.start()
        assert process.stdout is not None
        assert process.stderr is not None
        notes: list[str] = []
        for line in process.stdout:
            notes.append(line)
            if len(notes) == NOTES:
                break
        timer.cancel()
        at = time.monotonic()
        running = models(cluster)
        process.kill()
        rest, err = process.communicate()
        notes += rest.splitlines()
        assert len(notes) >= NOTES, err[-2000:]
        pids = [pid for found in running.values() for pid in found]
        while alive(pids):
            assert time.monotonic() < at + 60, "a model outlives its node's work"
            time.sleep(0.02)
        gone = time.monotonic() - at
        again = time.monotonic()
        resumed = start(folder, "runs", "resume", "night.db")
        out, err = resumed.communicate(timeout=400)
        assert resumed.returncode == 0, err[-2000:]
        ended = time.monotonic()
        before, after = outcomes(notes), outcomes(out.splitlines())
        assert sorted(after) == texts
        assert {name: after[name] for name in before} == before
        sys.stdout.write(json.dumps({
            "results before": len(before),
            "seconds before": round(at - began, 1),
            "processes of models": {name: len(found) for name, found in running.items()},
            "seconds until they were gone": round(gone, 2),
            "results after": len(after),
            "seconds after": round(ended - again, 1),
        }) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
