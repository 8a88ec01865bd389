"""``agentpool runs``: shows and cleans the file of a journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool import AgentOutcome, UsageError
from agentpool import journal as journals
from agentpool._amounts import counted
from agentpool._cli._command import RunsCommand
from agentpool._cli._hidden_keys import write_told
from agentpool._cli._journal_file import expect_journal
from agentpool._cli._report import ExitCode
from agentpool.drivers import Json
from agentpool.journal import JournalRecord, PoolSummary, RecordKind
from agentpool.observe import outcome_from_json
from agentpool.tools import printable

SHOWN_CHARS: Final = 60
"""The most characters shown of a query, on one line. ``--json`` shows the whole first line."""


@final
class _Accepted(msgspec.Struct, frozen=True):
    """The part of an agent's first record that is shown."""

    key: str
    query: str


@final
@attrs.frozen
class _Agent:
    """One agent of a pool."""

    agent_id: int
    accepted: _Accepted
    outcome: AgentOutcome | None
    """The agent's outcome. ``None``: the agent has not ended."""

    @property
    def status(self) -> str:
        """How it ended."""
        return "unfinished" if self.outcome is None else self.outcome.status.value

    @property
    def first_line(self) -> str:
        """The beginning of its query."""
        return self.accepted.query.strip().partition("\n")[0]


def look_after_runs(command: RunsCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If there is no such file, or the file has no such pool.
        JournalError: If the journal cannot be used.
    """
    expect_journal(command.file)

    async def main() -> tuple[int, str]:
        # Whose file it is, who looks at it changes nothing.
        looks = command.action != "prune"
        async with journals.open_journal(command.file, read_only=True):
            pass  # or it says why: an empty file would be made one
        async with journals.open_journal(command.file, read_only=looks) as journal:
            return await _do(journal, command)

    code, text = trio.run(main)
    write_told(text)
    return code


async def _do(journal: journals.SqliteJournal, command: RunsCommand) -> tuple[int, str]:
    pools = await journal.pools()
    if command.pool is not None:
        found = [one for one in pools if one.pool == command.pool]
        if not found:
            known = ", ".join(repr(one.pool) for one in pools) or "none"
            raise UsageError(f"the journal has no pool {command.pool!r}; it has {known}")
        pools = tuple(found)
    if command.action == "prune":
        return await _prune(journal, pools, as_json=command.json)
    if command.action == "list":
        lines = map(_pool_object, pools) if command.json else _pool_lines(pools)
        return ExitCode.COMPLETED, _joined(lines)
    shown: list[str] = []
    for pool in pools:
        agents = _agents_of(await journal.read(pool.pool))
        if command.json:
            shown += [_agent_object(pool.pool, agent) for agent in agents]
        else:
            shown += [*_pool_lines((pool,)), *map(_agent_line, agents)]
    return ExitCode.COMPLETED, _joined(shown)


async def _prune(
    journal: journals.SqliteJournal, pools: Sequence[PoolSummary], *, as_json: bool
) -> tuple[int, str]:
    lines: list[str] = []
    code = ExitCode.COMPLETED
    for pool in pools:
        is_over = not pool.is_open and pool.owner is None
        gone = await journal.prune(pool.pool) if is_over else 0
        code = code if is_over else ExitCode.FAILED
        told: Json = {"type": "pruned", "pool": pool.pool, "over": is_over, "records": gone}
        words = (
            f"{gone:,} records forgotten"
            if is_over
            else f"left as it is: {_ended(pool)}{_writes(pool)}; {_before_pruning(pool)}"
        )
        lines.append(json.dumps(told) if as_json else f"{printable(pool.pool)}: {words}")
    return code, _joined(lines)  # noqa: ASYNC910  # the caller has read the journal


def _before_pruning(pool: PoolSummary) -> str:
    """Return what to do before *pool* can be pruned."""
    return "wait until it ends" if pool.owner is not None else "run its command again first"


def _agents_of(records: Sequence[JournalRecord]) -> list[_Agent]:
    """Return the agents of a pool in spawn order."""
    accepted: dict[int, _Accepted] = {}
    outcomes: dict[int, AgentOutcome] = {}
    for record in records:
        if record.kind is RecordKind.ACCEPTED and record.agent_id > 0:
            try:
                found = msgspec.json.decode(record.body, type=_Accepted)
            except msgspec.MsgspecError as error:
                raise UsageError(
                    f"agent {record.agent_id} of the journal cannot be read: {error}"
                ) from error
            accepted[record.agent_id] = found
            outcomes.pop(record.agent_id, None)  # of a run that was branched
        elif record.kind is RecordKind.ENDED:
            outcomes[record.agent_id] = outcome_from_json(record.body)
    return [_Agent(number, one, outcomes.get(number)) for number, one in accepted.items()]


def _pool_lines(pools: Sequence[PoolSummary]) -> Iterator[str]:
    if not pools:
        yield "no runs"
    for pool in pools:
        since = datetime.fromtimestamp(pool.created_at, UTC).strftime("%Y-%m-%d %H:%M")
        name = printable(pool.pool)
        yield f"{name}: {_ended(pool)}, {pool.bytes:,} bytes, since {since} UTC{_writes(pool)}"


def _ended(pool: PoolSummary) -> str:
    return f"{pool.ended:,} of {counted(pool.agents, 'agent')} ended"


def _writes(pool: PoolSummary) -> str:
    told = ""
    if pool.owner is not None:
        told += f"; process {pool.owner.pid} on {printable(pool.owner.host)} runs it"
    if pool.ahead_seconds:
        told += f"; its last write is {pool.ahead_seconds:,.0f} seconds ahead of the clock here"
    return told


def _agent_line(agent: _Agent) -> str:
    text = printable(agent.first_line)
    text = f"{text[:SHOWN_CHARS]}…" if len(text) > SHOWN_CHARS else text
    return f"{agent.agent_id:>7,}  {agent.status:<10}  {printable(agent.accepted.key)}: {text}"


def _pool_object(pool: PoolSummary) -> str:
    told: Json = {
        "type": "pool",
        "pool": pool.pool,
        "created_at": pool.created_at,
        "agents": pool.agents,
        "ended": pool.ended,
        "bytes": pool.bytes,
        "owner": None if pool.owner is None else {"host": pool.owner.host, "pid": pool.owner.pid},
    }
    return json.dumps(told)


def _agent_object(pool: str, agent: _Agent) -> str:
    told: Json = {
        "type": "agent",
        "pool": pool,
        "agent_id": agent.agent_id,
        "status": agent.status,
        "key": agent.accepted.key,
        "query": agent.first_line,
    }
    return json.dumps(told)


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
