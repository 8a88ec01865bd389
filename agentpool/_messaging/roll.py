"""Who can be written to in a pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from agentpool._messages import AgentId


class Roll(Protocol):
    """Knows which agents live: those that were spawned and have not ended."""

    def __contains__(self, agent_id: object) -> bool:
        """Return whether that agent lives."""
        ...

    def __iter__(self) -> Iterator[AgentId]:
        """Yield the ids of all agents that live, in spawn order."""
        ...
