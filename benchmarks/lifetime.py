"""The memory of agents: of one that is queued, waits or has ended, and of a pool that lives long.

    python benchmarks/lifetime.py
    python benchmarks/lifetime.py --agents 20000

The first table has bytes per agent without its config, counted where Python allocates them, beside
what they were at 5cff005 and the targets T4 and T13. The second follows a
pool that forgets what it has given out; it is flat if the last tenth of its agents left no
more behind than the second one, and otherwise the script exits with 1.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeAlias

import trio
from agents import NullDriver, SleepingDriver
from meter import Parser, at_least
from trio.testing import wait_all_tasks_blocked

from agentpool import AgentManifest, AgentPool, SpawnConfig, open_pool

COUNT = 2_000
"""Agents that are weighed at a time."""

KEPT = 100
"""Outcomes that the pool that lives long still knows."""

SLACK_KIB = 64
"""What a flat line may rise by: caches of Python's own come and go."""

Grow: TypeAlias = Callable[[AgentPool], Coroutine[object, object, None]]


def live_bytes() -> int:
    """Return what is allocated now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def start(pool: AgentPool, configs: Sequence[SpawnConfig]) -> None:
    """Spawn the agents, and wait until nothing moves."""
    await pool.fan_out(configs)
    await wait_all_tasks_blocked()


def configs_of(count: int) -> list[SpawnConfig]:
    """Make what the agents are to do. It is the user's, and not weighed."""
    manifest = AgentManifest()
    return [SpawnConfig(manifest, "go") for _ in range(count)]


async def weigh(name: str, driver: NullDriver, slots: int, before: str, at_most: int) -> None:
    """Print what each of the agents takes."""
    configs = configs_of(COUNT)
    async with open_pool(driver, max_concurrent=slots, max_queued=COUNT) as pool:
        empty = live_bytes()
        await start(pool, configs)
        print(f"| {name} | {before} | {(live_bytes() - empty) / COUNT:,.0f} | {at_most:,} |")
        pool.abort_all("weighed")
        await pool.join_all()


async def live_long(agents: int) -> bool:
    """Print what a pool takes as its agents come and go. Return whether that is flat."""
    manifest, step = AgentManifest(), agents // 10
    seen: list[int] = []
    async with open_pool(NullDriver(), keep_outcomes=KEPT, max_queued=step) as pool:
        before = live_bytes()
        for number in range(1, 11):
            await pool.fan_out(SpawnConfig(manifest, "go") for _ in range(step))
            async for _ in pool.as_completed():
                pass
            seen.append((live_bytes() - before) // 1024)
            print(f"| {number * step:,} | {seen[-1]:,} |", flush=True)
    return seen[-1] - seen[1] <= SLACK_KIB


async def main(agents: int) -> int:
    """Print both tables."""
    tracemalloc.start()
    await weigh_nothing()
    print("| an agent that | at 5cff005 | bytes now | at most |\n|---|---|---|---|")
    await weigh("T4: is queued", SleepingDriver(), 1, "-", 200)
    await weigh("T13: waits in its model", SleepingDriver(), COUNT, "8,414", 5_500)
    await weigh("T4: has ended, with outcome and conversation", NullDriver(), COUNT, "884", 400)
    print("\n| agents so far | KiB of the pool |\n|---|---|")
    return 0 if await live_long(agents) else 1


async def weigh_nothing() -> None:
    """Fill the caches."""
    async with open_pool(NullDriver(), max_queued=COUNT) as pool:
        await start(pool, configs_of(COUNT))
        await pool.join_all()


if __name__ == "__main__":
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--agents", type=at_least(10), default=100_000, help="default: %(default)s")
    sys.exit(trio.run(main, parser.parse_args().agents))
