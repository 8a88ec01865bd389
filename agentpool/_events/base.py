"""The fields that all events share, and facts about their pool."""

from __future__ import annotations

from typing import final

import msgspec

from agentpool._messages import AgentId


def _tag(class_name: str) -> str:
    """Return the name of an event in JSON: ``agent_spawned`` for ``AgentSpawned``."""
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in class_name)[1:]


@final
class PoolInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a pool tells its observers about itself before its first event."""

    run_id: str
    """32 hexadecimal digits that no other pool has."""
    name: str
    """The pool's name."""
    opened_at: float
    """When it opened: seconds since 1970-01-01 UTC, by the system's clock."""
    max_concurrent: float
    """The number of slots."""


class EventBase(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag=_tag):
    """The fields that every event has."""

    sequence: int
    """1, 2, 3, … across the pool: the order in which things happened."""
    at_seconds: float
    """Seconds since the pool opened."""
    agent_id: AgentId
    """The id of the agent. 0: the event is about the pool itself."""
    agent_name: str
    """That agent's name. Empty for the pool itself."""
