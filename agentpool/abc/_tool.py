"""Tools: they let an agent act."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import msgspec
import trio

from agentpool._attachments import Attachment
from agentpool._base import Shown
from agentpool._budget.budget import Budget
from agentpool._manifest.capability import Capability
from agentpool._manifest.parts import OnUnknown
from agentpool._messages import AgentId, ToolDefinition
from agentpool.abc._context import AgentContext


@final
class ToolResult(msgspec.Struct, frozen=True, gc=False):
    """The result of a tool call."""

    content: str
    """The text for the model."""
    is_error: bool = False
    """Whether the call failed."""
    error_type: str = ""
    """The type of an unexpected error that the tool raised. Empty: there was none, or the tool
    refused on purpose."""
    traceback: str = ""
    """The traceback, for the log and observers, not for the model. Empty: there is none."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents for the model, if it reads them; ``content`` says what they are."""


@final
class ToolContext(msgspec.Struct, frozen=True, eq=False):
    """Facts about the call that a tool serves, and its agent."""

    agent: AgentContext
    """The agent that calls, to act on its behalf."""
    call_id: str
    """The call's id, given by the model. Some models use the same id again."""
    idempotency_key: str = ""
    """Names the call: a run that is resumed from a journal gives the call the same key, and no
    other call has that key. Give it to a service that must not do the same thing twice."""
    fence: int | None = None
    """Rises whenever another process takes over the pool's journal. If a store refuses each fence
    that is lower than the highest it has seen, a stalled process can do no harm there. ``None``:
    the pool has no journal."""

    @property
    def agent_id(self) -> AgentId:
        """The id of the calling agent."""
        return self.agent.agent_id

    @property
    def agent_name(self) -> str:
        """The name of the calling agent."""
        return self.agent.name

    @property
    def budget(self) -> Budget | None:
        """The budget that the calling agent spends from. ``None``: it shares none.

        To ask a model, use ``agent.complete(driver, request)``: it reserves, settles and counts.
        For anything else that costs something::

            with context.budget.reserve(cost_usd=0.05) as reservation:
                reservation.commit(tokens=0, cost_usd=await buy_something())
        """
        return self.agent.budget

    @staticmethod
    def remaining_seconds() -> float:
        """Seconds to the nearest deadline of tool, request, run or pool. ``inf``: no deadline."""
        return trio.current_effective_deadline() - trio.current_time()


class Tool(Shown, ABC):
    """One thing that an agent can do."""

    __slots__ = ()

    _is_tool: ClassVar = True
    """Tells checks of arguments that a tool is no function, even if it can be called as one."""

    _checks_results: ClassVar[bool] = False
    """Whether ``run`` itself checks what it returns."""

    @property
    @abstractmethod
    def definition(self) -> ToolDefinition:
        """The tool as the model sees it. Must not change."""

    @property
    def capability(self) -> Capability | None:
        """The grant that the agent needs. ``None``: no grant."""
        return None

    @property
    def timeout_seconds(self) -> float | None:
        """The time limit of one call. ``None``: as the manifest says."""
        return None

    @property
    def needs_approval(self) -> bool:
        """Whether each call needs approval, even if the tool was granted."""
        return False

    @property
    def waits(self) -> bool:
        """Whether the tool waits for other agents, so that repeated calls are not a loop."""
        return False

    @property
    def on_unknown(self) -> OnUnknown:
        """How to treat a call that had begun when the program ended.

        ``report``: the model learns that the call may have been done; ``rerun``: it runs again,
        because doing it twice has the same effect as once; ``ask``: the approver says whether it
        runs again; ``stop``: the run ends.
        """
        return "report"

    @property
    def left_behind(self) -> tuple[ToolContext, ...]:
        """Cancelled calls that still run in threads, which cannot be stopped."""
        return ()

    @abstractmethod
    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Run one call and return its result.

        Args:
            arguments: JSON text as the model wrote it. It may be invalid.
            context: Facts about the call: the agent, and the time left.

        Raises:
            ToolError: If the tool cannot do what was asked. The model gets the text. For any other
                ``Exception``, the model gets its type and text. The agent goes on.

        Cancellation:
            No part of the call goes on running.
        """
