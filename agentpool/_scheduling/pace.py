"""Decides when a call that need not wait should let other tasks run anyway.

Yielding costs two thirds as much as sending a message. So only one in ``STEPS`` of the calls
that find everything ready yields, but all of them check whether they are cancelled. A loop of such
calls lets others run at least that often. The first ``STEPS`` calls of a pool all yield: the agents
of a small pool start in the order in which they were spawned, and tests of it see every step.

Agents that start in one step also end in one step if their models answer equally fast. The more of
them do the same in a row, the better a processor foresees what they do next: it takes a third
longer for one at a time than for 32. But each of them is some thirty objects, some begin while
others end, and before Python 3.13 the garbage collector looks after 700 new objects. So there it
are 24.
"""

from __future__ import annotations

import sys
from typing import Final, final

from agentpool._base import Live

STEPS: Final = 32
"""How many calls of a pool may be made in a row before one of them yields. It is the capacity of an
inbox: a sender seldom gets that far without waiting."""


AGENT_STEPS: Final = 1 if sys.version_info >= (3, 13) else STEPS / 24
"""How many calls a new agent counts as."""


@final
class Pace(Live):
    """Counts the calls of one pool that had nothing to wait for.

    One count for all tasks is a bound for each of them: between two calls that must yield there are
    fewer than ``STEPS`` others, whichever task makes them.
    """

    _steps: float = 0

    def apart(self) -> Pace:
        """Return a count of its own for some of the calls, which begins where this one is."""
        return Pace(self._steps)

    def is_due(self, steps: float = 1) -> bool:
        """Count a call. Return whether it must yield to other tasks before it returns.

        Args:
            steps: How many calls it counts as.
        """
        if self._steps < STEPS:
            self._steps += 1
            return True
        self._steps = counted = self._steps + steps
        if counted < 2 * STEPS:
            return False
        self._steps = STEPS
        return True
