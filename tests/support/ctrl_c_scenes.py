"""Short programs that together make most calls of a pool, to be interrupted at each of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    AgentPool,
    Budget,
    Capability,
    CapabilityKind,
    RestartPolicy,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import Observer, OnDelta
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FunctionDriver,
    GatedDriver,
    RateLimitError,
    RequestGate,
    call,
    say,
)
from agentpool.journal import InMemoryJournal
from agentpool.tools import TEAM_TOOLS, Approved, ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    calling,
    job,
    jobs,
    manifest,
    query_of,
    results_of,
    tool_call,
)

Pools: TypeAlias = list[AgentPool]
"""The pools that a program has opened, for the test to look at."""
Scene: TypeAlias = Callable[[Pools, Sequence[Observer]], Awaitable[None]]

TEAM: Final = (Capability(CapabilityKind.MESSAGE), Capability.spawn(3))


async def answer(request: CompletionRequest) -> Completion:
    """Call the tool that the query names, once; answer anything else."""
    await trio.lowlevel.checkpoint()
    query = query_of(request)
    if results_of(request):
        return say("ok")
    if query == "slow":
        await trio.sleep(5)
    if query == "broken":
        raise ValueError(query)
    if query.startswith("use "):
        return calling(*(tool_call(name, f"c{at}") for at, name in enumerate(query.split()[1:])))
    return say("ok")


async def fan(pools: Pools, observers: Sequence[Observer]) -> None:
    """Spawn, cancel, join and abort, with more agents than slots."""
    async with open_pool(
        FunctionDriver(answer, record=False), max_concurrent=2, max_queued=3, observers=observers
    ) as pool:
        pools.append(pool)
        handles = await pool.fan_out(jobs(*["q"] * 6))
        handles[5].cancel()
        await pool.join_next()
        await handles[4].wait()
        await pool.spawn(job("q"))
        handles[0].forget()
        async for _ in pool.as_completed():
            pass
        pool.fan_out_nowait(jobs("q", "slow"))
        pool.max_concurrent = 3
        await pool.join_all()
        await pool.fan_out(jobs(*["slow"] * 4))
        await pool.shutdown(grace_seconds=1)


async def maps(pools: Pools, observers: Sequence[Observer]) -> None:
    """Map over sources of all kinds, to the end and not."""

    async def stream() -> AsyncGenerator[str]:  # noqa: ASYNC900  # a source of queries
        for at in range(3):
            await trio.sleep(at)
            yield "q"

    async with open_pool(
        FunctionDriver(answer, record=False), max_concurrent=2, observers=observers
    ) as pool:
        pools.append(pool)
        async with pool.map(manifest(), ["q"] * 3, stream(), ordered=True) as outcomes:
            async for _ in outcomes:
                pass
        async with pool.map(manifest(), ["broken", "q", "q"], retries=1) as outcomes:
            async for _ in outcomes:
                pass
        async with pool.map(manifest(), ["q", "slow", "q", "slow"]) as outcomes:
            async for _ in outcomes:
                break


async def races(pools: Pools, observers: Sequence[Observer]) -> None:
    """Race and supervise."""
    async with open_pool(
        FunctionDriver(answer, record=False), max_concurrent=2, observers=observers
    ) as pool:
        pools.append(pool)
        await pool.race(jobs("slow", "q", "slow"))
        policy = RestartPolicy(max_restarts=3, max_restarts_each=1)
        await pool.supervise(jobs("q", "broken", "slow"), policy)


async def families(pools: Pools, observers: Sequence[Observer]) -> None:
    """Have children, several tools at a time, and tools that take too long."""

    @tool
    async def child(context: ToolContext) -> str:
        """Have a child."""
        return (await context.agent.run_child(job("q"))).text

    @tool
    async def many(context: ToolContext) -> str:
        """Run others in all the ways there are."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.race, jobs("q", "slow"))
            async with pool.map(manifest(), ["q"] * 2) as outcomes:
                async for _ in outcomes:
                    pass
        async with context.agent.without_slot("a while"):
            await trio.sleep(1)
        for one in await pool.fan_out(jobs("q", "q")):
            await one.wait()
        return "done"

    @tool(timeout_seconds=2)
    async def late(context: ToolContext) -> str:
        """Take too long."""
        await trio.sleep(9)
        return context.call_id

    async with open_pool(
        FunctionDriver(answer, record=False),
        max_concurrent=1, observers=observers, tools=ToolRegistry([child, many, late]),
    ) as pool:  # fmt: skip
        pools.append(pool)
        worker = manifest(capabilities=TEAM, request_seconds=30, run_seconds=90)
        await pool.fan_out(
            SpawnConfig(worker, f"use {names}")
            for names in ("child", "many", "late", "child late child")
        )
        await pool.join_all()


