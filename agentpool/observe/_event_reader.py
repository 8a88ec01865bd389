"""Reads the events of a pool one by one, from a bounded backlog.

When the backlog is full, events that do not start or end an agent are left out and counted.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, Self, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._events import LIFECYCLE, Event, EventsMissed
from agentpool._messages import OWNER_ID
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import current_slot, parked
from agentpool._scheduling.waits import FOR_AN_EVENT

READER_BACKLOG = 4096
"""The most events that wait for one reader, besides spawns, starts and ends: half a megabyte."""


class Source(Protocol):
    """Where a reader gets its events from."""

    last_sequence: int
    """The number of the last event."""

    def seconds(self) -> float:
        """Return the time, in seconds since the pool opened."""
        ...

    def forget(self, reader: EventReader) -> None:
        """Pass on no more events to *reader*."""


@final
class EventReader(Live, weakref=True):
    """An async iterator over a pool's events from now on. It ends when the pool has closed.

    A reader that nothing refers to any more gets no more events.

    >>> import trio
    >>> from agentpool import AgentManifest, SpawnConfig, open_pool
    >>> from agentpool.drivers import ScriptedDriver
    >>> async def main() -> None:
    ...     async with open_pool(ScriptedDriver(["Hello!"])) as pool:
    ...         events = pool.events()
    ...         await pool.spawn(SpawnConfig(AgentManifest(), "Say hello"))
    ...     print([type(event).__name__ async for event in events][:2])
    >>> trio.run(main)
    ['AgentSpawned', 'AgentStarted']
    """

    _source: Source
    _after: int
    """The number of the last event before the reader was opened."""
    _backlog: deque[Event] = msgspec.field(default_factory=deque[Event])
    _left_out: int = 0
    _closed: bool = False
    _lot: Lot = msgspec.field(default_factory=Lot)
    _owner: Owner | None = None
    """The owner's side of the pool. ``None``: the reader belongs to no pool."""

    def __repr__(self) -> str:
        """Return the number of waiting events: ``<EventReader 3 events, 2 missed>``."""
        parts = [f"{len(self._backlog)} events"]
        parts += [f"{self._left_out} missed"] * (self._left_out > 0)
        parts += ["closed"] * self._closed
        return f"<EventReader {', '.join(parts)}>"

    def _put(self, event: Event) -> None:
        """Store *event* for the reader, or count it as missed."""
        if event.sequence <= self._after:
            return  # it happened before, and was told late
        if len(self._backlog) >= READER_BACKLOG and not isinstance(event, LIFECYCLE):
            self._left_out += 1
            return
        if self._left_out:
            # It takes the place, and the number, of the first event that follows the gap.
            gap = EventsMissed(event.sequence, event.at_seconds, OWNER_ID, "", self._left_out)
            self._backlog.append(gap)
            self._left_out = 0
        self._backlog.append(event)
        self._lot.unpark_all()

    def _take_waiting(self) -> list[Event]:
        """Return all events that have arrived, without waiting."""
        taken = list(self._backlog)
        self._backlog.clear()
        return taken

    def close(self) -> None:
        """Accept no more events. The stored ones can still be read."""
        if self._left_out:
            source, count = self._source, self._left_out
            place = (source.last_sequence, source.seconds(), OWNER_ID, "")
            self._backlog.append(EventsMissed(*place, count))
            self._left_out = 0
        self._closed = True
        self._source.forget(self)
        self._lot.unpark_all()

    def __enter__(self) -> Self:
        """Return the reader: ``with pool.events() as events:``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the reader."""
        self.close()

    def __aiter__(self) -> Self:
        """Return the reader itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event, waiting for one.

        Cancellation:
            No event is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not await self._has_more():
            raise StopAsyncIteration
        event = self._backlog.popleft()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return event

    async def _has_more(self) -> bool:  # noqa: ASYNC910  # those that are there are not waited for
        """Wait for an event. Return ``False`` if the reader is closed and has no more events."""
        while not self._backlog:
            if self._closed:
                return False  # noqa: ASYNC910  # the same
            if current_slot.get() is None:
                async with parked(FOR_AN_EVENT, self._lot, self._owner):
                    while not (self._backlog or self._closed):
                        await self._lot.park()
            else:
                # An agent that parked for events would have its own parking to read.
                await self._lot.park()
        return True  # noqa: ASYNC910  # the same
