"""Memories: where agents store fragments and recall them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import trio

from agentpool._base import Shown
from agentpool._fragments import Fragment, MemoryHit, MemoryQuery


class Memory(Shown, ABC):
    """Stores fragments, and recalls those that fit a query."""

    __slots__ = ()

    @abstractmethod
    async def remember(self, fragment: Fragment) -> str:
        """Store *fragment* and return its id.

        Cancellation:
            The fragment is stored whole or not at all.
        """

    @abstractmethod
    async def recall(self, query: MemoryQuery) -> tuple[MemoryHit, ...]:
        """Return the fragments in the scope that fit *query*, best first."""

    @abstractmethod
    async def forget(self, fragment_id: str) -> bool:
        """Delete a fragment for good. Return whether it existed."""

    def now(self) -> float:
        """Return the time for a new fragment, in seconds of trio's clock.

        A memory that outlives the run needs a different clock, since trio's begins anew in each
        run.
        """
        return trio.current_time()
