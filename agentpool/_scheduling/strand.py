"""The strands of an agent: the things that it does at the same time.

Rule: an answer may have thousands of calls, each a strand. So they are counted as they begin and
end to wait, and none of them is looked for.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import final

from agentpool._base import Live


@final
class Strand(Live):
    """One of several things that an agent does at the same time."""

    waits: int = 0
    """How many of its tasks wait."""
    ended: bool = False


@final
class Fork(Live):
    """The strands of an agent whose own task waits for them, and does nothing else."""

    strands: dict[Strand, None]
    """Those that have not ended."""
    busy: int
    """How many of them do not wait."""
    guards: dict[float, int]
    """The ``guards`` of the agent's slot, and those of its calls: how many have each deadline."""

    def begin_wait(self, strand: Strand) -> None:
        """Record that one more task of *strand* waits. One that was left behind is of no fork."""
        if strand.waits == 1 and strand in self.strands:
            self.busy -= 1

    def end_wait(self, strand: Strand) -> None:
        """Record that one task less of *strand* waits."""
        if not strand.waits and strand in self.strands:
            self.busy += 1

    def end(self, strand: Strand) -> None:
        """Record that *strand* has ended."""
        strand.ended = True
        del self.strands[strand]
        if not strand.waits:
            self.busy -= 1

    def add_guard(self, guard: float) -> None:
        """Remember the deadline of a tool that begins."""
        self.guards[guard] = self.guards.get(guard, 0) + 1

    def end_guard(self, guard: float) -> None:
        """Forget the deadline of a tool that has ended."""
        left = self.guards.pop(guard) - 1
        if left:
            self.guards[guard] = left


current_strand: ContextVar[Strand | None] = ContextVar("agentpool_strand", default=None)
"""The strand that the current task belongs to. ``None``: the agent's own."""
