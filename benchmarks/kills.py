"""Kills a recorded pool many times, and counts the agents that its trace has lost.

    python benchmarks/kills.py --kills 200

Promised is that every agent is in the file that was spawned 50 ms before the kill. Each kill
is of a process of its own, at a random moment, while agents are spawned, run and end; in half
of them the pool's own thread is busy all the time.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import struct
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import trio

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.observe import AgentSpawned, Event, TraceWriter, read_trace

PROMISED_SECONDS: Final = 0.05
SPAWNED: Final = struct.Struct("qd")
"""An agent, and when it had been spawned."""


async def answer(_: CompletionRequest) -> str:
    """Answer after a while."""
    await trio.sleep(0.02)
    return "hi"


async def spawn(path: str, pipe: int, *, busy: bool) -> None:
    """Spawn agents until the kill, and say so in *pipe*."""
    async with (
        TraceWriter(path) as trace,
        open_pool(FunctionDriver(answer), observers=[trace], max_concurrent=4) as pool,
    ):
        while True:
            handle = await pool.spawn(SpawnConfig(AgentManifest(name="a"), "hello"))
            os.write(pipe, SPAWNED.pack(handle.agent_id, time.monotonic()))
            if busy:
                until = time.monotonic() + 0.005
                while time.monotonic() < until:
                    pass
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(0.005)


def kill_one(path: str, seconds: float, *, busy: bool) -> tuple[float, list[tuple[int, float]]]:
    """Run a process for *seconds*, kill it; return when, and what it had spawned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            trio.run(partial(spawn, path, writing, busy=busy))
        finally:
            os._exit(1)
    os.close(writing)
    data = os.read(reading, SPAWNED.size)  # it runs
    time.sleep(seconds)
    killed_at = time.monotonic()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(reading, 65536):
        data += piece
    os.close(reading)
    whole = len(data) // SPAWNED.size * SPAWNED.size
    return killed_at, list(SPAWNED.iter_unpack(data[:whole]))


def kept_events(path: str) -> tuple[Event, ...]:
    """Return what the trace at *path* has: nothing, if the kill came before the first write."""
    return read_trace(path).events if Path(path).stat().st_size else ()


def main() -> None:
    """Kill as often as the command line says, and print what was lost."""
    parser = argparse.ArgumentParser(description="Kill a recorded pool, and count what is lost.")
    parser.add_argument("--kills", type=int, default=200)
    kills = parser.parse_args().kills
    chance = random.Random(1)  # noqa: S311  # no secret
    agents = lost = killed_with_loss = 0
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "killed.trace")
        for number in range(kills):
            seconds = 0.06 + chance.random() * 0.3
            killed_at, spawned = kill_one(path, seconds, busy=number % 2 == 1)
            events = kept_events(path)
            kept = {event.agent_id for event in events if isinstance(event, AgentSpawned)}
            ages = [killed_at - at for agent_id, at in spawned if agent_id not in kept]
            late = [age for age in ages if age >= PROMISED_SECONDS]
            agents, lost = agents + len(spawned), lost + len(late)
            killed_with_loss += bool(late)
            worst = max(worst, *ages, 0.0)
    print(
        f"{kills} kills, {agents} agents: {killed_with_loss} kills lost {lost} agents that "
        f"were spawned {PROMISED_SECONDS * 1000:g} ms before; the oldest that was lost was "
        f"spawned {worst * 1000:.1f} ms before"
    )


if __name__ == "__main__":
    main()
