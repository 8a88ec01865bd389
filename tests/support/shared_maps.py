"""A map that workers share, as processes, with what is done to them and what must hold after."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs

from agentpool._file_lock import lock_holder
from tests.support.counting_model import CountingModel

MANIFEST = """\
name = "{name}"
capabilities = []
[model]
system_prompt = "You {name}."
max_tokens = 100
remote_model = "m"
base_url = "{url}"
api_key_env = "WORKER_TEST_KEY"
"""

PATIENCE = 180.0
"""For anything that must happen, however busy the machine is."""


@attrs.define(eq=False)
class SharedMap:
    """A folder with inputs, manifests and a journal; commands run in it."""

    folder: Path
    model: CountingModel
    inputs: int
    lease_seconds: float
    workers: int = 2
    max_concurrent: int = 6
    pids: set[int] = attrs.field(factory=set[int])
    """Every worker that was ever seen."""

    def __attrs_post_init__(self) -> None:
        """Write the files."""
        for name in ("read", "edit"):
            text = MANIFEST.format(name=name, url=self.model.url)
            (self.folder / f"{name}.toml").write_text(text)
        for path in self.paths:
            (self.folder / path).write_text(f"text {path.removesuffix('.txt')}")

    @property
    def paths(self) -> list[str]:
        """The inputs."""
        return [f"{number:03}.txt" for number in range(self.inputs)]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command."""
        command = [
            sys.executable, "-m", "agentpool", "map", "read.toml", "--each", *self.paths,
            "--reduce", "edit.toml", "--journal", "j.db", "--workers", str(self.workers),
            "--max-concurrent", str(self.max_concurrent), "--lease", str(self.lease_seconds),
            *words,
        ]  # fmt: skip
        with (self.folder / f"out-{time.monotonic_ns()}.txt").open("w") as out:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=out, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "WORKER_TEST_KEY": "k", "NO_COLOR": "1"},
            )  # fmt: skip

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return rows of the journal."""
        if not (self.folder / "j.db").exists():
            return []
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(self.folder / "j.db", timeout=PATIENCE)) as file,
        ):
            return file.execute(sql).fetchall()
        return []

    def workers_now(self) -> list[int]:
        """Return the processes that have a share."""
        holders = [str(row[0]) for row in self.rows("SELECT holder FROM pools WHERE holder != ''")]
        found = [int(json.loads(holder)["pid"]) for holder in holders]
        self.pids.update(found)
        return [pid for pid in found if is_running(pid)]

    def wait_for_workers(self, count: int) -> list[int]:
        """Wait until so many have a share."""
        until = time.monotonic() + PATIENCE
        while len(found := self.workers_now()) < count:
            assert time.monotonic() < until, f"{found} of {count} workers"
            time.sleep(0.02)
        return found

    def stop_between_writes(self, pid: int) -> None:
        """Stop a process that does not have the file: all others would wait for it."""
        until = time.monotonic() + PATIENCE
        while True:
            send(pid, signal.SIGSTOP)
            while not is_stopped(pid):
                assert time.monotonic() < until
                time.sleep(0.01)
            with (
                suppress(sqlite3.OperationalError),
                closing(sqlite3.connect(self.folder / "j.db", timeout=5)) as file,
            ):
                file.execute("BEGIN IMMEDIATE")
                file.rollback()
                return
            send(pid, signal.SIGCONT)
            assert time.monotonic() < until, f"{pid} always has the file"

    def stop_within_a_write(self) -> int:
        """Stop a worker that has the file, so that all others wait for it. Return which."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = lock_holder(self.folder / "j.db")
            if found is None or found.pid not in self.pids:
                continue
            send(found.pid, signal.SIGSTOP)
            while not is_stopped(found.pid):
                assert time.monotonic() < until
            now = lock_holder(self.folder / "j.db")
            if now is not None and now.pid == found.pid:
                return found.pid
            send(found.pid, signal.SIGCONT)
        raise AssertionError("no worker was met while it had the file")

    def outcomes(self) -> Counter[str]:
        """Return how often each input has an outcome in the journal."""
        keys = {
            (pool, agent): json.loads(bytes(body))["key"]
            for pool, agent, body in self.rows(
                "SELECT pool, agent, body FROM records WHERE kind = 'accepted' AND agent > 0"
            )
        }
        ended = self.rows("SELECT pool, agent FROM records WHERE kind = 'ended'")
        return Counter(keys[pool, agent] for pool, agent in ended)

    def faults_after(self, most_repeated: int) -> list[str]:
        """Return what does not hold once the work is over.

        Args:
            most_repeated: How many requests could have been in flight when somebody was killed.
        """
        found = list[str]()
        outcomes = {k: n for k, n in self.outcomes().items() if not k.startswith("reduce")}
        if outcomes != dict.fromkeys(self.paths, 1):
            found.append(f"outcomes: {outcomes}")
        counts = self.model.counts()
        missing = [path for path in self.paths if not counts[f"text {path[:-4]}"]]
        if missing:
            found.append(f"never asked: {missing}")
        repeated = sum(counts.values()) - len(counts)
        if repeated > most_repeated:
            found.append(f"{repeated} requests were repeated, and {most_repeated} may be")
        # A request leaves a moment after its row was written, from which the lease counts.
        found += self.model.twice_at_once(self.lease_seconds - 1)
        found += [f"process {pid} is left" for pid in self.left_over()]
        return found

    def left_over(self) -> list[int]:
        """Return the workers that have not ended after a while."""
        until = time.monotonic() + 20
        while left := [pid for pid in self.pids if is_running(pid)]:
            if time.monotonic() > until:
                return left
            time.sleep(0.05)
        return []


def state_of(pid: int) -> str:
    """Return the letter that the system has for a process. X: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_running(pid: int) -> bool:
    """Return whether *pid* is a process that has not ended."""
    return state_of(pid) not in {"Z", "X"}


def is_stopped(pid: int) -> bool:
    """Return whether *pid* is gone or stopped. The signal alone takes a moment."""
    return state_of(pid) in {"T", "X"}


def send(pid: int, number: int) -> None:
    """Send a signal, unless the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def end_all(shared: SharedMap, *processes: subprocess.Popen[str]) -> None:
    """Leave nothing behind, whatever went wrong."""
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in shared.pids:
        if is_running(pid):
            send(pid, signal.SIGCONT)
            send(pid, signal.SIGKILL)
