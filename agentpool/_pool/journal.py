"""The records of one pool in a journal: writing new ones, and finding earlier ones.

Rules:

1. An agent has a key, which is the same whenever the same program runs again. A spawn with the key
   of a known agent returns that agent, finished or not: see ``agent_keys``.
2. How an agent of an earlier process was spawned decides when it goes on, or gets its outcome back:
   - spawned by the owner without a key: as soon as the pool is open;
   - spawned by the owner with a key: when it is spawned again;
   - a child: when the call that spawned it runs again; if that call has ended, together with its
     parent.
3. An agent that is ended because its pool ends, or is aborted, has no outcome in the journal: the
   next process continues it. Any other end of an agent is final.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, final

import attrs
import trio

from agentpool._agent.run_journal import AGAIN, OnMismatch, RunJournal
from agentpool._budget.budget import Budget, ledger_of
from agentpool._errors import JournalError, ResumeMismatchError
from agentpool._journal_records import JournalRecord, RecordKind
from agentpool._messages import OWNER_ID, AgentId, AgentMessage, ChatMessage
from agentpool._messaging.stored_messages import KeptPost
from agentpool._outcome import AgentOutcome
from agentpool._pool.agent_keys import AgentKeys, refuse_unkept
from agentpool._pool.branch import (
    asked_digest,
    begin_again,
    call_of,
    count_open,
    end_records,
    fail_records,
    is_changed,
    next_config,
    spend,
    spent_before,
)
from agentpool._pool.past import (
    QUESTION,
    PastAgent,
    Spawned,
    encode,
    outcome_record,
)
from agentpool._pool.past_families import PastFamilies
from agentpool._pool.record import AgentRecord
from agentpool._recorded_results import begun_keys, settled_keys
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._served_call import current_call
from agentpool._spawn import SpawnConfig
from agentpool.journal._writer import JournalWriter

PARENT_ENDED: Final = "its parent has ended"

LOST: Final = "lost the race"
"""The reason for cancelling a racer when another racer has won."""


@unbroken
@final
@attrs.define(eq=False)
class PoolJournal:
    """The records of one pool. Opened by ``open_pool_journal``."""

    writer: JournalWriter
    run_id: str
    _on_mismatch: OnMismatch
    keys: AgentKeys
    """The keys of this process's agents."""
    _running: Mapping[AgentId, AgentRecord] = attrs.field(init=False)
    _is_stopping: bool = attrs.field(init=False, default=False)
    post: KeptPost = attrs.field(init=False)
    """The messages of the pool."""
    past: dict[str, PastAgent] = attrs.field(factory=dict[str, PastAgent])
    """The agents of earlier processes by key, in the order in which they were accepted, but for
    those of the owner that have ended in this process."""
    families: PastFamilies = attrs.field(init=False)
    """Those of them that other agents spawned."""
    head: AgentId = OWNER_ID
    """The agent after which a session continues. 0: it has no complete turn."""
    head_messages: tuple[ChatMessage, ...] = ()
    """The messages up to the turn of that agent."""
    _histories: dict[AgentId, tuple[ChatMessage, ...]] = attrs.field(
        factory=dict[AgentId, tuple[ChatMessage, ...]]
    )
    """The histories from which this process's agents continue, until they have ended."""
    _key_of: dict[AgentId, str] = attrs.field(factory=dict[AgentId, str])
    """The keys of this process's agents, until they have ended."""
    _resumed: dict[AgentId, RunJournal] = attrs.field(factory=dict[AgentId, RunJournal])
    """The runs of earlier processes that this one continues, until they have ended."""
    _changed: dict[AgentId, str] = attrs.field(factory=dict[AgentId, str])
    """The digests of agents that were spawned with a different config than before, and must be
    branched."""

    def __attrs_post_init__(self) -> None:
        """Record messages too."""
        self.post = KeptPost(self._note_sent)
        self.families = PastFamilies.of(self.past.values(), self.keys.taken)

    def start(
        self,
        nursery: trio.Nursery,
        running: Mapping[AgentId, AgentRecord],
        budget: Budget | None,
    ) -> None:
        """Start the task that writes the records, and charge *budget* with all of the past.

        Args:
            nursery: Where the task runs. In the owner's task it would hide that the owner waits.
            running: The agents that have started and not ended.
            budget: The pool's budget. ``None``: it has none.
        """
        if budget is not None:
            for past in self.past.values():
                known = partial(spent_before, past)
                self.writer.ahead.pay(ledger_of(budget), past.agent_id, known)
        self._running = running
        nursery.start_soon(self.writer.run, name="journal")

    def stop(self) -> None:
        """Stop writing, after the last agent has ended."""
        self._is_stopping = True
        if not self._running:
            self.writer.close()

    def _note_sent(self, message: AgentMessage, key: str, is_question: bool) -> None:  # noqa: FBT001  # a callback
        part = QUESTION if is_question else 0
        body = encode(message)
        self.writer.note(
            JournalRecord(message.sender, RecordKind.SENT, part=part, digest=key, body=body)
        )

    @property
    def last_id(self) -> AgentId:
        """The highest agent id used so far."""
        return max((past.agent_id for past in self.past.values()), default=OWNER_ID)

    def to_go_on_with(self) -> Iterator[PastAgent]:
        """Yield the owner's agents without keys, in spawn order: no later spawn can name them."""
        for past in sorted(self.past.values(), key=lambda past: past.agent_id):
            if past.parent_id == OWNER_ID and past.key.startswith("#"):
                yield past

    # --- an agent that is spawned

    def accept(
        self,
        config: SpawnConfig,
        next_id: AgentId,
        parent: AgentRecord | None,
        past: PastAgent | None,
        key: str | None,
        *,
        in_group: bool,
    ) -> AgentId:
        """Record that an agent is accepted, and return its id.

        Args:
            config: The agent's config.
            next_id: Its number, if it is new.
            parent: The agent that spawns it. ``None``: the owner.
            past: The agent in the journal. ``None``: look for it by its key.
            key: Its key. ``None``: the one that its spawn gives it.
            in_group: Whether it belongs to a map, a race or a supervision.

        Raises:
            ResumeMismatchError: If the agent has been spawned with something else before.
            UsageError: If this process already has an agent with its key, or another process could
                not continue it.
        """
        if past is not None:
            key = past.key
        else:
            if key is None:
                call = None if parent is None else current_call.get()
                key = self.keys.next(config, call, next_id, in_group=in_group)
            if key.startswith("#"):
                refuse_unkept(config)
            past = self._find(key, config)
        agent_id = next_id if past is None else past.agent_id
        if past is not None:
            above = None if parent is None else parent.origin.budget
            self._pay_ahead(past, config.budget or above)
        if past is not None and self._on_mismatch == "branch" and is_changed(past, config):
            self._changed[agent_id] = asked_digest(config)
        self.keys.taken[key] = agent_id
        self._key_of[agent_id] = key
        if history := config.history if past is None else past.config.history:
            self._histories[agent_id] = history
        if past is None:
            parent_id = OWNER_ID if parent is None else parent.agent_id
            is_free = parent is not None and not in_group
            self._note_accepted(agent_id, parent_id, key, config, is_free=is_free)
        return agent_id

    def check_all(self, configs: Sequence[SpawnConfig], parent: AgentRecord | None) -> None:
        """Raise the errors that ``accept`` would raise for any of *configs*.

        Raises:
            ResumeMismatchError: If one of the agents has been spawned with something else before.
            UsageError: If two have the same key, or this process has an agent with it.
        """
        call = None if parent is None else current_call.get()
        for config, key in self.keys.foreseen(configs, call):
            self._find(key, config)

    def _find(self, key: str, config: SpawnConfig) -> PastAgent | None:
        self.keys.refuse_used(key, config)
        past, said = self.past.get(key), config.key or key
        if past is None:
            return None
        if self._on_mismatch == "refuse" and is_changed(past, config):
            raise ResumeMismatchError(
                f"agent {past.agent_id} with key {said!r} has already been spawned with another "
                "manifest, query or history; undo the change, give the agent another key, or "
                "resume with resume='branch' or resume='accept'",
                agent_id=past.agent_id, place=-1, differs="the agent's manifest, query or history",
            )  # fmt: skip
        if not past.fits(config) and self._on_mismatch == "refuse":
            raise ResumeMismatchError(
                f"the value of agent {past.agent_id} with key {said!r} no longer fits its "
                "output_type; undo the change, or give it another key",
                agent_id=past.agent_id, place=-1, differs="the agent's output_type",
            )  # fmt: skip
        return past

    def _note_accepted(
        self, agent_id: AgentId, parent_id: AgentId, key: str, config: SpawnConfig,
        *, is_free: bool,
    ) -> None:  # fmt: skip
        # By what it is, not by what it says: no other can be told by its number alone.
        after = self.head if config.history and config.history is self.head_messages else OWNER_ID
        body = encode(Spawned.of(config, key, parent_id, after, is_free=is_free))
        record = JournalRecord(
            agent_id, RecordKind.ACCEPTED, digest=asked_digest(config), body=body,
            part=parent_id,
        )  # fmt: skip
        self.writer.note(record)

    def run_of(self, agent_id: AgentId, budget: Budget | None) -> RunJournal:
        """Return the part of the journal for the run of an accepted agent.

        Args:
            agent_id: The agent's id. It is about to begin, or to go on.
            budget: The budget that it and its children draw on. ``None``: they draw on none.
        """
        key = self._key_of[agent_id]
        run = RunJournal(self.writer, agent_id, f"{self.run_id}{key}", self._on_mismatch)
        past, run.on_settled = self.past.get(key), self.post.settle
        if past is not None:
            run.key += AGAIN * len(past.before)
            run.history = past.config.history if past.before else None
            run.recall_past(past.records)
            self._resumed[agent_id] = run
            for records in past.before:
                spend(self.writer.ahead, agent_id, records, budget)
            if self._on_mismatch == "branch":
                self._let_branch(run, past, budget)
        self._spend_for_children(agent_id, budget)
        return run

    def _let_branch(self, run: RunJournal, past: PastAgent, budget: Budget | None) -> None:
        """Replace *run* with a new run if its agent has changed."""
        if past.agent_id in self._changed:
            run.changed_from = past.config
            run.ended_with = None if past.outcome is None else past.outcome.messages
        elif not past.records:
            return

        def branch(
            config: SpawnConfig, messages: tuple[ChatMessage, ...], lost: Sequence[JournalRecord]
        ) -> SpawnConfig:
            digest = self._changed.pop(past.agent_id, None)
            config, own = next_config(past, config, messages, is_changed=digest is not None)
            bound_to, digest = self.families.bound_to, digest or past.digest
            for record in begin_again(past, bound_to, lost, config=config, own=own, digest=digest):
                self.writer.note(record)  # in one step, and so kept together
            spend(self.writer.ahead, past.agent_id, past.records, budget)
            settled = settled_keys(past.records)
            for child in self.families.below(past):
                if call_of(child) not in settled:  # or it is counted already
                    self._spend_on(child, budget)
            self._histories[past.agent_id] = config.history
            return config

        run.on_branch = branch

    def outcome_of(self, agent_id: AgentId) -> AgentOutcome | None:
        """Return the outcome from an earlier process. ``None``: the agent is new or unfinished."""
        past = self.past.get(self._key_of[agent_id])
        return None if past is None or agent_id in self._changed else past.outcome

    def spend_again(self, agent_id: AgentId, budget: Budget | None) -> None:
        """Count in *budget* what an ended agent and its children have spent."""
        past = self.past.get(self._key_of[agent_id])
        if past is not None:
            self._spend_on(past, budget)

    def _spend_on(self, past: PastAgent, budget: Budget | None) -> None:
        if budget is None:
            return
        for records in past.runs:
            spend(self.writer.ahead, past.agent_id, records, budget)
        for child in self.families.bound_to(past):
            self._spend_on(child, budget)

    def end_unstarted(self, key: str, budget: Budget | None) -> None:
        """End a racer that only an earlier process had started: it has lost the race."""
        past = self.past.get(key)
        if past is None or key in self.keys.taken:
            return
        for record in end_records(past, self.families.below, LOST):
            self.writer.note(record)
        self._spend_on(past, budget)

    def _pay_ahead(self, past: PastAgent, budget: Budget | None) -> None:
        """Charge *budget* with all that was spent on an accepted agent and those below it."""
        if budget is None:
            return
        for one in self.families.everybody(past):
            self.writer.ahead.pay(ledger_of(budget), one.agent_id, partial(spent_before, one))

    def _spend_for_children(self, agent_id: AgentId, budget: Budget | None) -> None:
        """Count in *budget* the spending of children that a resumed agent does not spawn again."""
        past = self.past.get(self._key_of[agent_id])
        if past is None:
            return
        # What a branched run had begun is not begun again by the next one.
        settled = settled_keys(past.records).union(*map(begun_keys, past.before))
        for child in self.families.bound_to(past):
            if call_of(child) in settled:
                self._spend_on(child, budget)

    def left_children(self, agent_id: AgentId) -> Iterator[PastAgent]:
        """Yield the children that ended calls of an agent had spawned, in spawn order.

        Children that cannot be continued are ended first.
        """
        left = self.families.free_of(agent_id)
        if not left:
            return
        parent = self.past[self._key_of[agent_id]]
        settled = {key for run in parent.runs for key in settled_keys(run)}
        for child in left:
            if call_of(child) not in settled:
                continue
            records: Iterator[JournalRecord] = iter(())
            if child.outcome is None and parent.outcome and not child.config.outlives_parent:
                below = self.families.below
                records = end_records(child, below, PARENT_ENDED, f"agent {agent_id}")
            elif child.outcome is None and child.is_in_part:
                records = fail_records(child)
            for record in records:
                self.writer.note(record)
            yield child

    def ended(self, record: AgentRecord, outcome: AgentOutcome) -> None:
        """Record an agent's outcome, unless the next process will continue the agent."""
        is_known = self.outcome_of(outcome.agent_id) is not None
        is_open = self._is_left_open(record) or isinstance(outcome.error, JournalError)
        history = self._histories.pop(outcome.agent_id, ())
        self.keys.over.add(outcome.agent_id)
        run = self._resumed.pop(outcome.agent_id, None)
        if not (is_known or is_open):
            past = self.past.get(self._key_of[outcome.agent_id])
            if past is not None and past.outcome is None:
                # It may end before it has come to what an earlier process asked.
                for lost in count_open(past, -1 if run is None else run.place):
                    self.writer.note(lost)
            self.writer.note(outcome_record(outcome, history))
        if not record.depth:
            # What is known of its past is not asked for again: no agent is above it.
            self.past.pop(self._key_of[outcome.agent_id], None)
            self.writer.ahead.forget(outcome.agent_id)
        del self._key_of[outcome.agent_id]
        if self._is_stopping and self._running.keys() <= {record.agent_id}:
            self.writer.close()

    def _is_left_open(self, record: AgentRecord | None) -> bool:
        """Return whether *record*, or an agent above it, ends only because this process ends."""
        while record is not None:
            if record.rare is not None and record.rare.is_left_open:
                return True
            record = self._running.get(record.parent_id)
        return False
