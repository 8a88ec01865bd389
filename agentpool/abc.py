"""Where you plug in: the five seams of agentpool.

Write a subclass, give it to ``open_pool``, and hold it against ``agentpool.testing``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeAlias, final

import msgspec
import trio

from agentpool._attachments import Attachment
from agentpool._budget.budget import Budget
from agentpool._budget.statistics import PoolStatistics
from agentpool._events import Event, PoolInfo
from agentpool._fragments import Fragment, MemoryHit, MemoryQuery
from agentpool._manifest.capability import Capability, PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import (
    AgentId,
    AgentMessage,
    Completion,
    CompletionRequest,
    ToolDefinition,
    Usage,
)
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._records import JournalRecord, Lease
from agentpool._spawn import SpawnConfig

__all__ = [
    "AgentContext", "AgentId", "AgentInfo", "AgentManifest", "AgentMessage", "AgentOutcome",
    "AgentStatus", "Budget", "Capability", "Completion", "CompletionRequest", "Driver",
    "DriverFactory", "Event", "Fragment", "Journal",
    "Memory", "MemoryHit", "MemoryQuery", "Observer",
    "OnDelta", "OnUnknown", "PoolInfo", "PoolStatistics", "PrivacyTier", "Tool", "ToolContext",
    "ToolDefinition", "ToolResult", "Usage",
]  # fmt: skip
OnUnknown: TypeAlias = Literal["report", "rerun", "stop"]
"""What happens to a tool call of which nobody knows whether it was done."""

OnDelta = Callable[[str], None]
"""Called with each piece of text as it arrives. It must not block."""


class Driver(ABC):
    """The thing that answers a completion request: a model, near or far, or a script."""

    __slots__ = ()

    @abstractmethod
    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer *request*.

        Args:
            request: The conversation and its settings. Read it now, do not keep it.
            on_delta: Where pieces of the text go as they arrive. Together they are the
                completion's text. A driver that does not stream may ignore it. One with a
                method ``thought`` is told of thoughts as well.

        Raises:
            DriverError: In one of its subclasses, whatever went wrong.

        Cancellation:
            The request ends at the provider as well, and holds no connection.
        """

    @property
    @abstractmethod
    def context_window(self) -> int | None:
        """Tokens that request and answer may have together. ``None``: nobody knows."""

    @property
    def max_output_tokens(self) -> int | None:
        """The most tokens that the model can write in one answer. ``None``: nobody knows."""
        return None

    @property
    def inputs(self) -> frozenset[str] | None:
        """What the model reads besides text: ``image``, ``pdf``. ``None``: nobody knows."""
        return None

    @property
    @abstractmethod
    def privacy(self) -> PrivacyTier:
        """The tier of the place where the request ends up."""

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return what *usage* costs in US dollars. ``None``: nobody knows; 0.0 is free."""
        return None


DriverFactory: TypeAlias = Callable[[AgentManifest], Driver]
"""Chooses the driver of an agent by its manifest. Called at spawn; must not block."""


@final
class ToolResult(msgspec.Struct, frozen=True, gc=False):
    """What a tool call came to."""

    content: str
    """The text for the model."""
    is_error: bool = False
    """Whether it failed."""
    error_type: str = ""
    """The type of what it raised by accident. Empty: nothing, or it said no on purpose."""
    traceback: str = ""
    """Where that was raised, for the log and whoever watches, not the model. Empty: nowhere."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents for the model, if it reads them; ``content`` says what they are."""


@final
class AgentInfo(msgspec.Struct, frozen=True, gc=False):
    """Another agent of the same pool."""

    agent_id: AgentId
    """Its number."""
    name: str
    """Its name."""
    status: AgentStatus
    """``RUNNING`` or ``PARKED``."""


