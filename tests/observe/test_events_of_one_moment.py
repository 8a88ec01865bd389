"""Events that are told together: one order for everybody, whatever an observer does in between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import TypeAlias

import trio
from hypothesis import given
from hypothesis import strategies as st

from agentpool import AgentPool, AgentPoolError, open_pool
from agentpool.abc import Event, Observer, OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.observe import (
    AgentFinished,
    MessagesAdded,
    Phase,
    PhaseChanged,
    RequestStarted,
    ToolStarted,
)
from agentpool.testing import assert_quiescent, simulate
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import LiveDriver, Recorder, calling, jobs, of_type, tool_call, turns_of

Act: TypeAlias = Callable[[AgentPool, Event], None]


def cancels(pool: AgentPool, event: Event) -> None:
    """End the agent of the event."""
    pool[event.agent_id].cancel("an observer said so")


def interrupts(pool: AgentPool, event: Event) -> None:
    """Stop the agent of the event after its turn."""
    pool[event.agent_id].interrupt()


def writes(pool: AgentPool, event: Event) -> None:
    """Write to the agent of the event, which is an event itself."""
    pool[event.agent_id].send_nowait("go on")


def cancels_next(pool: AgentPool, event: Event) -> None:
    """End another agent than that of the event."""
    pool[event.agent_id % 3 + 1].cancel("another agent got further")


class Acts(Observer):
    """Acts on the pool at one event of some kind, once an agent asks or calls."""

    def __init__(self, act: Act, kind: type[Event], at: int) -> None:
        """Do *act* at the event of that *kind* whose place among those of its kind is *at*."""
        self.act, self.kind, self.left, self.pool = act, kind, at, None

    pool: AgentPool | None

    def on_event(self, event: Event) -> None:
        """Act, once."""
        if type(event) is not self.kind or getattr(event, "phase", None) is Phase.PERCEIVE:
            return
        self.left -= 1
        if self.left == 0 and self.pool is not None:
            with suppress(AgentPoolError):
                self.act(self.pool, event)


@tool
async def look(seconds: int) -> str:
    """Look for a while.

    Args:
        seconds: How long.
    """
    await trio.sleep(seconds)
    return "seen"


async def looks(request: CompletionRequest, _: OnDelta) -> Completion:
    """Look three times, one time longer than the other."""
    await trio.sleep(0.5)
    turn = turns_of(request)
    return calling(tool_call("look", seconds=turn)) if turn < 3 else Completion("done")


KINDS: tuple[type[Event], ...] = (
    PhaseChanged,
    MessagesAdded,
    RequestStarted,
    ToolStarted,
)


@given(
    acts=st.lists(
        st.tuples(
            st.sampled_from((writes, cancels, interrupts, cancels_next)),
            st.sampled_from(KINDS),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=3,
    ),
    cancelled_at=st.integers(0, 8),
    seed=st.integers(0, 50),
)
def test_all_hear_events_of_one_moment_in_one_order(
    acts: list[tuple[Act, type[Event], int]], cancelled_at: int, seed: int
) -> None:
    """What an observer causes at the first of two has a number after the second, and comes then."""

    async def scenario() -> None:
        before, after = Recorder(), Recorder()
        actors = [Acts(*one) for one in acts]
        read: list[Event] = []
        async with open_pool(
            LiveDriver(looks),
            tools=ToolRegistry([look]),
            max_concurrent=2,
            observers=[before, *actors, after],
        ) as pool:
            for actor in actors:
                actor.pool = pool
            events = pool.events()

            async def keep_reading() -> None:
                read.extend([event async for event in events])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_reading)
                handles = await pool.fan_out(jobs("1", "2", "3"))
                await trio.sleep(cancelled_at / 2)
                handles[0].cancel("beside the others")
                assert len(await pool.join_all()) == 3
                assert_quiescent(pool)
                events.close()
        told = before.events
        assert after.events == told
        assert read == told
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
        times = [event.at_seconds for event in told]
        assert times == sorted(times)
        for first, second in pairwise(told):
            if isinstance(first, PhaseChanged) and first.phase is Phase.REASON:
                assert isinstance(second, MessagesAdded)
            elif isinstance(first, PhaseChanged) and first.phase is Phase.ACT:
                assert isinstance(second, ToolStarted)
                assert first.tool_name == second.call.name
            else:
                continue
            assert (second.agent_id, second.at_seconds) == (first.agent_id, first.at_seconds)
        assert len(of_type(told, AgentFinished)) == 3

    simulate(scenario, seed=seed)
