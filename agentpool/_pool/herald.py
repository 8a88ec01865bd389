"""Who tells of the agents of one pool: their steps, their waits and their messages.

Each event is made only when somebody watches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from agentpool._base import Live
from agentpool._events import (
    AgentFinished,
    AgentParked,
    AgentQueued,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    MessageDropped,
    MessageSent,
    SlotsChanged,
)
from agentpool._messages import OWNER_ID, AgentId, AgentMessage
from agentpool._outcome import AgentOutcome
from agentpool._pool.admission import Admission
from agentpool._pool.handle import AgentHandle
from agentpool._scheduling.slot import Slot
from agentpool._scheduling.waits import Wait
from agentpool._spawn import SpawnConfig
from agentpool.observe._hub import EventHub


@final
class Herald(Live):
    """Tells who watches a pool what its agents do."""

    _hub: EventHub
    _running: Mapping[AgentId, AgentHandle]
    _accepted: Mapping[AgentId, AgentHandle]
    """Those that the fan-in knows, ended ones too."""

    def spawned(self, handle: AgentHandle, config: SpawnConfig) -> None:
        """Tell that an agent was accepted."""
        if self._hub.listening:
            stamp = self._hub.stamp(handle.agent_id, handle.name)
            manifest = config.manifest
            model = manifest.model
            self._hub.publish(
                AgentSpawned(
                    *stamp,
                    handle.parent_id,
                    query=config.query,
                    manifest=manifest.name,
                    model=model.remote_model or str(model.model_path or ""),
                    system_prompt=model.system_prompt,
                    grants=tuple(grant.kind.value for grant in manifest.capabilities),
                    group=config.group,
                    deadline_seconds=config.deadline_seconds or manifest.resources.run_seconds,
                )
            )

    def queued(self, handle: AgentHandle, admission: Admission, ahead: int, *, again: bool) -> None:
        """Tell that it waits for a slot. Ask first whether anybody watches."""
        stamp = self._hub.stamp(handle.agent_id, handle.name)
        counts = (admission.running_count, admission.limiter.total_tokens)
        self._hub.publish(AgentQueued(*stamp, *counts, ahead, again=again))

    def resized(self, slots: float) -> None:
        """Tell that there is another number of slots."""
        if self._hub.listening:
            self._hub.publish(SlotsChanged(*self._hub.stamp(OWNER_ID, ""), slots))

    def started(self, handle: AgentHandle) -> None:
        """Tell that it has its first slot."""
        if self._hub.listening:
            self._hub.publish(AgentStarted(*self._hub.stamp(handle.agent_id, handle.name)))

    def parked(self, slot: Slot, wait: Wait) -> None:
        """Tell that it gave its slot back."""
        if self._hub.listening:
            stamp = self._hub.stamp(slot.agent_id, self._running[slot.agent_id].name)
            self._hub.publish(AgentParked(*stamp, wait.text, wait.reason, wait.target))

    def resumed(self, slot: Slot) -> None:
        """Tell that it has a slot again."""
        if self._hub.listening:
            name = self._running[slot.agent_id].name
            self._hub.publish(AgentResumed(*self._hub.stamp(slot.agent_id, name)))

    def finished(self, handle: AgentHandle, outcome: AgentOutcome) -> None:
        """Tell what became of it."""
        if self._hub.listening:
            stamp = self._hub.stamp(handle.agent_id, handle.name)
            self._hub.publish(AgentFinished(*stamp, outcome))

    def posted(self, message: AgentMessage, reason: str | None) -> None:
        """Tell that a message was accepted, or with a *reason* that nobody will receive it."""
        if not self._hub.listening:
            return
        whose = message.sender if reason is None else message.recipient
        handle = self._running.get(whose) or self._accepted.get(whose)
        stamp = self._hub.stamp(whose, "" if handle is None else handle.name)
        if reason is None:
            self._hub.publish(MessageSent(*stamp, message))
        else:
            self._hub.publish(MessageDropped(*stamp, message, reason))
