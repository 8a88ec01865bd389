"""The contract of journals, as a check for any implementation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import trio

from agentpool._checks import expect_arguments
from agentpool._errors import LeaseLostError
from agentpool._journal_records import JournalRecord, Lease, RecordKind
from agentpool.abc import Journal
from agentpool.testing._contract import Opener, is_a, open_one, promise


async def check_journal(opener: Opener[Journal]) -> None:
    """Check a journal: what it stores and in which order, its pools, its leases.

    Args:
        opener: Opens an empty journal.

    Raises:
        AssertionError: If the journal breaks its contract. The error says how.
    """
    expect_arguments(check_journal, locals())
    async with AsyncExitStack() as stack:
        journal = await open_one(opener, stack)
        promise(is_a(journal, Journal), f"a journal must be a Journal, got {journal!r}")
        await _check_what_is_kept(journal)
        await _check_long_bodies(journal)
        await _check_at_once(journal)
        await _check_pools(journal)
        await _check_leases(journal)
        await _check_many(journal)
        await _check_cancellation(journal)


LONG_BYTES: Final = 2**24
"""The longest body that is tried. Text columns of databases end at 64 KiB or 16 MiB."""


def _record(agent_id: int, body: bytes = b"{}", place: int = 0) -> JournalRecord:
    return JournalRecord(agent_id, RecordKind.RESULT, place, 0, "digest", body)


async def _check_what_is_kept(journal: Journal) -> None:
    promise(not await journal.read("one"), "a fresh journal must be empty")
    lease = await journal.claim("one")
    promise(lease.pool == "one", f"a lease must name its pool, got {lease!r}")
    first = [
        JournalRecord(2, RecordKind.ACCEPTED, body=b'{"a": "\xc3\xa9"}'),
        JournalRecord(2, RecordKind.STARTED, 0, 0, "d1"),
        JournalRecord(2, RecordKind.RESULT, 0, 3, "d1", bytes(range(256))),
    ]
    await journal.append(lease, first)
    await journal.append(lease, [JournalRecord(1, RecordKind.ENDED)])
    await journal.append(lease, [])
    found = list(await journal.read("one"))
    wanted = [*first, JournalRecord(1, RecordKind.ENDED)]
    promise(found == wanted, f"records must come back unchanged and in order, got {found!r}")


async def _check_long_bodies(journal: Journal) -> None:
    lease = await journal.claim("long")
    for body in (bytes(range(256)) * 300, bytes(range(256)) * (LONG_BYTES // 256) + b"."):
        await journal.append(lease, [_record(1, body)])
        *_, found = (record.body for record in await journal.read("long"))
        promise(
            found == body,
            f"a body of {len(body):,} bytes must come back whole, got {len(found):,} of them: an "
            "answer, or an image in a question, can be long",
        )


async def _check_at_once(journal: Journal) -> None:
    lease = await journal.claim("at once")
    await journal.append(lease, [_record(1)])
    kept = 1 + journal.append_at_once(lease, [_record(2), _record(3)]) * 2
    found = [record.agent_id for record in await journal.read("at once")]
    promise(
        found == [1, 2, 3][:kept],
        f"append_at_once() said that {kept} records are kept, but those of agents {found!r} are",
    )
    await journal.release(lease)
    try:
        is_kept = journal.append_at_once(lease, [_record(4)])
    except LeaseLostError:
        return
    promise(not is_kept, "append_at_once() under a lease that was released must not keep records")


async def _check_pools(journal: Journal) -> None:
    lease = await journal.claim("one:two")
    await journal.append(lease, [_record(7)])
    found = [record.agent_id for record in await journal.read("one:two")]
    promise(found == [7], f"a pool must find only its own records, got {found!r}")
    promise(not await journal.read("two"), "a pool without records must be empty")


async def _check_leases(journal: Journal) -> None:
    first = await journal.claim("held")
    second = await journal.claim("held")
    promise(
        second.fence > first.fence,
        f"a later claim must have a higher fence, got {second.fence} after {first.fence}",
    )
    await _must_be_refused(journal, first, "an older fence")
    await journal.append(second, [_record(2)])
    await journal.release(second)
    await _must_be_refused(journal, second, "a lease that was released")
    third = await journal.claim("held")
    await journal.release(first)
    await journal.append(third, [_record(3)])
    found = [record.agent_id for record in await journal.read("held")]
    promise(found == [2, 3], f"records under an older fence must not be kept, got {found!r}")


async def _must_be_refused(journal: Journal, lease: Lease, what: str) -> None:  # noqa: ASYNC910  # a journal need not have one
    for records in ([_record(1)], list[JournalRecord]()):
        try:
            await journal.append(lease, records)
        except LeaseLostError:
            continue
        promise(kept=False, text=f"append() under {what} must raise LeaseLostError")


async def _check_many(journal: Journal) -> None:
    lease = await journal.claim("many")

    async def append(number: int) -> None:
        await journal.append(lease, [_record(number, place=place) for place in range(5)])

    async with trio.open_nursery() as nursery:
        for number in range(1, 11):
            nursery.start_soon(append, number)
    found: Sequence[JournalRecord] = await journal.read("many")
    promise(len(found) == 50, f"records kept in parallel must all be there, got {len(found)} of 50")  # noqa: PLR2004  # ten times five
    batches = [found[at : at + 5] for at in range(0, 50, 5)]
    promise(
        all(len({record.agent_id for record in batch}) == 1 for batch in batches),
        "records of one call must stay together",
    )


async def _check_cancellation(journal: Journal) -> None:
    lease = await journal.claim("cut")
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.append(lease, [_record(1), _record(2)])
    promise(scope.cancelled_caught, "append() must have a checkpoint: a cancelled call completed")
    kept = len(await journal.read("cut"))
    promise(kept in {0, 2}, f"records of one call must be kept all or none, got {kept} of 2")
