"""Agents get the memory and the tools that their manifests grant."""

import sys

import pytest

from agentpool import (
    AgentManifest,
    Capability,
    CapabilityKind,
    SpawnConfig,
)
from agentpool._furnish import missing_tools, open_furnished_pool
from agentpool._manifest_parts import McpServerConfig, McpTransport
from agentpool._messages import CompletionRequest, ToolMessage
from agentpool.drivers import FunctionDriver, call
from agentpool.drivers._scripted import Answer
from tests.mcp_stub import command

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
    """)
    (shell,) = missing_tools(manifest)
    assert "shell [git]" in shell


def test_F_03_an_mcp_server_and_its_grant_belong_together() -> None:  # noqa: N802
    """One without the other does nothing, and so does an entry that lists no tool."""
    manifest = AgentManifest.parse("""
        [[capabilities]]
        type = "mcp"
        server = "inbox"
        tool = "*"
        [[capabilities]]
        type = "mcp"
        server = "empty"
        tool = "*"
        [[mcp_servers]]
        name = "index"
        transport = "stdio"
        command = ["serve"]
        capabilities = ["*"]
        [[mcp_servers]]
        name = "empty"
        transport = "stdio"
        command = ["serve"]
    """)
    index, empty, grant = missing_tools(manifest)
    assert index == (
        "names the MCP server 'index', of which nothing is granted: add a grant of type 'mcp'"
    )
    assert empty == (
        "names the MCP server 'empty', whose 'capabilities' are empty: none of its tools may be "
        "called"
    )
    assert grant == "grants 'mcp [inbox, *]', and names no MCP server 'inbox'"


async def test_F_03_a_furnished_agent_has_the_tools_of_its_mcp_servers() -> None:  # noqa: N802
    """Beside its own."""
    manifest = AgentManifest(
        capabilities=(MEMORY, Capability.mcp("stub", "pid")),
        mcp_servers=(
            McpServerConfig(
                name="stub",
                transport=McpTransport.STDIO,
                command=command(),
                capabilities=("*",),
            ),
        ),
    )
    driver = FunctionDriver(lambda _: "hm")
    async with open_furnished_pool(lambda _: driver, max_concurrent=1, max_queued=1) as pool:
        await (await pool.spawn(SpawnConfig(manifest, "?"))).wait()
    names = [tool.name for tool in driver.requests[0].tools]
    assert names == ["remember", "recall", "mcp_stub_pid"]


def test_without_the_extra_a_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an agent fails for it."""
    monkeypatch.setitem(sys.modules, "mcp", None)
    manifest = AgentManifest.parse("""
        [[capabilities]]
        type = "mcp"
        server = "*"
        tool = "*"
        [[mcp_servers]]
        name = "index"
        transport = "stdio"
        command = ["serve"]
        capabilities = ["*"]
    """)
    assert missing_tools(manifest) == (
        "names MCP servers, which need: pip install 'trio-agentpool[mcp]'",
    )


def test_grants_that_nobody_wrote_are_not_said() -> None:
    """The defaults are ours, not the author's."""
    assert missing_tools(AgentManifest.parse("")) == ()
    written = AgentManifest.parse('[[capabilities]]\ntype = "rag"')
    assert len(missing_tools(written)) == 1
