"""What earlier processes of a pool wrote to its journal.

Rules:

1. A conversation is stored once. An agent that continues the conversation of another agent of the
   same pool names that agent, and its outcome has only the messages since then. So a session grows
   only by its new turns.
2. The head of a session is its last complete turn: one that its model or a limit ended. A turn that
   failed or was cancelled does not move the head. A separate kind of record moves it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar, final

import msgspec

from agentpool._agent.agent import output_of
from agentpool._attachments import Attachment
from agentpool._base import Live
from agentpool._errors import JournalError, RecordedError, UsageError
from agentpool._journal_records import JournalRecord, RecordKind, read_body
from agentpool._loop.output import Misfit
from agentpool._manifest.manifest import AgentManifest
from agentpool._manifest.usage_limits import UsageLimits
from agentpool._messages import OWNER_ID, AgentId, AgentMessage, ChatMessage
from agentpool._messaging.stored_messages import Sent
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._spawn import SpawnConfig
from agentpool._surrogates import whole_json
from agentpool.observe._outcome_json import outcome_from_json, outcome_to_json
from agentpool.observe._own_errors import own_error

T = TypeVar("T")
M = TypeVar("M")

WHOLE: Final = frozenset({AgentStatus.COMPLETED, AgentStatus.STOPPED})
"""The ends of a turn after which a conversation continues."""

_OF_NO_RUN: Final = frozenset({RecordKind.SENT, RecordKind.HEAD})
"""The kinds of records that do not belong to one run."""


QUESTION: Final = 1
"""The part of the record of a message whose sender waits for the answer."""


@final
class PoolRun(msgspec.Struct, frozen=True):
    """The first record of a pool."""

    run_id: str
    is_keyed: bool = False
    """Whether racers and children have separate keys. Earlier versions used their order."""


@final
class Spawned(msgspec.Struct, Generic[M], frozen=True, omit_defaults=True):
    """The part of a spawn's config that fits into JSON.

    It is read with the manifest as it was written: most agents have the same, which is parsed once.
    """

    key: str
    parent_id: AgentId
    manifest: M
    query: str
    name: str | None = None
    history: tuple[ChatMessage, ...] = ()
    deadline_seconds: float | None = None
    memory_scope: str | None = None
    group: str = ""
    weight: int = 1
    priority: int = 0
    after: AgentId = OWNER_ID
    """The agent whose messages are the history. 0: the history is in this record."""
    attachments: tuple[Attachment, ...] = ()
    limits: UsageLimits | None = None
    settled: tuple[ChatMessage, ...] = ()
    """The messages that the agent's earlier, branched runs added to that history."""
    is_free: bool = False
    """Whether it is a child that goes on when the call that spawned it has ended."""
    outlives_parent: bool = False
    is_in_part: bool = False
    """Whether it has an output type or its own budget, which no journal keeps."""

    @staticmethod
    def of(
        config: SpawnConfig,
        key: str,
        parent_id: AgentId,
        after: AgentId,
        own: int = 0,
        *,
        is_free: bool = False,
    ) -> Spawned[AgentManifest]:
        """Return what to record about *config*.

        Args:
            config: The agent's config.
            key: The agent's key.
            parent_id: The id of the agent that spawned it.
            after: The agent whose messages are its history. 0: there is none.
            own: How many messages at the end of its history come from its own earlier runs.
            is_free: Whether it is a child that goes on when its call has ended.
        """
        base = len(config.history) - own
        return Spawned(
            key, parent_id, config.manifest, config.query, config.name,
            () if after else config.history[:base], config.deadline_seconds,
            config.memory_scope, config.group, config.weight, config.priority, after,
            config.attachments, config.limits, config.history[base:],
            is_free, config.outlives_parent,
            is_free and (config.output_type is not None or config.budget is not None),
        )  # fmt: skip

    def config(self, manifest: AgentManifest, history: tuple[ChatMessage, ...]) -> SpawnConfig:
        """Return the config to spawn the agent with again."""
        return SpawnConfig(
            manifest,
            self.query,
            name=self.name,
            attachments=self.attachments,
            history=(*history, *self.settled),
            deadline_seconds=self.deadline_seconds,
            memory_scope=self.memory_scope,
            limits=self.limits,
            group=self.group,
            weight=self.weight,
            priority=self.priority,
            outlives_parent=self.outlives_parent,
        )


