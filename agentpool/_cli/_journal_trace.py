"""Reads a pool of a journal as a trace."""

from __future__ import annotations

from agentpool import UsageError, trace_of_journal
from agentpool import journal as journals
from agentpool.observe import Trace


async def read_journal(file: str, pool: str | None) -> Trace:
    """Return the trace of a pool in the journal *file*.

    Args:
        file: The journal.
        pool: The name of the pool. ``None``: the only one.

    Raises:
        UsageError: If there is no such pool, or there are several.
        JournalError: If it cannot be read.
    """
    async with journals.open_journal(file, read_only=True) as journal:
        names = [one.pool for one in await journal.pools()]
        found = [name for name in names if pool in {None, name}]
        if len(found) != 1:
            known = ", ".join(map(repr, names)) or "none"
            if pool is not None:
                raise UsageError(f"the journal has no pool {pool!r}; it has {known}")
            raise UsageError(f"say which pool with --pool; the journal has {known}")
        return trace_of_journal(found[0], await journal.read(found[0]))
