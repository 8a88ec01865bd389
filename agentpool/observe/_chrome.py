"""Converts a trace into trace-event JSON for Perfetto and ``chrome://tracing``.

Each agent becomes a thread, each interval of its life becomes a slice, and each spawn an arrow.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentpool._checks import expect_arguments
from agentpool._messages import Json
from agentpool.observe._record import PoolRecord
from agentpool.observe._trace import TraceHeader

_MICROSECONDS: Final = 1_000_000


def chrome_trace(header: TraceHeader, record: PoolRecord) -> bytes:
    """Return *record* as trace-event JSON."""
    expect_arguments(chrome_trace, locals())
    events: list[Json] = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": header.pool}}
    ]
    for agent in record.agents.values():
        place: dict[str, Json] = {"pid": 1, "tid": agent.agent_id}
        name = f"{agent.agent_id} {agent.name}"
        events.append({"ph": "M", "name": "thread_name", "args": {"name": name}, **place})
        events.extend(
            {
                "ph": "X",
                "name": interval.reason.value,
                "cat": "agent",
                "ts": interval.begin_seconds * _MICROSECONDS,
                "dur": (interval.end_seconds - interval.begin_seconds) * _MICROSECONDS,
                "args": {"detail": interval.detail},
                **place,
            }
            for interval in agent.intervals
        )
        parent_id = agent.spawned.parent_id
        if parent_id in record.agents:
            arrow: dict[str, Json] = {
                "name": "spawn",
                "cat": "spawn",
                "id": agent.agent_id,
                "pid": 1,
                "ts": agent.spawned.at_seconds * _MICROSECONDS,
            }
            events.append({"ph": "s", "tid": parent_id, **arrow})
            events.append({"ph": "f", "tid": agent.agent_id, "bp": "e", **arrow})
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})
