"""How events reach those who watch, without ever making an agent wait.

Observers are called at once, in order. Readers take events from a bounded backlog of
their own: when it is full, events that are not lifecycle are left out and counted.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._budget.statistics import PoolStatistics
from agentpool._events import LIFECYCLE, AgentWarned, Event, EventsMissed, PoolInfo
from agentpool._messages import OWNER_ID, AgentId
from agentpool.abc import Observer

_log = logging.getLogger("agentpool")

READER_BACKLOG = 4096
"""Events that wait for one reader: some seconds of a busy pool, half a megabyte."""


@final
class EventReader(Live):
    """The events of a pool, one after the other, from the moment it was opened.

    An async iterator; it ends when the pool has closed and everything was read.
    """

    _hub: EventHub
    _backlog: deque[Event] = msgspec.field(default_factory=deque[Event])
    _left_out: int = 0
    _closed: bool = False
    _lot: trio.lowlevel.ParkingLot = msgspec.field(default_factory=trio.lowlevel.ParkingLot)

    def put(self, event: Event) -> None:
        """Keep *event* for the reader, or count it as left out."""
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

    def close(self) -> None:
        """Take no more events. What is here can still be read."""
        if self._left_out:
            hub, count = self._hub, self._left_out
            place = (hub.last_sequence, hub.seconds(), OWNER_ID, "")
            self._backlog.append(EventsMissed(*place, count))
            self._left_out = 0
        self._closed = True
        self._hub.forget(self)
        self._lot.unpark_all()

    def __enter__(self) -> Self:
        """Return itself: ``with pool.events() as events:``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event, waiting for one.

        Cancellation:
            No event is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._backlog:
            if self._closed:
                raise StopAsyncIteration
            await self._lot.park()
        event = self._backlog.popleft()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return event


@final
class EventHub(Live):
    """Numbers the events of one pool and hands them on."""

    _observers: tuple[Observer, ...]
    _opened_at: float
    _now: Callable[[], float] = trio.current_time
    _readers: list[EventReader] = msgspec.field(default_factory=list[EventReader])
    _last_sequence: int = 0
    _failures: int = 0
    _closed: bool = False
    warnings: int = 0
    """Warnings so far, whether anybody watched or not."""
    listening: bool = False
    """Whether anybody watches. Nobody does: do not even make the event."""

    def __post_init__(self) -> None:
        """Listen if there are observers."""
        self.listening = bool(self._observers)

    @property
    def last_sequence(self) -> int:
        """The number of the last event."""
        return self._last_sequence

    @classmethod
    def open(cls, observers: Sequence[Observer]) -> Self:
        """Return a hub whose time begins now."""
        # A clock's own method costs half of what ``trio.current_time`` does.
        now = trio.lowlevel.current_clock().current_time
        return cls(tuple(observers), now(), now)

    @property
    def observer_failures(self) -> int:
        """How often an observer raised."""
        return self._failures

    def seconds(self) -> float:
        """Seconds since the pool opened."""
        return self._now() - self._opened_at

    def stamp(self, agent_id: AgentId, agent_name: str) -> tuple[int, float, AgentId, str]:
        """Return what every event begins with, and use up one place in the order."""
        self._last_sequence += 1
        at_seconds = self._now() - self._opened_at
        return self._last_sequence, at_seconds, agent_id, agent_name

    def introduce(self, name: str, max_concurrent: float) -> None:
        """Tell observers which pool they watch."""
        if not self._observers:
            return
        info = PoolInfo(
            run_id=os.urandom(16).hex(),
            name=name,
            opened_at=datetime.now(UTC).timestamp(),
            max_concurrent=max_concurrent,
        )
        for observer in self._observers:
            try:
                observer.on_open(info)
            except Exception:  # noqa: BLE001  # as in publish()
                self._failed(observer)

    def publish(self, event: Event) -> None:
        """Hand *event* to everybody who watches."""
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception:  # noqa: BLE001  # somebody else's code: counted, told once
                self._failed(observer)
        for reader in self._readers:
            reader.put(event)

    def _failed(self, observer: Observer) -> None:
        self._failures += 1
        if self._failures == 1:
            _log.error(
                "observer %s raised; the pool goes on and counts further failures",
                type(observer).__name__,
                exc_info=True,
            )

    def warned(self, agent_id: AgentId, agent_name: str, text: str) -> None:
        """Count something that is near a limit or was tolerated, and tell who watches."""
        self.warnings += 1
        if self.listening:
            self.publish(AgentWarned(*self.stamp(agent_id, agent_name), text))

    def open_reader(self) -> EventReader:
        """Return a reader of everything from now on."""
        reader = EventReader(self)
        self._readers.append(reader)
        self.listening = True
        if self._closed:
            reader.close()
        return reader

    def forget(self, reader: EventReader) -> None:
        """Hand nothing more to *reader*."""
        if reader in self._readers:
            self._readers.remove(reader)
        self.listening = bool(self._observers or self._readers)

    def close(self, statistics: PoolStatistics) -> None:
        """Tell everybody who watches that nothing more comes."""
        for observer in self._observers:
            try:
                observer.on_close(statistics)
            except Exception:  # noqa: BLE001  # as in publish()
                self._failed(observer)
        self._closed = True
        for reader in tuple(self._readers):
            reader.close()
