"""Agents get the memory and the tools that their manifests grant."""

import os
import sys
from pathlib import Path

import pytest

from agentpool import (
    AgentManifest,
    Capability,
    CapabilityKind,
    PoolPlan,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    open_manifest_pool,
)
from agentpool._build.tools import SystemTools, missing_tools, tool_names
from agentpool._install import as_installed
from agentpool._manifest.parts import McpServerConfig, McpTransport
from agentpool.abc import CompletionRequest, Driver
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.tools import find_isolation
from tests.support.mcp_stub import command

MEMORY = Capability(CapabilityKind.MEMORY)


def plan_of(driver: Driver, max_concurrent: int, max_queued: int) -> PoolPlan:
    """Return a plan of a pool in which *driver* answers."""
    return PoolPlan(
        manifests=(AgentManifest(capabilities=()),),
        driver=driver,
        max_concurrent=max_concurrent,
        max_queued=max_queued,
    )


async def test_memory_tools_work_on_the_memory_of_the_loop() -> None:
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
    async with open_manifest_pool(plan_of(driver, 1, 1)) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Where?"))).wait()
    assert "under the mat" in outcome.text
    assert [tool.name for tool in driver.requests[0].tools] == ["remember", "recall"]


async def test_agents_get_the_tools_of_their_grants() -> None:
    """An agent without grants has none, one that may talk has the team's."""
    grants = (Capability(CapabilityKind.MESSAGE), Capability.spawn(1))
    driver = FunctionDriver(lambda _: "hm")
    async with open_manifest_pool(plan_of(driver, 1, 2)) as pool:
        await pool.spawn(SpawnConfig(AgentManifest(capabilities=()), "?"))
        await pool.spawn(SpawnConfig(AgentManifest(capabilities=grants), "?"))
        await pool.join_all()
    alone, team = ([tool.name for tool in request.tools] for request in driver.requests)
    assert not alone
    assert {"send_message", "spawn_agent"} <= set(team)


async def test_web_and_inference_come_with_their_grants() -> None:
    """And a Sovereign agent does not see the one that talks to others."""
    grants = (Capability(CapabilityKind.INFERENCE), Capability.network("a.example"))
    driver = FunctionDriver(lambda _: "hm")
    async with open_manifest_pool(plan_of(driver, 1, 2)) as pool:
        for tier in (PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE):
            manifest = AgentManifest(capabilities=grants, privacy=tier)
            assert not missing_tools(manifest)
            await pool.spawn(SpawnConfig(manifest, "?"))
        await pool.join_all()
    shown = [[tool.name for tool in request.tools] for request in driver.requests]
    assert shown == [["inference"], ["inference", "http_request"]]


def test_a_grant_without_a_tool_is_said() -> None:
    """A grant that does nothing is a surprise at best."""
    manifest = AgentManifest.parse("""
        [[capabilities]]
        type = "memory"
        [[capabilities]]
        type = "browser"
    """)
    (browser,) = missing_tools(manifest)
    assert "grants 'browser', for which this version has no tool" in browser


def test_compute_is_no_shell_by_another_name() -> None:
    """In the original it is: any command, whatever else was granted."""
    (compute,) = missing_tools(AgentManifest(capabilities=(Capability(CapabilityKind.COMPUTE),)))
    assert compute.endswith("it would be a shell without a list; grant programs with 'shell'")


def test_a_grant_of_a_program_that_runs_others_is_said() -> None:
    """It is as good as all; and one that is not here is no good."""
    manifest = AgentManifest(capabilities=(Capability.shell("ls", "env", "no-such-program", "*"),))
    runs, lacks = missing_tools(manifest)
    assert runs.startswith("grants 'env', which runs whatever it is told to")
    assert lacks == "grants the program 'no-such-program', which is not on this machine"


HANDS = (Capability.file_read("."), Capability.file_write("."), Capability.shell("ls"))


async def test_agents_get_files_and_programs_as_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder in which the command was called; made once for all of a manifest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("hello")

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        return last.content if isinstance(last, ToolMessage) else call("file_read", path="a.txt")

    driver = FunctionDriver(answer)
    manifest = AgentManifest(
        capabilities=(*HANDS, Capability(CapabilityKind.MESSAGE)), privacy=PrivacyTier.STANDARD
    )
    async with open_manifest_pool(plan_of(driver, 2, 2)) as pool:
        await pool.fan_out([SpawnConfig(manifest, "?")] * 2)
        outcomes = await pool.join_all()
    assert all("~~~\n1\thello\n~~~" in one.text for one in outcomes.values())
    names = [tool.name for tool in driver.requests[0].tools]
    assert names[-6:] == ["file_read", "glob", "grep", "file_write", "file_edit", "shell"]
    assert tool_names(manifest) == tuple(names)


