"""Opens the journal of one pool: claims the right to write it, and reads its records."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from agentpool._agent.run_journal import OnMismatch
from agentpool._errors import RunBusyError, UsageError
from agentpool._journal_records import JournalRecord, Lease
from agentpool._pool.absent_agents import absent_agents
from agentpool._pool.agent_keys import AgentKeys
from agentpool._pool.journal import PoolJournal
from agentpool._pool.past import Past, first_record
from agentpool._recorded_results import received_ids, settled_keys
from agentpool._spawn import emptying
from agentpool.abc import Journal
from agentpool.journal._writer import JournalWriter

RELEASE_SECONDS: Final = 5.0
"""The time for giving back the right to write, on a slow disk. After that, others must wait until
the right ends by itself."""


@asynccontextmanager
async def open_pool_journal(
    journal: Journal, pool: str, *, resume: bool, on_mismatch: OnMismatch
) -> AsyncGenerator[PoolJournal]:
    """Take over the records of *pool*, and write new ones in a task of the pool.

    Args:
        journal: The journal with the records.
        pool: The pool's name.
        resume: Whether to go on with the agents of an earlier process.
        on_mismatch: What happens if an agent asks for something other than before.

    Raises:
        RunBusyError: If another process writes them.
        UsageError: If there are records, and resuming was not asked for.
        JournalError: If they cannot be read or written.
    """
    _refuse_if_open(journal, pool)
    lease = await journal.claim(pool)
    here = (journal, pool)
    _OPEN.append(here)
    try:
        yield await _opened(journal, lease, on_mismatch, resume=resume)
    finally:
        _OPEN.remove(here)
        with trio.move_on_after(RELEASE_SECONDS, shield=True):
            await journal.release(lease)


_OPEN: Final = list[tuple[Journal, str]]()
"""The pools that this process writes. Its own leases would not prevent it from opening one
twice."""


def _refuse_if_open(journal: Journal, pool: str) -> None:
    if any(one is journal and name == pool for one, name in _OPEN):
        raise RunBusyError(
            f"pool {pool!r} of the journal is already open in this process; leave its block "
            "first, or give this one another name",
            host=socket.gethostname(),
            pid=os.getpid(),
            until=math.inf,
        )


async def _opened(
    journal: Journal, lease: Lease, on_mismatch: OnMismatch, *, resume: bool
) -> PoolJournal:
    # Nobody else has them: each can be freed when it has been read.
    records = list(await journal.read(lease.pool))
    if records and not resume:
        raise UsageError(
            f"the journal already has pool {lease.pool!r}; open it with resume=True, or give this "
            "pool another name"
        )
    return _recover(records, JournalWriter(journal, lease), on_mismatch)


def _recover(
    records: list[JournalRecord], writer: JournalWriter, on_mismatch: OnMismatch
) -> PoolJournal:
    if not records:
        run_id = new_run_id()
        writer.note(first_record(run_id))
        return PoolJournal(writer, run_id, on_mismatch, AgentKeys(is_plain=False))
    past = Past.read(emptying(records))
    keys = AgentKeys(is_plain=not past.is_keyed)
    agents = past.agents.values()
    by_key = {one.key: one for one in agents}
    opened = PoolJournal(writer, past.run_id, on_mismatch, keys, past=by_key)
    opened.head = past.head
    if past.head and (last := past.agents[past.head].outcome) is not None:
        opened.head_messages = last.messages
    opened.post.highest_id = opened.last_id
    opened.post.absent = absent_agents(past.agents)
    opened.post.recover(
        past.sent,
        {number for one in agents for run in one.runs for number in received_ids(run)},
        {key for one in agents for run in one.runs for key in settled_keys(run)},
    )
    return opened


def new_run_id() -> str:
    """Return a unique id for a run."""
    return os.urandom(16).hex()
