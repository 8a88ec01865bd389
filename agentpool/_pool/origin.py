"""Where agents come from: their pool, and who spawned them."""

from __future__ import annotations

from typing import Generic, TypeVar, final

from agentpool._base import Live
from agentpool._budget.budget import Budget
from agentpool._messages import OWNER_ID, AgentId

P = TypeVar("P")


@final
class Origin(Live, Generic[P]):
    """What agents have in common that come from the same agent, or from the owner."""

    pool: P
    """Their pool."""
    budget: Budget | None
    """The budget that they draw on. ``None``: they share none."""
    parent_id: AgentId = OWNER_ID
    """The agent that spawned them. 0: the pool's owner."""
    depth: int = 0
    """Generations above them: 0 for agents that the owner spawned."""
