"""Lets gates and fallbacks report to the observers of the asking agent.

Gates and fallbacks do not know the pool. They find their request by the task that calls them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from agentpool._scheduling.slot import current_slot

if TYPE_CHECKING:
    from agentpool._scheduling.current_request import Asking, RequestWatcher

current_asking: ContextVar[Asking | None] = ContextVar("agentpool_asking", default=None)
"""The request that a tool makes on behalf of its agent. ``None``: no tool does."""


def asking_now() -> Asking | None:
    """Return the request that the current task makes for an agent. ``None``: it makes none."""
    asking = current_asking.get()
    if asking is not None:
        return asking
    slot = current_slot.get()
    return None if slot is None else slot.own_request()


def watcher_now() -> RequestWatcher | None:
    """Return the watcher of the current task's request. ``None``: there is no such watcher."""
    asking = asking_now()
    return None if asking is None else asking.watcher
