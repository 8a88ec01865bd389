"""Agents get the memory and the tools that their manifests grant."""

from agentpool import (
    AgentManifest,
    Capability,
    CapabilityKind,
    SpawnConfig,
)
from agentpool._furnish import missing_tools, open_furnished_pool
from agentpool._messages import CompletionRequest, ToolMessage
from agentpool.drivers import FunctionDriver, call
from agentpool.drivers._scripted import Answer

MEMORY = Capability(CapabilityKind.MEMORY)


async def test_M_04_memory_tools_work_on_the_memory_of_the_loop() -> None:  # noqa: N802
    """What the model kept by a tool, its next recall finds."""
    manifest = AgentManifest(capabilities=(MEMORY,))

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        if not isinstance(last, ToolMessage):
            return call("remember", content="the key is under the mat")
        if last.name == "remember":
            return call("recall", query="key")
        return last.content

    driver = FunctionDriver(answer)
    async with open_furnished_pool(lambda _: driver, max_concurrent=1, max_queued=1) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Where?"))).wait()
    assert "under the mat" in outcome.text
    assert [tool.name for tool in driver.requests[0].tools] == ["remember", "recall"]


async def test_P_21_agents_get_the_tools_of_their_grants() -> None:  # noqa: N802
    """An agent without grants has none, one that may talk has the team's."""
    grants = (Capability(CapabilityKind.MESSAGE), Capability.spawn(1))
    driver = FunctionDriver(lambda _: "hm")
    async with open_furnished_pool(lambda _: driver, max_concurrent=1, max_queued=2) as pool:
        await pool.spawn(SpawnConfig(AgentManifest(capabilities=()), "?"))
        await pool.spawn(SpawnConfig(AgentManifest(capabilities=grants), "?"))
        await pool.join_all()
    alone, team = ([tool.name for tool in request.tools] for request in driver.requests)
    assert not alone
    assert {"send_message", "spawn_agent"} <= set(team)


def test_F_03_a_grant_without_a_tool_is_said() -> None:  # noqa: N802
    """A grant that does nothing is a surprise at best."""
    manifest = AgentManifest.parse("""
        [[capabilities]]
        type = "memory"
        [[capabilities]]
        type = "shell"
        allowed_commands = ["git"]
        [[mcp_servers]]
        name = "index"
        transport = "stdio"
        command = ["serve"]
    """)
    shell, server = missing_tools(manifest)
    assert "shell [git]" in shell
    assert "'index'" in server


def test_grants_that_nobody_wrote_are_not_said() -> None:
    """The defaults are ours, not the author's."""
    assert missing_tools(AgentManifest.parse("")) == ()
    written = AgentManifest.parse('[[capabilities]]\ntype = "rag"')
    assert len(missing_tools(written)) == 1
