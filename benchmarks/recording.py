"""What recording costs: W1 and W3 with a model that takes 20 ms, without and with a trace.

    python benchmarks/recording.py --rounds 10

W1 is many agents with one request each, 100 at a time and then one after the other; W3 is one
agent with a tool call in each turn. Off and on take turns in one process, and the least of
all rounds counts: what else a machine does only adds to it.

Three figures, since "percent of CPU" can mean three things:

- *share of a processor*: what recording adds, of the time on the clock;
- *of model and pool*: what it adds, of the processor time that the pool takes together with
  a model that computes for 20 ms a request, as a local one does;
- *of the pool alone*: what it adds, of the processor time of the pool, whose model only
  sleeps. That is the overhead of recording compared with a pool that does nothing else.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, final

import attrs
import trio

from agentpool import AgentManifest, ResourceQuota, SpawnConfig, open_pool
from agentpool.abc import Completion, CompletionRequest, Observer
from agentpool.drivers import FinishReason, FunctionDriver, ToolCall
from agentpool.observe import TraceWriter
from agentpool.tools import ToolRegistry, tool

THINKS_SECONDS: Final = 0.02


@final
@attrs.define(eq=False)
class Model:
    """Takes 20 ms, and asks for a tool in all turns but the last."""

    turns: int
    turn: int = 0

    async def answer(self, _: CompletionRequest) -> Completion:
        """Answer."""
        await trio.sleep(THINKS_SECONDS)
        self.turn += 1
        if self.turn % self.turns == 0:
            return Completion("done")
        call = ToolCall(f"c{self.turn}", "noop", f'{{"x": {self.turn}}}')
        return Completion("", (call,), FinishReason.TOOL_USE)


@tool
async def noop(x: int) -> str:  # noqa: ARG001  # a model has something to write
    """Do nothing.

    Args:
        x: Any number.
    """
    await trio.lowlevel.checkpoint()
    return "ok"


async def run(agents: int, turns: int, slots: int, path: Path | None) -> None:
    """Run *agents* with so many turns each; record them at *path*, if there is one."""
    quota = ResourceQuota(max_iterations=1_000_000, max_tool_calls=1_000_000)
    async with AsyncExitStack() as stack:
        observers: list[Observer] = []
        if path is not None:
            observers.append(await stack.enter_async_context(TraceWriter(path)))
        driver = FunctionDriver(Model(turns).answer)
        pool = await stack.enter_async_context(
            open_pool(
                driver,
                tools=ToolRegistry([noop]),
                max_concurrent=slots,
                max_queued=agents,
                observers=observers,
            )
        )
        manifest = AgentManifest(resources=quota)
        pool.fan_out_nowait(SpawnConfig(manifest, "go") for _ in range(agents))
        for outcome in (await pool.join_all()).values():
            outcome.unwrap()


def measure(name: str, agents: int, turns: int, slots: int, rounds: int) -> None:
    """Print what recording adds to one workload."""
    requests = agents * turns
    off, on, clock = float("inf"), float("inf"), float("inf")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.trace"
        for _ in range(rounds):
            cpu, wall = taken(agents, turns, slots, None)
            off, clock = min(off, cpu / requests), min(clock, wall / requests)
            cpu, _ = taken(agents, turns, slots, path)
            on = min(on, cpu / requests)
    added = on - off
    shares = (added / clock, added / (off + THINKS_SECONDS), added / off)
    print(
        f"{name}: {off * 1e6:.0f} µs a request off, {on * 1e6:.0f} on, {added * 1e6:.0f} added; "
        "share of a processor {:.1%}, of model and pool {:.1%}, of the pool alone {:.0%}".format(
            *shares
        )
    )


def taken(agents: int, turns: int, slots: int, path: Path | None) -> tuple[float, float]:
    """Return the time that a processor and the clock took for a run."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    trio.run(run, agents, turns, slots, path)
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Measure all workloads."""
    parser = argparse.ArgumentParser(description="Print what recording costs.")
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    measure("W1, 100 slots", 1000, 1, 100, rounds)
    measure("W1, one slot", 50, 1, 1, rounds)
    measure("W3", 1, 50, 1, rounds)


if __name__ == "__main__":
    main()
