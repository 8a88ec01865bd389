"""Someone who watches a pool."""

from __future__ import annotations

from abc import ABC, abstractmethod

from agentpool._budget.statistics import PoolStatistics
from agentpool._events import Event, PoolInfo


class Observer(ABC):
    """Someone who watches a pool."""

    __slots__ = ()

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Record *event*. Called in order, from the pool's thread; must not block.

        An exception is counted and reported once as a warning; the pool goes on.
        """

    def on_open(self, pool: PoolInfo) -> None:  # noqa: B027  # most need not know
        """Learn that *pool* opens, before its first event; not if it was open already."""

    def on_close(self, statistics: PoolStatistics) -> None:  # noqa: B027  # the same
        """Learn that the pool has closed: no event comes after this."""
