"""Decides whether a resumed run has changed, and records the new run in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs
import msgspec

from agentpool._agent.early_outcome import early_outcome
from agentpool._budget.budget import Budget, ledger_of
from agentpool._budget.paid_ahead import PaidAhead
from agentpool._budget.spent import Spent, spent_on
from agentpool._errors import AgentCancelledError, UsageError
from agentpool._journal_records import JournalRecord, RecordKind, begins_call, read_body
from agentpool._messages import AgentId, AssistantMessage, ChatMessage
from agentpool._outcome import AgentStatus
from agentpool._pool.past import PastAgent, Spawned, encode, outcome_record
from agentpool._recorded_results import digest_of, spending
from agentpool._served_call import Loss
from agentpool._spawn import SpawnConfig

Below: TypeAlias = Callable[[PastAgent], Iterable[PastAgent]]
"""Returns the children of an agent of an earlier process."""

REASON: Final = "it was changed, and branched when its pool was resumed"


def begin_again(
    past: PastAgent,
    below: Below,
    lost: Sequence[JournalRecord],
    *,
    config: SpawnConfig,
    own: int,
    digest: str,
) -> list[JournalRecord]:
    """End the run of *past* and begin a new run of its agent. Return the new records.

    Args:
        past: The agent to branch.
        below: Returns the children that end with an agent.
        lost: Records of its requests that were sent and got no answer.
        config: The config of the new run. Its history has all that was settled.
        own: How many messages at the end of that history come from the agent's earlier runs.
        digest: The digest of the config that it was spawned with.
    """
    past.records.extend(lost)
    ended = list(end_records(past, below, REASON))
    past.outcome = None
    return [*lost, *ended, _begin_record(past, config, own, digest)]


def end_records(
    past: PastAgent, below: Below, reason: str, by: str = "pool"
) -> Iterator[JournalRecord]:
    """End *past* and all unfinished agents *below* it; yield the records.

    Args:
        past: The first agent that ends.
        below: Returns the children that end with an agent.
        reason: The reason for its end.
        by: Who cancels it.
    """
    if past.outcome is None:
        yield from count_open(past)
        error = AgentCancelledError(
            f"agent {past.agent_id} was cancelled by {by}: {reason}",
            cancelled_by=by,
            reason=reason,
        )
        past.outcome = early_outcome(
            past.config, past.agent_id, AgentStatus.CANCELLED, 0.0, error=error
        )
        yield outcome_record(past.outcome, past.config.history)
    for child in below(past):
        yield from end_records(child, below, reason, by)


def fail_records(past: PastAgent) -> Iterator[JournalRecord]:
    """End *past*, because the journal has too little of it to continue it; yield the records."""
    yield from count_open(past)
    error = UsageError(
        f"agent {past.agent_id} ({past.config.agent_name}) has an output_type or its own budget, "
        f"which no journal keeps, and the tool call that spawned it has ended; wait for "
        "the agent in the tool, or spawn it from the pool with a key"
    )
    past.outcome = early_outcome(past.config, past.agent_id, AgentStatus.FAILED, 0.0, error=error)
    yield outcome_record(past.outcome, past.config.history)


def count_open(past: PastAgent, after: int = -1) -> Iterator[JournalRecord]:
    """Count the requests of *past* that were sent and left no other trace; yield the records.

    Args:
        past: The agent.
        after: The place in its run after which they were sent.
    """
    for begun in [one for one in _left_open(past.records) if one.place > after]:
        body = encode(msgspec.structs.replace(_reserved(begun), is_repeated=True))
        lost = JournalRecord(past.agent_id, RecordKind.LOST, begun.place, body=body)
        past.records.append(lost)
        yield lost


def _left_open(records: Sequence[JournalRecord]) -> Iterator[JournalRecord]:
    """Yield the records of requests that were sent and left no other trace, newest first."""
    left = _open_places(records)
    for one in reversed(records) if left else ():
        if one.kind is RecordKind.STARTED and not begins_call(one) and left[one.place] > 0:
            left[one.place] -= 1
            yield one


def _reserved(begun: JournalRecord) -> Loss:
    """Return what a budget had reserved for the request that *begun* records, if there was one."""
    reserved = read_body(begun.body, Loss) if begun.body else Loss(0, None)
    return msgspec.structs.replace(reserved, is_reserved=True)


def _open_places(records: Sequence[JournalRecord]) -> Counter[int]:
    """Return how many requests were sent and left no other trace, by place."""
    open_at = Counter[int]()
    for one in records:
        if one.kind is RecordKind.STARTED and not begins_call(one):
            open_at[one.place] += 1
        elif one.kind is RecordKind.LOST or (one.kind is RecordKind.RESULT and not one.digest):
            open_at[one.place] -= 1
    return +open_at


def _begin_record(past: PastAgent, config: SpawnConfig, own: int, digest: str) -> JournalRecord:
    """Make the record that begins a new run of *past*'s agent."""
    base = len(config.history) - own
    is_same = config.history[:base] == past.config.history[: len(past.config.history) - past.own]
    after = past.after * is_same
    body = encode(Spawned.of(config, past.key, past.parent_id, after, own, is_free=past.is_free))
    part = past.parent_id
    return JournalRecord(past.agent_id, RecordKind.ACCEPTED, digest=digest, body=body, part=part)


