"""A queue in which groups take turns by weight, so that no group waits for ever.

Rules:

1. Groups with work take turns in a circle. A turn is worth the group's weight times the cost of the
   most expensive item so far; what is left of a turn is added to the group's next one. This is
   deficit round robin.
2. A group that gets work again is last in the circle. A group without work keeps nothing of its
   turn.
3. A group's weight is that of its newest item.
4. Within a group, items are served in the order in which they came. Each level of priority moves an
   item ahead by ``PLACES_PER_LEVEL`` places. So each item that waits can be overtaken only by a
   limited number of later ones. Priority never moves an item ahead of another group.

So if all items cost the same, at most ``W - w`` items of other groups come between two items of a
group with work, and at most ``ceil(n / w) * (W - w)`` before its *n*-th one: ``w`` is the group's
weight, and ``W`` that of all groups with work together.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar, final

import msgspec

T = TypeVar("T")

PLACES_PER_LEVEL: Final = 100
"""How many earlier items an item overtakes for each level of its priority. It is more than most
queues hold, so that a level means first; and it is finite, so that nothing waits for ever."""

SPARE_GHOSTS: Final = 32
"""How many withdrawn items stay in a line before it is scanned for them: scanning a short line for
each withdrawal would cost more than keeping these items."""


@final
class Share(msgspec.Struct, frozen=True, gc=False):
    """The group, weight and priority of an item in a queue."""

    group: str = ""
    """The group with which it shares."""
    weight: int = 1
    """The group's weight, compared with other groups' weights. >= 1."""
    priority: int = 0
    """Its place within the group: higher is earlier. May be negative."""


PLAIN: Final = Share()
"""The share by default."""


@final
class _Group(Generic[T]):
    """The waiting items of one group."""

    __slots__ = ("_ranked", "arrived", "credit", "line", "name", "weight")

    def __init__(self, name: str) -> None:
        self.name = name
        self.weight = 1
        self.credit = 0
        """What it may still spend in this turn, including what was left of earlier ones."""
        self.line: deque[T] = deque()
        """What waits, while nothing has a priority."""
        self.arrived = 0
        self._ranked: list[tuple[int, int, T]] = []
        """Used instead of the line while an item has a priority: rank, arrival, item."""

    def __len__(self) -> int:
        return len(self.line) or len(self._ranked)

    def __iter__(self) -> Iterator[T]:
        yield from self.line
        for _, _, item in sorted(self._ranked, key=lambda ranked: ranked[:2]):
            yield item

    def push(self, item: T, priority: int) -> None:
        self.arrived += 1
        if priority or self._ranked:
            # Those in the line arrived one after the other, and last of all groups this one.
            first = self.arrived - len(self.line)
            for place, waiting in enumerate(self.line):
                heapq.heappush(self._ranked, (first + place, first + place, waiting))
            self.line.clear()
            rank = self.arrived - priority * PLACES_PER_LEVEL
            heapq.heappush(self._ranked, (rank, self.arrived, item))
        else:
            self.line.append(item)

    def head(self) -> T:
        return self.line[0] if self.line else self._ranked[0][2]

    def pop(self) -> T:
        return self.line.popleft() if self.line else heapq.heappop(self._ranked)[2]

    def drop(self, is_gone: Callable[[T], bool]) -> None:
        self.line = deque(item for item in self.line if not is_gone(item))
        self._ranked = [ranked for ranked in self._ranked if not is_gone(ranked[2])]
        heapq.heapify(self._ranked)


@final
class FairQueue(Generic[T]):
    """A queue that several groups share."""

    __slots__ = (
        "_cost_of", "_dearest", "_ghosts", "_groups", "_home", "_is_gone", "_turns", "waiting",
    )  # fmt: skip

    def __init__(
        self, is_gone: Callable[[T], bool], cost_of: Callable[[T], int] | None = None
    ) -> None:
        """Make an empty queue.

        Args:
            is_gone: Returns whether an item was withdrawn. Report each withdrawal with
                ``note_gone``.
            cost_of: Returns the cost of an item in its group's turn, >= 1. ``None``: 1 each.
        """
        self._is_gone = is_gone
        self._cost_of = cost_of
        # The group of all who say nothing is always there: most queues have no other.
        self._home: _Group[T] = _Group(PLAIN.group)
        self._groups: dict[str, _Group[T]] = {PLAIN.group: self._home}
        self._turns: deque[_Group[T]] = deque()
        """The groups with items, the one whose turn it is first."""
        self._ghosts: int = 0
        """Items that were withdrawn and are still here."""
        self.waiting = 0
        """The number of items that were not withdrawn, as ``len`` returns it. (A pool reads it ten
        times for each agent.)"""
        self._dearest = 1

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return self.waiting

    def push(self, item: T, share: Share = PLAIN) -> None:
        """Add *item* to the queue."""
        home = self._home
        if share is PLAIN and home.line and home.weight == 1 and self._cost_of is None:
            # Behind others of the usual share, as in most queues.
            home.line.append(item)
            home.arrived += 1
            self.waiting += 1
            return
        if share is PLAIN:
            group = home
        else:
            found = self._groups.get(share.group)
            group = found or self._groups.setdefault(share.group, _Group(share.group))
        group.weight = share.weight
        if self._cost_of is not None:
            dearest = self._dearest if self._turns else 1
            self._dearest = max(dearest, self._cost_of(item))
        group.push(item, share.priority)
        self.waiting += 1
        if len(group) == 1:
            self._turns.append(group)
            if len(self._turns) == 1:
                self._begin_turn()

    def head(self) -> T:
        """Return the next item without removing it. The queue must not be empty."""
        while True:
            group = self._turns[0]
            item = group.head()
            if self._ghosts and self._is_gone(item):
                self._ghosts -= 1
                self._take(group)
            elif group.credit < self._cost(item):
                # A dearer one took the place of the one that the turn was left for.
                self._turns.rotate(-1)
                self._begin_turn()
            else:
                return item

    def pop(self) -> T:
        """Remove and return the next item. The queue must not be empty."""
        group = self._turns[0]
        line = group.line
        if len(self._turns) == 1 and len(line) > 1 and not self._ghosts:
            # Most queues have one group, and there is no other to take turns with. What is left
            # of its turn stays as it is.
            self.waiting -= 1
            return line.popleft()
        item = self.head()
        group = self._turns[0]
        group.credit -= self._cost(item)
        self.waiting -= 1
        self._take(group)
        return item

    def note_gone(self) -> None:
        """Record that an item was withdrawn."""
        self.waiting -= 1
        self._ghosts += 1
        if self._ghosts <= self.waiting + SPARE_GHOSTS and self.waiting:
            return
        # Each scan is paid for by the half of the items that it throws out.
        first = self._turns[0]
        for group in self._turns:
            group.drop(self._is_gone)
        for group in [group for group in self._turns if not group]:
            self._forget(group)
        self._turns = deque(group for group in self._turns if group)
        self._ghosts = 0
        if self._turns and self._turns[0] is not first:
            self._begin_turn()

    def drain(self) -> list[T]:
        """Remove and return all items, group by group."""
        if not self._turns:
            return []
        left = [item for group in self._turns for item in group]
        if self._ghosts:
            left = [item for item in left if not self._is_gone(item)]
        self._home = _Group(PLAIN.group)
        self._groups = {PLAIN.group: self._home}
        self._ghosts = self.waiting = 0
        self._turns.clear()
        return left

    def _cost(self, item: T) -> int:
        return 1 if self._cost_of is None else self._cost_of(item)

    def _take(self, group: _Group[T]) -> None:
        """Remove the first item of the current group, and end its turn if it is used up."""
        group.pop()
        if not group:
            self._forget(group)
            self._turns.popleft()
            if self._turns:
                self._begin_turn()
        elif group.credit < self._cost(group.head()):
            self._turns.rotate(-1)
            self._begin_turn()

    def _forget(self, group: _Group[T]) -> None:
        group.credit = 0
        if group is not self._home:
            del self._groups[group.name]

    def _begin_turn(self) -> None:
        # At least the dearest item: whoever has a turn is served in it.
        group = self._turns[0]
        group.credit += group.weight * self._dearest
