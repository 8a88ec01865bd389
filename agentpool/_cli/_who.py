"""The names of agents in lines about a trace."""

from __future__ import annotations

from agentpool.observe import AgentRecord, Event
from agentpool.tools import printable


def who(agent: AgentRecord) -> str:
    """Return number and name of *agent*."""
    return f"agent {agent.agent_id} ({printable(agent.name)})"


def who_is(event: Event) -> str:
    """Return number and name of the agent of *event*, or ``the pool``."""
    return f"{event.agent_id} {printable(event.agent_name)}" if event.agent_id else "the pool"
