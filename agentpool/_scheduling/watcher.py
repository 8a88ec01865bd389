"""Lets gates and fallbacks report to the observers of the asking agent.

Gates and fallbacks do not know the pool. They find their request by the task that calls them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from agentpool._scheduling.slot import Slot, current_slot

if TYPE_CHECKING:
    from agentpool._scheduling.current_request import Asking, RequestWatcher

current_asking: ContextVar[tuple[Slot, Asking] | None] = ContextVar(
    "agentpool_asking", default=None
)
"""The request that a tool makes, and the slot of its agent. ``None``: no tool makes one.

The slot tells whether it is the current agent's: a driver that is asked may spawn another agent,
whose task inherits this."""


def asking_now() -> Asking | None:
    """Return the request that the current task makes for an agent. ``None``: it makes none."""
    by_tool, slot = current_asking.get(), current_slot.get()
    if by_tool is not None and by_tool[0] is slot:
        return by_tool[1]
    return None if slot is None else slot.own_request()


def watcher_now() -> RequestWatcher | None:
    """Return the watcher of the current task's request. ``None``: there is no such watcher."""
    asking = asking_now()
    return None if asking is None else asking.watcher
