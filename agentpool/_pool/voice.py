"""Sends messages on behalf of the caller of a pool."""

from __future__ import annotations

from abc import ABC, abstractmethod

from agentpool._messages import AgentId, AgentMessage
from agentpool._scheduling.owner import Owner


class Voice(ABC):
    """Sends messages on behalf of the caller."""

    __slots__ = ()

    owner: Owner
    """The task that opened the pool."""

    @abstractmethod
    def name(self) -> str:
        """Return the caller's name, for people."""

    @abstractmethod
    async def send(self, recipient: AgentId, content: str, reply_to: int | None) -> AgentMessage:
        """Send on behalf of the caller."""

    @abstractmethod
    def send_nowait(self, recipient: AgentId, content: str, reply_to: int | None) -> AgentMessage:
        """Send on behalf of the caller, or raise."""

    @abstractmethod
    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Ask on behalf of the caller."""
