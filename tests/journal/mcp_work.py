"""Agents that call a real MCP server in a process that is killed: see ``test_mcp_tools``.

``python -m tests.journal.mcp_work FOLDER`` runs them until it is killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import trio

from agentpool import AgentManifest, AgentOutcome, Capability, SpawnConfig, open_pool
from agentpool._manifest.parts import McpServerConfig, McpTransport
from agentpool.abc import CompletionRequest, OnUnknown
from agentpool.drivers import FunctionDriver, ToolMessage, UserMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import Journal, open_journal
from agentpool.tools import ApprovalRequest, Approved, open_mcp_servers
from tests.support.mcp_stub import command

MODES: Final[tuple[OnUnknown, ...]] = ("report", "rerun", "ask", "stop")

PLAIN: Final = {"name": "deed", "inputSchema": {"type": "object"}}


def deeds(folder: Path) -> list[tuple[str, int, str]]:
    """Return who did which step, and with what key."""
    file = folder / "deeds"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [
        (arguments["who"], arguments["step"], meta.get("agentpool/idempotency-key", ""))
        for arguments, meta in map(json.loads, lines)
    ]


def manifest(folder: Path, on_unknown: OnUnknown) -> AgentManifest:
    """Return an agent that may use the server. What it has is in a file: it may change."""
    server = McpServerConfig(
        name="stub",
        transport=McpTransport.STDIO,
        command=command(
            tools_in=str(folder / "tools"), deeds=str(folder / "deeds"), open=str(folder / "open")
        ),
        capabilities=("*",),
        on_unknown=on_unknown,
    )
    grants = (Capability.mcp("stub", "*"),)
    return AgentManifest(name=on_unknown, capabilities=grants, mcp_servers=(server,))


def offer(folder: Path, *tools: dict[str, Any]) -> None:
    """Let the server have those tools, when it is started next."""
    (folder / "tools").write_text(json.dumps(tools), encoding="utf-8")


@attrs.define(eq=False)
class Work:
    """A model, whoever approves, and what they were asked."""

    folder: Path
    requests: int = 0
    approvals: list[ApprovalRequest] = attrs.field(factory=list[ApprovalRequest])

    def answer(self, request: CompletionRequest) -> Answer:
        """Call the tool twice, one after the other, and say what came of it."""
        self.requests += 1
        first = request.messages[0]
        assert isinstance(first, UserMessage)
        results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
        if len(results) == 2:
            return "; ".join(results)
        return call("mcp_stub_deed", who=first.text, step=len(results))

    async def approve(self, request: ApprovalRequest) -> Approved:
        """Say yes."""
        await trio.lowlevel.checkpoint()
        self.approvals.append(request)
        return Approved()

    async def run(
        self,
        journal: Journal,
        *modes: OnUnknown,
        resume: Literal["accept", "branch", True] = True,
        differs: bool = False,
    ) -> dict[OnUnknown, AgentOutcome]:
        """Run an agent for each of *modes*, or go on with it.

        Args:
            journal: Where it is kept.
            modes: What is said of calls that had begun.
            resume: What becomes of one that has changed.
            differs: Whether they say something else of such calls than they did.
        """
        async with (
            open_mcp_servers() as servers,
            open_pool(
                FunctionDriver(self.answer), tools=servers.build, approve=self.approve,
                name="kept", journal=journal, resume=resume,
            ) as pool,
        ):  # fmt: skip
            handles = {
                mode: await pool.spawn(
                    SpawnConfig(
                        attrs.evolve(
                            manifest(self.folder, "rerun" if differs else mode), name=mode
                        ),
                        mode, key=mode,
                    )
                )
                for mode in modes
            }  # fmt: skip
            return {mode: await handle.wait() for mode, handle in handles.items()}


async def main(folder: Path) -> None:
    """Run all of them."""
    async with open_journal(folder / "j.db") as journal:
        await Work(folder).run(journal, *MODES)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
