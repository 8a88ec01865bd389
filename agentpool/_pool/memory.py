"""The memory of a pool's agents, and the scope of each agent."""

from __future__ import annotations

from typing import final

from agentpool._base import Live
from agentpool._manifest.capability import CapabilityKind
from agentpool._spawn import SpawnConfig
from agentpool.abc import Memory


@final
class PoolMemory(Live):
    """The memory of one pool's agents."""

    _given: Memory | None
    _own: Memory | None = None

    def memory_for(self, config: SpawnConfig) -> Memory | None:
        """Return the memory of an agent. ``None``: it has no memory.

        An agent without the grant has no memory. Nor has an agent whose fragments could never be
        recalled: the pool's default memory ends with the pool, and an agent's default scope with
        the agent.
        """
        if self._given is None and config.memory_scope is None:
            return None
        grants = config.manifest.capabilities
        if not any(grant.kind is CapabilityKind.MEMORY for grant in grants):
            return None
        if self._given is not None:
            return self._given
        if self._own is None:
            # Few pools have one of their own, and whoever imports agentpool would pay for it.
            from agentpool.memory import InMemoryMemory  # noqa: PLC0415

            self._own = InMemoryMemory()
        return self._own
