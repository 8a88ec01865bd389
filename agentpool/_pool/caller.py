"""Finds out who makes a call to a pool: the agent of the current task, or the owner.

An agent cannot write under another agent's name, since it does not state the sender. Rules:

1. Whatever a task below an agent's own task does is done by that agent, whatever context the task
   runs in: a tool cannot leave its agent by an empty ``contextvars.Context``, nor act as another
   agent by a copied context. The same holds for the agents of a pool inside an agent, and for the
   sources of its maps.
2. Whatever any other task does is done by the agent in whose tool the task was started, or else by
   the owner. Once that agent has ended, calls of the task are refused.
3. Calls that trio itself runs, from threads and by ``run_sync_soon``, are made by the agent in
   their context, or else by the owner: nothing else tells who asked for them.
4. Whatever an observer does while it is told of an event is done by the owner, also by the tasks
   that it starts then. For that, the hub takes the slot out of the context while it tells.
"""

from __future__ import annotations

from typing import Final, final

import trio
from trio.lowlevel import current_task, in_trio_task

from agentpool._errors import UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._messaging.post_office import PostOffice
from agentpool._pool.admission import Admission
from agentpool._pool.record import AgentRecord
from agentpool._pool.spawn_checks import check_child_tier
from agentpool._pool.voice import Voice
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner, looking_on, looks_on, refuse_bystander
from agentpool._scheduling.slot import Slot, current_slot, feeds_for
from agentpool.observe._hub import EventHub

# A method of what was imported is made anew for each call.
_slot_now: Final = current_slot.get
_looks_on: Final = looking_on.get


