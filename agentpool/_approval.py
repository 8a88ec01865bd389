"""The question that a person answers before a tool call runs, and the possible answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

import msgspec

from agentpool._manifest.capability import Capability
from agentpool._messages import OWNER_ID, AgentId, ToolCall


@final
class ApprovalRequest(msgspec.Struct, frozen=True, gc=False):
    """A tool call that waits for approval."""

    agent_id: AgentId
    """The number of the agent that wants it."""
    agent_name: str
    """That agent's name."""
    call: ToolCall
    """The call, as the model wrote it. Its arguments may be no valid JSON."""
    capability: Capability | None
    """What the tool needs. ``None``: nothing."""
    parent_id: AgentId = OWNER_ID
    """The number of the agent that spawned the one that wants it: 0 for the owner. A child's
    name is its parent's choice, and so may be a model's; the numbers are the pool's."""
    may_have_run: bool = False
    """Whether it had begun when an earlier process ended, and may have been done. `Approved`
    runs it again; `Denied` does not, and its reason is what the model is told."""


@final
class Approved(msgspec.Struct, frozen=True, gc=False):
    """Run the call."""

    by: str = ""
    """Who decided, for those who watch. Empty: it is not said. So it is in each decision."""


@final
class Denied(msgspec.Struct, frozen=True, gc=False):
    """Do not run the call. The agent goes on without it."""

    reason: str = ""
    """Why not, for the model. Empty: it is told no reason."""
    by: str = ""
    """Who decided."""


@final
class Changed(msgspec.Struct, frozen=True, gc=False):
    """Run the call with other arguments."""

    arguments: str
    """JSON text. The tool checks it as it checks what a model wrote."""
    by: str = ""
    """Who decided."""


Decision: TypeAlias = Approved | Denied | Changed
"""What can be said of a call."""

Approver: TypeAlias = Callable[[ApprovalRequest], Decision | Awaitable[Decision]]
"""Whoever is asked, async or not. One that is not async must not block.

The agent waits without a slot; several may ask at the same time. If it raises, the call is
refused and the agent told; the pool goes on.
"""
