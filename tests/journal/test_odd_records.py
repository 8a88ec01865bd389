"""Records that are JSON, and say what cannot be: the pool does not open, and the error says why."""

from __future__ import annotations

import msgspec
import pytest

from agentpool import SpawnConfig, open_pool
from agentpool.drivers import FunctionDriver
from agentpool.journal import InMemoryJournal, JournalError, JournalRecord, RecordKind
from tests.support.fakes import manifest


async def _with(change: dict[str, object]) -> None:
    """Keep one run, and open its pool on a copy whose outcome is changed."""
    kept, other = InMemoryJournal(), InMemoryJournal()
    async with open_pool(FunctionDriver(lambda _: "x"), journal=kept) as pool:
        await pool.spawn(SpawnConfig(manifest(), "q", key="only"))

    def changed(record: JournalRecord) -> JournalRecord:
        if change:
            return msgspec.structs.replace(record, **change)
        body = record.body.replace(b'"agent_id":1,', b'"agent_id":7,')
        return msgspec.structs.replace(record, body=body)

    records = [
        changed(one) if one.kind is RecordKind.ENDED else one for one in await kept.read("pool")
    ]
    assert any(one.kind is RecordKind.ENDED for one in records)
    lease = await other.claim("pool", lease_seconds=60)
    await other.append(lease, records)
    await other.release(lease)
    with pytest.raises(JournalError) as caught:
        async with open_pool(FunctionDriver(lambda _: "x"), journal=other, resume=True):
            raise AssertionError  # pragma: no cover  # it does not open
    raise caught.value


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"body": b"{}"}, "an outcome that cannot be read"),
        ({"body": b"[" * 9000}, "an outcome that cannot be read"),
        ({}, "of agent 7 in place of that of agent 1"),
        ({"agent_id": 7}, "not that it was accepted"),
    ],
    ids=["no outcome", "nested", "of another", "unknown agent"],
)
async def test_an_outcome_that_cannot_be(change: dict[str, object], told: str) -> None:
    """Whoever finds it restores the file from a copy."""
    with pytest.raises(JournalError, match=told):
        await _with(change)
