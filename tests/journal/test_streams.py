"""``handle.stream()`` of an agent that goes on from a journal."""

from __future__ import annotations

import pytest

from agentpool import AgentManifest, SpawnConfig, UserMessage, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import AssistantMessage, FunctionDriver, ToolMessage, call, calls
from agentpool.drivers._scripted import Answer
from agentpool.journal import Journal
from agentpool.testing import crash_everywhere
from agentpool.tools import ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())


@pytest.mark.parametrize("key", ["k", None])
def test_a_stream_has_all_answers_after_any_crash(key: str | None) -> None:
    """Those of earlier processes come first, and none of its history does."""

    def answer(request: CompletionRequest) -> Answer:
        done = sum(isinstance(one, ToolMessage) for one in request.messages)
        return "The end." if done == 2 else calls(call("look"), text=f"Look {done}. ")

    @tool(on_unknown="rerun")
    def look() -> str:
        """Look."""
        return "seen"

    async def scenario(journal: Journal) -> str:
        is_known = any(one.agent_id == 1 for one in await journal.read("pool"))
        async with open_pool(
            FunctionDriver(answer), journal=journal, resume=True, tools=ToolRegistry([look])
        ) as pool:
            history = (UserMessage("hi"), AssistantMessage("Hello!"))
            if is_known and key is None:
                handle = pool[1]  # it goes on by itself
            else:
                handle = pool.spawn_nowait(SpawnConfig(READER, "q", key=key, history=history))
            with handle.stream() as pieces:
                return "".join([piece async for piece in pieces])

    report = crash_everywhere(scenario)
    assert report.points >= 16
