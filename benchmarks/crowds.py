"""What holds in crowds: reports, one small inbox, rings of questions, and owners who wait in vain.

``python -m benchmarks.crowds`` measures the five and prints a table. Seconds are those of the
processor; the clock of the pools is a virtual one, so that no deadline is waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

import trio
from meter import Parser
from trio.testing import MockClock

from agentpool import (
    AgentGoneError,
    AgentManifest,
    AgentPool,
    Capability,
    CapabilityKind,
    DeadlockError,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import Tool
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FunctionDriver,
    ToolMessage,
    UserMessage,
    call,
)
from agentpool.tools import TEAM_TOOLS, ToolContext, ToolRegistry, tool

TEAM = AgentManifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2)))


def obey(request: CompletionRequest) -> Completion | str:
    """Call the tool that the query names, with its number, and end with what came of it."""
    results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
    if results:
        return results[0] or "nothing"
    query = next(one.text for one in request.messages if isinstance(one, UserMessage))
    word, _, number = query.partition(" ")
    match word:
        case "report":
            return call("send_message", to=0, content=number)
        case "tell":
            return call("send_message", to=1, content=number)
        case "ask":
            return call("ask_agent", to=int(number), question="?")
        case "wait":
            return call("wait_for_message")
        case _:
            return call(word, to=int(number))


def config(query: str) -> SpawnConfig:
    """Return an agent of the team."""
    return SpawnConfig(TEAM, query)


def pool_of(
    slots: int, *more: Tool, max_queued: int = 100_000, inbox_capacity: int = 32
) -> AbstractAsyncContextManager[AgentPool]:
    """Open a pool of such agents."""
    tools = ToolRegistry([*TEAM_TOOLS, *more])
    return open_pool(
        FunctionDriver(obey),
        tools=tools,
        max_concurrent=slots,
        max_queued=max_queued,
        inbox_capacity=inbox_capacity,
    )


async def reports(count: int = 1_000) -> str:
    """Let *count* agents report to an owner who reads slower than they write."""
    heard: set[str] = set()
    async with pool_of(count) as pool:
        await pool.fan_out([config(f"report {n}") for n in range(count)])
        while len(heard) < count:
            heard |= {message.content for message in await pool.receive_many()}
            await trio.sleep(1)
        await pool.join_all()
    return f"{len(heard):,} of {count:,} heard, inbox of 32"


async def senders(count: int = 10_000) -> str:
    """Let *count* agents send to one agent with an inbox of one message."""
    heard = 0

    @tool(timeout_seconds=math.inf)
    async def read(context: ToolContext, to: int) -> str:
        """Read so many messages."""
        nonlocal heard
        while heard < to:
            heard += len(await context.agent.receive_many())
        return "read"

    async with pool_of(count + 1, read, inbox_capacity=1) as pool:
        await pool.spawn(config(f"read {count}"))
        await pool.fan_out([config(f"tell {n}") for n in range(count)])
        await pool.join_all()
    return f"{heard:,} of {count:,} heard, inbox of 1"


async def ring(count: int, limit: float) -> str:
    """Let *count* agents ask each other in a ring; return what they were told, and how soon."""
    asked_at, took, named, late = 0.0, 0.0, "", 0

    @tool(timeout_seconds=math.inf)
    async def go(context: ToolContext, to: int) -> str:
        """Ask the next one, after all before it."""
        nonlocal asked_at, took, named, late
        await trio.sleep(context.agent_id)
        asked_at = time.thread_time()
        with trio.move_on_after(limit) as scope, suppress(AgentGoneError):
            try:
                await context.agent.ask(to, "?")
            except DeadlockError as error:
                took = time.thread_time() - asked_at
                named = str(error)
        late += scope.cancelled_caught
        return "went on"

    async with pool_of(count, go) as pool:
        await pool.fan_out([config(f"go {n % count + 1}") for n in range(1, count + 1)])
        outcomes = await pool.join_all()
    ended = sum(one.text == "went on" for one in outcomes.values())
    if limit < math.inf:
        return f"{ended:,} of {count:,} went on, {late:,} at their deadlines, none told of a circle"
    return f"a circle of {named.count(' asks '):,} named in {took:.3f} s"


async def _fill(pool: AgentPool) -> None:
    handle = await pool.spawn(config("ask 0"))
    while True:
        await handle.send("more")


async def _after(then: Callable[[AgentPool], Awaitable[object]], pool: AgentPool) -> None:
    await pool.fan_out([config("wait"), config("wait")])
    await then(pool)


async def _leave(_: AgentPool) -> None:
    await trio.lowlevel.checkpoint()


async def _each(pool: AgentPool) -> None:
    async for _ in pool.as_completed():
        pass


async def _map(pool: AgentPool) -> None:
    async with pool.map(TEAM, ["wait"] * 3) as outcomes:
        async for _ in outcomes:
            pass


OWNERS: dict[str, Callable[[AgentPool], Awaitable[object]]] = {
    "the end of the block": partial(_after, _leave),
    "`join_all`": partial(_after, lambda pool: pool.join_all()),
    "`join_next`": partial(_after, lambda pool: pool.join_next()),
    "`as_completed`": partial(_after, _each),
    "`wait`": partial(_after, lambda pool: pool[1].wait()),
    "`receive_many`": partial(_after, lambda pool: pool.receive_many()),
    "`ask`": partial(_after, lambda pool: pool[1].ask("?")),
    "`send`": _fill,
    "`map`": _map,
    "`race`": lambda pool: pool.race([config("wait"), config("wait")]),
    "`supervise`": lambda pool: pool.supervise([config("wait"), config("wait")]),
}
"""The ways in which an owner can wait."""


async def owner(way: str) -> str:
    """Let an owner wait where nobody can go on; return how long that was."""
    start = trio.current_time()
    async with pool_of(2, max_queued=1, inbox_capacity=1) as pool:
        with suppress(AgentGoneError, DeadlockError):
            await OWNERS[way](pool)
    return f"over after {trio.current_time() - start:.0f} s of the clock"


def main() -> None:
    """Measure, and print a table."""
    Parser(description=(__doc__ or "").partition("\n\n")[0]).parse_args()
    rows: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("1,000 agents report to the owner", reports),
        ("10,000 senders to one inbox of 1", senders),
        ("a ring of 10,000 questions with deadlines", partial(ring, 10_000, 20_000)),
        ("a circle of 1,000", partial(ring, 1_000, math.inf)),
        *((f"the owner waits in {way}, nobody can go on", partial(owner, way)) for way in OWNERS),
    ]
    print("| what | came of it | processor |\n|---|---|---|")
    for what, run in rows:
        begin = time.process_time()
        came = trio.run(run, clock=MockClock(autojump_threshold=0))
        print(f"| {what} | {came} | {time.process_time() - begin:.2f} s |", flush=True)


if __name__ == "__main__":
    main()
