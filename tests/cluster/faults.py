"""What becomes of agents when processes of a real cluster are killed or stopped: a table.

``python -m tests.cluster.faults COUNT [FAULT...]`` starts a cluster of three nodes on this
machine, runs a program on it under load, breaks something in the middle, and looks at what is
left: outcomes, requests that were made twice, work that went on after the lease, and what a
budget says beside what was handed to Ray. Each is done with requests that are made once, and
with up to four.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from agentpool import AgentManifest, Budget, PrivacyTier, RetryPolicy, SpawnConfig
from agentpool.cluster import NodeLostError, NodeState, open_cluster, open_cluster_pool
from agentpool.cluster._node_messages import Ask, Begin
from agentpool.cluster._portable import unpack
from tests.support.ray_nodes import ROOT, RayCluster, command, environment, family, ray_cluster

LEASE = 3.0
AGENTS = 60
SLACK = 1.0
"""For a scheduler of a busy machine, in seconds."""


def count_sent() -> Callable[[], int]:
    """Return what says how many requests were handed to Ray from now on."""
    from agentpool.cluster._ray import RayWire

    push, sent = RayWire.push, [0]

    async def counted(wire: RayWire, batch: bytes) -> bool:
        orders = [one for one in unpack(batch) if isinstance(one, Begin)]
        sent[0] += sum(isinstance(one.work, Ask) for one in orders)
        return await push(wire, batch)

    RayWire.push = counted  # type: ignore[assignment, method-assign]  # in this program alone
    return lambda: sent[0]


async def program(address: str, file: str, attempts: int, seconds: str) -> None:
    """Run so many agents on the cluster, and print what became of them as JSON."""
    sent = count_sent()
    manifest = AgentManifest(privacy=PrivacyTier.PRIVATE)
    async with open_cluster(
        "tests.support.node_work:open_model", address=address, lease_seconds=LEASE,
    ) as cluster:  # fmt: skip
        while sum(one.state is NodeState.WORKING for one in cluster.nodes()) < 3:  # noqa: ASYNC110
            await trio.sleep(0.1)
        async with open_cluster_pool(
            cluster, max_concurrent=30, budget=Budget(requests=10 * AGENTS),
            request_retries=RetryPolicy(max_attempts=attempts, base_seconds=0.1),
        ) as pool:  # fmt: skip
            await pool.fan_out(
                SpawnConfig(manifest, f"tick {file} {number} {seconds}", name=str(number))
                for number in range(AGENTS)
            )
            outcomes = (await pool.join_all()).values()
            budget = pool.statistics().budget
    assert budget is not None
    found = {
        "completed": sum(one.status.value == "completed" for one in outcomes),
        "failed": sum(one.status.value == "failed" for one in outcomes),
        "lost": sum(isinstance(one.error, NodeLostError) for one in outcomes),
        "requests": budget.requests.committed,
        "sent": sent(),
        "reserved": budget.requests.reserved,
        "odd": sorted({repr(one.error)[:200] for one in outcomes if one.status.value == "failed"
                       and not isinstance(one.error, NodeLostError)}),
    }  # fmt: skip
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()


@attrs.define
class Ticks:
    """What the model wrote while it worked: number, process, time; ``b`` at the beginning."""

    file: Path

    def all(self) -> list[tuple[str, str, int, float]]:
        """Return kind, number, process and time of each."""
        lines = self.file.read_text().split() if self.file.exists() else []
        parts = [line.split(":") for line in lines]
        return [(kind, who, int(pid), float(at)) for kind, who, pid, at in parts]

    def begun(self) -> list[str]:
        """Return the numbers of the agents in the order in which they began to be answered."""
        return [who for kind, who, _, _ in self.all() if kind == "b"]

    def after(self, moment: float, pids: set[int] | None = None) -> int:
        """Return how many there are after a moment, of some processes."""
        return sum(at > moment for _, _, pid, at in self.all() if pids is None or pid in pids)

    def between(self, first: float, last: float) -> int:
        """Return how many there are between two moments."""
        return sum(first < at < last for _, _, _, at in self.all())

    def last(self) -> float:
        """Return the time of the last."""
        return max(at for _, _, _, at in self.all())


def hosts(cluster: RayCluster, name: str) -> list[int]:
    """Return the processes of hosts on a node."""
    return [one for one in family(cluster.nodes[name].process.pid) if "HostActor" in command(one)]


def start(cluster: RayCluster, file: Path, attempts: int, seconds: float) -> subprocess.Popen[str]:
    """Start the program. Each of its requests takes so many seconds."""
    words = ("program", cluster.address, str(file), str(attempts), str(seconds))
    arguments = ("-m", "tests.cluster.faults", *words)
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_busy(ticks: Ticks, process: subprocess.Popen[str]) -> None:
    """Wait until all nodes work for the program."""
    until = time.monotonic() + 120
    while len({pid for _, _, pid, _ in ticks.all()}) < 3:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(f"the program did not begin: {process.communicate()}")
        time.sleep(0.05)


def send(pids: set[int], number: int) -> None:
    """Send a signal to those of these processes that are left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def break_it(cluster: RayCluster, fault: str, process: subprocess.Popen[str], ticks: Ticks) -> int:
    """Break something. Return how often work went on that should not have."""
    at, victim, node = time.monotonic(), set(hosts(cluster, "w1")), cluster.nodes["w1"]
    match fault:
        case "host":
            send(victim, signal.SIGKILL)
        case "raylet":
            send(set(node.find("raylet/raylet")), signal.SIGKILL)
        case "node":
            node.kill()
        case "head" | "head for long":
            cluster.nodes["w0"].kill()
        case "stopped host":
            send(victim, signal.SIGSTOP)
            time.sleep(2 * LEASE)
            again = time.monotonic()
            send(victim, signal.SIGCONT)
            time.sleep(1)
            return ticks.after(again, victim)
        case "stopped program":
            process.send_signal(signal.SIGSTOP)
            time.sleep(2 * LEASE)
            process.send_signal(signal.SIGCONT)
            return ticks.between(at + LEASE + SLACK, at + 2 * LEASE)
        case _:
            process.kill()
            time.sleep(LEASE + SLACK + 1)
            return ticks.after(at + LEASE + SLACK)
    return 0


