"""The context variables in which a queued agent begins: those of the call that spawned it.

trio begins a task with a copy of the context variables of whoever starts it. For a queued agent
that is the agent whose slot it gets, and what the tools of that one have set is not for others.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from operator import is_
from typing import final

from agentpool._base import Live


@final
class CallerContext(Live):
    """Copies the context variables of the caller. Spawns with the same ones share a copy."""

    last: Context | None = None
    """The newest copy. Set it to ``None`` when no agent is queued."""

    def now(self) -> Context:
        """Return the context variables of the caller. They are for tasks to copy."""
        now, last = copy_context(), self.last
        # Compared by identity: what compares equal may be two things, or take its time.
        if (
            last is not None
            and len(now) == len(last)
            and all(map(is_, now.values(), last.values()))
            and all(map(is_, now, last))
        ):
            return last
        self.last = now
        return now
