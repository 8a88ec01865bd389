"""Who was cancelled on purpose stays cancelled, also if the pool is cut while it cleans up."""

from __future__ import annotations

from typing import Literal, TypeAlias

import pytest
import trio

from agentpool import AgentManifest, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.testing import simulate

MANIFEST = AgentManifest(name="worker", capabilities=())
CLEANUP_SECONDS = 3.0

End: TypeAlias = Literal["scope", "error", "ctrl-c"]


async def slowly(_: CompletionRequest) -> Answer:
    """Never answer, and take a while to clean up."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(CLEANUP_SECONDS)
    raise AssertionError


async def begin(journal: InMemoryJournal, end: End, seconds: float) -> None:
    """Cancel one agent of two, and end the pool some seconds later."""
    with trio.CancelScope() as scope:
        async with open_pool(FunctionDriver(slowly), journal=journal, resume=True) as pool:
            unwanted = await pool.spawn(SpawnConfig(MANIFEST, "unwanted", key="unwanted"))
            await pool.spawn(SpawnConfig(MANIFEST, "wanted", key="wanted"))
            await trio.sleep(1)
            unwanted.cancel("nobody wants it")
            await trio.sleep(seconds)
            if end == "error":
                raise LookupError
            if end == "ctrl-c":
                raise KeyboardInterrupt
            scope.cancel()
            await trio.sleep_forever()


@pytest.mark.parametrize("end", ["scope", "error", "ctrl-c"])
@pytest.mark.parametrize("seconds", [0.0, 1.0, CLEANUP_SECONDS + 1])
def test_only_who_was_not_cancelled_goes_on(end: End, seconds: float) -> None:
    """In the middle of its cleanup, before it and after it."""

    async def main() -> list[AgentStatus]:
        journal = InMemoryJournal()
        try:
            await begin(journal, end, seconds)
        except* (LookupError, KeyboardInterrupt):
            pass
        driver = FunctionDriver(lambda _: "done")
        async with open_pool(driver, journal=journal, resume=True) as pool:
            handles = [
                await pool.spawn(SpawnConfig(MANIFEST, name, key=name))
                for name in ("unwanted", "wanted")
            ]
            return [(await handle.wait()).status for handle in handles]

    assert simulate(main) == [AgentStatus.CANCELLED, AgentStatus.COMPLETED]
