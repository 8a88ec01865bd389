"""What is about to be done is kept before it is done, however long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import attrs
import trio

from agentpool import AgentManifest, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, NetworkError, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal, JournalRecord, Lease, RecordKind
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())

open_kept = partial(open_pool, name="kept", resume=True)


@final
@attrs.define(eq=False)
class SlowJournal(Journal):
    """Takes a minute for each write."""

    kept: InMemoryJournal = attrs.field(factory=InMemoryJournal)

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write."""
        return await self.kept.claim(pool, lease_seconds=lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, late."""
        await trio.sleep(60)
        await self.kept.append(lease, records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records."""
        return await self.kept.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give the right to write back."""
        await self.kept.release(lease)

    async def kinds(self) -> list[RecordKind]:
        """Return the kinds of what an agent's run has on the disk."""
        return [one.kind for one in await self.kept.read("kept") if one.place >= 0]


def test_a_request_and_a_call_leave_when_it_is_kept_that_they_do() -> None:
    """Also one that is made again: what is on the disk says what may have been done."""
    started, result, lost = RecordKind.STARTED, RecordKind.RESULT, RecordKind.LOST
    journal, seen = SlowJournal(), list[list[RecordKind]]()

    async def answer(request: CompletionRequest) -> Answer:
        seen.append(await journal.kinds())
        if len(seen) == 1:
            raise NetworkError("cut")
        return "done" if isinstance(request.messages[-1], ToolMessage) else call("pay")

    @tool
    async def pay() -> str:
        """Pay."""
        seen.append(await journal.kinds())
        return "paid"

    async def scenario() -> None:
        tools = ToolRegistry([pay])
        async with open_kept(FunctionDriver(answer), journal=journal, tools=tools) as pool:
            outcome = await (await pool.spawn(SpawnConfig(READER, "buy", key="a"))).wait()
        assert outcome.status is AgentStatus.COMPLETED

    simulate(scenario)
    request = [started, lost, started]
    assert seen == [
        [started],
        request,
        [*request, result, started],
        [*request, result, started, result, started],
    ]