@unbroken
@final
class PoolVoice(Voice):
    """Names the calling agent or the owner."""

    __slots__ = ("_admission", "_hub", "_nursery", "_opened_in", "opener", "owner", "post")

    def __init__(
        self,
        post: PostOffice,
        admission: Admission,
        owner: Owner,
        hub: EventHub,
        nursery: trio.Nursery,
    ) -> None:
        self.post = post
        self._nursery = nursery  # its agents are tasks of it
        self._admission = admission
        self.owner = owner
        """The tasks that use the pool and belong to no agent."""
        self._opened_in = owner.task
        self._hub = hub
        # Looked up now, as long as that agent is there.
        self.opener: AgentManifest | None = admission.opener()
        """The manifest of the agent in which the pool was opened. No agent of the pool may have a
        laxer tier. ``None``: it was not opened in an agent."""

    def caller(self) -> AgentRecord | None:
        """Return the agent of this pool that makes the call. ``None``: none does."""
        slot = self._slot()
        return None if slot is None else self._admission.running.get(slot.agent_id)

    def _slot(self) -> Slot | None:
        """Return the slot of the agent of this pool that makes the call. ``None``: the owner does.

        The slot's ``task`` is ``None`` if the agent has ended.
        """
        slot, task = _slot_now(), current_task()
        if slot is None:
            if task is self._opened_in:
                return None
        elif slot.task is task and slot.keeper is self._admission and not self._hub.listening:
            return slot
        return None if self._is_observers() else self._find_slot(task, slot)

    def _is_observers(self) -> bool:
        """Return whether the call comes from an observer that is told of an event."""
        return self._hub.listening and self._hub.is_telling

    def _find_slot(self, task: trio.lowlevel.Task, slot: Slot | None) -> Slot | None:
        """Return the slot of the agent for which *task* runs; *slot* is the current context's.

        Raises:
            UsageError: If the task is of a ``trio.run`` in another thread.
        """
        self.owner.check_thread("")
        if slot is None and task.context.get(current_slot, self) is task.context.get(feeds_for):
            return None  # it was taken out by the hub that tells observers, and not by a map
        one, opened_in = task, self._opened_in
        while one is not opened_in and (nursery := one.parent_nursery) is not None:
            if nursery is self._nursery:
                return one.context.get(current_slot) or one.context.get(feeds_for)
            one = nursery.parent_task
        # Below no agent: by the context that it was started with.
        started_in = task.context.get(current_slot)
        if started_in is None and slot is not None and self._is_trios(task):
            started_in = slot
        while started_in is not None and started_in.keeper is not self._admission:
            started_in = started_in.keeper.outer
        return started_in

    def _is_trios(self, task: trio.lowlevel.Task) -> bool:
        """Return whether *task* is one of trio's tasks, or below one: not one of the program."""
        return _top_of(task) is not _top_of(self.owner.task)

    def refuse_others(self, slot: Slot) -> None:
        """Raise if the current task must not act as the agent of *slot*.

        Raises:
            UsageError: If that agent has ended, or the task belongs to another agent or the owner.
        """
        who = f"agent {slot.agent_id} ({slot.name})"
        if slot.task is None:
            raise UsageError(
                f"{who} has ended: its context can no longer send, ask or spend; end everything "
                "that a tool starts before the tool returns"
            )
        task = current_task()
        found = self._find_slot(task, _slot_now())
        if found is slot or (found is None and self._is_trios(task)):
            return  # the latter is a call from a thread, or a system task: see rule 3
        other = "a task of the owner" if found is None else f"agent {found.agent_id}"
        raise UsageError(
            f"the context of {who} was used by {other}; only the agent's own tasks can act as this "
            "agent: make the call in the tool, or in a task that the tool starts"
        )

    def _note_owner(self) -> None:
        """Record that the owner's side uses the pool; raise if a bystander does.

        Raises:
            UsageError: If the current task is a bystander's.
        """
        if self._hub.listening and self._hub.is_telling:
            # An observer acts for the owner, whichever task tells it of an event: that of an
            # agent which ends, or of a bystander that cancels one.
            if not looks_on(current_task()):
                self.owner.note_use()
            return
        refuse_bystander()
        self.owner.note_use()

    def above(self) -> tuple[AgentRecord | None, AgentManifest | None]:
        """Return the caller, and the manifest whose privacy tier binds what it spawns.

        That is the caller's manifest, or else that of the agent in which the pool was opened.

        Raises:
            UsageError: If the current task was left behind by an agent that has ended.
        """
        slot = _slot_now()
        if slot is None and current_task() is self._opened_in and not self._hub.listening:
            refuse_bystander()  # as below, without three calls: an owner spawns most agents
            return None, self.opener
        slot = self._slot()
        if slot is not None:
            self._refuse_ended(slot)
            caller = self._admission.running[slot.agent_id]
            return caller, caller.take_work()[0].manifest
        self._note_owner()
        return None, self.opener

    def _refuse_ended(self, slot: Slot) -> None:
        if slot.task is None:
            raise UsageError(
                f"agent {slot.agent_id} ({slot.name}) has ended, but a task that it started still "
                "uses the pool; start tasks that outlive an agent outside of the agents"
            )

    def above_all(self, manifest: AgentManifest) -> tuple[AgentRecord | None, AgentManifest | None]:
        """Return what ``above`` does, or raise if that tier forbids agents with *manifest*.

        Raises:
            PrivacyError: If the child's tier is laxer than the agent's, or than that of the
                agent in which the pool was opened.
        """
        caller, above = self.above()
        if above is not None:
            check_child_tier(above, manifest)
        return caller, above

    def refuse_agents(self, what: str) -> None:
        """Raise if an agent calls *what*, which waits for all agents.

        Raises:
            UsageError: If an agent of this pool calls, or an agent of a pool inside that agent.
        """
        slot = self._slot()
        if slot is not None:
            raise UsageError(
                f"agent {slot.agent_id} called {what}() of its own pool and would wait for "
                "itself; wait for the handles of its children instead"
            )

    def agent_id(self) -> AgentId:
        """Return the id of the caller; the owner's id outside of agents."""
        # As _slot(), without its call: every message comes through here.
        slot, task = _slot_now(), current_task()
        if not self._hub.listening:
            if slot is None:
                if task is self._opened_in:
                    if _looks_on():
                        refuse_bystander()
                    return OWNER_ID
            elif slot.task is task and slot.keeper is self._admission:
                return slot.agent_id
            slot = self._find_slot(task, slot)
        else:
            slot = self._slot()
        if slot is None:
            self._note_owner()
            return OWNER_ID
        self._refuse_ended(slot)
        return slot.agent_id

    def name(self) -> str:
        """Return the caller's name, for people."""
        slot = self._slot() if in_trio_task() else None  # a callback may cancel agents
        return "owner" if slot is None else f"agent {slot.agent_id}"

    async def broadcast(self, content: str) -> tuple[AgentMessage, ...]:
        """Send to every live agent on behalf of the caller."""
        return await self.post.broadcast(self.agent_id(), content)

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages for the owner. If there are none, wait for one.

        Raises:
            UsageError: If the calling task was left behind by an agent that has ended.
        """
        self.agent_id()
        return await self.post.receive_many(OWNER_ID)


def _top_of(task: trio.lowlevel.Task) -> trio.lowlevel.Task:
    """Return the ancestor of *task* just below trio's first task; *task* itself if it is there."""
    while (nursery := task.parent_nursery) is not None:
        if nursery.parent_task.parent_nursery is None:
            break
        task = nursery.parent_task
    return task
