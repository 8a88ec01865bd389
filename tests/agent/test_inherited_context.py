"""What an agent inherits from whoever spawned it, or freed a slot for it, is never its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio
from trio.testing import MockClock

from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    SpawnConfig,
    UserMessage,
    as_bystander,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta, ToolContext
from agentpool.drivers import FallbackDriver, OverloadedError, ScriptedDriver, ToolMessage
from agentpool.tools import ToolRegistry
from tests.support.fakes import FakeTool, LiveDriver, calling, job, tool_call


@attrs.define(eq=False)
class Two:
    """The model of two agents, of which the first one's tool asks twice."""

    asked: list[str] = attrs.field(factory=list)
    """Who was asked for, each time."""
    refusals: int = 1
    """How often the first one's tool is refused."""
    spawn: Callable[[], Awaitable[object]] | None = None
    """Spawns the second one, when the tool of the first one asks."""

    async def fail(self, request: CompletionRequest, _: OnDelta) -> str:
        """Refuse."""
        self.note(request)
        await trio.lowlevel.checkpoint()
        raise OverloadedError("busy")

    async def answer(self, request: CompletionRequest, _: OnDelta) -> Completion:
        """Call a tool, then end."""
        who = self.note(request)
        await trio.sleep(1)
        if len(request.messages) > 2:
            return Completion("done")
        return calling(tool_call("consult" if who == "first" else "pause"))

    async def help_out(self, request: CompletionRequest, _: OnDelta) -> str:
        """Answer a tool, but not at first."""
        self.note(request)
        await trio.lowlevel.checkpoint()
        if self.spawn is not None:
            spawn, self.spawn = self.spawn, None
            await spawn()
        self.refusals -= 1
        if self.refusals >= 0:
            raise OverloadedError("busy")
        return "helped"

    def note(self, request: CompletionRequest) -> str:
        """Note who asks, and return it."""
        first = request.messages[0]
        assert isinstance(first, UserMessage)
        self.asked.append(first.text)
        return first.text

    async def consult(self, _: str, context: ToolContext) -> str:
        """Ask a model."""
        request = CompletionRequest([UserMessage("first")])
        return (await context.agent.complete(LiveDriver(self.help_out), request)).text

    def driver_of(self, manifest: AgentManifest) -> Driver:
        """Return a model for the first one, and a fallback for the second."""
        if manifest.name == "first":
            return LiveDriver(self.answer)
        return FallbackDriver(LiveDriver(self.fail), LiveDriver(self.answer), max_failures=100)


async def pause(_: str, context: ToolContext) -> str:
    """Wait, as a bystander, without a slot."""
    with as_bystander():
        async with context.agent.without_slot("a pause"):
            await trio.sleep(100)
    return "paused"


async def test_what_a_fallback_asks_counts_for_its_own_agent(autojump_clock: MockClock) -> None:
    """Also for an agent that is spawned by the driver that a tool of another one asks."""
    two, first = Two(), Budget(requests=100)
    second = Budget(parent=first)
    tools = ToolRegistry([FakeTool("consult", two.consult), FakeTool("pause", pause)])
    async with open_pool(two.driver_of, max_concurrent=1, budget=first, tools=tools) as pool:
        manifest = AgentManifest(name="second")
        child = SpawnConfig(manifest, "second", budget=second, outlives_parent=True)
        two.spawn = partial(pool.spawn, child)
        await pool.spawn(SpawnConfig(AgentManifest(name="first"), "first"))
        await pool.join_all()
        outcomes = (await pool.join_all()).values()
    assert [outcome.status for outcome in outcomes] == [AgentStatus.COMPLETED] * 2
    assert second.statistics().requests.committed == two.asked.count("second") == 4
    assert first.statistics().requests.committed == len(two.asked) == 8


async def test_no_agent_looks_on_because_of_another_one(autojump_clock: MockClock) -> None:
    """One that gets its first slot from a bystander may open a pool of its own."""

    async def open_one(_: str, context: ToolContext) -> str:  # it opens its own
        async with open_pool(ScriptedDriver(["inside"])) as inner:
            return (await (await inner.spawn(job())).wait()).text

    def driver_of(manifest: AgentManifest) -> Driver:
        return ScriptedDriver([calling(tool_call(manifest.name)), "done"])

    tools = ToolRegistry([FakeTool("pause", pause), FakeTool("open", open_one)])
    async with open_pool(driver_of, max_concurrent=1, tools=tools) as pool:
        names = ("pause", "open")
        await pool.fan_out(SpawnConfig(AgentManifest(name=name), "go") for name in names)
        outcomes = (await pool.join_all()).values()
    told = [[m.content for m in one.messages if isinstance(m, ToolMessage)] for one in outcomes]
    assert told == [["paused"], ["inside"]]
