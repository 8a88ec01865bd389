"""Waits until a pool cannot go on without an approval.

Rules:

1. An agent that waits for an approval counts as unable to go on, even if it has a deadline: the
   caller intends to give the answer in another process.
2. An agent that waits for others cannot go on if too few of these can. All other waits end by
   themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agentpool._checks import expect_arguments
from agentpool._events import AgentFinished, AgentParked
from agentpool._pool.nursery import AgentNursery
from agentpool._pool.pool import AgentPool
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.slot import NO_WAITS
from agentpool._scheduling.waits import Wait, WaitReason, find_deadlocked


async def wait_until_asking(pool: AgentPool) -> None:
    """Wait until nothing in *pool* can go on without an approval, or the pool has closed.

    With a journal, the pool can then be closed: its questions are stored, and can be answered
    later. An empty pool does not end this wait, since more agents may be spawned. So if all agents
    may end without a question, wait for the agents as well, in a separate task.

    Cancellation:
        Nothing has changed.
    """
    expect_arguments(wait_until_asking, locals())
    agents = pool._agents  # pyright: ignore[reportPrivateUsage]  # one floor
    with pool.events() as events:
        await trio.lowlevel.checkpoint()
        if _is_asking(agents):
            return
        async for event in events:
            # Nothing else makes the last one stand still.
            if isinstance(event, AgentParked | AgentFinished) and _is_asking(agents):
                return


def _is_asking(agents: AgentNursery) -> bool:
    if agents.admission.running_count or agents.admission.queued_count:
        return False
    waits = {agent_id: _waits_of(one) for agent_id, one in agents.running.items()}
    asks = any(wait.target == agent_id for agent_id, own in waits.items() for wait in own)
    return asks and len(find_deadlocked(waits, others_can_send=False)) == len(waits)


def _waits_of(agent: AgentRecord) -> Sequence[Wait]:
    """Return the waits of an agent. A wait for an approval counts as one that never ends."""
    slot = agent.slot
    waits = NO_WAITS if slot is None or slot.held else slot.waits
    # Whoever was woken goes on at its next step.
    can_go_on = not waits or any(one.woken for one in waits.values())
    endless = Wait.end_of(agent.agent_id, agent.name)
    own = [one.wait for one in waits.values()]
    at_work = [Wait.other("its next step")] if can_go_on else []
    return at_work + [endless if one.reason is WaitReason.APPROVAL else one for one in own]
