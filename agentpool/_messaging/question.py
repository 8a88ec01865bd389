"""A question of one agent to another, until it has its answer."""

from __future__ import annotations

from typing import final

from agentpool._base import Live
from agentpool._messages import AgentId, AgentMessage
from agentpool._scheduling.parking_lot import Lot


@final
class Question(Live):
    """A question that waits for its answer."""

    asker: AgentId
    answerer: AgentId
    message_id: int = 0
    """0: it has not been accepted."""
    over: bool = False
    """Whether the question has been answered, or never will be."""
    answer: AgentMessage | None = None
    lot: Lot | None = None
    """Where the asker waits. ``None``: it has not begun to wait."""

    @property
    def is_open(self) -> bool:
        """Whether the question still waits for an answer.

        An asker that has begun to wait and is no longer in the lot was cancelled, or told of a
        deadlock. It may need a slot before it takes its next step, and its question stays in the
        router until then: an answer that comes meanwhile goes to its inbox.
        """
        return not self.over and (self.lot is None or bool(self.lot))

    def end(self) -> None:
        """End the wait, with or without an answer."""
        self.over = True
        if self.lot is not None:
            self.lot.unpark_all()
