"""Tasks that observers start, and calls that they make, are the owner's in every pool."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.testing import MockClock

from agentpool import AgentManifest, AgentPool, AgentStatus, PrivacyTier, SpawnConfig, open_pool
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.observe import AgentFinished, AgentSpawned, Event, Observer, RequestStarted
from agentpool.testing import explore
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import calling, job, manifest, query_of, results_of, tool_call

LAX = AgentManifest(name="lax", capabilities=(), privacy=PrivacyTier.STANDARD)


class Reacting(Observer):
    """Calls a function with each event."""

    def __init__(self, react: Callable[[Event], None]) -> None:
        """React with *react*."""
        self.react = react

    def on_event(self, event: Event) -> None:
        """React."""
        self.react(event)


async def _reacts() -> None:
    """Write, and spawn, in tasks that are started when an agent asks and when it has ended."""
    senders, parents = list[int](), list[int]()

    async def write(pool: AgentPool) -> None:
        senders.append((await pool.router.send(1, "from the observer")).sender)

    async def review(pool: AgentPool) -> None:
        handle = await pool.spawn(SpawnConfig(manifest(), "review"))
        parents.append(handle.parent_id)
        assert (await handle.wait()).status is AgentStatus.COMPLETED

    def react(event: Event) -> None:
        if isinstance(event, RequestStarted) and event.agent_id == 2:
            around.start_soon(write, pools[0])
        if isinstance(event, AgentFinished) and event.agent_id == 2:
            around.start_soon(review, pools[0])

    async def answer(request: CompletionRequest) -> str:
        if query_of(request) == "wait":
            await trio.sleep(5)
        await trio.sleep(1)
        return "done"

    pools = list[AgentPool]()
    async with (
        open_pool(FunctionDriver(answer), observers=[Reacting(react)]) as pool,
        trio.open_nursery() as around,
    ):
        pools.append(pool)
        await pool.fan_out([job("wait"), job("quick")])
        await pool.join_all()
    assert (senders, parents) == ([0], [0])


def test_a_task_that_an_observer_starts_is_the_owners() -> None:
    """It wrote as the agent whose event it was, and was refused when that agent had ended."""
    explore(_reacts, schedules=8)


async def test_an_observer_of_one_pool_is_the_owner_in_another(autojump_clock: MockClock) -> None:
    """It wrote as the agent of the other pool whose tool called the first one."""
    seen = list[tuple[int, int]]()

    def react(event: Event) -> None:
        if isinstance(event, AgentSpawned):
            sent = outer.router.send_nowait(2, "from the observer")
            lax = outer.spawn_nowait(SpawnConfig(LAX, "it may be lax"))
            seen.append((sent.sender, lax.parent_id))

    @tool
    async def delegate(number: int) -> str:
        """Ask the other pool."""
        return (await (await inner.spawn(job(f"work {number}"))).wait()).text

    async def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "go" and not results_of(request):
            # Two calls at once: each is made in a task of its own.
            return calling(
                tool_call("delegate", "1", number=1), tool_call("delegate", "2", number=2)
            )
        await trio.sleep(1)
        return "done"

    async with (
        open_pool(FunctionDriver(lambda _: "done"), observers=[Reacting(react)]) as inner,
        open_pool(FunctionDriver(answer), tools=ToolRegistry([delegate])) as outer,
    ):
        await outer.fan_out([job("go"), job("wait")])
        await outer.join_all()
    assert seen == [(0, 0), (0, 0)]