def once(cluster: RayCluster, fault: str, attempts: int) -> dict[str, object]:
    """Break something once, and return what was found."""
    with tempfile.TemporaryDirectory() as folder:
        ticks = Ticks(Path(folder, "ticks"))
        process = start(cluster, ticks.file, attempts, 90 if fault == "head for long" else 2.5)
        try:
            wait_busy(ticks, process)
            time.sleep(0.5)
            at = time.monotonic()
            found: dict[str, object] = {"late": break_it(cluster, fault, process, ticks)}
            out, err = process.communicate(timeout=180)
            if fault == "program":
                return found | {"last tick after": round(ticks.last() - at, 2)}
            if fault == "head for long":
                return found | ended(ticks, time.monotonic(), err) | {
                    "code": process.returncode, "seconds": round(time.monotonic() - at, 1),
                }  # fmt: skip
            assert out.strip(), err[-3000:]
            found |= json.loads(out.splitlines()[-1])
            begun = ticks.begun()
            return found | {
                "begun": len(begun),
                "asked twice": len(begun) - len(set(begun)),
                "seconds": round(time.monotonic() - at, 1),
            }
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.communicate()
            if fault in {"raylet", "node"}:
                cluster.nodes["w1"].kill()
                cluster.add("w1")


def ended(ticks: Ticks, moment: float, err: str) -> dict[str, object]:
    """Return what is left of a program that ended with an error at a moment."""
    time.sleep(LEASE + SLACK + 1)
    return {
        "late": ticks.after(moment + LEASE + SLACK),
        "last tick after the end": round(ticks.last() - moment, 2),
        "error": err.strip().rpartition("\n")[2][:160],
    }


FAULTS = ("host", "raylet", "node", "program", "stopped host", "stopped program")
HEADS = ("head", "head for long")
"""Each of these has a cluster of its own."""
NAMES = ("w0", "w1", "w2")


def tell(fault: str, attempts: int, number: int, found: dict[str, object]) -> None:
    """Print a line."""
    sys.stdout.write(f"{fault}\tattempts={attempts}\t#{number + 1}\t{json.dumps(found)}\n")
    sys.stdout.flush()


def main() -> None:
    """Print a line for each fault and each number of attempts."""
    if sys.argv[1] == "program":
        address, file, asked, seconds = sys.argv[2:]
        trio.run(program, address, file, int(asked), seconds)
        return
    # So that a caller who ends this ends the cluster as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    count, wanted = int(sys.argv[1]), sys.argv[2:] or (*FAULTS, *HEADS)
    for number in range(count):
        for fault in (one for one in wanted if one in HEADS):
            with ray_cluster(*NAMES) as cluster:
                tell(fault, 4, number, once(cluster, fault, 4))
    if not (others := [one for one in wanted if one not in HEADS]):
        return
    with ray_cluster(*NAMES) as cluster:
        for number in range(count):
            for fault in others:
                # A program that is killed asks nothing again.
                for attempts in (1,) if fault == "program" else (1, 4):
                    tell(fault, attempts, number, once(cluster, fault, attempts))


if __name__ == "__main__":
    main()
