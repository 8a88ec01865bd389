"""MCP servers with a real model, and one from npm. Run by ``nox -s live``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from agentpool import AgentManifest, AgentStatus, Capability, SpawnConfig, open_pool
from agentpool._manifest.parts import McpServerConfig, McpTransport
from agentpool.abc import CompletionRequest
from agentpool.drivers import AssistantMessage, FunctionDriver, ToolMessage, call, open_driver
from agentpool.drivers._scripted import Answer
from agentpool.tools import open_mcp_servers
from tests.support.processes import open_files

pytestmark = pytest.mark.live

CLOCK = Path(__file__).parent.parent.parent / "examples" / "clock.toml"

ZONES = (
    "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Europe/London", "Australia/Sydney",
    "Asia/Kolkata", "America/Sao_Paulo", "Africa/Cairo", "Europe/Paris", "Asia/Dubai",
)  # fmt: skip


async def test_the_local_model_calls_a_real_server_with_valid_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How often it calls at all is up to the model; what it calls must fit the schema."""
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    manifest = AgentManifest.load(CLOCK)
    valid = accepted = 0
    async with (
        open_driver(manifest.model) as driver,
        open_mcp_servers() as servers,
        open_pool(driver, tools=servers.build, max_concurrent=2) as pool,
    ):
        query = "Get the current time in the timezone {}."
        await pool.fan_out(SpawnConfig(manifest, query.format(zone)) for zone in ZONES)
        outcomes = (await pool.join_all()).values()
    for outcome in outcomes:
        calls = [
            one
            for message in outcome.messages
            if isinstance(message, AssistantMessage)
            for one in message.tool_calls
        ]
        results = [one for one in outcome.messages if isinstance(one, ToolMessage)]
        for one, result in zip(calls, results, strict=False):
            assert one.name == "mcp_time_get_current_time"
            assert list(json.loads(one.arguments)) == ["timezone"]
            valid += 1
            accepted += not result.is_error
    print(f"of {len(ZONES)} questions: {valid} valid calls, {accepted} accepted")  # noqa: T201  # a figure to look at
    assert accepted


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not here")
async def test_an_agent_uses_a_server_from_npm(tmp_path: Path) -> None:
    """Another SDK, another language, an older protocol."""
    package = "@modelcontextprotocol/server-everything"
    subprocess.run(["npm", "install", "--prefix", str(tmp_path), package], check=True)  # noqa: ASYNC221, S607  # nothing else runs yet
    server = McpServerConfig(
        name="everything",
        transport=McpTransport.STDIO,
        command=(str(tmp_path / "node_modules" / ".bin" / "mcp-server-everything"), "stdio"),
        capabilities=("*",),
    )
    manifest = AgentManifest(
        capabilities=(Capability.mcp("everything", "*"),), mcp_servers=(server,)
    )

    async def ask(name: str, **arguments: str | int) -> str:
        def answer(request: CompletionRequest) -> Answer:
            last = request.messages[-1]
            return last.content if isinstance(last, ToolMessage) else call(name, **arguments)

        async with open_pool(FunctionDriver(answer), tools=servers.build) as pool:
            outcome = await (await pool.spawn(SpawnConfig(manifest, "?"))).wait()
        assert outcome.status is AgentStatus.COMPLETED
        return outcome.text

    files = open_files()
    async with open_mcp_servers() as servers:
        assert "hello" in await ask("mcp_everything_echo", message="hello")
        assert "[image image/png, " in await ask("mcp_everything_get-tiny-image")
        assert "5" in await ask("mcp_everything_get-sum", a=2, b=3)
        quiet = attrs.evolve(server, capabilities=("echo",))
        assert len(await servers.tools_for(attrs.evolve(manifest, mcp_servers=(quiet,)))) == 1
    assert open_files() == files
