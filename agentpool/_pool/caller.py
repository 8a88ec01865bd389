"""Finds out which agent makes a call to its pool: the current task's, or the owner.

An agent cannot write under another's name, since it does not state the sender: that is taken from
the slot in its task's context.
"""

from __future__ import annotations

from typing import final

import trio

from agentpool._errors import UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._messaging.post_office import PostOffice
from agentpool._pool.admission import Admission
from agentpool._pool.record import AgentRecord, Voice
from agentpool._pool.spawn_checks import check_child_tier
from agentpool._scheduling.owner import Owner, looks_on, refuse_bystander
from agentpool._scheduling.slot import current_slot
from agentpool.observe._hub import EventHub


@final
class PoolVoice(Voice):
    """Sends messages on behalf of the calling agent or the owner."""

    __slots__ = ("_admission", "_hub", "_router", "opener", "owner")

    def __init__(
        self, router: PostOffice, admission: Admission, owner: Owner, hub: EventHub
    ) -> None:
        self._router = router
        self._admission = admission
        self.owner = owner
        """The tasks that use the pool and belong to no agent."""
        self._hub = hub
        # Looked up now, as long as that agent is there.
        self.opener: AgentManifest | None = admission.opener()
        """The manifest of the agent in which the pool was opened. No agent of the pool may have a
        laxer tier. ``None``: it was not opened in an agent."""

    def caller(self) -> AgentRecord | None:
        """Return the agent of this pool that runs the current task. ``None``: no agent does."""
        slot = current_slot.get()
        if slot is None or slot.keeper is not self._admission:
            return None
        return self._admission.running.get(slot.agent_id)

    def _note_owner(self) -> None:
        """Record that the owner's side uses the pool; raise if a task of an ended agent does.

        Raises:
            UsageError: If the current task was left behind by an agent that has ended.
        """
        if self._hub.is_telling:
            # An observer acts for the owner, whichever task tells it of an event: that of an
            # agent which ends, or of a bystander that cancels one.
            if not looks_on(trio.lowlevel.current_task()):
                self.owner.note_use()
            return
        slot = current_slot.get()
        if slot is not None and slot.keeper is self._admission:
            raise UsageError(
                f"agent {slot.agent_id} ({slot.name}) has ended, but a task that it started still "
                "uses the pool; start tasks that outlive an agent outside of the agents"
            )
        refuse_bystander()
        self.owner.note_use()

    def above(self) -> tuple[AgentRecord | None, AgentManifest | None]:
        """Return the caller, and the manifest whose privacy tier binds what it spawns.

        That is the caller's, or else that of the agent in which the pool was opened.

        Raises:
            UsageError: If the current task was left behind by an agent that has ended.
        """
        caller = self.caller()
        if caller is not None:
            return caller, caller.take_work()[0].manifest
        self._note_owner()
        return None, self.opener

    def check_tier(self, manifest: AgentManifest) -> AgentRecord | None:
        """Return the caller, or raise if its privacy tier forbids a child with *manifest*.

        Raises:
            PrivacyError: If the child's tier is laxer than the agent's, or than that of the
                agent in which the pool was opened.
        """
        caller, above = self.above()
        if above is not None:
            check_child_tier(above, manifest)
        return caller

    def refuse_agents(self, what: str) -> None:
        """Raise if an agent calls *what*, which waits for all agents.

        Raises:
            UsageError: If an agent of this pool calls, or an agent of a pool inside that agent.
        """
        slot = current_slot.get()
        while slot is not None:
            if slot.keeper is self._admission:
                raise UsageError(
                    f"agent {slot.agent_id} called {what}() of its own pool and would wait for "
                    "itself; wait for the handles of its children instead"
                )
            slot = slot.keeper.outer

    def agent_id(self) -> AgentId:
        """Return the id of the caller; the owner's id outside of agents."""
        caller = self.caller()
        if caller is not None:
            return caller.agent_id
        self._note_owner()
        return OWNER_ID

    def name(self) -> str:
        """Return the caller's name, for people."""
        slot = current_slot.get()
        is_agents = slot is not None and slot.keeper is self._admission
        return f"agent {slot.agent_id}" if slot is not None and is_agents else "owner"

    async def send(self, recipient: AgentId, content: str, reply_to: int | None) -> AgentMessage:
        """Send on behalf of the caller."""
        return await self._router.send(self.agent_id(), recipient, content, reply_to=reply_to)

    def send_nowait(self, recipient: AgentId, content: str, reply_to: int | None) -> AgentMessage:
        """Send on behalf of the caller, or raise."""
        return self._router.send_nowait(self.agent_id(), recipient, content, reply_to=reply_to)

    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Ask on behalf of the caller."""
        return await self._router.ask(self.agent_id(), recipient, content)

    async def broadcast(self, content: str) -> tuple[AgentMessage, ...]:
        """Send to every live agent on behalf of the caller."""
        return await self._router.broadcast(self.agent_id(), content)

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages for the owner. If there are none, wait for one.

        Raises:
            UsageError: If the calling task was left behind by an agent that has ended.
        """
        if self.caller() is None:
            self._note_owner()
        return await self._router.receive_many(OWNER_ID)
