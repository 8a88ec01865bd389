"""A pool in which everything goes wrong that a report must find, each thing once."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agentpool import Budget, Capability, CapabilityKind, SpawnConfig, Usage, open_pool
from agentpool.abc import Observer, OnDelta, ToolContext
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FallbackDriver,
    FinishReason,
    NetworkError,
    OverloadedError,
)
from agentpool.tools import ApprovalRequest, Denied, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, manifest, query_of, tool_call, turns_of

TITLES = (
    "A tool failed", "Budget spent", "Call refused", "Cancelled", "Dead letter", "Deadlock",
    "Failed first", "Fallback", "Request retried", "Stopped",
)  # fmt: skip
"""What a report calls them."""

CHILDREN = manifest(
    "planner", capabilities=(Capability(CapabilityKind.SPAWN, max_depth=2),), tool_seconds=None
)


@tool(needs_approval=True)
def erase(place: str) -> str:
    """Erase something."""
    return f"erased {place}"


@tool
async def ask(agent_id: int, context: ToolContext) -> str:
    """Ask an agent and wait for its answer."""
    return (await context.agent.ask(agent_id, "What do you think?")).content


@tool
async def delegate(context: ToolContext) -> str:
    """Let two helpers work, and wait for them."""
    outcomes: list[str] = []

    async def help_with(name: str) -> None:
        helper = SpawnConfig(manifest("helper"), "dig", name=name)
        outcomes.append((await context.agent.run_child(helper)).text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(help_with, "helper a")
        nursery.start_soon(help_with, "helper b")
    return "".join(outcomes)


class Tries:
    """Counts attempts."""

    count = 0


async def troubled_pool(observers: Sequence[Observer]) -> None:
    """Run it."""
    tries = Tries()

    async def first(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        query, turn = query_of(request), turns_of(request)
        await trio.sleep(0.4)
        if query == "translate":
            raise NetworkError("the line to the first provider is dead", retryable=False)
        if query == "index" and tries.count == 0:
            tries.count += 1
            raise OverloadedError("too many requests")
        if query == "verify":
            raise LookupError("the archive has no page 12")
        calls = {
            "argue": ("ask", {"agent_id": 2}),
            "object": ("ask", {"agent_id": 1}),
            "clean up": ("erase", {"place": "the archive"}),
            "plan": ("delegate", {}),
        }
        if turn == 0 and query in calls:
            name, arguments = calls[query]
            call = tool_call(name, "call-1", **arguments)  # type: ignore[arg-type]  # plain JSON
            return calling(call, text="Let me see.", usage=Usage(900, 40))
        if query in {"dig", "wait"}:
            on_delta("I dig")
            await trio.sleep(3600)
        on_delta("Here is ")
        await trio.sleep(0.6)
        usage = Usage(2_000 if query == "read a lot" else 300, 60)
        return Completion("Here is what I found.", (), FinishReason.END_TURN, usage, "m-1", 0.002)

    async def second(_: CompletionRequest, on_delta: OnDelta) -> Completion:
        on_delta("Hier ")
        await trio.sleep(0.5)
        return Completion("Hier, bitte.", usage=Usage(200, 30), model="m-2", cost_usd=0.004)

    async def decide(_: ApprovalRequest) -> Denied:
        await trio.sleep(1.5)
        return Denied("the archive stays", by="kim")

    small = Budget(requests=1, name="reading")
    plain = LiveDriver(first)
    careful = FallbackDriver(plain, LiveDriver(second))
    async with open_pool(
        lambda of: careful if of.name == "translator" else plain,
        max_concurrent=6,
        max_queued=100,
        tools=ToolRegistry([erase, ask, delegate]),
        approve=decide,
        observers=observers,
        name="archive",
        random_seed=1,
    ) as pool:
        work = [("critic", "argue"), ("author", "object"), ("translator", "translate"),
                ("indexer", "index"), ("cleaner", "clean up"), ("checker", "verify")]  # fmt: skip
        handles = await pool.fan_out(
            SpawnConfig(manifest(n, tool_seconds=None), q, name=n) for n, q in work
        )
        planner = await pool.spawn(SpawnConfig(CHILDREN, "plan", name="planner"))
        readers = await pool.fan_out(
            SpawnConfig(manifest(), "read a lot", name=f"reader {n}", budget=small) for n in (1, 2)
        )
        waiter = await pool.spawn(SpawnConfig(manifest(), "wait", name="sleeper"))
        for handle in (*handles, *readers):
            await handle.wait()
        await trio.sleep(1)
        await waiter.send("are you still there?")
        waiter.cancel("nobody needs it")
        planner.cancel("the plan is dropped")
        await pool.join_all(children=True)
