"""Task orders, which choose the runnable tasks that take the next step. Without I/O.

Rules:

1. Trio asks with the numbers of all tasks that can run, and lets the tasks in the answer take one
   step each, in the order of the answer. Then trio asks again, with all tasks that can run by then.
2. A seed chooses one of four ways, which find different faults: ``rounds`` (each task takes a step,
   in any order), ``walk`` (one random task at a time), ``steps`` (each step has a priority),
   ``stall`` (a task may miss a round). In every second group of four seeds the clock may be late.
3. Every sequence of choices can be written as a ``Plan``. Normally a task runs until it waits, and
   then the task that has waited longest runs. A preemption is a place at which a different task
   went on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, Literal, TypeAlias, final

import attrs

from agentpool._errors import UsageError

Orders: TypeAlias = Literal["mix", "rounds"]
"""With ``mix``, the seed picks one of four ways. With ``rounds``, each runnable task takes one step
in each round, and the seed shuffles the round, as trio itself does."""

KINDS: Final = ("mix", "rounds")

MISSES: Final = (0.1, 0.25, 0.5, 0.75)
"""The chances that a task misses a round. Each run uses one of these."""

DELAYS_SECONDS: Final = (0.03, 0.3, 3.0)
"""The longest times by which the clock is late. Each run uses one of these. They range from the
delay of a busy event loop to that of a loop that was stopped for a while."""

LATE_OFTEN: Final = 0.5
"""The chance that a clock that may be late is late at a jump."""

FAIR_STEPS: Final = 30
"""The most steps in a row that a ``Plan`` gives one task while another task can run. Without this
limit, a task that polls for something would run forever."""


class Order(ABC):
    """Decides the order of the tasks in one run."""

    __slots__ = ()

    @abstractmethod
    def choose(self, ready: list[int]) -> Sequence[int]:
        """Return the tasks of *ready* that take a step now, in order.

        At least one task takes a step.
        """

    def late_seconds(self) -> float:
        """Return how late the clock wakes up this time."""
        return 0.0


@final
@attrs.define(eq=False)
class _Rounds(Order):
    """Every task takes a step, in random order."""

    dice: Random

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Shuffle the tasks."""
        self.dice.shuffle(ready)
        return ready


@final
@attrs.define(eq=False)
class _Walk(Order):
    """One random task at a time."""

    dice: Random

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Choose one task at random."""
        return [ready[self.dice.randrange(len(ready))]]


@final
@attrs.define(eq=False)
class _Steps(Order):
    """A random priority for each step, not for each task (POS: Yuan, Yang, Gu 2018)."""

    dice: Random
    priorities: dict[int, float] = attrs.field(factory=dict[int, float])

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Choose the task whose next step has the highest priority."""
        for number in ready:
            if number not in self.priorities:
                self.priorities[number] = self.dice.random()
        chosen = max(ready, key=lambda number: self.priorities[number])
        del self.priorities[chosen]
        return [chosen]


@final
@attrs.define(eq=False)
class _Stall(Order):
    """Random rounds in which each task may be skipped."""

    dice: Random
    miss: float

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Choose at random which tasks are skipped."""
        going = [number for number in ready if self.dice.random() >= self.miss]
        if not going:
            return [ready[self.dice.randrange(len(ready))]]
        self.dice.shuffle(going)
        return going


@final
@attrs.define(eq=False)
class _Late(Order):
    """Wraps an order. The choices are the same, but the clock may wake tasks late."""

    order: Order
    dice: Random
    most: float

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Ask the inner order."""
        return self.order.choose(ready)

    def late_seconds(self) -> float:
        """Return a delay, about every second time more than 0."""
        # Thousandths are enough, and keep tokens short.
        late = round(self.dice.random() * self.most, 3)
        return late if self.dice.random() < LATE_OFTEN else 0.0


def _stall(dice: Random) -> Order:
    return _Stall(dice, dice.choice(MISSES))


