"""What an ended agent had is freed at once, and not by the garbage collector some time later."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.abc import AgentContext
from agentpool.drivers import ScriptedDriver, call
from agentpool.tools import ToolContext, ToolRegistry, tool


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Let nothing be freed but what nothing refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def contexts() -> list[AgentContext]:
    """Return the contexts of agents that are in memory."""
    return [one for one in gc.get_objects() if issubclass(type(one), AgentContext)]


@pytest.mark.usefixtures("no_collections")
async def test_the_context_of_an_agent_ends_with_it() -> None:
    """A tool's context refers to its agent, which refers to it: a circle, unless it is cut."""

    @tool
    async def look(context: ToolContext) -> str:  # noqa: ASYNC124  # as tools are
        """Look."""
        return context.agent_name and "seen"

    manifest = AgentManifest(capabilities=())
    before = {id(one) for one in contexts()}  # what earlier tests have left
    async with open_pool(
        ScriptedDriver([call("look"), "done"]), tools=ToolRegistry([look])
    ) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "hi"))).wait()
        assert outcome.text == "done"
        assert [one for one in contexts() if id(one) not in before] == []
