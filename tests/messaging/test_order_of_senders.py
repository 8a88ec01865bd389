"""Senders that wait for room in one inbox: whoever came first is served first."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from agentpool import (
    AgentGoneError,
    Capability,
    CapabilityKind,
    InboxFullError,
    SpawnConfig,
    open_pool,
)
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver
from agentpool.testing import explore, simulate
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import calling, manifest, query_of, results_of, tool_call

TEAM = manifest(capabilities=(Capability(CapabilityKind.MESSAGE),))


async def _senders(  # noqa: C901  # one scenario, with what its parts do
    starts: list[int],
    *,
    capacity: int,
    pause: float,
    give_up: frozenset[int] = frozenset(),
    by_agents: bool = False,
) -> None:
    """Let one task or agent send for each of *starts*, at that time, to a slow reader.

    Those of *give_up* are cancelled a moment later, if they still wait.
    """
    began: list[str] = []
    given_up: set[str] = set()
    got: list[str] = []
    count = len(starts)
    over = trio.Event()

    @tool(timeout_seconds=math.inf)
    async def read(context: ToolContext) -> str:
        """Read until nobody sends any more."""
        while not (over.is_set() and len(got) == count - len(given_up)):
            with trio.move_on_after(1000):
                got.extend(one.content for one in await context.agent.receive_many())
            await trio.sleep(pause)
        return "read"

    @tool(timeout_seconds=math.inf)
    async def write(context: ToolContext, number: int) -> str:
        """Write one message."""
        await one_of(number, partial(context.agent.send, 1))
        return "written"

    async def one_of(number: int, send: Callable[[str], Awaitable[object]]) -> None:
        await trio.sleep(starts[number])
        began.append(str(number))
        with trio.CancelScope() as scope:
            if number in give_up:
                scope.deadline = trio.current_time() + 0.5
            await send(str(number))
        if scope.cancelled_caught:
            given_up.add(str(number))

    def answer(request: CompletionRequest) -> Completion | str:
        if results_of(request):
            return "done"
        verb, _, number = query_of(request).partition(" ")
        if verb == "read":
            return calling(tool_call("read"))
        return calling(tool_call("write", number=int(number)))

    async with open_pool(
        FunctionDriver(answer),
        tools=ToolRegistry([read, write]),
        inbox_capacity=capacity,
        max_concurrent=2,
    ) as pool:
        reader = await pool.spawn(SpawnConfig(TEAM, "read"))
        await trio.sleep(0.5)
        if by_agents:
            writers = await pool.fan_out(SpawnConfig(TEAM, f"write {n}") for n in range(count))
            for writer in writers:
                await writer.wait()
        else:
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(one_of, number, reader.send)
        over.set()
        await pool.join_all()
    assert got == [number for number in began if number not in given_up]


@settings(max_examples=25)
@given(
    starts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    capacity=st.integers(1, 3),
    pause=st.sampled_from([0.0, 0.3, 2.0]),
    give_up=st.frozensets(st.integers(0, 11), max_size=3),
    by_agents=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_messages_arrive_in_the_order_in_which_their_sends_began(
    starts: list[int],
    capacity: int,
    pause: float,
    give_up: frozenset[int],
    *,
    by_agents: bool,
    seed: int,
) -> None:
    """Those for whom there was room were woken together, and took it in any order."""
    scenario = partial(
        _senders, starts, capacity=capacity, pause=pause, give_up=give_up, by_agents=by_agents
    )
    simulate(scenario, seed=seed)


@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_senders_who_wait_at_once_are_served_in_order_under_many_schedules(pause: float) -> None:
    """In whatever order the tasks take their steps, also where the reader reads between them."""
    explore(partial(_senders, [1] * 9, capacity=4, pause=pause), schedules=30)


async def _overtaking() -> None:
    """Send without waiting while others wait: one place is free, and it is theirs."""

    @tool(timeout_seconds=math.inf)
    async def read(context: ToolContext) -> str:
        """Take what is there, once."""
        await trio.sleep(10)
        first = await context.agent.receive_many()
        await trio.sleep(10)
        second = await context.agent.receive_many()
        return "".join(one.content for one in (*first, *second))

    def answer(request: CompletionRequest) -> Completion | str:
        return results_of(request)[0].content if results_of(request) else calling(tool_call("read"))

    async with open_pool(
        FunctionDriver(answer), tools=ToolRegistry([read]), inbox_capacity=3
    ) as pool:
        reader = await pool.spawn(SpawnConfig(TEAM, "read"))
        await trio.sleep(1)
        for letter in "abc":
            reader.send_nowait(letter)
        async with trio.open_nursery() as nursery:
            for letter in "def":
                nursery.start_soon(reader.send, letter)
                await trio.sleep(1)
            with suppress(AgentGoneError):
                while True:
                    try:
                        reader.send_nowait("!")
                    except InboxFullError:
                        await trio.sleep(0.25)
        outcomes = await pool.join_all()
    assert outcomes[1].text.replace("!", "") == "abcdef"
    assert "!" not in outcomes[1].text[:6]


def test_who_does_not_wait_overtakes_nobody_who_does() -> None:
    """A place that is free for a moment belongs to the first of those that wait."""
    explore(_overtaking, schedules=10)
