"""Delivers events to observers and readers without making an agent wait.

Observers are called immediately, in order. Each reader takes events from its own backlog.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Self, TypeAlias, TypeVarTuple, final
from weakref import ref

import trio

from agentpool._budget.statistics import PoolStatistics
from agentpool._errors import traceback_text
from agentpool._events import (
    AgentParked,
    AgentSpawned,
    AgentWarned,
    Event,
    MessageDropped,
    MessageSent,
    PoolInfo,
)
from agentpool._messages import AgentId, AgentMessage
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.slot import current_slot
from agentpool._scheduling.waits import Wait
from agentpool._spawn import SpawnConfig, provider_of, seconds_of
from agentpool.abc import Observer
from agentpool.observe._error_data import text_of
from agentpool.observe._event_reader import EventReader

Ts = TypeVarTuple("Ts")
Ear: TypeAlias = Callable[[Event], None]

_log = logging.getLogger("agentpool")

# A method of what was imported is made anew for each call, which is a tenth of an event.
_set_slot, _reset_slot = current_slot.set, current_slot.reset

_TELLING = 1_000_000
"""Added to the decisions under way while observers are called, so that all new events wait."""


@final
class EventHub:
    """Numbers the events of one pool and passes them on."""

    # No struct: every event writes three of its fields, and to write one takes ten times as long.
    __slots__ = (
        "_closed", "_deciding", "_ears", "_observers", "_opened_at", "_readers", "_untold",
        "last_sequence", "listening", "now", "observer_failure", "observer_failures",
        "silent_thinkers", "warnings",
    )  # fmt: skip

    def __init__(
        self,
        observers: tuple[Observer, ...],
        opened_at: float,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self._observers = observers
        self._opened_at = opened_at
        self.now = now  # trio's clock
        self._readers: dict[int, ref[EventReader]] = {}  # by their ids, in order
        # What hears the events of one agent, by the agent: an event is for few of many streams.
        self._ears: dict[AgentId, dict[Ear, None]] = {}
        self.last_sequence = 0  # the number of the last event
        # What observers and readers have not got yet, in order.
        self._untold: deque[Event] = deque()
        # How many nested decisions of the pool are under way; _TELLING more during a delivery.
        self._deciding = 0
        # How often an observer raised, and the first one that did, with its error.
        self.observer_failures = 0
        self.observer_failure = ""
        self._closed = False
        self.warnings = 0  # so far, observed or not
        # Whether an observer or a reader is there. Without one, events are not even made.
        self.listening = bool(observers)
        # The drivers, by identity, whose last answer had thoughts without the mark before them.
        self.silent_thinkers: set[int] = set()

    @classmethod
    def open(cls, observers: Sequence[Observer]) -> Self:
        """Make a hub whose clock starts now."""
        # A clock's own method costs half of what ``trio.current_time`` does.
        now = trio.lowlevel.current_clock().current_time
        return cls(tuple(observers), now(), now)

    @property
    def is_telling(self) -> bool:
        """Whether observers are being called: any use of the pool then comes from an observer."""
        return self._deciding >= _TELLING

    def seconds(self) -> float:
        """Seconds since the pool opened."""
        return self.now() - self._opened_at

    def stamp(self, agent_id: AgentId, agent_name: str) -> tuple[int, float, AgentId, str]:
        """Return the first fields of an event, with the next sequence number."""
        self.last_sequence = sequence = self.last_sequence + 1
        return sequence, self.now() - self._opened_at, agent_id, agent_name

    def stamp_both(self) -> tuple[int, float]:
        """Return the sequence number and the time of the first of two events of one moment.

        The number of the second one is the next. Pass both to ``publish_both``.
        """
        self.last_sequence = second = self.last_sequence + 2
        return second - 1, self.now() - self._opened_at

    def introduce(self, name: str, max_concurrent: float) -> None:
        """Tell observers which pool they watch."""
        if not self._observers:
            return
        info = PoolInfo(run_id=os.urandom(16).hex(), name=name, max_concurrent=max_concurrent,
                        opened_at=datetime.now(UTC).timestamp())  # fmt: skip
        self._call_each(lambda observer: observer.on_open(info))

    def __enter__(self) -> None:
        """Begin a decision with ``with hub:``. Events are held back until it ends.

        Observers may use the pool, so they are called after the decision. Decisions may be nested.
        """
        self._deciding += 1

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """End a decision. After the outermost one, pass on the events held back."""
        self._deciding -= 1
        if self._untold and not self._deciding:
            self.publish(self._untold.popleft())

    def publish(self, event: Event) -> None:
        """Pass *event* on to observers and readers, now or after the current decision."""
        if self._deciding:
            self._untold.append(event)
            return
        self._deciding = _TELLING
        told_for = _set_slot(None)  # what observers do and start is done by the owner
        ended: BaseException | None = None
        try:
            while True:
                for observer in self._observers:
                    try:
                        # What it sets there is not for the agent in whose task it is told.
                        copy_context().run(observer.on_event, event)
                    except Exception as error:  # noqa: BLE001  # foreign code: counted, told once
                        self._failed(observer, error)
                    except BaseException as error:  # noqa: ASYNC103, BLE001  # others are told first
                        ended = error
                if self._readers or self._ears:
                    self._read(event)
                if not self._untold:
                    break
                event = self._untold.popleft()
        finally:
            _reset_slot(told_for)
            self._deciding = 0
        if ended is not None:
            raise ended

    def publish_both(self, first: Event, second: Event) -> None:
        """Pass on two events of one moment, for little more than one of them takes."""
        self._untold.append(first)
        self._untold.append(second)
        if not self._deciding:
            self.publish(self._untold.popleft())

    def _call_each(self, call: Callable[[Observer], None]) -> None:
        ended: BaseException | None = None
        for observer in self._observers:
            try:
                copy_context().run(call, observer)
            except Exception as error:  # noqa: BLE001  # as in publish()
                self._failed(observer, error)
            except BaseException as error:  # noqa: ASYNC103, BLE001  # the same
                ended = error
        if ended is not None:
            raise ended

    def _read(self, event: Event) -> None:
        for hear in tuple(self._ears.get(event.agent_id, ())):
            hear(event)
        gone = list[int]()  # not taken out by a call of the reference: that may come anywhere
        for key, one in self._readers.items():
            if (reader := one()) is not None:
                reader._put(event)  # pyright: ignore[reportPrivateUsage]  # only the hub puts
            else:
                gone.append(key)
        for key in gone:
            self._forget(key)

    def _failed(self, observer: Observer, error: Exception) -> None:
        self.observer_failures += 1
        if self.observer_failures == 1:
            # An exporter may quote its own key. To look for keys is slow, and so is this import.
            from agentpool.observe._redact import Redactor, known_secrets  # noqa: PLC0415

            keys = Redactor.of(known_secrets())
            kind, told = type(observer).__name__, traceback_text(error)
            self.observer_failure = f"{kind}: {keys.clean_text(text_of(error))}"
            is_clean = keys.clean_text(told) == told
            _log.error(
                "observer %s raised; the pool goes on and counts further failures%s",
                kind,
                "" if is_clean else f":\n{keys.clean_text(told)}",
                exc_info=is_clean,
            )

    # --- what happens to agents

    def spawned(self, agent_id: AgentId, parent_id: AgentId, config: SpawnConfig) -> None:
        """Publish that an agent was accepted. Call this only if anything listens."""
        manifest = config.manifest
        model = manifest.model
        self.publish(
            AgentSpawned(
                *self.stamp(agent_id, config.agent_name),
                parent_id,
                query=config.query,
                manifest=manifest.name,
                model=model.remote_model or str(model.model_path or ""),
                provider=provider_of(config),
                system_prompt=model.system_prompt,
                grants=tuple(grant.kind.value for grant in manifest.capabilities),
                group=config.group,
                deadline_seconds=seconds_of(config),
            )
        )

    def parked(self, agent_id: AgentId, agent_name: str, wait: Wait) -> None:
        """Publish that an agent gave its slot back."""
        self.tell(AgentParked, agent_id, agent_name, wait.text, wait.reason, wait.target)

    def posted(self, message: AgentMessage, reason: str | None, agent_name: str) -> None:
        """Publish that a message was accepted, or with a *reason*, that it became a dead letter.

        Args:
            message: The message.
            reason: Why it is a dead letter. ``None``: it was accepted.
            agent_name: The name of the message's sender, or of a dead letter's recipient.
        """
        if reason is None:
            self.tell(MessageSent, message.sender, agent_name, message)
        else:
            self.tell(MessageDropped, message.recipient, agent_name, message, reason)

    def tell(
        self,
        kind: Callable[[int, float, AgentId, str, *Ts], Event],
        agent_id: AgentId,
        agent_name: str,
        *args: *Ts,
    ) -> None:
        """Publish an event of some *kind*, if anything listens."""
        if self.listening:
            self.publish(kind(*self.stamp(agent_id, agent_name), *args))

    def warned(self, agent_id: AgentId, agent_name: str, text: str) -> None:
        """Count and publish a warning."""
        self.warnings += 1
        self.tell(AgentWarned, agent_id, agent_name, text)

    def watch(self, agent_id: AgentId, ear: Ear) -> None:
        """Call *ear*, which never raises, with every event of one agent from now on."""
        self._ears.setdefault(agent_id, {})[ear] = None
        self.listening = True

    def unwatch(self, agent_id: AgentId, ear: Ear) -> None:
        """Stop calling *ear*."""
        (ears := self._ears.get(agent_id, {})).pop(ear, None)
        if not ears:
            self._ears.pop(agent_id, None)
        self.listening = bool(self._observers or self._readers or self._ears)

    def open_reader(self, owner: Owner | None = None) -> EventReader:
        """Open a reader for all events from now on; *owner* is the owner's side of the pool."""
        reader = EventReader(self, self.last_sequence, _owner=owner)
        self._readers[id(reader)] = ref(reader)
        self.listening = True
        if self._closed:
            reader.close()
        return reader

    def forget(self, reader: EventReader) -> None:
        """Stop passing events to *reader*."""
        self._forget(id(reader))

    def _forget(self, key: int) -> None:
        self._readers.pop(key, None)
        self.listening = bool(self._observers or self._readers or self._ears)

    def close(self, statistics: PoolStatistics) -> None:
        """Tell observers and readers that the pool has closed."""
        try:
            self._call_each(lambda observer: observer.on_close(statistics))
        finally:
            self._closed = True
            for one in tuple(self._readers.values()):
                if (reader := one()) is not None:
                    reader.close()
