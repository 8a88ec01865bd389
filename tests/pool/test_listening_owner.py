"""An owner who waits for events alone."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agentpool import AgentPool, open_pool
from agentpool.drivers import ScriptedDriver
from agentpool.observe import AgentFinished, AgentSpawned, Event, EventReader
from tests.support.fakes import job


async def test_who_only_listens_to_a_pool_at_rest_is_told_of_no_deadlock(
    autojump_clock: MockClock,
) -> None:
    """To listen may be its purpose: somebody outside ends it, or gives the pool more to do."""
    seen: list[Event] = []
    readers: list[tuple[AgentPool, EventReader]] = []

    async def listen() -> None:
        async with open_pool(ScriptedDriver(["one", "two"])) as pool:
            with pool.events() as events:
                readers.append((pool, events))
                await pool.spawn(job())
                seen.extend([event async for event in events])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.sleep(5)
        ((pool, events),) = readers
        await pool.spawn(job())
        await trio.sleep(5)
        events.close()
    kinds = [type(event) for event in seen]
    assert kinds.count(AgentSpawned) == kinds.count(AgentFinished) == 2
