"""The line of those that wait for budgets inside one another.

One line has a queue for each budget, and each queue knows its path: the budget and all above it. A
look goes through all queues in the order in which their items came. A budget may be held: then a
look leaves out what comes later and has it in its path. So a look takes as long as what is not
held, however many wait behind it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from itertools import islice
from typing import Any, Generic, TypeAlias, TypeVar, final

import msgspec

from agentpool._base import Live

Place = TypeVar("Place")
Item = TypeVar("Item")

Head: TypeAlias = tuple[int, tuple[Place, ...]]
"""The number of an item that comes next in its queue, and the queue's path. No two are equal."""


@final
class Line(Live, Generic[Place, Item]):
    """Items that wait, each for one budget and all above it."""

    _queues: dict[tuple[Place, ...], OrderedDict[Item, int]] = msgspec.field(
        default_factory=dict[Any, Any]
    )
    """The items of each path, in order, with their numbers."""
    _heads: list[Head[Place]] = msgspec.field(default_factory=list[Any])
    """A heap with one entry for each queue. If its first items have left, the number is theirs."""
    _last: int = 0
    """The number of the newest item."""
    _length: int = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return self._length

    def join(self, path: tuple[Place, ...], item: Item) -> None:
        """Add *item* behind all others."""
        self._last += 1
        queue = self._queues.get(path)
        if queue is None:
            # An ordered dict: of a plain one, each look would go over the places of those that
            # have left from the front.
            self._queues[path] = queue = OrderedDict[Item, int]()
            heappush(self._heads, (self._last, path))
        queue[item] = self._last
        self._length += 1

    def leave(self, path: tuple[Place, ...], item: Item) -> None:
        """Take *item* out, if it is still there."""
        queue = self._queues.get(path)
        if queue is not None and queue.pop(item, None) is not None:
            self._length -= 1

    def look(self, held: AbstractSet[Place]) -> Iterator[Item]:
        """Go through the items in order, except those that have a place of *held* in their path.

        Between two items the caller may take out the one that it got, and hold more places.
        """
        stayed: dict[tuple[Place, ...], int] = {}  # how many of each queue that was looked at
        heads: list[Head[Place]] = []  # of these queues
        try:
            while self._heads or heads:
                is_new = not heads or (bool(self._heads) and self._heads[0] < heads[0])
                number, path = heappop(self._heads if is_new else heads)
                queue, place = self._queues[path], stayed.setdefault(path, 0)
                if path[-1] in held:
                    return  # it is in every path
                item = next(islice(queue, place, None), None)
                if item is not None and held.isdisjoint(path) and queue[item] == number:
                    yield item
                    stayed[path] = place = place + (item in queue)
                    item = next(islice(queue, place, None), None)
                if item is not None and held.isdisjoint(path):
                    heappush(heads, (queue[item], path))
        finally:
            for path in stayed:
                queue = self._queues[path]
                if queue:
                    heappush(self._heads, (queue[next(iter(queue))], path))
                else:
                    del self._queues[path]
