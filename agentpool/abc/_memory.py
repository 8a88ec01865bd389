"""Where agents keep fragments and recall them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import trio

from agentpool._fragments import Fragment, MemoryHit, MemoryQuery


class Memory(ABC):
    """Where agents keep fragments and recall them."""

    __slots__ = ()

    @abstractmethod
    async def remember(self, fragment: Fragment) -> str:
        """Keep *fragment* and return the id it got.

        Cancellation:
            It is either kept whole or not at all.
        """

    @abstractmethod
    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Return what fits *query*, best first; nothing of another scope."""

    @abstractmethod
    async def forget(self, fragment_id: str) -> bool:
        """Drop a fragment for good. Return whether it was there."""

    def now(self) -> float:
        """Return the time that a new fragment gets, in seconds of trio's clock.

        A memory that outlives the run has another, since that one begins anew.
        """
        return trio.current_time()
