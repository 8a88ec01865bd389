"""Promises of a journal that no other test holds: keys of calls, and growth."""

from __future__ import annotations

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentpool import AgentManifest, ResourceQuota, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call, calls
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

MANIFEST = AgentManifest(
    capabilities=(), resources=ResourceQuota(max_iterations=1000, max_tool_calls=1000)
)


@given(
    agents=st.integers(1, 3),
    turns=st.lists(st.integers(1, 3), max_size=3),
    breaks_after=st.integers(0, 20),
)
@example(agents=1, turns=[1, 1, 1], breaks_after=3)
@settings(max_examples=15, deadline=None)
def test_every_call_has_a_key_of_its_own(agents: int, turns: list[int], breaks_after: int) -> None:
    """The same in the next process; and no other call has it, though it asks for the same.

    The calls of two agents differ in nothing else.
    """
    keys: list[str] = []
    asked = 0
    journal = InMemoryJournal()

    def answer(request: CompletionRequest) -> Answer:
        nonlocal asked
        asked += 1
        done = sum(isinstance(one, ToolMessage) for one in request.messages)
        for number, count in enumerate(turns):
            if not done:
                return calls(*(call("act", what=f"{number} {part}") for part in range(count)))
            done -= count
        return "done"

    @tool(on_unknown="rerun")
    async def act(context: ToolContext, what: str) -> str:
        """Act."""
        keys.append(context.idempotency_key)
        if len(keys) == breaks_after:
            crash.set()
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return what

    async def live() -> None:
        async with open_pool(
            FunctionDriver(answer), tools=ToolRegistry([act]), journal=journal, resume=True
        ) as pool:
            for number in range(agents):
                await pool.spawn(SpawnConfig(MANIFEST, "go", key=str(number)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(break_off, nursery.cancel_scope)
                await pool.join_all()
                nursery.cancel_scope.cancel()
            pool.abort_all()

    async def break_off(scope: trio.CancelScope) -> None:
        await crash.wait()
        scope.cancel()

    wanted, needed = agents * sum(turns), agents * (len(turns) + 1)
    for _ in range(2):
        crash = trio.Event()
        simulate(live)
    assert len(set(keys)) == wanted
    # And each agent asks again for at most the one answer that it waited for.
    assert needed <= asked <= needed + agents
    # A call that was broken off begins again, with the key that it had.
    assert wanted <= len(keys) <= wanted + (wanted if breaks_after else 0)


def test_ten_times_the_turns_are_ten_times_the_bytes() -> None:
    """A journal keeps what came of requests, and no conversation."""

    def size(turns: int) -> int:
        def answer(request: CompletionRequest) -> Answer:
            done = sum(isinstance(one, ToolMessage) for one in request.messages)
            return call("look", number=1000 + done) if done < turns else "done"

        @tool
        def look(number: int) -> str:
            """Look."""
            return f"seen {number}"

        async def scenario() -> int:
            journal = InMemoryJournal()
            async with open_pool(
                FunctionDriver(answer), tools=ToolRegistry([look]), journal=journal, resume=True
            ) as pool:
                await (await pool.spawn(SpawnConfig(MANIFEST, "go", key="k"))).wait()
            records = await journal.read("pool")
            return sum(len(one.body) + len(one.digest) for one in records)

        return simulate(scenario)

    assert size(200) <= 10.5 * size(20)
