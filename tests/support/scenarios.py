"""Scenes for the testing kit: whole pools at work, each made anew for every run."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from agentpool import (
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import CompletionRequest, Driver, Observer
from agentpool.drivers import FunctionDriver, call, calls
from agentpool.drivers._scripted import Answer
from agentpool.memory import InMemoryMemory
from agentpool.tools import TEAM_TOOLS, ToolRegistry, memory_tools, tool
from tests.support.fakes import manifest, query_of, results_of, told, turns_of

TEAM = (
    Capability(CapabilityKind.MESSAGE),
    Capability(CapabilityKind.MEMORY),
    Capability.spawn(4),
)
"""What agents of a scene may do."""


def member(query: str, *, deadline_seconds: float | None = None) -> SpawnConfig:
    """Return an agent that works in a team, called what it is asked."""
    return SpawnConfig(
        manifest(capabilities=TEAM),
        query,
        name=query.partition(" ")[0],
        deadline_seconds=deadline_seconds,
    )


@tool
async def nap(seconds: float) -> str:
    """Sleep.

    Args:
        seconds: How long.
    """
    await trio.sleep(seconds)
    return "rested"


@asynccontextmanager
async def open_scene(
    driver: Driver,
    *observers: Observer,
    max_concurrent: int = 2,
    max_queued: int = 10_000,
    inbox_capacity: int = 32,
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool whose agents have every tool of a team, and a nap."""
    memory = InMemoryMemory()
    tools = ToolRegistry([*TEAM_TOOLS, *memory_tools(memory, "scene"), nap])
    async with open_pool(
        driver,
        max_concurrent=max_concurrent,
        max_queued=max_queued,
        inbox_capacity=inbox_capacity,
        memory=memory,
        tools=tools,
        observers=observers,
        random_seed=1,
    ) as pool:
        yield pool


def orders(request: CompletionRequest) -> Answer:
    """Do what the query says: one word for each turn, and then say so.

    ``ask=3`` asks agent 3, ``tell=3`` sends to it, ``hear`` waits for a message, ``answer
    reply`` waits for one and answers it, ``spawn=…`` has a child with ``…`` (dots for
    blanks), ``nap`` sleeps, ``note`` remembers, ``both`` naps and asks 1 side by side,
    ``fail`` raises.
    """
    words = query_of(request).split()[1:]
    turn = turns_of(request)
    if turn >= len(words):
        heard = results_of(request)
        return f"{query_of(request)}: {heard[-1].content if heard else 'done'}"
    return _step(request, *words[turn].split("="))


def _step(request: CompletionRequest, word: str, value: str = "") -> Answer:
    if word in {"answer", "reply"}:
        return _answer(request)
    if word == "fail":
        raise ValueError(value or "broken")
    answers: dict[str, Callable[[], Answer]] = {
        "ask": lambda: call("ask_agent", to=int(value), question="how far are you?"),
        "tell": lambda: call("send_message", to=int(value), content="I am here"),
        "hear": lambda: call("wait_for_message"),
        "spawn": lambda: call("spawn_agent", query=value.replace(".", " "), name="child"),
        "nap": lambda: call("nap", seconds=float(value or 1)),
        "note": lambda: call("remember", content=f"turn {value}"),
        "both": lambda: calls(call("nap", seconds=1), call("ask_agent", to=1, question="and?")),
    }
    return answers[word]()


def _answer(request: CompletionRequest) -> Answer:
    """Answer the first message, waiting for one if there is none; then be done."""
    results = results_of(request)
    if any(result.name == "send_message" for result in results):
        return "answered"
    for text in (*told(request), *(result.content for result in results)):
        found = re.match(r"[Mm]essage (\d+) from (?:agent (\d+)|the owner)", text)
        if found:
            to = int(found[2] or 0)
            return call("send_message", to=to, content="far", reply_to=int(found[1]))
    return call("wait_for_message")


def crew(
    *observers: Observer, max_concurrent: int = 2, pieces: int = 1
) -> AbstractAsyncContextManager[AgentPool]:
    """Open a scene whose agents follow orders."""
    driver = FunctionDriver(orders, pieces=pieces, record=False)
    return open_scene(driver, *observers, max_concurrent=max_concurrent)


async def crowd(*observers: Observer) -> dict[AgentStatus, int]:
    """Let 20 agents spawn, ask, answer and be cancelled; return how they ended."""
    async with crew(*observers, max_concurrent=4) as pool:
        askers = [member(f"asker{n} ask={n + 5} spawn=child.nap") for n in range(1, 6)]
        listeners = [member(f"listener{n} answer reply") for n in range(6, 11)]
        parents = [member(f"parent{n} spawn=child.note nap") for n in range(11, 16)]
        sleepers = [member(f"sleeper{n} nap=3600") for n in range(16, 21)]
        handles = await pool.fan_out((*askers, *listeners, *parents, *sleepers))
        await trio.sleep(2)
        for handle in handles[15:]:
            handle.cancel("slept enough")
        await pool.join_all()
        ends = [handle.status for handle in handles]
        return {status: ends.count(status) for status in AgentStatus if status in ends}
