"""The text of one agent as it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._events import (
    AgentFinished,
    CompletionReceived,
    Event,
    MessagesAdded,
    RequestStarted,
    TextDelta,
)
from agentpool._messages import AssistantMessage, ChatMessage
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool.observe._hub import Ear, EventHub


@unbroken
@final
class TextStream(Live):
    """The text of one agent as it arrives, in all its answers. Made by ``handle.stream()``.

    An async iterator over pieces of text; it ends when the agent has ended. No text is left out:
    all text that arrives before the next piece is taken becomes one piece. It begins with the part
    of the current answer that has already arrived. If the agent goes on from a journal, it begins
    with the text from before. If a driver does not stream, its answer comes as one piece, when the
    agent goes on. Watching changes nothing for the agent: if the agent fails, the failure still
    counts as not retrieved.
    """

    _record: AgentRecord
    _hub: EventHub
    _after: int
    """The last event that had happened when it was opened."""
    _pieces: list[str] = msgspec.field(default_factory=list[str])
    _is_over: bool = False
    _has_heard: bool = False
    """Whether a piece of the newest answer has arrived."""
    _owes: bool = False
    """Whether the newest answer came as a whole, and has not been given out yet."""
    _said_from: int | None = None
    """Where the run's own messages begin, if the stream was opened before the run. Text from before
    the program ended then comes first. ``None``: that text has been given out, or is not due."""
    _lot: Lot = msgspec.field(default_factory=Lot)
    _ear: Ear | None = None
    """What the hub calls. ``None``: nothing more is heard."""

    @classmethod
    def _open(cls, record: AgentRecord, hub: EventHub) -> Self:
        """Return a stream of the agent's text from now on."""
        stream = cls(record, hub, hub.last_sequence)
        outcome = record.ended_with
        if outcome is not None:
            stream._is_over = True
            stream._take(outcome.text)
            return stream
        run = None if record.agent is None else record.agent.run
        if run is None:
            stream._said_from = len(record.take_work()[0].history)
        else:
            stream._take(run.arrived_text)
        stream._ear = ear = stream._hear
        hub.watch(record.agent_id, ear)
        return stream

    def __repr__(self) -> str:
        """Return the agent's id and name: ``<TextStream of agent 3 (critic)>``."""
        return f"<TextStream of agent {self._record.agent_id} ({self._record.name})>"

    def close(self) -> None:
        """Accept no more pieces. The stored ones can still be read."""
        self._is_over = True
        if self._ear is not None:
            self._hub.unwatch(self._record.agent_id, self._ear)
            self._ear = None
        self._lot.unpark_all()

    def __enter__(self) -> Self:
        """Return the stream: ``with handle.stream() as pieces:``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __aiter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> str:
        """Return the text since the last call, waiting for some without a slot.

        Raises:
            DeadlockError: If the agent can never end while the caller waits.

        Cancellation:
            No text is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not (self._pieces or self._is_over):
            async with parked(self._record.wait_for_end(), self._lot, self._record.voice.owner):
                while not (self._pieces or self._is_over):
                    await self._lot.park()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        if not self._pieces:
            raise StopAsyncIteration
        text = "".join(self._pieces)
        self._pieces.clear()
        return text

    def _take(self, piece: str) -> None:
        if piece:
            self._has_heard = True
            self._pieces.append(piece)
            self._lot.unpark_all()

    def _hear(self, event: Event) -> None:
        """Handle *event* of the agent if it carries text."""
        if event.sequence <= self._after:
            return  # it happened before, and is told late
        match event:
            case RequestStarted(by_tool=False):
                self._has_heard = False
            case TextDelta(text=text):
                self._take(text)
            case CompletionReceived(by_tool=False):
                self._owes = not self._has_heard
            case MessagesAdded(messages=messages):
                self._pay(messages)
            case AgentFinished(outcome=outcome):
                self._pay(outcome.messages)
                self.close()
            case _:
                pass

    def _pay(self, messages: Sequence[ChatMessage]) -> None:
        """Give out the newest answer if it is due, or first all answers of earlier processes."""
        own = messages[self._said_from or 0 :]
        texts = [one.text for one in own if isinstance(one, AssistantMessage)]
        if self._said_from is None:
            texts = texts[-1:] if self._owes else []
        self._owes, self._said_from = False, None
        for text in texts:
            self._take(text)
