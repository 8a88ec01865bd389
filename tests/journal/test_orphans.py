"""Agents of the journal that nobody can spawn again, since their parents ended without them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio

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
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.testing import EventLog, simulate
from agentpool.tools import ToolRegistry, tool

WORKER: Final = AgentManifest(
    name="worker", capabilities=(Capability.spawn(4), Capability(CapabilityKind.MESSAGE))
)

Steps = Callable[[AgentPool], Awaitable[object]]


@tool
async def act(context: ToolContext, work: str) -> str:
    """Let a child do some work, and wait for it."""
    return (await context.agent.run_child(SpawnConfig(WORKER, work, key="c"))).text


@tool
async def ask(context: ToolContext) -> str:
    """Ask agent 2."""
    return (await context.agent.ask(2, "well?")).content


async def answer(request: CompletionRequest) -> Answer:
    """Answer as one of the agents, by its query."""
    query, _, rest = str(request.messages[0].text).partition(" ")  # type: ignore[union-attr]  # a query
    if query == "leaf":
        await trio.sleep(60)
    if len(request.messages) > 1:
        return str(request.messages[-1].content)  # type: ignore[union-attr]  # a result
    if query == "parent":
        return call("act", work=rest or "leaf")
    if query == "leaver":
        return call("leave")
    return call("ask") if query == "asker" else "done"


def worker(query: str, key: str = "p") -> SpawnConfig:
    """Return the config of an agent of the owner."""
    return SpawnConfig(WORKER, query, key=key)


async def in_pool(journal: InMemoryJournal, steps: Steps, *observers: EventLog) -> object:
    """Do *steps* in a pool that goes on with *journal*, and end it."""
    driver, found = FunctionDriver(answer), list[object]()

    @tool
    async def leave() -> str:
        """Let a child do some work, and wait for nothing."""
        config = SpawnConfig(WORKER, "leaf", key="c", outlives_parent=True)
        return f"started {(await pool.spawn(config)).agent_id}"

    tools = ToolRegistry([act, leave, ask])
    with contextlib.suppress(KeyError):
        async with open_pool(
            driver, tools=tools, journal=journal, resume=True, observers=observers
        ) as pool:
            found.append(await steps(pool))
            raise KeyError
    return found[0]


def spawned(query: str, seconds: float = 1.0) -> Steps:
    """Return the step that spawns an agent, and looks on for some seconds."""

    async def steps(pool: AgentPool) -> object:
        handle = await pool.spawn(worker(query))
        await trio.sleep(seconds)
        return handle.has_ended

    return steps


async def orphaned(query: str = "parent") -> InMemoryJournal:
    """Return the journal of an agent that ended without the child of its call."""
    journal = InMemoryJournal()
    assert not await in_pool(journal, spawned(query))
    assert await in_pool(journal, spawned(query))
    return journal


async def told(pool: AgentPool, steps: Steps) -> Exception:
    """Return the error that somebody who waits without an end gets."""
    before = trio.current_time()
    with pytest.raises((DeadlockError, AgentGoneError)) as caught:
        await steps(pool)
    assert trio.current_time() - before < 1
    return caught.value


@pytest.mark.parametrize("query", ["parent", "parent parent leaf"], ids=["child", "grandchild"])
def test_an_owner_that_receives_where_nobody_can_come_back_is_told(query: str) -> None:
    """Agent 1 ended in the second process, and its child was never spawned again."""

    async def scenario() -> None:
        journal = await orphaned(query)
        error = await in_pool(journal, lambda pool: told(pool, lambda _: pool.receive_many()))
        assert isinstance(error, DeadlockError)
        assert "the owner waits for a message" in str(error)

    simulate(scenario)


@pytest.mark.parametrize(
    ("query", "number"), [("parent", 2), ("parent parent leaf", 2), ("parent parent leaf", 3)]
)
def test_whoever_asks_an_agent_that_cannot_come_back_is_told(query: str, number: int) -> None:
    """Its parent has ended, or the parent of that one."""

    async def scenario() -> None:
        journal = await orphaned(query)

        async def ask_it(pool: AgentPool) -> object:
            return await pool.router.ask(number, "well?")

        error = await in_pool(journal, lambda pool: told(pool, ask_it))
        assert isinstance(error, AgentGoneError)

    simulate(scenario)


def test_an_agent_that_asks_one_which_cannot_come_back_is_told() -> None:
    """The tool does not wait until its time is over."""

    async def scenario() -> None:
        journal = await orphaned()

        async def ask_it(pool: AgentPool) -> object:
            before = trio.current_time()
            handle = await pool.spawn(worker("asker", "a"))
            text = (await handle.wait()).text
            assert trio.current_time() - before < 1
            return text

        assert "agent 2 has ended" in str(await in_pool(journal, ask_it))

    simulate(scenario)


def test_what_an_agent_was_sent_that_cannot_come_back_is_dead_at_once() -> None:
    """The letter says why it was not read, and the log of the pool is in order."""

    async def scenario() -> None:
        journal, log = InMemoryJournal(), EventLog()

        async def write(pool: AgentPool) -> object:
            await pool.spawn(worker("parent"))
            await trio.sleep(1)
            return await pool.router.send(2, "news")

        await in_pool(journal, write)
        await in_pool(journal, spawned("parent"))

        async def look(pool: AgentPool) -> object:
            await trio.lowlevel.checkpoint()
            return [(one.message.content, one.reason) for one in pool.router.dead_letters]

        assert await in_pool(journal, look, log) == [("news", "agent 2 was not spawned again")]
        log.check()

    simulate(scenario)


def test_a_child_that_outlives_its_ended_parent_may_come_back() -> None:
    """It goes on when the parent is spawned again, and whoever asks it is told nothing before."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        assert await in_pool(journal, spawned("leaver"))

        async def ask_it(pool: AgentPool) -> object:
            async def spawn_late() -> None:
                await trio.sleep(5)
                await pool.spawn(worker("leaver"))
                await trio.sleep(5)
                assert not pool[2].has_ended

            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn_late)
                with pytest.raises(AgentGoneError):
                    await pool.router.ask(2, "well?")
                return trio.current_time()  # noqa: ASYNC121  # when it was told

        before = trio.current_time()
        after = await in_pool(journal, ask_it)
        assert isinstance(after, float)
        assert 60 < after - before < 70

    simulate(scenario)