async def test_a_sovereign_agent_runs_programs_without_a_network_or_fails(
    tmp_path: Path,
) -> None:
    """Before its model is asked anything."""
    manifest = AgentManifest(capabilities=HANDS)
    with pytest.raises(PrivacyError, match="a Sovereign agent may not run programs here"):
        await SystemTools({"PATH": str(tmp_path)}).tools_for(manifest)
    assert await SystemTools({"PATH": str(tmp_path)}).tools_for(
        AgentManifest(capabilities=HANDS[:2])
    )
    if await find_isolation(os.environ):
        hands = SystemTools(os.environ)
        made = await hands.tools_for(manifest)
        assert made[-1].definition.name == "shell"
        assert await hands.tools_for(manifest) is made
        # What was found out is known for the next manifest.
        fewer = await hands.tools_for(AgentManifest(capabilities=HANDS[-1:]))
        assert [tool.definition.name for tool in fewer] == ["shell"]


async def test_the_tools_of_many_manifests_are_not_kept_for_ever() -> None:
    """A pool may make a manifest for each agent."""
    hands = SystemTools({})
    for n in range(200):
        await hands.tools_for(AgentManifest(capabilities=(Capability.file_read(f"{n}"),)))
    assert len(hands._made) <= 128  # pyright: ignore[reportPrivateUsage]


def test_an_mcp_server_and_its_grant_belong_together() -> None:
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


def test_a_granted_command_with_arguments_is_told_to_be_a_program() -> None:
    """It would never match: programs are granted, whatever they are called with."""
    manifest = AgentManifest(capabilities=(Capability.shell("git status"),))
    (said,) = missing_tools(manifest)
    assert said.startswith("grants the program 'git status', which is not on this machine; ")
    assert said.endswith("; name the program alone: 'git'")


@pytest.mark.parametrize(
    ("offered", "granted", "says"),
    [
        (("in_stock",), "in_stok", "entry offers 'in_stock'; did you mean 'in_stock'?"),
        (("in_stok", "x"), "in_stock", "entry offers 'in_stok', 'x'; did you mean 'in_stok'?"),
        (("in_stock",), "weather", "entry offers 'in_stock'"),
        (("in_stock",), "in_stock", None),
        (("*",), "in_stok", None),
        (("in_stock",), "*", None),
    ],
)
def test_a_misspelt_tool_of_an_mcp_server_is_told(
    offered: tuple[str, ...], granted: str, says: str | None
) -> None:
    """The grant is there: another one would not help."""
    server = McpServerConfig(
        name="stock", transport=McpTransport.STDIO, command=("serve",), capabilities=offered
    )
    for more in ((), (Capability.mcp("stock", offered[0]),)):
        manifest = AgentManifest(
            capabilities=tuple(dict.fromkeys((Capability.mcp("stock", granted), *more))),
            mcp_servers=(server,),
        )
        said = f"grants {granted!r} of the MCP server 'stock', whose {says}"
        assert missing_tools(manifest) == ((said,) if says else ())


def test_a_misspelt_mcp_server_is_told_once() -> None:
    """By the grant; the server's own line would ask for a grant that is there."""
    server = McpServerConfig(
        name="stock", transport=McpTransport.STDIO, command=("serve",), capabilities=("in_stock",)
    )
    manifest = AgentManifest(
        capabilities=(Capability.mcp("stok", "in_stock"),), mcp_servers=(server,)
    )
    assert missing_tools(manifest) == (
        "grants 'mcp [stok, in_stock]', and names no MCP server 'stok'; did you mean 'stock'?",
    )


async def test_a_furnished_agent_has_the_tools_of_its_mcp_servers() -> None:
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
    async with open_manifest_pool(plan_of(driver, 1, 1)) as pool:
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
        as_installed("names MCP servers, which need: pip install 'trio-agentpool[mcp]'"),
    )


def test_grants_that_nobody_wrote_are_not_said() -> None:
    """The defaults are ours, not the author's."""
    assert missing_tools(AgentManifest.parse("")) == ()
    written = AgentManifest.parse('[[capabilities]]\ntype = "rag"')
    assert len(missing_tools(written)) == 1
