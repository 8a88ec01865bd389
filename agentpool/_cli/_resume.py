"""``agentpool runs resume``: runs the command of a journal again."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from agentpool import UsageError
from agentpool import journal as journals
from agentpool._cli._arguments import parse
from agentpool._cli._command import MapCommand, RunCommand, RunsCommand
from agentpool._cli._journal_file import expect_journal
from agentpool._cli._map import map_files
from agentpool._cli._run import run
from agentpool._cli._stored_command import KeptCommand
from agentpool.journal import PoolSummary
from agentpool.tools import printable


def resume(command: RunsCommand) -> int:
    """Run the command of a pool again, which continues the pool. Return its exit code.

    Raises:
        UsageError: If there is no such pool, or no command made the pool, or a process runs it.
        JournalError: If the file cannot be used.
    """
    file = Path(command.file).absolute()
    expect_journal(command.file)
    kept = trio.run(_find, command)
    again = parse(kept.words)
    if not isinstance(again, RunCommand | MapCommand):
        raise UsageError(
            f"journal {command.file!r} has a command that cannot resume a pool: "
            f"{printable(shlex.join(kept.words))}; restore the file from a copy"
        )
    # The file may have been moved since.
    again = attrs.evolve(again, options=attrs.evolve(again.options, journal=str(file)))
    if not again.options.quiet:
        line = printable(shlex.join(("agentpool", *kept.words)))
        sys.stderr.write(f"in {printable(kept.folder)}: {line}\n")
    try:
        folder = contextlib.chdir(kept.folder)
        folder.__enter__()
    except OSError as error:
        raise UsageError(
            f"the folder of the command, {kept.folder!r}, cannot be entered: {error.strerror}; "
            "run the command in another folder: "
            f"{printable(shlex.join(('agentpool', *kept.words)))}"
        ) from error
    with contextlib.ExitStack() as stack:
        stack.push(folder)
        return run(again) if isinstance(again, RunCommand) else map_files(again)


async def _find(command: RunsCommand) -> KeptCommand:
    async with journals.open_journal(command.file, read_only=True) as journal:
        pool = _chosen(await journal.pools(), command.pool)
        if pool.owner is not None:
            raise UsageError(
                f"pool {pool.pool!r} is run by process {pool.owner.pid} on {pool.owner.host} "
                "right now; wait until that process ends, or end it"
            )
        kept = await journal.command_of(_work_of(pool.pool))
    if kept is None:
        raise UsageError(
            f"pool {pool.pool!r} belongs to no command in the journal: a program, a chat "
            "or an earlier version made it; run that again"
        )
    return KeptCommand.of(kept)


def _chosen(pools: Sequence[PoolSummary], name: str | None) -> PoolSummary:
    """Return the pool *name*; without a name, the unfinished pool or the only one.

    Raises:
        UsageError: If there is no such pool, or there are several.
    """
    found = [one for one in pools if name in {None, one.pool}]
    unfinished = [one for one in found if one.is_open]
    for some in (unfinished, found):
        if len({_work_of(one.pool) for one in some}) == 1:
            return some[0]
    if not pools:
        raise UsageError("the journal has no runs to resume; see --journal of agentpool run")
    known = ", ".join(repr(one.pool) for one in pools)
    if name is not None:
        raise UsageError(f"the journal has no pool {name!r}; it has {known}")
    raise UsageError(f"say which pool to resume; the journal has {known}")


def _work_of(pool: str) -> str:
    """Return *pool*, or if a worker has it, the name of the shared work whose command is stored.

    >>> _work_of("map"), _work_of("map worker 3")
    ('map', 'map')
    """
    return pool.rpartition(" worker ")[0] or pool
