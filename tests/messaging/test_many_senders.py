"""Senders that wait by the hundred: whoever waits for room gets it, whatever the reader does."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import AgentManifest, AgentPool, Capability, CapabilityKind, SpawnConfig, open_pool
from agentpool._messaging.post_office import PostOffice
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.testing import explore, simulate
from agentpool.tools import TEAM_TOOLS, ToolRegistry
from tests.support.fakes import calling, manifest, query_of, results_of, tool_call

READER, FIRST_SENDER = 1, 2


class Unheard:
    """A hub to which nobody listens."""

    listening = False


def post_office(senders: int, capacity: int) -> PostOffice:
    """Return a router with one reader and some senders."""
    ids = range(READER, FIRST_SENDER + senders)
    router = PostOffice(capacity, lambda _, __: None, Unheard(), ids)
    for agent_id in ids:
        router.register(agent_id)
    return router


async def everything_arrives(senders: int, capacity: int, messages: int, *, nap: float) -> None:
    """Let all senders send some messages each, and read until all of them came."""
    router = post_office(senders, capacity)
    received: list[str] = []

    async def send(sender: int) -> None:
        for number in range(messages):
            await router.send(sender, READER, f"{sender}.{number}")

    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            for sender in range(FIRST_SENDER, FIRST_SENDER + senders):
                nursery.start_soon(send, sender)
            while len(received) < senders * messages:
                received += [letter.content for letter in await router.receive_many(READER)]
                await trio.sleep(nap)
    assert len(received) == senders * messages
    by_sender: dict[str, list[str]] = {}
    for text in received:
        sender_text, _, number_text = text.partition(".")
        by_sender.setdefault(sender_text, []).append(number_text)
    assert all(own == [str(n) for n in range(messages)] for own in by_sender.values())


@pytest.mark.parametrize(
    ("senders", "capacity"), [(4, 1), (5, 2), (562, 32), (1000, 32), (10_000, 1)]
)
async def test_a_full_inbox_wakes_every_sender_that_waits(
    autojump_clock: MockClock, senders: int, capacity: int
) -> None:
    """A message that was handed to a waiting reader took no place, and nobody was woken."""
    await everything_arrives(senders, capacity, 1, nap=0)


@given(
    senders=st.integers(1, 12),
    capacity=st.integers(1, 4),
    messages=st.integers(1, 4),
    nap=st.sampled_from([0, 1]),
    seed=st.integers(0, 1000),
)
def test_no_sender_waits_beside_an_inbox_with_room(
    senders: int, capacity: int, messages: int, nap: float, seed: int
) -> None:
    """In every order: a wake-up that is lost leaves senders beside an empty inbox."""

    async def scenario() -> None:
        await everything_arrives(senders, capacity, messages, nap=nap)

    simulate(scenario, seed=seed)


async def test_a_place_that_its_sender_did_not_need_goes_to_the_next(
    autojump_clock: MockClock,
) -> None:
    """A reply takes no place, so the place that was kept for its sender is free again."""
    router = post_office(3, 1)
    told: list[str] = []

    async def ask() -> None:
        told.append((await router.ask(READER, 2, "ready?")).content)

    router.send_nowait(3, READER, "fills the inbox")
    with trio.fail_after(9):
        async with trio.open_nursery() as nursery:
            # It waits for room with what becomes the answer to the question that is asked next.
            nursery.start_soon(partial(router.send, 2, READER, "yes", reply_to=2))
            await wait_all_tasks_blocked()
            nursery.start_soon(router.send, 4, READER, "second")
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            received = [letter.content for letter in router.receive_many_nowait(READER)]
            await wait_all_tasks_blocked()
            received += [letter.content for letter in router.receive_many_nowait(READER)]
    assert told == ["yes"]
    assert received == ["fills the inbox", "second"]


# --- in a pool


def reporter() -> AgentManifest:
    """Return the manifest of an agent that may write."""
    return manifest(capabilities=(Capability(CapabilityKind.MESSAGE),))


def report(request: CompletionRequest) -> Completion | str:
    """Write to the owner, then say what came of it."""
    results = results_of(request)
    if results:
        return results[0].content
    return calling(tool_call("send_message", to=0, content=query_of(request)))


async def read_all(pool: AgentPool, count: int) -> list[str]:
    """Return what *count* agents report to their owner."""
    heard: list[str] = []
    while len(heard) < count:
        heard += [letter.content for letter in await pool.receive_many()]
    return heard


async def test_a_thousand_agents_report_to_their_owner(autojump_clock: MockClock) -> None:
    """407 of them were never heard, with the inbox that every pool has."""
    driver = FunctionDriver(report)
    async with open_pool(driver, tools=ToolRegistry(TEAM_TOOLS), max_concurrent=1000) as pool:
        await pool.fan_out([SpawnConfig(reporter(), f"report {n}") for n in range(1000)])
        with trio.fail_after(60):
            heard = await read_all(pool, 1000)
        outcomes = await pool.join_all()
    assert sorted(heard) == sorted(f"report {n}" for n in range(1000))
    assert not [text for one in outcomes.values() if "waits for" in (text := one.text)]


async def _few_report() -> None:
    driver = FunctionDriver(report)
    async with open_pool(driver, tools=ToolRegistry(TEAM_TOOLS), inbox_capacity=1) as pool:
        await pool.fan_out([SpawnConfig(reporter(), f"report {n}") for n in range(6)])
        with trio.fail_after(60):
            heard = await read_all(pool, 6)
        outcomes = await pool.join_all()
    assert sorted(heard) == [f"report {n}" for n in range(6)]
    # Senders beside an empty inbox were told that they wait for each other.
    assert not [one.text for one in outcomes.values() if "waits for room" in one.text]


def test_senders_to_a_reader_are_no_deadlock() -> None:
    """In a pool where everybody else waits, the lost wake-up was reported as a deadlock."""
    explore(_few_report, schedules=50)
