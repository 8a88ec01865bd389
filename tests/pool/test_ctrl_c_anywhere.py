"""Ctrl-C at any call inside of the package: every accepted agent has an outcome all the same."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
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
STEP = 23
"""Of the calls of a run, each 23rd is tried."""


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


def with_ctrl_c(at: int, observers: Callable[[], list[Observer]]) -> tuple[int, AgentPool | None]:
    """Run with Ctrl-C at a call of the package; return how many calls there were, and the pool."""
    calls = 0

    def press(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if event == "call" and frame.f_code.co_filename.startswith(HOME):
            calls += 1
            if calls == at:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    pools: list[AgentPool] = []
    sys.setprofile(press)
    try:
        trio.run(run, pools, observers(), clock=MockClock(autojump_threshold=0))
    except* KeyboardInterrupt:
        pass  # and nothing else
    finally:
        sys.setprofile(None)
    return calls, pools[0] if pools else None


@pytest.mark.parametrize("watched", [False, True])
def test_every_agent_has_an_outcome(*, watched: bool) -> None:
    """And none is said to run."""

    def observers() -> list[Observer]:
        return [EventLog()] if watched else []

    with_ctrl_c(0, observers)  # what is made on first use
    total, _ = with_ctrl_c(0, observers)
    assert total > 1_000
    for at in range(1, total, STEP):
        _, pool = with_ctrl_c(at, observers)
        if pool is None:
            continue
        numbers = pool.statistics()
        assert (numbers.running, numbers.queued) == (0, 0), at
        for agent_id in range(1, numbers.spawned + 1):
            assert pool[agent_id].outcome is not None, at
