"""A real Ray cluster of several nodes on this machine, and its end.

Each node is a process of its own group, so that it can be stopped or killed whole. Nothing here
ends a Ray that others have started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
SECONDS = 120
"""For a node to start on a busy machine."""

STARTS = 3
"""Ray gives a node 30 seconds, and a busy machine may need more."""


class NotStartedError(AssertionError):
    """A node did not start."""


@attrs.define
class RayNode:
    """One node: the processes that ``ray start --block`` keeps."""

    name: str
    process: subprocess.Popen[bytes]

    def signal(self, number: int) -> None:
        """Send a signal to all of the node's processes."""
        for pid in family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End all of the node's processes at once, and reap the first."""
        family_now = family(self.process.pid)
        self.signal(signal.SIGSTOP)
        for pid in {*family_now, *family(self.process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def find(self, word: str) -> list[int]:
        """Return those of its processes that have *word* in their command line."""
        return [pid for pid in family(self.process.pid) if word in command(pid)]


def parents() -> dict[int, int]:
    """Return the parent of each process of this machine, in the order of their numbers."""
    found: dict[int, int] = {}
    for folder in sorted(Path("/proc").iterdir(), key=lambda one: one.name):
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                found[int(folder.name)] = int(stat[1])
    return found


def family(pid: int) -> list[int]:
    """Return *pid* and every process below it."""
    above, found = parents(), [pid]
    for one in found:
        found.extend(child for child, parent in above.items() if parent == one)
    return found


def command(pid: int) -> str:
    """Return how a process was started. Empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@attrs.define
class RayCluster:
    """A head and its nodes."""

    folder: str
    port: int
    nodes: dict[str, RayNode] = attrs.field(factory=dict[str, RayNode])

    @property
    def address(self) -> str:
        """Where the head is."""
        return f"{own_address()}:{self.port}"

    def add(self, name: str, *, env: dict[str, str] | None = None) -> RayNode:
        """Start a node, the head first, and wait until it is there."""
        ray = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1")
        where: tuple[str, ...] = ("--head", f"--port={self.port}", "--include-dashboard=false",
                 f"--temp-dir={self.folder}")  # fmt: skip
        if self.nodes:
            where = (f"--address={self.address}",)
        labels = ("--labels", f"name={name}", "--object-store-memory=80000000",
                  "--disable-usage-stats")  # fmt: skip
        # One after the other: two that start at once on a machine take each other's ports.
        with alone():
            for _ in range(STARTS - 1):
                with contextlib.suppress(NotStartedError):
                    return self._start(name, [*ray, *where, *labels], env or {})
            return self._start(name, [*ray, *where, *labels], env or {})

    def _start(self, name: str, words: list[str], env: dict[str, str]) -> RayNode:
        log = Path(self.folder, f"{name}.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**environment(), **env}, start_new_session=True,
            )  # fmt: skip
        node = self.nodes[name] = RayNode(name, process)
        until = time.monotonic() + SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > until:
                del self.nodes[name]
                node.kill()
                raise NotStartedError(f"node {name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        return node

    def close(self) -> None:
        """End every node."""
        for node in reversed(self.nodes.values()):
            node.signal(signal.SIGCONT)
            node.kill()


def environment() -> dict[str, str]:
    """Return the environment of a node: it finds our package and these tests."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(":"),
        "PYTHONWARNINGS": "ignore",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "500",
        "RAY_health_check_failure_threshold": "3",
        "RAY_memory_monitor_refresh_ms": "0",
    }


def own_address() -> str:
    """Return the address that Ray takes for this machine."""
    from ray import util

    find: Callable[[], object] = util.get_node_ip_address
    return str(find())


def free_port() -> int:
    """Return a port that is free now."""
    import socket

    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process of this machine is in this block."""
    with Path(tempfile.gettempdir(), "agentpool-ray-nodes.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def ray_cluster(*names: str, env: dict[str, str] | None = None) -> Iterator[RayCluster]:
    """Start a head and nodes of these names; the first one is the head, and it alone has *env*."""
    # A short path: sockets are in it.
    with tempfile.TemporaryDirectory(prefix="apray", ignore_cleanup_errors=True) as folder:
        cluster = RayCluster(folder, free_port())
        try:
            for name in names:
                cluster.add(name, env=env if name == names[0] else None)
            yield cluster
        finally:
            cluster.close()
