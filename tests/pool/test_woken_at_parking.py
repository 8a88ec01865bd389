"""Observers hear that an agent waits, and make come true what it waits for: the agent goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import pytest
import trio

from agentpool import (
    AgentPool,
    AgentPoolError,
    Capability,
    CapabilityKind,
    RestartPolicy,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import Event, Observer, OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.observe import AgentParked, AgentStarted
from agentpool.testing import explore
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, manifest, query_of, results_of, tool_call

TEAM = manifest(capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(3)))

WAITER, QUEUED, CHILD = 1, 2, 3
"""The agent whose tool waits, one in the queue, and one that gets the freed slot."""


def config(query: str) -> SpawnConfig:
    """Return an agent of the team."""
    return SpawnConfig(TEAM, query)


# --- what the tool of agent 1 waits for

Way: TypeAlias = Callable[[AgentPool, ToolContext, trio.Event], Awaitable[object]]


async def _wait(pool: AgentPool, _: ToolContext, __: trio.Event) -> object:
    return (await pool[QUEUED].wait()).status


async def _ask(_: AgentPool, context: ToolContext, __: trio.Event) -> object:
    return await context.agent.ask(QUEUED, "?")


async def _ask_owner(_: AgentPool, context: ToolContext, __: trio.Event) -> object:
    return (await context.agent.ask(0, "?")).content


async def _receive(_: AgentPool, context: ToolContext, __: trio.Event) -> object:
    return (await context.agent.receive_many())[0].content


async def _send(_: AgentPool, context: ToolContext, __: trio.Event) -> object:
    return [await context.agent.send(QUEUED, f"{number}") for number in range(3)]


async def _broadcast(pool: AgentPool, _: ToolContext, __: trio.Event) -> object:
    for number in range(2):
        pool.router.send_nowait(QUEUED, f"{number}")
    return len(await pool.broadcast("?"))


async def _stream(pool: AgentPool, _: ToolContext, __: trio.Event) -> object:
    with pool[QUEUED].stream() as pieces:
        return [piece async for piece in pieces]


async def _run_child(_: AgentPool, context: ToolContext, __: trio.Event) -> object:
    return (await context.agent.run_child("rest")).status


async def _race(pool: AgentPool, _: ToolContext, __: trio.Event) -> object:
    return (await pool.race([config("rest"), config("rest")])).status


async def _supervise(pool: AgentPool, _: ToolContext, __: trio.Event) -> object:
    return len(await pool.supervise([config("rest")] * 2, RestartPolicy(restart="never")))


async def _map(pool: AgentPool, _: ToolContext, __: trio.Event, *, ordered: bool) -> object:
    async with pool.map(TEAM, ["rest"] * 2, ordered=ordered) as outcomes:
        return [outcome.status async for outcome in outcomes]


async def _spawn(pool: AgentPool, _: ToolContext, __: trio.Event) -> object:
    return len([await pool.spawn(config("rest")) for _ in range(4)])


async def _pool_inside(
    _: AgentPool, __: ToolContext, ___: trio.Event, then: Callable[[AgentPool], Awaitable[object]]
) -> object:
    async with open_pool(LiveDriver(act), max_concurrent=1, keep_outcomes=None) as inner:
        INNER.append(inner)
        inner.fan_out_nowait([config("work"), config("rest")])
        found = await then(inner)
        inner.abort_all("enough")
        return found


async def _without_slot(_: AgentPool, context: ToolContext, event: trio.Event) -> object:
    async with context.agent.without_slot("an event"):
        await event.wait()
    return "the event"


WAYS: dict[str, Way] = {
    "wait": _wait,
    "ask": _ask,
    "ask the owner": _ask_owner,
    "receive_many": _receive,
    "send": _send,
    "broadcast": _broadcast,
    "stream": _stream,
    "run_child": _run_child,
    "race": _race,
    "supervise": _supervise,
    "map": partial(_map, ordered=False),
    "ordered map": partial(_map, ordered=True),
    "spawn": _spawn,
    "join_next inside": partial(_pool_inside, then=lambda pool: pool.join_next()),
    "join_all inside": partial(_pool_inside, then=lambda pool: pool.join_all()),
    "wait inside": partial(_pool_inside, then=lambda pool: pool[QUEUED].wait()),
    "without_slot": _without_slot,
}
"""Every call in which an agent can wait for what an observer can do."""

INNER: list[AgentPool] = []


async def act(request: CompletionRequest, _: OnDelta) -> Completion | str:
    """Call the tool if the query says so, rest for a second, or work for an hour."""
    results = results_of(request)
    if not results and query_of(request) == "act":
        return calling(tool_call("go"))
    await trio.sleep(3600 if query_of(request) == "work" else 1)
    return "; ".join(result.content for result in results) or "rested"


# --- what an observer does

Deed: TypeAlias = Callable[[AgentPool, trio.Event], None]


def _ends_others(pool: AgentPool, _: trio.Event) -> None:
    for one in (pool, *INNER):
        for agent_id in range(QUEUED if one is pool else 1, one.statistics().spawned + 1):
            with suppress(UsageError):
                one[agent_id].cancel("an observer ended it")


def _interrupts_others(pool: AgentPool, _: trio.Event) -> None:
    for one in (pool, *INNER):
        for agent_id in range(QUEUED if one is pool else 1, one.statistics().spawned + 1):
            with suppress(UsageError):
                one[agent_id].interrupt()


def _writes(pool: AgentPool, _: trio.Event) -> None:
    pool.router.send_nowait(WAITER, "hello")


def _answers(pool: AgentPool, _: trio.Event) -> None:
    pool.router.send_nowait(WAITER, "yes", reply_to=pool.router.message_count)


def _closes(pool: AgentPool, event: trio.Event) -> None:
    pool.close()
    _ends_others(pool, event)


def _sets(_: AgentPool, event: trio.Event) -> None:
    event.set()


def _ends_one(_: AgentPool, __: trio.Event) -> None:
    INNER[0][QUEUED].cancel("an observer ended it")


DEEDS: dict[str, Deed] = {
    "receive_many": _writes,
    "ask the owner": _answers,
    "without_slot": _sets,
    "join_next inside": _ends_one,
}
"""What makes the waits come true that the end of others does not."""

CASES = [
    (way, deed, told)
    for way in WAYS
    for deed in ((DEEDS[way],) if way in DEEDS else (_ends_others, _interrupts_others, _closes))
    for told in (AgentParked, AgentStarted)
]


class _Doer(Observer):
    """Does something once, when it hears of one event of one agent."""

    def __init__(self, do: Callable[[], None], told: type[Event], agent_id: int) -> None:
        self._do, self._told, self._agent_id = do, told, agent_id
        self.has_done = False

    def on_event(self, event: Event) -> None:
        """Do it."""
        is_it = type(event) is self._told and event.agent_id == self._agent_id
        if is_it and not self.has_done:
            self.has_done = True
            self._do()


async def _goes_on(way: str, deed: Deed, told: type[Event]) -> None:
    """Let agent 1 wait in one *way*, and make that come true while observers hear of the wait."""
    INNER.clear()
    event = trio.Event()
    doer = _Doer(lambda: deed(pool, event), told, WAITER if told is AgentParked else CHILD)
    async with open_pool(
        LiveDriver(act),
        tools=lambda _: tools,
        max_concurrent=1,
        max_queued=4,
        inbox_capacity=2,
        observers=[doer],
    ) as pool:

        @tool(timeout_seconds=1000)
        async def go(context: ToolContext) -> str:
            """Wait."""
            pool.spawn_nowait(config("rest"))
            try:
                return f"got {await WAYS[way](pool, context, event)}"
            except AgentPoolError as error:
                return f"got {error!r}"

        tools = ToolRegistry([go])
        waiter, _ = pool.fan_out_nowait([config("act"), config("rest")])
        text = (await waiter.wait()).text
    assert doer.has_done, text
    assert text.startswith("got "), text
    assert "Deadlock" not in text
    assert trio.current_time() < 100


@pytest.mark.parametrize(
    ("way", "deed", "told"), CASES, ids=[f"{w}-{d.__name__}-{t.__name__}" for w, d, t in CASES]
)
def test_what_observers_do_at_a_wait_ends_it(way: str, deed: Deed, told: type[Event]) -> None:
    """It was looked at before observers were told, and waited for afterwards, for ever."""
    explore(partial(_goes_on, way, deed, told), schedules=4)
