"""Finds the unfinished agents of earlier processes that may still be spawned again.

Rules, for an agent of the journal without an outcome:

1. The owner may spawn its agents again at any time.
2. A child of an unfinished agent comes with its parent: its call runs again, or has ended and left
   the child behind.
3. A child of an ended agent comes with the outcome of its parent, and goes on only if it outlives
   its parent and its call has ended. All other children can never be spawned again.
4. Who is below an agent that cannot come cannot come either.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentpool._messages import NOBODY, OWNER_ID, AgentId
from agentpool._messaging.stored_messages import Absent
from agentpool._pool.branch import call_of
from agentpool._pool.past import PastAgent
from agentpool._recorded_results import settled_keys
from agentpool._scheduling.waits import Wait


def absent_agents(agents: Mapping[AgentId, PastAgent]) -> dict[AgentId, Absent]:
    """Return the unfinished ones of *agents*, in their order, and who may spawn them again.

    Args:
        agents: All agents of earlier processes.
    """
    settled: dict[AgentId, set[str]] = {}
    return {
        number: _absent(one, agents, settled)
        for number, one in sorted(agents.items())
        if one.outcome is None
    }


def _absent(
    agent: PastAgent, agents: Mapping[AgentId, PastAgent], settled: dict[AgentId, set[str]]
) -> Absent:
    parent_id = agent.parent_id if _may_come(agent, agents, settled) else NOBODY
    above = agent.parent_id
    while (ended := agents.get(above)) is not None and ended.outcome is not None:
        above = ended.parent_id  # it gets its outcome as soon as it is spawned again
    return Absent(agent.config.agent_name, parent_id, above, Wait.spawn_by(above))


def _may_come(
    agent: PastAgent, agents: Mapping[AgentId, PastAgent], settled: dict[AgentId, set[str]]
) -> bool:
    """Return whether *agent*, and all above it, may be spawned again.

    Args:
        agent: The agent.
        agents: All agents of earlier processes.
        settled: The keys of the calls that have ended, of each agent that was a parent here before.
    """
    while (parent := agents.get(agent.parent_id)) is not None:
        keys = settled.get(parent.agent_id)
        if keys is None:
            keys = {key for run in parent.runs for key in settled_keys(run)}
            settled[parent.agent_id] = keys
        if call_of(agent) in keys:
            if not (agent.is_free and _goes_on(agent, parent)):
                return False
        elif parent.outcome is not None:
            return False
        agent = parent
    return agent.parent_id == OWNER_ID


def _goes_on(agent: PastAgent, parent: PastAgent) -> bool:
    """Return whether a child that its ended call left is accepted with its parent, and not ended.

    One that has ended comes as well, with its outcome.
    """
    if agent.outcome is not None:
        return True
    return not agent.is_in_part and (parent.outcome is None or agent.config.outlives_parent)
