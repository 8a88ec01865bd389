"""The question that a person answers before a tool call runs, and the possible answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

import msgspec

from agentpool._checks import CheckedStruct
from agentpool._manifest.capability import Capability
from agentpool._messages import OWNER_ID, AgentId, ToolCall


@final
class ApprovalRequest(msgspec.Struct, frozen=True, gc=False):
    """A tool call that waits for approval."""

    agent_id: AgentId
    """The number of the agent that wants the call to run."""
    agent_name: str
    """That agent's name."""
    call: ToolCall
    """The call, as the model wrote it. Its arguments may be invalid JSON."""
    capability: Capability | None
    """The capability that the tool needs. ``None``: the tool needs no capability."""
    parent_id: AgentId = OWNER_ID
    """The number of the agent that spawned the calling agent. 0: the owner spawned the calling
    agent. Trust numbers, which the pool gives, more than names: a model may have chosen a child's
    name."""
    may_have_run: bool = False
    """Whether the call had begun when an earlier process ended. Such a call may have been done.
    `Approved` runs it again. `Denied` does not, and gives the model its reason."""


@final
class Approved(CheckedStruct, frozen=True, gc=False):
    """Run the call."""

    by: str = ""
    """Who decided, for observers. Empty: not stated. Each decision has this field."""


@final
class Denied(CheckedStruct, frozen=True, gc=False):
    """Do not run the call. The agent goes on without it."""

    reason: str = ""
    """The reason, for the model. Empty: the model gets none."""
    by: str = ""
    """Who decided."""


@final
class Changed(CheckedStruct, frozen=True, gc=False):
    """Run the call with different arguments."""

    arguments: str
    """JSON text. The tool checks these arguments like arguments that a model wrote."""
    by: str = ""
    """Who decided."""


Decision: TypeAlias = Approved | Denied | Changed
"""A decision about a call."""

Approver: TypeAlias = Callable[[ApprovalRequest], Decision | Awaitable[Decision]]
"""Called with each approval request; may be async. A synchronous function must not block. The agent
waits without a slot, and several questions may be open at once. If the function raises, the call is
refused and the model gets the reason; the pool goes on."""
