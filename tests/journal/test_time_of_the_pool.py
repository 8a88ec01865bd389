"""The time of a scope around a pool is no limit of a child: it does not end it for good."""

from __future__ import annotations

from functools import partial
from random import Random

import trio
from trio.testing import MockClock

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import query_of

PLAIN = AgentManifest(name="plain")


@tool(on_unknown="rerun")
async def have_child(context: ToolContext, name: str) -> str:
    """Have a child, and tell how it ended."""
    assert context.agent is not None
    outcome = await context.agent.run_child(SpawnConfig(PLAIN, name))
    return f"{name} {outcome.status.value}"


async def run(cuts: list[float], random: Random) -> str:
    """Run a family of three beside another agent, in a pool with one slot that is cut early."""
    journal = InMemoryJournal()

    async def answer(request: CompletionRequest) -> Answer:
        query, last = query_of(request), request.messages[-1]
        await trio.sleep(0.2 if query == "other" else 0.01 + random.random() / 100)
        if query in {"a", "b"} and not isinstance(last, ToolMessage):
            return call("have_child", name=chr(ord(query) + 1))
        return f"{query}: {last.content}" if isinstance(last, ToolMessage) else query

    text = ""
    for seconds in cuts:
        with trio.move_on_after(seconds):
            async with open_pool(
                FunctionDriver(answer), tools=ToolRegistry([have_child]), journal=journal,
                resume=True, max_concurrent=1,
            ) as pool:  # fmt: skip
                first = await pool.spawn(SpawnConfig(PLAIN, "a", key="a"))
                await pool.spawn(SpawnConfig(PLAIN, "other", key="other"))
                await pool.join_all()
                text = "" if first.outcome is None else first.outcome.text
    return text


def test_the_next_process_goes_on_with_a_child_that_waited_for_its_slot() -> None:
    """Its limit, as seconds from its start and back, was a hair before the scope's own."""
    random = Random(1)  # noqa: S311  # moments, no secret
    for _ in range(200):
        cuts = [random.uniform(0.02, 0.25), 1000.0]
        clock = MockClock(autojump_threshold=0)
        assert trio.run(partial(run, cuts, random), clock=clock) == "a: b completed"