@final
class PastAgent(Live):
    """An agent accepted by an earlier process."""

    agent_id: AgentId
    parent_id: AgentId
    key: str
    digest: str
    config: SpawnConfig
    after: AgentId = OWNER_ID
    """The agent whose messages are its history. 0: there is none."""
    records: list[JournalRecord] = msgspec.field(default_factory=list[JournalRecord])
    outcome: AgentOutcome | None = None
    """``None``: it has not ended."""
    own: int = 0
    """How many messages at the end of its history come from its own earlier runs."""
    before: list[list[JournalRecord]] = msgspec.field(default_factory=list[list[JournalRecord]])
    """The records of its earlier runs, which were branched."""
    is_free: bool = False
    """Whether it is a child that goes on when the call that spawned it has ended."""
    is_in_part: bool = False
    """Whether it has an output type or its own budget, which is not known."""

    @property
    def runs(self) -> Iterator[Sequence[JournalRecord]]:
        """The records of each of its runs."""
        yield from self.before
        yield self.records

    def fits(self, config: SpawnConfig) -> bool:
        """Convert the outcome's value to the output type of *config*. Return whether it fits."""
        output, outcome = output_of(config), self.outcome
        if outcome is None:
            return True
        if output is None:
            return outcome.value is None
        if outcome.value is None and outcome.status is not AgentStatus.COMPLETED:
            return True
        value = output.read(encode(outcome.value).decode())
        if isinstance(value, Misfit):
            return False
        self.outcome = msgspec.structs.replace(outcome, value=value)
        return True


@final
class Past(Live):
    """Everything from earlier processes."""

    run_id: str
    is_keyed: bool
    """As in the first record, a ``PoolRun``."""
    agents: dict[AgentId, PastAgent] = msgspec.field(default_factory=dict[AgentId, PastAgent])
    """The agents, in the order in which they were accepted."""
    sent: list[Sent] = msgspec.field(default_factory=list[Sent])
    """The messages, in the order of their numbers."""
    head: AgentId = OWNER_ID
    """The agent after which a session continues. 0: it has no complete turn."""
    _manifests: dict[bytes, AgentManifest] = msgspec.field(
        default_factory=dict[bytes, AgentManifest]
    )
    """The manifests, as they were written."""

    @classmethod
    def read(cls, records: Iterable[JournalRecord]) -> Past:
        """Parse *records*, at least one.

        Raises:
            JournalError: If one of them cannot be read.
        """
        ahead = iter(records)
        pool = decode(next(ahead).body, PoolRun)
        past = cls(pool.run_id, pool.is_keyed)
        for record in ahead:
            past._add(record)
        return past

    def _add(self, record: JournalRecord) -> None:
        if record.kind is RecordKind.ACCEPTED:
            spawned = decode(record.body, Spawned[msgspec.Raw])
            manifest = self._manifest_of(bytes(spawned.manifest))
            history = self._messages_of(spawned.after) if spawned.after else spawned.history
            known = self.agents.get(record.agent_id)
            before = [] if known is None else known.before
            if known is not None:
                before.append(known.records)
            self.agents[record.agent_id] = PastAgent(
                record.agent_id, spawned.parent_id, spawned.key, record.digest,
                spawned.config(manifest, history), spawned.after, own=len(spawned.settled),
                before=before, is_free=spawned.is_free, is_in_part=spawned.is_in_part,
            )  # fmt: skip
        elif record.kind is RecordKind.SENT:
            message = decode(record.body, AgentMessage)
            self.sent.append((record.digest, message, record.part == QUESTION))
        elif record.kind is RecordKind.HEAD:
            self.head = record.agent_id
        elif record.kind is RecordKind.ENDED:
            agent = self._agent_of(record)
            agent.outcome = outcome = read_outcome(record, agent.config.history)
            if outcome.status in WHOLE:
                self.head = record.agent_id
        else:
            self._agent_of(record).records.append(record)

    def _manifest_of(self, written: bytes) -> AgentManifest:
        manifest = self._manifests.get(written)
        if manifest is None:
            self._manifests[written] = manifest = decode(written, AgentManifest)
        return manifest

    def _agent_of(self, record: JournalRecord) -> PastAgent:
        agent = self.agents.get(record.agent_id)
        if agent is None:
            raise JournalError(
                f"the journal has a record of agent {record.agent_id}, but not that it was "
                "accepted; restore the file from a copy"
            )
        return agent

    def _messages_of(self, agent_id: AgentId) -> tuple[ChatMessage, ...]:
        agent = self.agents.get(agent_id)
        if agent is None or agent.outcome is None:
            raise JournalError(
                f"the journal has a turn after agent {agent_id}, but not how that agent ended; "
                "restore the file from a copy"
            )
        return agent.outcome.messages


