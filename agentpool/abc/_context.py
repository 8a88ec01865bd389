"""What a tool can learn about its agent, and do in its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import final

import msgspec

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


class AgentContext(ABC):
    """What a tool can learn about its agent, and do in its name. Pools implement it."""

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

        It counts for the agent's own limits and in every budget that it draws on, and a
        failed request is made again as the agent's own would be. It holds a slot. A tool
        that spends in another way takes it from ``budget`` itself.

        Args:
            driver: The driver to ask. It need not be the agent's own.
            request: What is asked.
            on_delta: Where pieces of the text go as they arrive.

        Raises:
            LimitExceededError: If a budget does not allow it. The driver was not asked.
            PrivacyError: If the agent's tier forbids the driver. It was not asked.
            DriverError: What the last attempt failed with.

        Cancellation:
            The request ends at the provider as well. What was set aside for it is charged.
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
        """Take all messages that wait, waiting for one, without a slot."""

    @abstractmethod
    def without_slot(self, what: str) -> AbstractAsyncContextManager[None]:
        """Return a block in which the agent waits while others run instead.

        ``async with context.agent.without_slot("a webhook"): await arrived.wait()``. For
        tools that wait long for something outside of the pool. When the block ends, the
        agent takes a slot again before it goes on, ahead of agents that have not started.
        A tool that waits beside others of the same answer keeps the slot until all wait.

        Args:
            what: What the tool waits for, for those who watch.

        Cancellation:
            A time limit around the block ends it; the agent then waits for its slot again.
            If the agent itself is cancelled, it ends without one.
        """

    @abstractmethod
    def list_agents(self) -> tuple[AgentInfo, ...]:
        """Return every other agent that has started and has not ended."""

    @abstractmethod
    async def run_child(self, query: str | SpawnConfig, *, name: str | None = None) -> AgentOutcome:
        """Run a child to its end, without a slot, and return its outcome.

        Given a query, the child has this agent's manifest, with fewer rights. Given a config,
        it is of another kind, within this agent's time, budget and tier.

        Raises:
            CapabilityDeniedError: If this agent may have no children of its own kind.
            PrivacyError: If the child's tier is laxer than this agent's.
        """