def order_of(seed: int, orders: Orders = "mix", *, late_clock: bool = True) -> Order:
    """Return the order for *seed*.

    Args:
        seed: Chooses the order.
        orders: The ways to choose from.
        late_clock: Whether the clock of some seeds may be late. With ``rounds``, the clock is never
            late.

    Raises:
        UsageError: If *orders* is unknown.
    """
    if orders not in KINDS:
        raise UsageError(f"orders must be one of {', '.join(KINDS)}, got {orders!r}")
    dice = Random(seed)  # noqa: S311  # orders tasks; no secret
    if orders == "rounds":
        return _Rounds(dice)
    ways: tuple[Callable[[Random], Order], ...] = (_Rounds, _Walk, _Steps, _stall)
    order = ways[seed % len(ways)](dice)
    if late_clock and seed // len(ways) % 2:
        own = Random(f"late {seed}")  # noqa: S311  # the same
        return _Late(order, own, own.choice(DELAYS_SECONDS))
    return order


@final
@attrs.define(eq=False)
class Recorder(Order):
    """Wraps an order, and records every decision."""

    _order: Order
    picks: list[int] = attrs.field(factory=list[int])
    """Which task took the 1st, 2nd, 3rd step."""
    delays: dict[int, float] = attrs.field(factory=dict[int, float])
    """How late the clock was at its 0th, 1st, 2nd jump. Jumps that were on time are left out."""
    _jumps: int = 0

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Ask the inner order and record its choice."""
        chosen = self._order.choose(ready)
        self.picks.extend(chosen)
        return chosen

    def late_seconds(self) -> float:
        """Ask the inner order and record its delay."""
        seconds = self._order.late_seconds()
        if seconds:
            self.delays[self._jumps] = seconds
        self._jumps += 1
        return seconds


@final
@attrs.frozen
class Mark:
    """A preemption that happened."""

    step: int
    """How many steps had been taken before."""
    preempted: int
    """The task that could have gone on."""


@attrs.define(eq=False)
class Plan(Order):
    """Runs one task at a time, each until it waits, except at planned preemptions.

    A place is a moment at which two or more tasks can run. These tasks stand in line: first the
    task that ran last, if it can go on, and then the others, with the one that has waited longest
    in front.
    """

    preemptions: Mapping[int, int]
    """How many tasks are sent to the end of the line at a place, by the number of the place, from
    0."""
    delays: Mapping[int, float] = attrs.field(factory=dict[int, float])
    """How late the clock is, by the number of the jump, from 0."""
    late: float = attrs.field(default=0.0, kw_only=True)
    """How late the clock is at all other jumps."""
    places: int = attrs.field(init=False, default=0)
    """The number of places so far."""
    marks: list[Mark] = attrs.field(init=False, factory=list[Mark])
    """The preemptions so far."""
    line: list[int] = attrs.field(init=False, factory=list[int])
    """The tasks that can run, in the order in which they would run."""
    _steps: int = attrs.field(init=False, default=0)
    _jumps: int = attrs.field(init=False, default=0)
    _last: int = attrs.field(init=False, default=-1)
    _in_a_row: int = attrs.field(init=False, default=0)

    def choose(self, ready: list[int]) -> Sequence[int]:
        """Choose the first task in line."""
        now, known = set(ready), set(self.line)
        line = [n for n in self.line if n in now] + [n for n in ready if n not in known]
        if len(line) > 1:
            if line[0] == self._last and self._in_a_row >= FAIR_STEPS:
                line = [*line[1:], line[0]]
            back = self.back(line) % len(line)
            self.places += 1
            if back:
                self.marks.append(Mark(self._steps, line[0]))
            line = line[back:] + line[:back]
        self.line = line
        chosen = line[0]
        self._steps += 1
        self._in_a_row = self._in_a_row + 1 if chosen == self._last else 1
        self._last = chosen
        return [chosen]

    def back(self, line: Sequence[int]) -> int:  # noqa: ARG002  # for who decides by the line
        """Return how many tasks at the front of *line* are sent to its end here."""
        return self.preemptions.get(self.places, 0)

    def late_seconds(self) -> float:
        """Return the planned delay."""
        self._jumps += 1
        return self.delays.get(self._jumps - 1, self.late)


@final
@attrs.define(eq=False)
class Follower(Plan):
    """Repeats recorded decisions, and finds the preemptions that they need."""

    picks: Sequence[int] = attrs.field(kw_only=True)
    found: dict[int, int] = attrs.field(init=False, factory=dict[int, int])
    """The preemptions, in the form of ``Plan``."""

    def back(self, line: Sequence[int]) -> int:
        """Move the tasks before the recorded one to the end."""
        wanted = self.picks[self._steps] if self._steps < len(self.picks) else line[0]
        back = line.index(wanted) if wanted in line else 0
        if back:
            self.found[self.places] = back
        return back