def next_config(
    past: PastAgent, config: SpawnConfig, messages: Sequence[ChatMessage], *, is_changed: bool
) -> tuple[SpawnConfig, int]:
    """Return the config of *past*'s next run, and how many messages of its history are its own.

    Args:
        past: The agent to branch.
        config: The config that it was spawned with now.
        messages: The history and the messages of its last run.
        is_changed: Whether it was spawned with a different config. If so, its history is that of
            *config*, with the messages of its runs.
    """
    known = len(past.config.history)
    base = known - past.own
    before = config.history if is_changed else past.config.history[:base]
    has_spoken = any(isinstance(one, AssistantMessage) for one in messages[known:])
    said = messages[base:] if has_spoken else messages[base:known]
    return msgspec.structs.replace(config, history=(*before, *said)), len(said)


def call_of(child: PastAgent) -> str:
    """Return the key of the call that spawned *child*."""
    return child.key.partition("/")[0]  # its own key may have a slash as well


def spend(
    ahead: PaidAhead, agent_id: AgentId, records: Sequence[JournalRecord], budget: Budget | None
) -> None:
    """Count in *budget* what the run of an agent with these *records* has spent."""
    if budget is not None:
        for one in spending(records):
            ahead.record(ledger_of(budget), agent_id, one)


def spent_before(past: PastAgent) -> Iterator[Spent]:
    """Yield what earlier processes spent on *past*; of requests without an answer, the reserved."""
    for records in past.before:
        yield from spending(records)
    if past.outcome is not None:
        yield from spending(past.records)
        return
    for record in past.records:
        if record.kind is RecordKind.LOST:
            yield spent_on(read_body(record.body, Loss))
    yield from spending(one for one in past.records if one.kind is not RecordKind.LOST)
    for begun in _left_open(past.records):
        yield spent_on(_reserved(begun))


def is_changed(past: PastAgent, config: SpawnConfig) -> bool:
    """Return whether *config* is new: *past* was never spawned or branched with an equal config."""
    return asked_digest(config) not in {past.digest, asked_digest(past.config)}


def asked_digest(config: SpawnConfig) -> str:
    """Return a short hash of an agent's manifest and query.

    A daily budget does not affect the answers, so it may differ between two processes. The same
    holds for the treatment of calls that had begun.
    """
    manifest: object = config.manifest
    if config.manifest.budget is not None:
        manifest = attrs.evolve(config.manifest, budget=None)
    if config.manifest.mcp_servers:
        manifest = _without_on_unknown(manifest)
    beside: tuple[object, ...] = tuple(one for one in (config.attachments, config.limits) if one)
    return digest_of(manifest, config.query, config.history, *beside)


def _without_on_unknown(manifest: object) -> object:
    """Return *manifest* as written before MCP servers had the field ``on_unknown``."""
    plain = msgspec.to_builtins(manifest)
    for server in plain["mcp_servers"]:
        del server["on_unknown"]
    return plain