def last_runs(records: Iterable[JournalRecord]) -> list[JournalRecord]:
    """Keep the *records* of each agent's last run, and drop those before a branch."""
    known = list(records)
    begins = {
        record.agent_id: index
        for index, record in enumerate(known)
        if record.kind is RecordKind.ACCEPTED
    }
    return [
        record
        for index, record in enumerate(known)
        if record.kind in _OF_NO_RUN or index >= begins.get(record.agent_id, 0)
    ]


def outcome_record(outcome: AgentOutcome, history: Sequence[ChatMessage]) -> JournalRecord:
    """Make the record of *outcome*, without the *history* at its beginning."""
    shared = len(history)
    if shared and outcome.messages[:shared] == tuple(history):
        outcome = msgspec.structs.replace(outcome, messages=outcome.messages[shared:])
    else:
        shared = 0
    body = outcome_to_json(outcome).encode()
    return JournalRecord(outcome.agent_id, RecordKind.ENDED, part=shared, body=body)


def read_outcome(record: JournalRecord, history: Sequence[ChatMessage]) -> AgentOutcome:
    """Read an outcome that ``outcome_record`` wrote.

    Raises:
        JournalError: If it is not an outcome, or is the outcome of another agent.
    """
    try:
        outcome = outcome_from_json(record.body)
    except UsageError as error:
        raise JournalError(
            f"the journal has an outcome that cannot be read: {error}; restore the file from a copy"
        ) from error
    if outcome.agent_id != record.agent_id:
        raise JournalError(
            f"the journal has the outcome of agent {outcome.agent_id} in place of that of "
            f"agent {record.agent_id}; restore the file from a copy"
        )
    if isinstance(outcome.error, RecordedError):
        outcome = msgspec.structs.replace(outcome, error=own_error(outcome.error))
    if not record.part:
        return outcome
    messages = (*history[: record.part], *outcome.messages)
    return msgspec.structs.replace(outcome, messages=messages)


def copy_turns(
    records: Iterable[JournalRecord], wanted: Sequence[AgentId], run_id: str
) -> list[JournalRecord]:
    """Return the first records of a new session with the *wanted* turns of this one."""
    kinds, turns = {RecordKind.ACCEPTED, RecordKind.ENDED}, frozenset(wanted)
    kept = [one for one in records if one.kind in kinds and one.agent_id in turns]
    return [first_record(run_id), *kept]


def first_record(run_id: str) -> JournalRecord:
    """Make the first record of a pool."""
    return JournalRecord(OWNER_ID, RecordKind.ACCEPTED, body=encode(PoolRun(run_id, is_keyed=True)))


def decode(body: bytes, kind: type[T]) -> T:
    """Parse the body of a record.

    Raises:
        JournalError: If it is not of that type.
    """
    return read_body(body, kind)


encode: Final = whole_json
