"""The order in which the calls of one answer begin if they write to other agents.

The calls of an answer run side by side, and trio lets tasks take their first steps in any
order. Messages of one agent arrive in the order in which it sends them, so calls of tools
with the grant ``message`` begin one after the other: each call starts the next one before it waits
for anything, and takes its first step before the next one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import final

import msgspec

from agentpool._base import Live
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait


@final
class CallOrder(Live):
    """Starts calls of one answer in their order."""

    _start: Callable[[int], None]
    """Starts the task of one call."""
    _left: dict[int, None]
    """The calls that have not begun, in order."""
    _unstarted: deque[int]
    """The calls that have no task."""
    _last: int | None = None
    """The last call that was given a task."""
    _lots: dict[int, Lot] = msgspec.field(default_factory=dict[int, Lot])
    """Where a call waits if it reaches its tool before its turn."""

    def start_next(self, after: int | None = None) -> None:
        """Start the call after *after*, unless it already runs. ``None``: start the first one."""
        if self._last == after and self._unstarted:
            self._last = self._unstarted.popleft()
            self._start(self._last)

    async def wait_turn(self, index: int) -> None:  # noqa: ASYNC910  # waits if it is not the first
        """Wait until every earlier call has begun, or has ended without beginning."""
        if self._is_early(index):
            # What is before it may take long: a person's decision, or a disk.
            lot = self._lots[index] = Lot()
            async with parked(Wait.other("an earlier call of the same answer"), lot):
                if self._is_early(index):
                    await lot.park()

    def _is_early(self, index: int) -> bool:
        return index in self._left and next(iter(self._left)) != index

    def begun(self, index: int) -> None:
        """Record that a call begins in this step, or will never begin."""
        if index in self._left:
            del self._left[index]
            after = next(iter(self._left), None)
            if after is not None and (lot := self._lots.pop(after, None)) is not None:
                lot.unpark_all()


def order_of(indices: Iterable[int], start: Callable[[int], None]) -> CallOrder:
    """Return the order of these calls of an answer. No task runs any of them yet."""
    wanted = tuple(indices)
    return CallOrder(start, dict.fromkeys(wanted), deque(wanted))
