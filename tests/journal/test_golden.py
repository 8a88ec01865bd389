"""Files that released versions wrote: they are opened and gone on with, for ever."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, AgentPool, Budget, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import open_journal
from agentpool.tools import ToolRegistry, tool

GOLDEN = Path(__file__).parent / "golden"
BUYER = AgentManifest(name="buyer", capabilities=())


def buyer(request: CompletionRequest) -> Answer:
    """Pay once, and say what came of it."""
    last = request.messages[-1]
    return last.content if isinstance(last, ToolMessage) else call("pay", amount=5)


def tools_of(paid: list[int]) -> ToolRegistry:
    """Return a tool that writes down in *paid* what it pays."""

    @tool
    async def pay(amount: int) -> str:
        """Pay."""
        await trio.lowlevel.checkpoint()
        paid.append(amount)
        return f"paid {amount}"

    return ToolRegistry([pay])


@asynccontextmanager
async def open_golden(
    path: Path, driver: FunctionDriver, paid: list[int]
) -> AsyncGenerator[AgentPool]:
    """Open the pool as the program did that wrote the files."""
    async with (
        open_journal(path) as journal,
        open_pool(
            driver, name="golden", journal=journal, resume=True, tools=tools_of(paid)
        ) as pool,
    ):
        yield pool


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.db")), ids=lambda file: file.stem)
async def test_a_file_of_every_format_is_gone_on_with(file: Path, tmp_path: Path) -> None:
    """One agent had ended; two were asked something that nobody had answered."""
    path = tmp_path / "j.db"
    shutil.copy(file, path)
    paid: list[int] = []
    async with open_golden(path, FunctionDriver(buyer), paid) as pool:
        done = await (await pool.spawn(SpawnConfig(BUYER, "buy", key="done"))).wait()
        assert (done.text, done.repeated_requests, paid) == ("paid 5", 0, [])
        left = await (await pool.spawn(SpawnConfig(BUYER, "wait", key="open"))).wait()
        assert (left.text, left.repeated_requests) == ("paid 5", 1)
        assert (await pool[3].wait()).text == "paid 5"
    assert paid == [5, 5]
    async with open_journal(path, read_only=True) as journal:
        (summary,) = await journal.pools()
        assert (summary.agents, summary.ended) == (3, 3)


def test_there_is_a_file_of_every_format() -> None:
    """A new format needs another one."""
    names = [file.stem for file in sorted(GOLDEN.glob("*.db"))]
    assert names == ["format-1", "format-2", "format-3"]


async def test_a_file_with_a_lost_request_is_gone_on_with(tmp_path: Path) -> None:
    """One was refused as the server was busy, and made again; then the process was killed."""
    path = tmp_path / "j.db"
    shutil.copy(GOLDEN / "lost" / "format-3.db", path)
    asked: list[str] = []

    def answer(_: CompletionRequest) -> Answer:
        asked.append("again")
        return "done"

    budget = Budget(requests=9)
    async with (
        open_journal(path) as journal,
        open_pool(
            FunctionDriver(answer), name="lost", journal=journal, resume=True, budget=budget
        ) as pool,
    ):
        asker = AgentManifest(name="asker", capabilities=())
        found = await (await pool.spawn(SpawnConfig(asker, "ask", key="one"))).wait()
    assert (found.text, found.repeated_requests, asked) == ("done", 1, ["again"])
    # The refused one, the one that the kill cut off, and the one that was answered.
    assert budget.statistics().requests.committed == 3
