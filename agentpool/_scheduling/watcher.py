"""Lets gates and fallbacks report to the observers of the asking agent.

Gates and fallbacks know no pool. An observed request stores here which object they can report to.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from agentpool._scheduling.current_request import Asking
from agentpool._scheduling.slot import current_slot


class RequestWatcher(Protocol):
    """Reports events of one request."""

    def gate_changed(
        self, name: str, *, limit: int, in_flight: int, waiting: int, closed_seconds: float
    ) -> None:
        """Report that a refusal has closed a gate, or lowered its limit."""

    def placed(self, node: str) -> None:
        """Note which node of a cluster gets the request."""

    def fell_back(self, driver: int, error: Exception | None, model: str, next_model: str) -> None:
        """Report that the next of several drivers is asked.

        Args:
            driver: The number of the driver that failed, from 1.
            error: The error that it failed with. ``None``: it was not asked.
            model: The model of that driver. Empty: unknown.
            next_model: The model that is asked next. Empty: unknown.
        """


current_asking: ContextVar[Asking | None] = ContextVar("agentpool_asking", default=None)
"""The request that a tool makes on behalf of its agent. ``None``: no tool does."""


def asking_now() -> Asking | None:
    """Return the request that the current task makes for an agent. ``None``: it makes none."""
    asking = current_asking.get()
    if asking is not None:
        return asking
    slot = current_slot.get()
    return None if slot is None else slot.own_request()


current_watcher: ContextVar[RequestWatcher | None] = ContextVar("agentpool_watcher", default=None)
"""The observer of the request that the current task makes. ``None``: it is not observed."""
