"""The life of an agent in a pool: accepted, started, run, ended.

Rules:

1. Every accepted agent ends in exactly one outcome, whatever its driver, tools, tool
   builder or observers do.
2. An agent's task never raises into the trio nursery, except for errors that end the whole program,
   and for a cancellation from outside.
3. Between the end of a run and its outcome there is no checkpoint, and Ctrl-C comes later.
"""

from __future__ import annotations

import os
from contextvars import Context, copy_context
from functools import partial
from itertools import repeat
from random import Random
from typing import TYPE_CHECKING, final

import trio
from msgspec.structs import replace

from agentpool._agent.agent import Agent, Home
from agentpool._agent.driving import drive, effects_of, is_plain, perform, set_out
from agentpool._agent.retry_policy import RetryPolicy
from agentpool._approval import Approver
from agentpool._budget.budget import Budget
from agentpool._chat_markers import Cleaner
from agentpool._errors import UsageError
from agentpool._events import AgentFinished, AgentStarted, Phase
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._messaging.post_office import PostOffice
from agentpool._outcome import CANCELLED, COMPLETED, FAILED, AgentOutcome, AgentStatus
from agentpool._pool.admission import Admission
from agentpool._pool.caller import PoolVoice
from agentpool._pool.deadlock import DeadlockWatch
from agentpool._pool.entrance import Entrance
from agentpool._pool.fan_in import FanIn
from agentpool._pool.memory import PoolMemory
from agentpool._pool.origin import Origin
from agentpool._pool.record import AgentRecord, Caretaker, OnEnd
from agentpool._pool.run_outcome import OUTSIDE, UNKNOWN, Ending, verdict, verdict_on
from agentpool._pool.shutdown import ShutdownStep, cancel_all, end_in_steps, wait_empty
from agentpool._pool.spawn_checks import Entry, Wanted, budget_for
from agentpool._pool.starting import ToolBuilder, new_agent, tools_of_agent
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.pace import Pace
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import Slot
from agentpool._spawn import SpawnConfig
from agentpool.abc import AgentContext, Driver
from agentpool.observe._hub import EventHub
from agentpool.tools._registry import ToolRegistry

if TYPE_CHECKING:
    from agentpool._pool.journal import PoolJournal
    from agentpool._pool.past import PastAgent


