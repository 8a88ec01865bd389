"""The owner's map, race or supervision ends by an error, a cancellation or Ctrl-C: it goes on."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import pytest
import trio

from agentpool import AgentCancelledError, AgentManifest, AgentPool, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.journal import InMemoryJournal

WORKER: Final = AgentManifest(name="worker")
TEXTS: Final = ("t0", "t1", "t2")

Use: TypeAlias = Callable[[AgentPool], Awaitable[object]]
Break: TypeAlias = Callable[[trio.CancelScope], None]


class OwnersError(Exception):
    """Raised by the owner's code."""


async def mapped(pool: AgentPool) -> list[str]:
    """Return the answers of a map."""
    async with pool.map(WORKER, TEXTS, ordered=True) as outcomes:
        return [outcome.unwrap() async for outcome in outcomes]


async def raced(pool: AgentPool) -> list[str]:
    """Return the answer that won."""
    return [(await pool.race([SpawnConfig(WORKER, text) for text in TEXTS])).unwrap()]


async def supervised(pool: AgentPool) -> list[str]:
    """Return the answers of supervised agents."""
    outcomes = await pool.supervise([SpawnConfig(WORKER, text) for text in TEXTS])
    return [outcome.unwrap() for outcome in outcomes]


def interrupt(_: trio.CancelScope) -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def fail(_: trio.CancelScope) -> None:
    """Raise an error beside the call."""
    raise OwnersError


def cancel(scope: trio.CancelScope) -> None:
    """Cancel what is around the pool."""
    scope.cancel()


async def broken_off(journal: InMemoryJournal, use: Use, end: Break) -> None:
    """Use a pool whose agents never answer, and end it while all of them ask."""
    settled = trio.Event()

    async def never(request: CompletionRequest) -> str:
        asked.append(request)
        if len(asked) == len(TEXTS):
            settled.set()
        await trio.sleep_forever()

    asked = list[CompletionRequest]()
    with trio.CancelScope() as scope:
        async with (
            open_pool(FunctionDriver(never), journal=journal) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(use, pool)
            await settled.wait()
            end(scope)
            await trio.sleep_forever()


async def gone_on(journal: InMemoryJournal, use: Use) -> object:
    """Do the same again, with agents that answer."""

    def answer(_: CompletionRequest) -> str:
        return "read it"

    async with open_pool(FunctionDriver(answer), journal=journal, resume=True) as pool:
        return await use(pool)


@pytest.mark.parametrize("use", [mapped, raced, supervised])
@pytest.mark.parametrize("end", [interrupt, fail, cancel])
def test_the_next_process_goes_on_with_the_agents(use: Use, end: Break) -> None:
    """They had not ended: their pool had."""

    async def main() -> InMemoryJournal:
        await trio.lowlevel.checkpoint()
        return InMemoryJournal()

    journal = trio.run(main)
    try:
        trio.run(broken_off, journal, use, end)
    except BaseExceptionGroup as group:
        assert group.subgroup((KeyboardInterrupt, OwnersError)) is not None  # noqa: PT017
    except KeyboardInterrupt:
        assert end is interrupt
    answers = trio.run(gone_on, journal, use)
    assert answers in (["read it"], ["read it"] * len(TEXTS))


def test_who_lost_a_race_has_ended_for_good() -> None:
    """A race that was won is no race that broke: the next process asks nobody."""
    asked: list[CompletionRequest] = []

    async def racer(request: CompletionRequest) -> str:
        asked.append(request)
        if "t0" not in str(request.messages[0]):
            await trio.sleep_forever()
        return "won"

    async def main() -> None:
        journal = InMemoryJournal()
        async with open_pool(FunctionDriver(racer), journal=journal) as pool:
            assert await raced(pool) == ["won"]
        before = len(asked)
        async with open_pool(FunctionDriver(racer), journal=journal, resume=True) as pool:
            assert await raced(pool) == ["won"]
        assert len(asked) == before

    trio.run(main)


def test_a_block_that_is_left_early_ends_its_agents_for_good() -> None:
    """Who leaves a map's block by ``break`` wants no more of its answers."""

    async def answer(request: CompletionRequest) -> str:
        if "t0" not in str(request.messages[0]):
            await trio.sleep_forever()
        return "read it"

    async def first(pool: AgentPool) -> list[str]:
        async with pool.map(WORKER, TEXTS, ordered=True) as outcomes:
            async for outcome in outcomes:
                return [outcome.unwrap()]
        raise AssertionError

    async def main() -> None:
        journal = InMemoryJournal()
        async with open_pool(FunctionDriver(answer), journal=journal) as pool:
            assert await first(pool) == ["read it"]
        async with open_pool(FunctionDriver(answer), journal=journal, resume=True) as pool:
            with pytest.raises(AgentCancelledError, match="the map's block ended"):
                await mapped(pool)

    trio.run(main)
