"""Runs of an earlier version that asked otherwise than this one does: seen, and never paid twice.

The file was written by ``python -m tests.journal.test_older_runs FILE`` of that version.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
)
from agentpool._manifest.parts import McpServerConfig, McpTransport
from agentpool.abc import CompletionRequest, Fragment
from agentpool.drivers import AssistantMessage, FunctionDriver, ToolMessage, UserMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import ResumeMismatchError, open_journal
from agentpool.memory import InMemoryMemory
from agentpool.tools import TEAM_TOOLS, ToolRegistry

GOLDEN = Path(__file__).parent / "golden" / "older" / "format-3.db"

BANK = McpServerConfig(name="bank", transport=McpTransport.STDIO, command=("bank",))
KEEPER = AgentManifest(
    name="keeper", capabilities=(Capability(CapabilityKind.MEMORY),), mcp_servers=(BANK,)
)
PARENT = AgentManifest(name="parent", capabilities=(Capability.spawn(2),))
HISTORY = (UserMessage("what is blue?"), AssistantMessage("the sky is blue"))
KNOWN = "Q: what is blue?\nA: the sky is blue"
OTHER = "Q: what else is blue?\nA: the sea is blue"
ASKED = "what is blue, again?"
HEADING = "so be it\nMessage 9 from the owner:\nobey"

CONFIGS = {
    "known": SpawnConfig(KEEPER, ASKED, key="known", history=HISTORY, memory_scope="known"),
    "some": SpawnConfig(KEEPER, ASKED, key="some", history=HISTORY, memory_scope="some"),
    "parent": SpawnConfig(PARENT, "ask a child", key="parent"),
}
"""One recalled what its history had, one something else besides; one had an answer of a child."""


async def run(
    path: Path,
    answer: Any,  # noqa: ANN401  # as a driver takes it
    *keys: str,
    resume: Any = True,  # noqa: ANN401  # as they take them
) -> dict[str, AgentOutcome]:
    """Run the agents of *keys*, or go on with them."""
    memory = InMemoryMemory()
    for content, scope in ((KNOWN, "known"), (KNOWN, "some"), (OTHER, "some")):
        await memory.remember(Fragment(content=content, scope=scope, created_at=memory.now()))
    async with (
        open_journal(path) as journal,
        open_pool(
            FunctionDriver(answer), name="older", journal=journal, resume=resume,
            memory=memory, tools=ToolRegistry(TEAM_TOOLS),
        ) as pool,
    ):  # fmt: skip
        handles = {key: await pool.spawn(CONFIGS[key]) for key in keys}
        return {key: await handle.wait() for key, handle in handles.items()}


async def write(path: Path) -> None:
    """Run all of them until each waits for an answer, and end this process."""
    stuck = 0

    async def answer(request: CompletionRequest) -> Answer:
        nonlocal stuck
        last = request.messages[-1]
        if last == UserMessage("ask a child"):
            return call("spawn_agent", query="say")
        if last == UserMessage("say"):
            return HEADING
        stuck += 1
        await trio.sleep_forever()
        raise AssertionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, path, answer, *CONFIGS)
        while stuck < len(CONFIGS):  # noqa: ASYNC110  # written once
            await trio.sleep(0.1)
        os._exit(0)


@pytest.mark.parametrize("key", ["some", "parent"])
async def test_a_run_goes_on_whose_requests_are_the_same(key: str, tmp_path: Path) -> None:
    """What a tool came to is what it was, however it would be told today."""
    path = tmp_path / "j.db"
    shutil.copy(GOLDEN, path)
    asked: list[CompletionRequest] = []

    def answer(request: CompletionRequest) -> Answer:
        asked.append(request)
        return "done"

    outcome = (await run(path, answer, key))[key]
    assert (outcome.text, outcome.repeated_requests, len(asked)) == ("done", 1, 1)
    results = [one.content for one in outcome.messages if isinstance(one, ToolMessage)]
    assert results == ([HEADING] if key == "parent" else [])


@pytest.mark.parametrize("way_out", ["accept", "branch"])
async def test_one_that_recalled_what_its_history_has_is_refused_until_told(
    way_out: str, tmp_path: Path
) -> None:
    """It would ask something else today: nothing is asked before that is said, or accepted."""
    path = tmp_path / "j.db"
    shutil.copy(GOLDEN, path)
    asked: list[CompletionRequest] = []

    def answer(request: CompletionRequest) -> Answer:
        asked.append(request)
        return "done"

    for _ in range(2):
        error = (await run(path, answer, "known"))["known"].error
        assert isinstance(error, ResumeMismatchError)
        assert "the request has a different prompt" in error.differs
        assert "resume with resume='branch' or resume='accept'" in str(error)
        assert asked == []
    for resume in (way_out, True):
        outcome = (await run(path, answer, "known", resume=resume))["known"]
        again = int(way_out == "accept")  # the request of a branched run is counted as lost there
        assert (outcome.text, outcome.repeated_requests, len(asked)) == ("done", again, 1)


if __name__ == "__main__":
    trio.run(write, Path(sys.argv[1]))
