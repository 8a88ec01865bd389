"""A pool at one moment, in numbers."""

from __future__ import annotations

from typing import final

import msgspec


@final
class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pool at one moment."""

    running: int
    """Agents that hold a slot."""
    parked: int
    """Agents that gave theirs back while they wait."""
    queued: int
    """Agents that wait for their first slot."""
    spawned: int
    """Agents that were accepted so far."""
    max_concurrent: float
    """Slots."""
    messages: int
    """Messages that were accepted so far."""
    dead_letters: int
    """Accepted messages that nobody will receive."""
    warnings: int
    """Things that were near a limit, or that went wrong and were tolerated."""
    observer_failures: int
    """How often an observer raised."""
