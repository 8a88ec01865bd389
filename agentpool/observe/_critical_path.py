"""Finds the chain of work that a pool's duration depended on.

Rules:

1. The path is followed backwards from the end. It contains what an agent did, back to the point
   where the agent waited for another agent. From that point, the path contains the other agent's
   work.
2. An agent that waited for its first slot counts as waiting for the agent that ended last before
   the slot was given.
3. Each step goes back in time, or to an agent that has not yet been visited at that time, so the
   walk ends.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, final

import msgspec

from agentpool._messages import AgentId
from agentpool.observe._intervals import Interval, Reason
from agentpool.observe._record import AgentRecord, PoolRecord

MAX_STEPS: Final = 20_000
"""The most steps of a path. A longer path does not help anybody who reads it."""


@final
class Step(msgspec.Struct, frozen=True):
    """One part of the path."""

    agent_id: AgentId
    """The agent of the work."""
    begin_seconds: float
    """In seconds since the pool opened."""
    end_seconds: float
    """In seconds since the pool opened."""


def critical_path(record: PoolRecord) -> tuple[Step, ...]:
    """Return the path from the beginning of the pool to its end."""
    if not record.agents:
        return ()
    ended = sorted(record.agents.values(), key=record.end_of)
    ends = [record.end_of(agent) for agent in ended]
    agent, at_seconds = ended[-1], ends[-1]
    steps: list[Step] = []
    seen: set[tuple[AgentId, float]] = set()
    while len(steps) < MAX_STEPS and (agent.agent_id, at_seconds) not in seen:
        seen.add((agent.agent_id, at_seconds))
        interval = _interval_before(agent, at_seconds)
        if interval is None:  # its life begins here
            parent = record.agents.get(agent.spawned.parent_id)
            if parent is None:
                break
            agent = parent
            continue
        other = _waited_for(record, ended, ends, interval, at_seconds)
        if other is not None:
            agent, at_seconds = other[0], min(at_seconds, other[1])
            continue
        steps.append(Step(agent.agent_id, interval.begin_seconds, at_seconds))
        at_seconds = interval.begin_seconds
    return tuple(reversed(steps))


def _interval_before(agent: AgentRecord, at_seconds: float) -> Interval | None:
    """Return the interval of the agent that contains *at_seconds* or ends then."""
    place = bisect_left(agent.intervals, at_seconds, key=lambda one: one.begin_seconds) - 1
    return agent.intervals[place] if place >= 0 else None


def _waited_for(
    record: PoolRecord,
    ended: list[AgentRecord],
    ends: list[float],
    interval: Interval,
    at_seconds: float,
) -> tuple[AgentRecord, float] | None:
    """Return the agent for which *interval* was a wait, and when the wait ended."""
    if interval.reason is Reason.PARKED and interval.target_id is not None:
        target = record.agents.get(interval.target_id)
        if target is not None and target.spawned.at_seconds < at_seconds:
            return target, record.end_of(target)
    if interval.reason is Reason.QUEUED:
        place = bisect_right(ends, at_seconds) - 1
        if place >= 0 and ends[place] > interval.begin_seconds:
            return ended[place], ends[place]
    return None
