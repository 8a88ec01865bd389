"""Names the caller of a pool, who sends its messages."""

from __future__ import annotations

from abc import ABC, abstractmethod

from agentpool._messages import AgentId
from agentpool._messaging.post_office import PostOffice
from agentpool._scheduling.owner import Owner


class Voice(ABC):
    """Names the caller of a pool."""

    __slots__ = ()

    owner: Owner
    """The task that opened the pool."""
    post: PostOffice
    """Delivers what the caller sends."""

    @abstractmethod
    def name(self) -> str:
        """Return the caller's name, for people."""

    @abstractmethod
    def agent_id(self) -> AgentId:
        """Return the id of the caller, who sends; the owner's id outside of agents."""