class AgentContext(ABC):
    """What an agent's tools may know of it, and do in its name. The pool implements it."""

    __slots__ = ()

    @property
    @abstractmethod
    def agent_id(self) -> AgentId:
        """The agent's number."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name."""

    @property
    @abstractmethod
    def manifest(self) -> AgentManifest:
        """Its manifest."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Generations above it: 0 for an agent that the owner spawned."""

    @property
    @abstractmethod
    def parent_id(self) -> AgentId:
        """The number of the agent that spawned it: 0 for the owner."""

    @property
    @abstractmethod
    def memory_scope(self) -> str:
        """The scope in which it recalls and remembers."""

    @abstractmethod
    def seconds(self) -> float:
        """Seconds since the pool opened: the clock of its events."""

    @property
    @abstractmethod
    def budget(self) -> Budget | None:
        """What the agent spends of. ``None``: of nothing that others spend of as well."""

    @abstractmethod
    async def complete(
        self, driver: Driver, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask a model in the agent's name; what it takes is the agent's expense.

        It counts for the agent's own limits and in every budget that it spends of, and a
        failed request is made again as the agent's own would be. It holds a slot. A tool
        that spends in another way takes it from ``budget`` itself.

        Args:
            driver: Who answers. It need not be the agent's own.
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
        """Return a block in which the agent waits, and others run in its place.

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
        """Run a child to its end, without a slot; return its outcome. Cancelled, it ends.

        Given a query, the child has this agent's manifest, with fewer rights. Given a config,
        it is of another kind, within this agent's time, budget and tier.

        Raises:
            CapabilityDeniedError: If this agent may have no children of its own kind.
            PrivacyError: If the child's tier is laxer than this agent's.
        """


@final
class ToolContext(msgspec.Struct, frozen=True, eq=False):
    """What a tool knows of the call that it serves."""

    agent: AgentContext
    """The agent that calls, to act in its name."""
    call_id: str
    """The call's own name, given by the model. Some repeat."""
    idempotency_key: str = ""
    """Names the call: the same when a run is resumed from a journal, and of no other call. Give
    it to whatever must not do the same thing twice."""
    fence: int | None = None
    """Rises whenever another process takes the pool's journal over. A store that refuses a
    lower one than it has seen is safe from a process that was stalled. ``None``: no journal."""

    @property
    def agent_id(self) -> AgentId:
        """The number of the agent that calls."""
        return self.agent.agent_id

    @property
    def agent_name(self) -> str:
        """The name of the agent that calls."""
        return self.agent.name

    @property
    def budget(self) -> Budget | None:
        """What the agent that calls spends of. ``None``: of nothing that others share.

        To ask a model use ``agent.complete(driver, request)``: it reserves, settles and
        counts. For anything else that costs something::

            with context.budget.reserve(cost_usd=0.05) as reservation:
                reservation.commit(tokens=0, cost_usd=await buy_something())
        """
        return self.agent.budget

    @staticmethod
    def remaining_seconds() -> float:
        """Seconds until the nearest deadline of tool, request, run and pool; ``inf``: none."""
        return trio.current_effective_deadline() - trio.current_time()


class Tool(ABC):
    """Something that an agent can do."""

    __slots__ = ()

    @property
    @abstractmethod
    def definition(self) -> ToolDefinition:
        """The tool as the model sees it. The same at every look."""

    @property
    def capability(self) -> Capability | None:
        """The grant that the agent needs. ``None``: none."""
        return None

    @property
    def timeout_seconds(self) -> float | None:
        """The longest that one call may take. ``None``: as the manifest says."""
        return None

    @property
    def needs_approval(self) -> bool:
        """Whether somebody is asked before each call, whatever was granted."""
        return False

    @property
    def waits(self) -> bool:
        """Whether it waits for what others do, so that calling it again is no loop."""
        return False

    @property
    def on_unknown(self) -> OnUnknown:
        """What happens to a call that had begun when the program ended.

        ``report``: the model is told that it may have been done; ``rerun``: it runs again,
        because doing it twice is as good as once; ``stop``: the run ends.
        """
        return "report"

    @property
    def left_behind(self) -> tuple[ToolContext, ...]:
        """Calls that were cancelled and still run, in threads that cannot be stopped."""
        return ()

    @abstractmethod
    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Do it.

        Args:
            arguments: JSON text as the model wrote it. It may be invalid.
            context: Who calls, and how much time is left.

        Raises:
            ToolError: Told to the model, as is every other ``Exception`` by its type and
                text. The agent goes on.

        Cancellation:
            Nothing of the call goes on running.
        """


class Memory(ABC):
    """Where agents keep fragments and recall them."""

    __slots__ = ()

    @abstractmethod
    async def remember(self, fragment: Fragment) -> str:
        """Keep *fragment* and return the id it got.

        Cancellation:
            It is either kept whole or not at all.
        """

    @abstractmethod
    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Return what fits *query*, best first; nothing of another scope."""

    @abstractmethod
    async def forget(self, fragment_id: str) -> bool:
        """Drop a fragment for good. Return whether it was there."""

    def now(self) -> float:
        """Return the time that a new fragment gets, in seconds of trio's clock.

        A memory that outlives the run has another, since that one begins anew.
        """
        return trio.current_time()


class Journal(ABC):
    """Where a pool keeps what it must not do twice.

    A journal has the records of many pools, each under its name. Whoever writes them holds a
    lease; a later claim raises the fence, and writes under an older fence are refused.
    `agentpool.testing.check_journal` holds an implementation against these promises.
    """

    __slots__ = ()

    @abstractmethod
    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write the records of *pool*.

        Args:
            pool: The pool's name. It need not have records yet.
            lease_seconds: How long the lease lasts after the last write.

        Raises:
            RunBusyError: If another process holds it, and its lease has not ended.
            JournalError: If the journal cannot be written.

        Cancellation:
            The lease may have been taken; a claim by the same process takes it again.
        """

    @abstractmethod
    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep *records*, all or none, and renew the lease. No records: renew it alone.

        When this returns, they survive what the journal promises to survive.

        Raises:
            LeaseLostError: If somebody else has claimed the pool since. Nothing was kept.
            JournalError: If the journal cannot be written. Nothing was kept.

        Cancellation:
            The records were kept, all or none.
        """

    @abstractmethod
    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return the records of *pool* in the order in which they were written.

        Raises:
            JournalError: If the journal cannot be read.
        """

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give the right to write back, if *lease* still has it.

        Raises:
            JournalError: If the journal cannot be written.
        """


class Observer(ABC):
    """Someone who watches a pool."""

    __slots__ = ()

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Record *event*. Called in order, from the pool's thread; must not block.

        An exception is counted and reported once as a warning; the pool goes on.
        """

    def on_open(self, pool: PoolInfo) -> None:  # noqa: B027  # most need not know
        """Learn that *pool* opens, before its first event; not if it was open already."""

    def on_close(self, statistics: PoolStatistics) -> None:  # noqa: B027  # the same
        """Learn that the pool has closed: no event comes after this."""