async def letters(pools: Pools, observers: Sequence[Observer]) -> None:
    """Send, ask, listen, and wait for room."""

    def reply(request: CompletionRequest) -> Completion:
        if results_of(request):
            return say("ok")
        if query_of(request) == "listen":
            return call("wait_for_message")
        return call("send_message", to=1, text="hi")

    @tool
    async def echo(context: ToolContext) -> str:
        """Answer all that ask."""
        for message in await context.agent.receive_many():
            await context.agent.send(message.sender, "yes", reply_to=message.message_id)
        return "done"

    def choose(request: CompletionRequest) -> Completion:
        return say("ok") if results_of(request) else call("echo")

    tools, team = ToolRegistry([*TEAM_TOOLS, echo]), manifest(capabilities=TEAM)
    async with open_pool(
        lambda one: FunctionDriver(choose if one.name == "echo" else reply, record=False),
        tools=tools, inbox_capacity=1, max_concurrent=2, observers=observers,
    ) as pool:  # fmt: skip
        pools.append(pool)
        await pool.fan_out(SpawnConfig(team, query) for query in ("listen", "send", "send"))
        await pool[1].send("hello")
        other = await pool.spawn(SpawnConfig(manifest("echo", capabilities=TEAM), "echo"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.receive_many)
            await other.ask("there?")
            await pool.broadcast("bye")
            nursery.cancel_scope.cancel()
        with pool.events() as events:
            await pool.spawn(job("q"))
            async for _ in events:
                break
        await pool.join_all()


async def limits(pools: Pools, observers: Sequence[Observer]) -> None:
    """Wait for a budget and a gate, try again, ask for approval, and read what is written."""
    tries = 0

    async def dictate(request: CompletionRequest, on_delta: OnDelta) -> Completion | str:
        nonlocal tries
        tries += 1
        if tries % 3 == 1:
            raise RateLimitError("not now", retry_after_seconds=1)
        for word in ("one ", "two"):
            on_delta(word)
            await trio.sleep(0.1)
        if query_of(request) == "use act" and not results_of(request):
            return call("act")
        return "one two"

    @tool
    async def act() -> str:
        """Act."""
        await trio.sleep(0.1)
        return "done"

    async def approve(_: object) -> Approved:
        await trio.sleep(1)
        return Approved()

    gate = RequestGate(max_in_flight=1, random_seed=0)
    async with open_pool(
        GatedDriver(LiveDriver(dictate), gate), max_concurrent=2, observers=observers,
        budget=Budget(requests=6, tokens=10_000), tools=ToolRegistry([act]), approve=approve,
        random_seed=0,
    ) as pool:  # fmt: skip
        pools.append(pool)
        worker = manifest(request_seconds=30)
        handles = await pool.fan_out(
            SpawnConfig(worker, query) for query in ("use act", "q", "q", "q")
        )
        with handles[1].stream() as pieces:
            async for _ in pieces:
                pass
        await pool.join_all()


async def journals(pools: Pools, observers: Sequence[Observer]) -> None:
    """Write a journal, and go on with it."""

    @tool
    async def child(context: ToolContext) -> str:
        """Have a child."""
        return (await context.agent.run_child(job("q"))).text

    journal = InMemoryJournal()
    for _ in range(2):
        async with open_pool(
            FunctionDriver(answer, record=False), max_concurrent=2, observers=observers,
            tools=ToolRegistry([child]), journal=journal, resume=True,
        ) as pool:  # fmt: skip
            pools.append(pool)
            worker = manifest(capabilities=TEAM)
            await pool.fan_out(SpawnConfig(worker, f"use {names}")
                               for names in ("child", "child child"))  # fmt: skip
            async with pool.map(manifest(), ["q"] * 2) as outcomes:
                async for _ in outcomes:
                    pass
            await pool.join_all()


async def pools_in_tools(pools: Pools, observers: Sequence[Observer]) -> None:
    """Open a pool in an agent of another."""

    @tool
    async def inner() -> str:
        """Open a pool."""
        async with open_pool(FunctionDriver(answer, record=False), max_concurrent=1) as within:
            pools.append(within)
            await within.fan_out(jobs("q", "q"))
            async with within.map(manifest(), ["q"]) as outcomes:
                async for _ in outcomes:
                    pass
            await within.join_all()
        return "done"

    async with open_pool(
        FunctionDriver(answer, record=False), max_concurrent=2, observers=observers,
        tools=ToolRegistry([inner]),
    ) as pool:  # fmt: skip
        pools.append(pool)
        await pool.fan_out(jobs("use inner", "q", "use inner"))
        await pool.join_all()


SCENES: Final[Sequence[Scene]] = (
    fan, maps, races, families, letters, limits, journals, pools_in_tools,
)  # fmt: skip
