"""Messages to an agent whose owner's program has not come to its spawn again."""

from __future__ import annotations

import contextlib
import re
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from agentpool import (
    AgentGoneError,
    AgentManifest,
    AgentPool,
    Capability,
    CapabilityKind,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import CompletionRequest, Observer
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal
from agentpool.testing import EventLog, crash_everywhere, simulate
from agentpool.tools import TEAM_TOOLS, ToolRegistry

CLERK, CHIEF = (
    AgentManifest(name=name, capabilities=(Capability(CapabilityKind.MESSAGE),))
    for name in ("clerk", "chief")
)


async def answer(request: CompletionRequest) -> Answer:
    """Let the chief ask the clerk, who takes a second for each turn."""
    results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
    if request.messages[0].text == "chief":  # type: ignore[union-attr]  # a query
        return results[-1] if results else call("ask_agent", to=1, question="How many?")
    await trio.sleep(1)
    if any("sent as message" in one for one in results) or "agent 2" in str(results[1:]):
        return results[-1]
    if question := re.search(r"essage (\d+) from agent 2", str(request.messages)):
        return call("send_message", to=2, content="Seven", reply_to=int(question[1]))
    return call("wait_for_message")


def going_on(journal: Journal, *observers: Observer) -> AbstractAsyncContextManager[AgentPool]:
    """Open the pool of chief and clerk that is kept in *journal*."""
    driver, tools = FunctionDriver(answer), ToolRegistry(TEAM_TOOLS)
    return open_pool(driver, resume=True, journal=journal, tools=tools, observers=observers)


def test_an_agent_that_is_spawned_late_is_answered_all_the_same() -> None:
    """The one that it asked goes on before it, and its answer waits."""

    async def scenario(journal: Journal) -> object:
        async with going_on(journal) as pool:
            clerk = await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
            await trio.sleep(5)
            assert pool.router.agent_count <= 1
            chief = await pool.spawn(SpawnConfig(CHIEF, "chief", key="chief"))
            texts = [(await one.wait()).text for one in (clerk, chief)]
        return texts, pool.router.dead_letters

    assert crash_everywhere(scenario).points > 6
    assert simulate(scenario, InMemoryJournal()) == (["sent as message 2", "Seven"], ())


async def ask_and_break_off(journal: Journal) -> None:
    """Let the chief ask the clerk, and end the process before it is answered."""
    async with going_on(journal) as pool:
        await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
        await pool.spawn(SpawnConfig(CHIEF, "chief", key="chief"))
        await trio.sleep(1.5)
        pool.abort_all()


def test_what_an_agent_is_sent_that_is_never_spawned_again_is_dead_at_the_end() -> None:
    """The sender was told that it was sent, as before; the letter says why it was not read."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await ask_and_break_off(journal)
        async with going_on(journal) as pool:
            clerk = await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
            assert (await clerk.wait()).text == "sent as message 2"
            assert not pool.router.dead_letters
        (dead,) = pool.router.dead_letters
        assert dead.message.content == "Seven"
        assert dead.reason == "agent 2 was not spawned again"

    simulate(scenario)


def test_an_agent_that_asks_one_which_is_never_spawned_again_is_told() -> None:
    """At the end of the pool's block, which waits for the agent that asks."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await ask_and_break_off(journal)
        async with going_on(journal) as pool:
            chief = await pool.spawn(SpawnConfig(CHIEF, "chief", key="chief"))
            await trio.sleep(100)
            assert not chief.has_ended
        assert "agent 1 ended before it answered" in (await chief.wait()).text

    simulate(scenario)


def test_an_agent_that_asks_again_one_which_has_ended_meanwhile_is_told() -> None:
    """Nobody is left who could answer the question that the journal has."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await ask_and_break_off(journal)
        async with going_on(journal) as pool:
            clerk = await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
            clerk.cancel("it is late")
            await clerk.wait()
            chief = await pool.spawn(SpawnConfig(CHIEF, "chief", key="chief"))
            text = (await chief.wait()).text
        assert "agent 1 ended before it answered" in text

    simulate(scenario)


def test_an_agent_of_before_that_has_ended_is_told_as_such() -> None:
    """Also while its owner's program has not come to its spawn again."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        driver = FunctionDriver(lambda _: "done")
        async with open_pool(driver, resume=True, journal=journal) as pool:
            await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
        async with open_pool(driver, resume=True, journal=journal) as pool:
            with pytest.raises(AgentGoneError, match="agent 1 has ended"):
                pool.router.send_nowait(1, "news")

    simulate(scenario)


CIRCLE = (
    "1 (clerk) waits to be spawned again by the owner, which joins 2 (chief), which asks 1 (clerk)"
)


@pytest.mark.parametrize("seconds", [0, 0.5, 100], ids=["before", "meanwhile", "afterwards"])
def test_an_owner_that_waits_before_it_spawns_again_does_not_hang(seconds: float) -> None:
    """The agent that asks the absent one is told, whichever of them begins to wait first."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await ask_and_break_off(journal)
        async with going_on(journal) as pool:
            chief = await pool.spawn(SpawnConfig(CHIEF, "chief", key="chief"))
            await trio.sleep(seconds)
            assert CIRCLE in (await chief.wait()).text
            assert chief.has_ended

    simulate(scenario)


def test_an_owner_that_can_still_spawn_again_is_awaited() -> None:
    """A wait with a deadline ends by itself, and a task beside it may spawn."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await ask_and_break_off(journal)
        async with going_on(journal) as pool:
            chief = await pool.spawn(SpawnConfig(CHIEF, "chief", key="chief"))
            with trio.move_on_after(100):
                await chief.wait()
            assert not chief.has_ended

            async def spawn_late() -> None:
                await trio.sleep(100)
                await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn_late)
                assert (await chief.wait()).text == "Seven"

    simulate(scenario)


def test_a_log_of_a_resumed_pool_with_a_dead_letter_is_in_order() -> None:
    """The addressee was not spawned in this process."""

    async def scenario() -> None:
        journal, log = InMemoryJournal(), EventLog()
        await ask_and_break_off(journal)
        async with going_on(journal, log) as pool:
            await (await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))).wait()
        assert pool.router.dead_letters
        log.check()

    simulate(scenario)


def test_an_absent_agent_is_not_said_to_have_ended() -> None:
    """It has no handle until it is spawned again."""
    journal = InMemoryJournal()

    async def scenario() -> None:
        with contextlib.suppress(KeyError):
            async with going_on(journal) as pool:
                await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
                await trio.sleep(0.5)
                raise KeyError
        async with going_on(journal) as pool:
            with pytest.raises(UsageError, match=r"agent 1 began .*spawn it with the same key"):
                pool[1]
            clerk = await pool.spawn(SpawnConfig(CLERK, "clerk", key="clerk"))
            assert pool[1] == clerk
            pool.abort_all("seen")

    simulate(scenario)