def test_an_owner_that_waits_for_a_child_of_an_ended_parent_is_told_of_the_spawn() -> None:
    """Nobody but the owner can spawn the parent again, which brings the child."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await in_pool(journal, spawned("leaver"))
        error = await in_pool(journal, lambda pool: told(pool, lambda _: pool.receive_many()))
        assert isinstance(error, DeadlockError)
        error = await in_pool(
            journal, lambda pool: told(pool, lambda _: pool.router.ask(2, "well?"))
        )
        assert isinstance(error, DeadlockError)
        assert "waits to be spawned again by the owner" in str(error)

    simulate(scenario)


def test_agents_of_the_owner_and_their_children_may_come_back() -> None:
    """The owner has a task that may spawn, so nobody is told anything."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        assert not await in_pool(journal, spawned("parent"))

        async def wait_long(pool: AgentPool) -> object:
            with trio.move_on_after(50) as scope:
                await pool.router.ask(2, "well?")
            return scope.cancelled_caught

        assert await in_pool(journal, wait_long)

    simulate(scenario)


@tool(on_unknown="report")
async def lead(context: ToolContext) -> str:
    """Let a child have a child of its own that outlives it, and go on working."""
    await context.agent.run_child(SpawnConfig(WORKER, "leaver", key="c"))
    await trio.sleep(50)
    return "led"


def test_who_is_below_a_child_that_never_comes_is_told_of() -> None:
    """Its parent has ended, and what would bring that back ended without doing so."""
    leaving = list[AgentPool]()

    @tool
    async def leave() -> str:
        """Leave a child that works on."""
        leaf = SpawnConfig(WORKER, "leaf", key="leaf", outlives_parent=True)
        await leaving[-1].spawn(leaf)
        return "left"

    async def led(request: CompletionRequest) -> Answer:
        if "lead" in str(request.messages[0]) and len(request.messages) == 1:
            return call("lead")
        return await answer(request)

    async def main() -> None:
        journal, tools = InMemoryJournal(), ToolRegistry([lead, leave])
        cut: list[bool] = []
        for seconds in (5, 1000):
            with trio.move_on_after(seconds) as scope:
                async with open_pool(
                    FunctionDriver(led), journal=journal, resume=True, tools=tools
                ) as pool:
                    leaving.append(pool)
                    await (await pool.spawn(worker("lead"))).wait()
                    with pytest.raises(AgentGoneError):
                        await pool.router.ask(3, "well?")
                    with pytest.raises(DeadlockError):
                        await pool.receive_many()
            cut.append(scope.cancelled_caught)
        assert cut == [True, False]

    simulate(main)
