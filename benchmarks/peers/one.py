"""Measure one contender at one workload, and print one line of JSON.

    python benchmarks/peers/one.py agno agents --n 1000

Runs in the environment of the contender, so it needs nothing but Python. The model is a
fake that yields to the loop once for each request; the same one for every contender. A
warm-up comes first and does not count.

| workload | what one operation is |
|---|---|
| `agents` | an agent that asks once, 100 at once |
| `turns` | a turn of one agent: a request that calls a tool, and the call |
| `abort` | ending an agent that waits for its model |
| `memory` | an agent that waits for its model; bytes of the process |
| `import` | importing the package; in milliseconds |
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

Ask: TypeAlias = Callable[[], Awaitable[None]]
"""What the fake model does before it answers."""

Run: TypeAlias = Callable[[], Awaitable[object]]
"""Runs one agent from its question to its answer."""

Runner: TypeAlias = Callable[[Ask, int], Run]
"""Makes the runs of one agent from its model and how often that calls a tool."""

AT_ONCE = 100
WARM_UP = 20


class Meter:
    """What the measured part took."""

    def __init__(self, operations: int) -> None:
        """Measure *operations* of them."""
        self.operations = operations
        self.found: dict[str, float | str] = {}

    @contextlib.contextmanager
    def running(self) -> Generator[None, None, None]:
        """Count the CPU time inside of the block."""
        gc.collect()
        cpu = time.process_time()
        yield
        self.found["cpu_us"] = (time.process_time() - cpu) / self.operations * 1e6

    @contextlib.contextmanager
    def growing(self) -> Generator[None, None, None]:
        """Count by how many bytes the process grows inside of the block."""
        gc.collect()
        before = resident_bytes()
        yield
        self.found["bytes"] = (resident_bytes() - before) / self.operations


class Model:
    """Counts the requests that it holds."""

    def __init__(self) -> None:
        """Hold none."""
        self.holds = 0

    async def at_once(self) -> None:
        """Answer after one turn of the loop."""
        await asyncio.sleep(0)

    async def never(self) -> None:
        """Hold the request until its caller gives up."""
        self.holds += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.holds -= 1


def resident_bytes() -> int:
    """Return how much memory this process holds, from the kernel's own count."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def agents(runner: Runner, n: int, meter: Meter) -> None:
    """Run *n* agents that ask once."""
    run = runner(Model().at_once, 0)
    free = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with free:
            await run()

    await asyncio.gather(*(one() for _ in range(WARM_UP)))
    with meter.running():
        await asyncio.gather(*(one() for _ in range(n)))


async def turns(runner: Runner, n: int, meter: Meter) -> None:
    """Run one agent that calls a tool *n* times."""
    await runner(Model().at_once, 2)()
    run = runner(Model().at_once, n)
    with meter.running():
        await run()


async def held(model: Model, runner: Runner, n: int) -> list[asyncio.Task[object]]:
    """Start *n* agents and return their tasks when all wait for *model*."""
    run = runner(model.never, 0)

    async def one() -> object:
        return await run()

    tasks = [asyncio.create_task(one()) for _ in range(n)]
    while model.holds < n:
        for task in tasks:
            if task.done():
                raise RuntimeError(f"an agent ended before its model answered: {task!r}")
        await asyncio.sleep(0.01)
    return tasks


async def abort(runner: Runner, n: int, meter: Meter) -> None:
    """End *n* agents that wait for their model."""
    model = Model()
    tasks = await held(model, runner, n)
    with meter.running():
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.2)
    meter.found["left"] = model.holds


async def memory(runner: Runner, n: int, meter: Meter) -> None:
    """Hold *n* agents that wait for their model."""
    model = Model()
    await runner(model.at_once, 0)()
    with meter.growing():
        tasks = await held(model, runner, n)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def imported(statement: str) -> float:
    """Return how many milliseconds of CPU time *statement* takes."""
    code = f"import time; t = time.process_time(); {statement}; print(time.process_time() - t)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout) * 1e3


WORKLOADS = {"agents": agents, "turns": turns, "abort": abort, "memory": memory}


def measure(contender: ModuleType, workload: str, n: int) -> dict[str, float | str]:
    """Measure *workload* of the contender, which may have a way of its own."""
    meter = Meter(n)
    if workload == "import":
        meter.found["ms"] = imported(contender.IMPORT)
    elif hasattr(contender, workload):
        getattr(contender, workload)(n, meter)
    else:
        asyncio.run(WORKLOADS[workload](contender.runner, n, meter))
    package = contender.PACKAGE
    meter.found["version"] = importlib.metadata.version(package) if package else ""
    return meter.found


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("contender", help="such as agno: the module with_agno beside this file")
    parser.add_argument("workload", choices=[*WORKLOADS, "import"])
    parser.add_argument("--n", type=int, default=1000, help="operations (default 1000)")
    options = parser.parse_args()
    contender = importlib.import_module(f"with_{options.contender}")
    print(json.dumps(measure(contender, options.workload, options.n)))


if __name__ == "__main__":
    main()
