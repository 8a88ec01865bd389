"""Removes records of a finished pool that are no longer needed.

Rule: the tasks of the agents, their answers and their spending stay, so that a later process can go
on from there. The steps in between are removed.
"""

from __future__ import annotations

from agentpool._database.transaction import Transaction
from agentpool._errors import JournalError
from agentpool._journal_records import JournalRecord, PoolSummary, RecordKind
from agentpool._messages import AgentId
from agentpool._recorded_results import encode, totals_of
from agentpool.journal._rows import record_of


def check_over(pool: PoolSummary) -> None:
    """Raise unless all agents of *pool* have ended and no process uses *pool*.

    Raises:
        JournalError: If an agent has not ended, or a process uses the pool.
    """
    if pool.owner is not None:
        raise JournalError(
            f"pool {pool.pool!r} is in use by process {pool.owner.pid} on {pool.owner.host}; "
            "wait until it ends"
        )
    if pool.is_open:
        raise JournalError(
            f"pool {pool.pool!r} is not over: {pool.ended} of {pool.agents} agents have ended; "
            "resume it first"
        )


def forget(transaction: Transaction, pool: str) -> int:
    """Delete the unneeded records of *pool*. Return how many were deleted.

    Raises:
        JournalError: If a record of spending cannot be read.
        ValueError: If a row is damaged.
    """
    ((number,),) = transaction.rows("SELECT id FROM pools WHERE name = ?", pool)
    rows = transaction.rows(
        "SELECT agent, kind, place, part, digest, iif(kind = 'accepted', x'', body) FROM records "
        "WHERE pool = ? AND kind IN ('accepted', 'started', 'result', 'lost', 'spent', 'aside') "
        "ORDER BY id",
        number,
    )
    runs: dict[AgentId, list[list[JournalRecord]]] = {}
    for record in map(record_of, rows):
        if record.kind is RecordKind.ACCEPTED:  # an agent that was branched begins again
            runs.setdefault(record.agent_id, []).append([])
        elif record.agent_id in runs:
            runs[record.agent_id][-1].append(record)
    totals = {agent: totals_of(known) for agent, known in runs.items()}
    transaction.change("DELETE FROM records WHERE pool = ? AND kind = 'spent'", number)
    gone = transaction.change(
        "DELETE FROM records WHERE pool = ? AND kind NOT IN ('accepted', 'ended', 'head')", number
    )
    transaction.insert_many(
        "INSERT INTO records (pool, agent, kind, place, part, digest, body) "
        "VALUES (?, ?, 'spent', -1, 0, '', ?)",
        [(number, agent, encode(total)) for agent, total in totals.items() if total],
    )
    return gone
