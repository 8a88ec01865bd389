"""What an ended agent had is freed at once, and not by the garbage collector some time later."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.drivers import ScriptedDriver, call
from agentpool.tools import ToolContext, ToolRegistry, tool


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Let nothing be freed but what nothing refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
async def test_the_context_of_an_agent_ends_with_it() -> None:
    """A tool's context refers to its agent, which refers to it: a circle, unless it is cut."""
    kinds: list[type] = []

    @tool
    async def look(context: ToolContext) -> str:
        """Look."""
        kinds.append(type(context.agent))
        return "seen"

    manifest = AgentManifest(capabilities=())
    async with open_pool(
        ScriptedDriver([call("look"), "done"]), tools=ToolRegistry([look])
    ) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "hi"))).wait()
        assert outcome.text == "done"
        left = [one for one in gc.get_objects() if type(one) is kinds[0]]
        assert left == []
