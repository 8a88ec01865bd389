"""agentpool, as its README shows it: `open_pool`, `fan_out`, `join_all`, `@tool`, `abort_all`."""

from __future__ import annotations

import json

import trio
import trio.testing
from one import AT_ONCE, WARM_UP, Meter

from agentpool import AgentManifest, PrivacyTier, ResourceQuota, SpawnConfig, open_pool
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta
from agentpool.drivers import FinishReason, ToolCall
from agentpool.tools import ToolRegistry, tool

PACKAGE, IMPORT = "trio-agentpool", "import agentpool"


@tool
def add(x: int) -> int:
    """Add one."""
    return x + 1


class Fake(Driver):
    """Calls the tool as often as it is told, then answers; or holds every request."""

    def __init__(self, calls: int = 0, *, holds: bool = False) -> None:
        """Keep how often to call."""
        self.calls, self.holds, self.called = calls, holds, 0

    @property
    def context_window(self) -> int | None:
        """Unknown."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """This machine."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer after one turn of the loop."""
        if self.holds:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.called == self.calls:
            self.called = 0
            return Completion("done")
        self.called += 1
        call = ToolCall(f"c{self.called}", "add", json.dumps({"x": self.called}))
        return Completion("", (call,), FinishReason.TOOL_USE)


def agents(n: int, meter: Meter) -> None:
    """Run *n* agents that ask once."""

    async def several(count: int) -> None:
        config = SpawnConfig(AgentManifest(), "go")
        async with open_pool(Fake(), max_concurrent=AT_ONCE, max_queued=count) as pool:
            await pool.fan_out(config for _ in range(count))
            outcomes = await pool.join_all()
        assert len(outcomes) == count

    async def measured() -> None:
        await several(WARM_UP)
        with meter.running():
            await several(n)

    trio.run(measured)


def turns(n: int, meter: Meter) -> None:
    """Run one agent that calls a tool *n* times."""
    quota = ResourceQuota(max_iterations=10 * n + 10, max_tool_calls=10 * n + 10)

    async def one(count: int) -> None:
        manifest = AgentManifest(resources=quota)
        async with open_pool(Fake(count), tools=ToolRegistry([add])) as pool:
            handle = await pool.spawn(SpawnConfig(manifest, "go"))
            outcome = await handle.wait()
        assert outcome.unwrap() == "done", outcome

    async def measured() -> None:
        await one(2)
        with meter.running():
            await one(n)

    trio.run(measured)


def abort(n: int, meter: Meter) -> None:
    """End *n* agents that wait for their model."""

    async def all_of_them() -> None:
        async with open_pool(Fake(holds=True), max_concurrent=n, max_queued=n) as pool:
            await pool.fan_out(SpawnConfig(AgentManifest(), "go") for _ in range(n))
            await trio.testing.wait_all_tasks_blocked()
            with meter.running():
                pool.abort_all("measured")
                await pool.join_all()
        meter.found["left"] = pool.statistics().running

    trio.run(all_of_them)


def memory(n: int, meter: Meter) -> None:
    """Hold *n* agents that wait for their model."""

    async def all_of_them() -> None:
        async with open_pool(Fake(holds=True), max_concurrent=n, max_queued=n) as pool:
            with meter.growing():
                await pool.fan_out(SpawnConfig(AgentManifest(), "go") for _ in range(n))
                await trio.testing.wait_all_tasks_blocked()
            pool.abort_all("measured")

    trio.run(all_of_them)
