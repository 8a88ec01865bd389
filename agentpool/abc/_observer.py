"""Observers: a pool calls them with its events."""

from __future__ import annotations

from abc import ABC, abstractmethod

from agentpool._base import Shown
from agentpool._budget.statistics import PoolStatistics
from agentpool._events import Event, PoolInfo


class Observer(Shown, ABC):
    """Receives every event of a pool."""

    __slots__ = ()

    @property
    def _missing(self) -> str:
        """What to do before a pool can open with this observer. Empty: nothing."""
        return ""

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Handle *event*. Called in order, in the pool's thread; must not block.

        An exception is counted and reported once as a warning; the pool goes on.
        """

    def on_open(self, pool: PoolInfo) -> None:  # most need not know
        """Called when *pool* opens, before its first event."""

    def on_close(self, statistics: PoolStatistics) -> None:  # the same
        """Called when the pool has closed. No event comes after this."""
