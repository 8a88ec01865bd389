"""Ctrl-C while the pool begins or ends an agent: each has an outcome all the same."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import pytest
import trio
from trio.testing import MockClock

import agentpool
from agentpool import AgentPool, SpawnConfig, open_pool
from agentpool.abc import Observer
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, UserMessage, call, say
from agentpool.testing import EventLog
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import job, manifest

HOME = str(Path(agentpool.__file__).parent)


@tool
async def work(context: ToolContext) -> str:
    """Have a child."""
    return (await context.agent.run_child(job("child"))).text


async def answer(request: CompletionRequest) -> Completion:
    """Let the first of the agents use its tool."""
    await trio.lowlevel.checkpoint()
    is_first = list(request.messages) == [UserMessage("parent")]
    return call("work") if is_first else say("ok")


async def run(pools: list[AgentPool], observers: list[Observer]) -> None:
    """Run more agents than there are slots; cancel one, and abort the last."""
    driver = FunctionDriver(answer, record=False)
    tools = ToolRegistry([work])
    async with open_pool(driver, tools=tools, max_concurrent=3, observers=observers) as pool:
        pools.append(pool)
        await pool.fan_out([SpawnConfig(manifest(), "parent"), *[job("q")] * 6])
        pool[6].cancel()
        await pool.join_next()
        await pool.spawn(job("q"))
        async with pool.map(manifest(), ["q"] * 3) as outcomes:
            async for _ in outcomes:
                pass
        await pool.join_all()
        await pool.fan_out([job("q")] * 4)
        pool.abort_all()


BOOKS = [
    "AgentNursery.accept", "AgentNursery._start", "new_agent", "AgentRecord.reach",
    "AgentNursery._conclude", "Agent.outcome", "AgentNursery._end", "AgentRecord.end",
    "Admission.leave", "FanIn.ended",
]  # fmt: skip
"""Steps in which an agent begins or ends."""


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("nth", [1, 6])
@pytest.mark.parametrize("step", BOOKS)
def test_every_agent_has_an_outcome(step: str, nth: int, *, watched: bool) -> None:
    """Ctrl-C at such a step comes after it, and none is said to run in the end."""
    calls = 0

    def press(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        code = frame.f_code
        if event == "call" and code.co_qualname == step and code.co_filename.startswith(HOME):
            calls += 1
            if calls == nth:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    pools: list[AgentPool] = []
    observers: list[Observer] = [EventLog()] if watched else []
    sys.setprofile(press)
    try:
        with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True, allow_unwrapped=True):
            trio.run(run, pools, observers, clock=MockClock(autojump_threshold=0))
    finally:
        sys.setprofile(None)
    assert calls == nth
    numbers = pools[0].statistics()
    assert (numbers.running, numbers.queued) == (0, 0)
    for agent_id in range(1, numbers.spawned + 1):
        assert pools[0][agent_id].outcome is not None
