"""An observer in which the program ends: Ctrl-C comes there, or it raises what no pool handles."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

import pytest
import trio

from agentpool import AgentPool, Capability, open_pool
from agentpool._budget.statistics import PoolStatistics
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import FunctionDriver, call
from agentpool.observe import Event, Observer, PoolInfo
from agentpool.testing import assert_quiescent
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import job, manifest, query_of, results_of

PARENT: Final = manifest(capabilities=(Capability.spawn(2),))


class Ends(Observer):
    """Ends the program when it is told of something for the *at*-th time."""

    def __init__(self, at: int, end: Callable[[], object]) -> None:
        """Nothing was told yet."""
        self.at, self.end, self.told = at, end, 0
        self.raised = False

    def on_open(self, _: PoolInfo) -> None:
        """Count."""
        self._count()

    def on_event(self, _: Event) -> None:
        """Count."""
        self._count()

    def on_close(self, _: PoolStatistics) -> None:
        """Count."""
        self._count()

    def _count(self) -> None:
        self.told += 1
        if self.told == self.at:
            try:
                self.end()
            except BaseException:
                self.raised = True
                raise


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def leave() -> None:
    """End the program."""
    raise SystemExit


@tool(timeout_seconds=60)
async def ask(context: ToolContext) -> str:
    """Ask a child."""
    return (await context.agent.run_child("child")).text


def answer(request: CompletionRequest) -> Completion | str:
    """Ask a child, then end; a child ends at once."""
    is_parent = query_of(request) == "parent" and not results_of(request)
    return call("ask") if is_parent else "done"


@pytest.mark.parametrize(("end", "error"), [(press, KeyboardInterrupt), (leave, SystemExit)])
@pytest.mark.parametrize("slots", [1, 3])
def test_at_any_event_every_agent_gets_its_outcome_and_nothing_hangs(
    end: Callable[[], object], error: type[BaseException], slots: int
) -> None:
    """Also at the last phase of an agent, just before its outcome is made."""
    pools = list[AgentPool]()

    async def run(observer: Ends) -> None:
        driver, tools = FunctionDriver(answer), ToolRegistry([ask])
        with trio.fail_after(60):
            async with open_pool(
                driver, tools=tools, max_concurrent=slots, observers=[observer]
            ) as pool:
                pools.append(pool)
                for _ in range(2):
                    await pool.spawn(job("parent"))
                await pool.join_all()

    at = told = 0
    while at <= told:
        at += 1
        observer = Ends(at, end)
        pools.clear()
        try:
            trio.run(run, observer)
        except BaseException:  # looked at
            told = max(told, at)
            with pytest.RaisesGroup(error, flatten_subgroups=True, allow_unwrapped=True):
                raise
            assert observer.raised
        for pool in pools:
            assert_quiescent(pool)
            for number in range(1, pool.statistics().spawned + 1):
                assert pool[number].has_ended
    assert told > 30
