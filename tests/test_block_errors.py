"""An error of a block comes out as itself, also if the scope around it is cancelled meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from agentpool import (
    AgentManifest,
    PoolPlan,
    SpawnConfig,
    open_manifest_pool,
    open_pool,
    open_session,
)
from agentpool.cluster import open_cluster, open_cluster_pool
from agentpool.drivers import ScriptedDriver, open_openai
from agentpool.journal import open_journal
from agentpool.live import serve_live
from agentpool.memory import open_sqlite_memory
from agentpool.testing import FakeTurn, open_quirk_server, open_strict_server, strict_fake
from agentpool.tools import open_mcp_servers
from tests.support.fakes import hanging_driver


class PlannedError(Exception):
    """What the block raises."""


@asynccontextmanager
async def pool_at_work(_: Path) -> AsyncGenerator[object]:
    """Run an agent that does not end by itself."""
    async with open_pool(hanging_driver()) as pool:
        await pool.spawn(SpawnConfig(AgentManifest(), "hi"))
        await trio.testing.wait_all_tasks_blocked()
        yield pool


@asynccontextmanager
async def map_at_work(_: Path) -> AsyncGenerator[object]:
    """Run a map whose agents do not end by themselves."""
    async with (
        open_pool(hanging_driver()) as pool,
        pool.map(AgentManifest(), ["a", "b"]) as outcomes,
    ):
        await trio.testing.wait_all_tasks_blocked()
        yield outcomes


@asynccontextmanager
async def live_page(_: Path) -> AsyncGenerator[object]:
    """Serve a page about a pool."""
    async with open_pool(ScriptedDriver([])) as pool, serve_live(pool) as page:
        yield page


@asynccontextmanager
async def session(folder: Path) -> AsyncGenerator[object]:
    """Go on with a conversation."""
    async with (
        open_journal(folder / "journal.db") as journal,
        open_session(journal, "talk", ScriptedDriver([])) as opened,
    ):
        yield opened


ECHO = "agentpool.cluster:open_echo"

BLOCKS: dict[str, Callable[[Path], AbstractAsyncContextManager[object]]] = {
    "pool": lambda _: open_pool(ScriptedDriver([])),
    "pool at work": pool_at_work,
    "map at work": map_at_work,
    "pool of manifests": lambda _: open_manifest_pool(
        PoolPlan(manifests=(AgentManifest(),), driver=ScriptedDriver([]))
    ),
    "journal": lambda folder: open_journal(folder / "journal.db"),
    "memory": lambda folder: open_sqlite_memory(folder / "memory.db"),
    "hosted model": lambda _: open_openai("m", base_url="http://localhost:9/v1"),
    "MCP servers": lambda _: open_mcp_servers(),
    "live page": live_page,
    "session": session,
    "cluster": lambda _: open_cluster(ECHO, address="local:1"),
    "pool on a cluster": lambda _: open_cluster_pool(ECHO, address="local:1"),
    "quirks": lambda _: open_quirk_server(),
    "strict server": lambda _: open_strict_server(strict_fake("openai", [FakeTurn(text="hi")])),
}


class PlannedEndError(BaseException):
    """As Ctrl-C, or the end of the program."""


@pytest.mark.parametrize("error", [PlannedError, PlannedEndError])
@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
async def test_an_error_of_a_block_comes_out_as_itself(
    name: str, tmp_path: Path, error: type[BaseException], *, cancelled: bool
) -> None:
    """In no group, and not lost behind the cancellation: `except` finds it."""
    with trio.CancelScope() as scope, pytest.raises(error) as caught:  # noqa: PT012
        async with BLOCKS[name](tmp_path):
            if cancelled:
                scope.cancel()
            raise error
    assert type(caught.value) is error
