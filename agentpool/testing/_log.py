"""Keeps the events of a pool, as values and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import final

import attrs

from agentpool._checks import Checked
from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    AgentStarted,
    Event,
    EventsMissed,
    MessageDropped,
)
from agentpool._messages import OWNER_ID, AgentId
from agentpool.abc import Observer
from agentpool.testing._simulation.findings import LeakError


@final
@attrs.define(eq=False, repr=False)
class EventLog(Checked, Observer):
    """An observer that stores every event.

    >>> log = EventLog()
    >>> log.text()
    ''
    """

    events: list[Event] = attrs.field(factory=list[Event])
    """The events, in order."""

    def on_event(self, event: Event) -> None:
        """Store *event*."""
        self.events.append(event)

    def text(self) -> str:
        """Return one line per event. Equal runs have equal texts."""
        return "".join(f"{event}\n" for event in self.events)

    def check(self) -> None:
        """Check the order of the events, after the pool has closed.

        Sequence numbers must rise without repeats, and times must never go back. Each agent must
        first be spawned, then start at most once, and finally finish exactly once.

        Raises:
            LeakError: If the order is wrong. The error lists every fault.
        """
        faults = tuple(self._faults())
        if faults:
            raise LeakError("the event log is not in order", faults)

    def _faults(self) -> Iterator[str]:
        sequence, seconds = 0, 0.0
        for event in self.events:
            if event.sequence <= sequence or isinstance(event, EventsMissed):
                yield f"event {event.sequence} comes after event {sequence}"
            if event.at_seconds < seconds:
                yield f"event {event.sequence} is at {event.at_seconds:g}, after {seconds:g}"
            sequence, seconds = event.sequence, event.at_seconds
        for agent_id, events in sorted(self._by_agent().items()):
            kinds = Counter(type(event) for event in events)
            if not isinstance(events[0], AgentSpawned) or kinds[AgentSpawned] > 1:
                yield f"agent {agent_id} does not begin with one spawn"
            if not isinstance(events[-1], AgentFinished) or kinds[AgentFinished] > 1:
                yield f"agent {agent_id} does not end with one finish"
            if kinds[AgentStarted] > 1:
                yield f"agent {agent_id} started {kinds[AgentStarted]} times"

    def _by_agent(self) -> dict[AgentId, list[Event]]:
        by_agent: dict[AgentId, list[Event]] = {}
        for event in self.events:
            by_agent.setdefault(event.agent_id, []).append(event)
        return {
            agent_id: events
            for agent_id, events in by_agent.items()
            # Of one that was not spawned again by a resumed pool, only its letters are told.
            if agent_id != OWNER_ID and any(type(one) is not MessageDropped for one in events)
        }
