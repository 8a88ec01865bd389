"""What a tool can learn about its agent, and do on its behalf."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import final

import msgspec

from agentpool._base import Shown
from agentpool._budget.budget import Budget
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import AgentId, AgentMessage, Completion, CompletionRequest
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._spawn import SpawnConfig
from agentpool.abc._driver import Driver, OnDelta


@final
class AgentInfo(msgspec.Struct, frozen=True, gc=False):
    """Another agent of the same pool."""

    agent_id: AgentId
    """The agent's id."""
    name: str
    """The agent's name."""
    status: AgentStatus
    """``RUNNING`` or ``PARKED``."""


class AgentContext(Shown, ABC):
    """What a tool can learn about its agent, and do on its behalf. Pools implement it."""

    __slots__ = ()

    @property
    @abstractmethod
    def agent_id(self) -> AgentId:
        """The agent's id."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The agent's name."""

    @property
    @abstractmethod
    def manifest(self) -> AgentManifest:
        """The agent's manifest."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """The agent's number of ancestors. 0: the owner spawned it."""

    @property
    @abstractmethod
    def parent_id(self) -> AgentId:
        """The id of the agent that spawned it. 0: the owner."""

    @property
    @abstractmethod
    def memory_scope(self) -> str:
        """The memory scope that the agent uses."""

    @abstractmethod
    def seconds(self) -> float:
        """Seconds since the pool opened, as in its events."""

    @property
    @abstractmethod
    def budget(self) -> Budget | None:
        """The budget that the agent spends from. ``None``: it shares none."""

    @abstractmethod
    async def complete(
        self, driver: Driver, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask a model at the agent's expense.

        The request counts for the agent's own limits and in every budget that the agent draws on. A
        failed request is retried like one of the agent's own. The agent keeps its slot meanwhile. A
        tool that spends in a different way must take the amount from ``budget`` itself.

        Args:
            driver: The driver to ask. It need not be the agent's own.
            request: The request.
            on_delta: Called with each piece of the text as it arrives.

        Raises:
            LimitExceededError: If a budget does not allow it. The driver was not asked.
            PrivacyError: If the agent's tier forbids the driver. The driver was not asked.
            DriverError: The error of the last attempt.

        Cancellation:
            The request ends at the provider as well. The amount reserved for it is charged.
        """

    @abstractmethod
    async def send(
        self, recipient: AgentId, content: str, *, reply_to: int | None = None
    ) -> AgentMessage:
        """Send a message, waiting while the inbox is full, without a slot."""

    @abstractmethod
    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Send a question and wait for its reply, without a slot."""

    @abstractmethod
    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Take all waiting messages. If there are none, wait for one without a slot."""

    @abstractmethod
    def without_slot(self, what: str) -> AbstractAsyncContextManager[None]:
        """Return a block in which the agent has no slot, so that others run while it waits.

        ``async with context.agent.without_slot("a webhook"): await arrived.wait()``. For
        tools that wait long for something outside of the pool. When the block ends, the
        agent takes a slot again before it goes on, ahead of agents that have not started.
        If one answer calls several tools, the agent keeps its slot until all of them wait.

        Args:
            what: What the tool waits for, to be shown to observers.

        Cancellation:
            A time limit around the block ends it; the agent then waits for its slot again.
            If the agent itself is cancelled, it ends without a slot.
        """

    @abstractmethod
    def list_agents(self) -> tuple[AgentInfo, ...]:
        """Return every other agent that has started and has not ended."""

    @abstractmethod
    async def run_child(self, query: str | SpawnConfig, *, name: str | None = None) -> AgentOutcome:
        """Run a child to its end, without a slot, and return its outcome.

        With a query, the child gets this agent's manifest, with fewer rights. With a config, the
        child gets the manifest of the config, within this agent's time, budget and tier.

        Raises:
            CapabilityDeniedError: If this agent may not have children with its own manifest.
            PrivacyError: If the child's tier is laxer than this agent's.
        """
