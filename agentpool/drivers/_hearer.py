"""Passes on a streamed answer as it arrives, whatever the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

import attrs

from agentpool._messages import Completion
from agentpool.abc import HearsThoughts, OnDelta
from agentpool.drivers.wire._sse import SseEvent


class Accumulator(Protocol):
    """Builds an answer from the events of its stream."""

    thoughts: list[str]
    """The thoughts since ``take_thoughts`` was called."""

    @property
    def done(self) -> bool:
        """Whether the stream has announced its end."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it is known how the answer ended."""
        ...

    def feed(self, event: SseEvent) -> list[str]:
        """Process the next event and return the pieces of text in it."""
        ...

    def take_thoughts(self) -> Sequence[str]:
        """Return the thoughts since the last call."""
        ...

    def used(self) -> Completion | None:
        """Return the usage of an answer that became an error. ``None``: nothing had come."""
        ...

    def finish(self) -> Completion:
        """Return the answer, after the last event."""
        ...


@final
@attrs.define(eq=False)
class Hearer:
    """Passes on the text of an answer as it arrives."""

    accumulator: Accumulator
    on_delta: OnDelta | None
    on_thought: Callable[[str], None] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Find out whether the receiver wants thoughts."""
        # The attribute first: to ask for a protocol takes as long as six words of an answer.
        if hasattr(self.on_delta, "thought") and isinstance(self.on_delta, HearsThoughts):
            self.on_thought = self.on_delta.thought

    def feed(self, event: SseEvent) -> None:
        """Handle *event*.

        Raises:
            DriverError: If the event is an error of the provider's, or cannot be understood.
        """
        texts = self.accumulator.feed(event)
        # A thought comes before the text that it led to.
        if self.accumulator.thoughts:
            for thought in self.accumulator.take_thoughts():
                if self.on_thought is not None:
                    self.on_thought(thought)
        for text in texts:
            if self.on_delta is not None:
                self.on_delta(text)