@unbroken
@final
class AgentNursery(Home):
    """Runs the agents of one pool."""

    nursery: trio.Nursery
    entrance: Entrance
    admission: Admission
    deadlocks: DeadlockWatch
    voice: PoolVoice
    entry: Entry
    """The requirements for every agent."""

    def __init__(
        self, name: str, inbox_capacity: int, hub: EventHub, memory: PoolMemory,
        tools: ToolRegistry | ToolBuilder, *, abort_on_failure: bool, random: Random,
        budget: Budget | None, cleaner: Cleaner, approve: Approver | None, retries: RetryPolicy,
    ) -> None:  # fmt: skip
        self.name, self.inbox_capacity, self.hub = name, inbox_capacity, hub
        self.memory, self.tools, self.abort_on_failure = memory, tools, abort_on_failure
        self.budget = budget
        """The budget that all of its agents draw on. ``None``: they share none."""
        self.by_owner: Origin[Caretaker] = Origin(self, budget)
        self.cleaner, self.approve, self.retries, self.random = cleaner, approve, retries, random
        self.fan_in = FanIn(self)
        self.router = PostOffice(inbox_capacity, self._posted, hub, self.fan_in)
        self._idle = Lot()  # who waits until no agent runs
        self.running: dict[AgentId, AgentRecord] = {}
        """Agents that have started and have not ended, parked ones included."""
        # Pools of one name may share a memory, and their agents have the same numbers.
        self.memory_scope = f"{name}-{os.urandom(8).hex()}"
        self.last_id: AgentId = OWNER_ID
        self.journal: PoolJournal | None = None
        """The journal of its runs. ``None``: runs are not recorded."""

    def open(self, nursery: trio.Nursery, slots: float, max_queued: int) -> None:
        """Set up the slots, and run the agents in *nursery* from now on."""
        self.nursery = nursery
        self.entrance = entrance = Entrance(Pace(), self.hub)
        self.admission = Admission(
            slots, max_queued, self.hub, self._start, nursery,
            lambda agent_id: self.deadlocks.suspect(agent_id),  # noqa: PLW0108  # made below
            self.running, entrance,
        )  # fmt: skip
        self.deadlocks = DeadlockWatch(nursery, self.admission, self.running)
        self.voice = PoolVoice(self.router, self.admission, self.deadlocks.owner, self.hub, nursery)
        self.router.open(self.deadlocks.owner, entrance.pace)
        self.fan_in.open(self.deadlocks.owner, entrance.pace)
        self.hub.introduce(self.name, slots)

    def _posted(self, message: AgentMessage, reason: str | None) -> None:
        """Report that a message was accepted; with a *reason*, that it became a dead letter."""
        record = self.fan_in.find(message.sender if reason is None else message.recipient)
        self.hub.posted(message, reason, "" if record is None else record.name)

    # --- from spawn to slot

    def close(self) -> None:
        """Accept no more agents, including children."""
        self.voice.owner.check_thread("pool.close")
        self.entrance.close()

    def look_at_one(self, config: SpawnConfig) -> tuple[AgentRecord | None, Driver]:
        """Return who wants an agent, and its driver, or raise if it cannot be accepted now.

        Raises:
            PoolClosedError: If the pool accepts no more agents.
            UsageError: If its budget is not a part of its parent's or pool's, or its driver is not
                a driver.
            PrivacyError: If the tier forbids the driver, or is laxer than a calling agent's.
            ManifestError: If the driver's window leaves no room for the query.
        """
        self.entrance.check_open()
        parent, above = self.voice.above()
        return parent, self.entry.driver_for(config, above)

    def look_at(self, configs: list[SpawnConfig]) -> Wanted:
        """Return who wants these agents, and their drivers; raise as ``look_at_one``."""
        self.entrance.check_open()
        parent, above = self.voice.above()
        return parent, configs, [self.entry.driver_for(config, above) for config in configs]

    def accept(
        self,
        parent: AgentRecord | None,
        begins_in: Context | None,
        config: SpawnConfig,
        driver: Driver,
        on_end: OnEnd | None = None,
        *,
        past: PastAgent | None = None,
        key: str | None = None,
    ) -> AgentRecord:
        """Accept *config*. Every agent of the pool comes through here.

        The caller has checked that there is room, and has awaited nothing since.

        Args:
            parent: The agent that spawns it. ``None``: the owner does.
            begins_in: The context variables of the caller. ``None``: they are looked up.
            config: The agent's config.
            driver: The driver that answers it.
            on_end: Called at its end instead of the pool's fan-in. ``None``: the fan-in is called.
            past: The agent of an earlier process. ``None``: it is looked for.
            key: Its key in the journal. ``None``: the one that its spawn gives it.

        Raises:
            ResumeMismatchError: If an earlier process spawned it with something else.
            PoolClosedError: If the pool accepts no more agents.
            UsageError: If its parent has ended, or its budget is not part of its parent's.
        """
        self.entrance.check_open()
        origin: Origin[Caretaker] = self.by_owner
        if parent is not None:
            if parent.has_ended:
                who = f"agent {parent.agent_id} ({parent.name}) has ended"
                raise UsageError(f"{who} and can have no more children; spawn from the pool")
            origin = Origin(self, parent.origin.budget, parent.agent_id, parent.depth + 1)
        if config.budget is not None:
            origin = replace(origin, budget=budget_for(config, origin.budget))
        agent_id = self.last_id + 1
        if self.journal is not None:
            agent_id = self.journal.accept(
                config, agent_id, parent, past, key, in_group=on_end is not None
            )
        self.last_id = max(self.last_id, agent_id)
        with self.hub:
            record = AgentRecord(origin, agent_id, config.agent_name, config, driver, on_end=on_end)
            self.fan_in.expect(record)
            if parent is not None and not config.outlives_parent:
                parent.adopt(record)
            self.router.register(agent_id)
            if self.hub.listening:
                self.hub.spawned(agent_id, origin.parent_id, config)
            if (slot := self.admission.admit(record, config, begins_in)) is not None:
                self._start(record, slot)
            elif self.hub.listening and record.status is AgentStatus.QUEUED:
                self.admission.tell_newcomer(record)
            for left in () if self.journal is None else self.journal.left_children(agent_id):
                own = self.entry.driver_for(left.config, None)
                self.accept(record, None, left.config, own, past=left)
        return record

    def accept_all(self, wanted: Wanted) -> list[AgentRecord]:
        """Accept all of these configs, or none.

        Raises:
            PoolFullError: If there is not room for all.
            PoolClosedError: If the pool accepts no more agents.
        """
        parent, configs, drivers = wanted
        # No await from here on, and observers are told afterwards: nothing can slip in.
        if not self.admission.room_for(len(configs)):
            raise self.admission.full_error(len(configs))
        if self.journal is not None:
            self.journal.check_all(configs, parent)
        with self.hub:
            return list(map(self.accept, repeat(parent), repeat(copy_context()), configs, drivers))

    def resume(self, journal: PoolJournal | None) -> None:
        """Record runs in *journal*, and continue those that an earlier process left there."""
        if journal is not None:
            self.journal = journal
            journal.start(self.nursery, self.running, self.budget)
            self.router.keep(journal.post)
            self.deadlocks.absent = journal.post.absent
            self.memory_scope = f"{self.name}-{journal.run_id}"
            self.last_id = journal.last_id
            for past in journal.to_go_on_with():
                parent, driver = self.look_at_one(past.config)
                self.accept(parent, None, past.config, driver, past=past)

    def budget_of(self, config: SpawnConfig) -> Budget | None:
        """Return the budget for an agent spawned by the caller.

        Raises:
            UsageError: If its own budget is not a part of its parent's or pool's.
        """
        parent = self.voice.caller()
        return budget_for(config, self.budget if parent is None else parent.origin.budget)

    def _start(self, record: AgentRecord, slot: Slot) -> None:
        record.slot = slot
        self.running[record.agent_id] = record
        if self.hub.listening:
            self.hub.tell(AgentStarted, record.agent_id, record.name)
        self.nursery.start_soon(self._live, record, slot, name=record.name)

    # --- from slot to outcome

    async def _live(self, record: AgentRecord, slot: Slot) -> None:  # noqa: ASYNC910  # the run has its own
        if self.journal is not None and self._has_ended_before(record, slot):
            return  # noqa: ASYNC910  # there is nothing to wait for
        agent = new_agent(self, record, slot, self.router, self.memory, journal=self.journal)
        ending = UNKNOWN
        try:
            with slot.scope:
                if isinstance(self.tools, ToolRegistry):
                    set_out(agent, self.tools)
                else:
                    set_out(agent, await tools_of_agent(agent.context, self.tools))
                if is_plain(agent):  # no coroutine around it: 200 bytes of each agent
                    for effect in effects_of(agent):
                        if (work := perform(agent, effect)) is not None:
                            await work
                else:
                    await drive(agent)
            ending = verdict(record, slot, agent)
        except Exception as raised:  # noqa: BLE001  # kept whole in the outcome
            ending = verdict_on(record, raised)
        except BaseException:
            # Cancelled from outside the pool, or the program ends: say so, and pass it on.
            record.mark_cancelled(OUTSIDE, is_left_open=True)
            ending = CANCELLED, record.cancellation(), None
            raise
        finally:
            self._conclude(agent, record, slot, ending)

    def _has_ended_before(self, record: AgentRecord, slot: Slot | None) -> bool:
        """End an agent that ended in an earlier process, in the same way."""
        journal = self.journal
        if journal is None or (known := journal.outcome_of(record.agent_id)) is None:
            return False
        journal.spend_again(record.agent_id, record.origin.budget)
        self._end(record, known, slot)
        return True

    def _conclude(self, agent: Agent, record: AgentRecord, slot: Slot, ending: Ending) -> None:
        try:
            if self.hub.listening and ending[0] is COMPLETED:
                agent.phase(Phase.DONE, agent.turn)
        finally:  # an observer may be where Ctrl-C comes
            outcome = agent.outcome(*ending, slot.started_at, self.hub.seconds())
            try:
                self._end(record, outcome, slot)
            finally:
                agent.close()

    def make_context(self, agent: Agent) -> AgentContext:
        """Make the context that the tools of *agent* get."""
        from agentpool._pool.agent_context import PoolAgentContext  # noqa: PLC0415  # on first use

        return PoolAgentContext(self.running[agent.agent_id], agent, router=self.router,
            voice=self.voice, admission=self.admission, running=self.running, accept=self.accept,
            look_at=self.look_at_one)  # fmt: skip

    def _end(self, record: AgentRecord, outcome: AgentOutcome, slot: Slot | None) -> None:
        if self.journal is not None:
            self.journal.ended(record, outcome)
        hub, agent_id = self.hub, record.agent_id
        with hub:
            record.end(outcome)
            self.router.unregister(agent_id)
            self.running.pop(agent_id, None)
            if hub.listening:
                hub.tell(AgentFinished, agent_id, record.name, outcome)
            if failed := outcome.status is FAILED and outcome.error is not None:
                self.fan_in.failed.add(agent_id)
            if record.origin.depth and (parent := self.running.get(record.parent_id)):
                parent.let_go(record)
            for child in record.children if record.rare is not None else ():
                self.cancel_agent(child, f"agent {agent_id}", "its parent has ended")
            self.fan_in.ended(record)
            if not self.running:
                self._idle.unpark_all()
            if failed and self.abort_on_failure:
                self.abort("pool", f"agent {agent_id} ({record.name}) failed")
            if slot is not None:
                # Observers and a journal may have taken their time since the outcome was made.
                is_late = hub.listening or self.journal is not None
                now = hub.seconds() if is_late else outcome.finished_at
                self.admission.leave(slot, now)
                self.deadlocks.suspect()
            if record.on_end is not None:
                # Whoever waits for one of several has one less that could end its wait.
                self.deadlocks.suspect(record.parent_id)

    async def wait_empty(self) -> None:  # noqa: ASYNC910  # the block's end has checkpoints
        """Wait until no agent is left."""
        await wait_empty(self.running, self.admission, self._idle, self.deadlocks.owner, self.name)

    # --- ending early

    def cancel_agent(self, record: AgentRecord, cancelled_by: str, reason: str) -> None:
        """Cancel one agent, queued or running."""
        # Whoever is being cancelled with the pool cancels others, such as its children.
        is_left_open = self.journal is not None and self.journal.writer.is_cut
        if record.slot is not None:
            cancel_all((record,), (cancelled_by, reason), is_left_open=is_left_open)
        elif record.cancelled is None and not record.has_ended:
            # One that is cancelled already has left the queue, and is about to be ended.
            record.mark_cancelled((cancelled_by, reason), is_left_open=is_left_open)
            self.admission.withdraw(record)
            self._end_unstarted([record])

    def abort(self, cancelled_by: str, reason: str) -> None:
        """Cancel every agent, the queued ones first so that none starts. No end is recorded."""
        self.voice.owner.check_thread("pool.abort_all")
        why = cancelled_by or self.voice.name(), reason  # empty: by the caller
        if self.journal is not None:
            self.journal.writer.end_soon()
        with self.hub:
            self._end_queued(why)
            cancel_all(tuple(self.running.values()), why, is_left_open=self.journal is not None)

    def _end_queued(self, why: tuple[str, str]) -> None:
        self._end_unstarted(self.admission.withdraw_all(why, is_left_open=self.journal is not None))

    def _end_unstarted(self, withdrawn: list[AgentRecord]) -> None:
        """End cancelled agents that have left the queue. What comes once is looked at once."""
        self.deadlocks.suspect()  # one of them may have been the last that could act
        now = self.hub.seconds()
        if self.hub.listening or self.journal is not None:
            with self.hub:
                for record in withdrawn:
                    if not self._has_ended_before(record, None):
                        self._end(record, record.unstarted_outcome(now), None)
            return
        for record in withdrawn if self.router.has_post else ():
            self.router.unregister(record.agent_id)
        for record in withdrawn:
            record.end_unstarted(now)
            if record.origin.depth and (parent := self.running.get(record.parent_id)):
                parent.let_go(record)
        self.fan_in.all_ended(withdrawn)
        if not self.running:
            self._idle.unpark_all()
        for parent_id in {one.parent_id: None for one in withdrawn if one.on_end is not None}:
            self.deadlocks.suspect(parent_id)

    async def shutdown(self, grace_seconds: float) -> ShutdownStep:
        """Ask all agents to stop, wait, and cancel the rest. Return the last step needed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        by = self.voice.name()
        self._end_queued((by, "the pool shuts down"))
        return await end_in_steps(self.running, self._idle, partial(self.abort, by), grace_seconds)
