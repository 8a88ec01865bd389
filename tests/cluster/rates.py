"""What a pool on three nodes costs and how fast it is, beside one without nodes: a few lines.

``python -m tests.cluster.rates`` starts a cluster of three nodes on this machine. Processor time
is the program's own, threads of Ray included; each turn measures both pools one after the other.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from agentpool import AgentManifest, AgentPool, PrivacyTier, SpawnConfig, open_pool
from agentpool.cluster import Cluster, NodeState, open_cluster, open_cluster_pool
from tests.support import node_work
from tests.support.ray_nodes import ROOT, environment, ray_cluster

MODEL = "tests.support.node_work:open_model"
MANIFEST = AgentManifest(privacy=PrivacyTier.PRIVATE)
IDLE = 10_000
TURNS = 3


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def middle_and_99th(seconds: list[float]) -> str:
    """Return both in microseconds."""
    seconds.sort()
    p50, p99 = (seconds[int(part * len(seconds))] * 1e6 for part in (0.5, 0.99))
    return f"p50 {p50:.0f} us, p99 {p99:.0f} us"


async def idle(pool: AgentPool, count: int) -> tuple[float, float]:
    """Run idle agents. Return microseconds of processor for each, and agents a second."""
    used, began = time.process_time(), time.monotonic()
    await pool.fan_out(SpawnConfig(MANIFEST, "say x") for _ in range(count))
    outcomes = await pool.join_all()
    assert all(one.status.value == "completed" for one in outcomes.values())
    used, took = time.process_time() - used, time.monotonic() - began
    return used / count * 1e6, count / took


async def compare(cluster: Cluster) -> None:
    """Say what agents that do nothing cost, in turns."""
    for _ in range(TURNS):
        async with open_pool(node_work.open_model, max_concurrent=1000, max_queued=IDLE) as pool:
            here, rate_here = await idle(pool, IDLE)
        async with open_cluster_pool(cluster, max_concurrent=1000, max_queued=IDLE) as pool:
            there, rate_there = await idle(pool, IDLE)
        say(
            f"{IDLE} agents: here {here:.0f} us each and {rate_here:.0f} a second; on nodes "
            f"{there:.0f} us and {rate_there:.0f} a second; ratio {there / here:.2f}"
        )


async def wait_and_abort(cluster: Cluster) -> None:
    """Say how long a thousand agents of a second take, and the abort of 900."""
    async with open_cluster_pool(cluster, max_concurrent=2000, max_queued=5000) as pool:
        began = time.monotonic()
        await pool.fan_out(SpawnConfig(MANIFEST, "sleep 1") for _ in range(1000))
        await pool.join_all()
        say(f"1,000 agents of one second: {time.monotonic() - began:.2f} s")
    async with open_cluster_pool(cluster, max_concurrent=300, max_queued=5000) as pool:
        for number in range(900):
            await pool.spawn(SpawnConfig(MANIFEST, "sleep 60"))
            if number == 450:
                began = time.monotonic()
                pool.abort_all("in the middle")
        pool.abort_all("the rest")
        outcomes = await pool.join_all()
        took = time.monotonic() - began
        left = {one.status.value for one in outcomes.values()}
        say(f"900 aborted, once in the middle of spawning: {took:.2f} s until all ended, {left}")
    loads = [one.load for one in cluster.nodes()]
    say(f"what the nodes still have: {loads}")


@asynccontextmanager
async def under_load(cluster: Cluster) -> AsyncGenerator[tuple[AgentPool, list[int]], None]:
    """Open a pool with a thousand agents under way, and 20 at a time that come and go."""
    async with (
        open_cluster_pool(cluster, max_concurrent=2000, max_queued=5000, inbox_capacity=64) as pool,
        trio.open_nursery() as nursery,
    ):

        async def come_and_go() -> None:
            while True:
                handles = await pool.fan_out(SpawnConfig(MANIFEST, "say x") for _ in range(20))
                for one in handles:
                    await one.wait()
                await trio.sleep(0.05)

        held = await pool.fan_out(SpawnConfig(MANIFEST, "sleep 600") for _ in range(1000))
        nursery.start_soon(come_and_go)
        yield pool, [one.agent_id for one in held]
        nursery.cancel_scope.cancel()
        pool.abort_all("measured")


async def messages(cluster: Cluster) -> None:
    """Say how long messages take under load, and beside senders that wait for a full inbox."""
    async with under_load(cluster) as (pool, agents):
        took: list[float] = []

        async def send_to(some: list[int]) -> None:
            took.clear()
            for one in some:
                began = time.perf_counter()
                await pool[one].send("hi")
                took.append(time.perf_counter() - began)
                await trio.sleep(0.002)

        await send_to(agents)
        say(f"a message under load: {middle_and_99th(took)}")
        async with trio.open_nursery() as nursery:
            for _ in range(1064):
                nursery.start_soon(pool[agents[0]].send, "hi")
            await trio.sleep(0.5)
            await send_to(agents[1:])
            say(f"beside 1,000 senders that wait for one inbox: {middle_and_99th(took)}")
            nursery.cancel_scope.cancel()
        took.clear()
        for _ in range(300):
            began = time.perf_counter()
            await pool.spawn(SpawnConfig(MANIFEST, 'call tell {"recipient": 0, "text": "x"}'))
            await pool.receive_many()
            took.append(time.perf_counter() - began)
        say(f"from an agent's spawn to its message, by a tool on a node: {middle_and_99th(took)}")


async def measure(address: str) -> None:
    """Say all of it."""
    async with open_cluster(
        MODEL, address=address, manifests=[MANIFEST], lease_seconds=30.0,
        tools=None,
    ) as cluster:  # fmt: skip
        await all_work(cluster)
        await compare(cluster)
        await wait_and_abort(cluster)
    async with open_cluster(
        MODEL, address=address, manifests=[MANIFEST], lease_seconds=30.0,
        tools="tests.support.node_work:TOOLS",
    ) as cluster:  # fmt: skip
        await all_work(cluster)
        await messages(cluster)


async def all_work(cluster: Cluster) -> None:
    """Wait until every node works."""
    while any(one.state is not NodeState.WORKING for one in cluster.nodes()):  # noqa: ASYNC110
        await trio.sleep(0.1)


def main() -> None:
    """Start the cluster, and measure in a process of its own."""
    if len(sys.argv) > 1:
        trio.run(measure, sys.argv[1])
        return
    with ray_cluster("w0", "w1", "w2") as cluster:
        words = (sys.executable, "-m", "tests.cluster.rates", cluster.address)
        subprocess.run(words, cwd=ROOT, env=environment(), timeout=900, check=True)


if __name__ == "__main__":
    main()
