"""The outcome of an agent that ended before its run began."""

from __future__ import annotations

from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome, AgentStatus, StopReason
from agentpool._spawn import SpawnConfig


def early_outcome(
    config: SpawnConfig,
    agent_id: AgentId,
    status: AgentStatus,
    finished_at: float,
    *,
    error: Exception | None,
    stop_reason: StopReason | None = None,
    started_at: float | None = None,
) -> AgentOutcome:
    """Return the outcome of an agent that ended before its run began."""
    return AgentOutcome(
        agent_id=agent_id,
        name=config.agent_name,
        status=status,
        error=error,
        stop_reason=stop_reason,
        cost_usd=0.0,  # it has asked nothing
        messages=(*config.history, config.question),
        started_at=started_at,
        finished_at=finished_at,
    )
