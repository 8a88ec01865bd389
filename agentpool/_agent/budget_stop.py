"""Why a run ends where a budget has too little left."""

from __future__ import annotations

from agentpool._agent.agent import Agent
from agentpool._budget.way_on import kept_end
from agentpool._errors import LimitExceededError
from agentpool._loop.guard import Stop
from agentpool._outcome import StopReason


def budget_stop(agent: Agent, error: LimitExceededError) -> Stop:
    """Make the verdict for a budget's *error* that ends the run of *agent*."""
    text = str(error) if agent.journal is None else kept_end(str(error))
    return Stop(StopReason(error.kind), text, error.used, error.limit, error.source)


def stop_of(agent: Agent) -> Stop | None:
    """Return why the run of *agent* ends after this turn. ``None``: it goes on."""
    return None if agent.run is None else agent.run.exhausted
