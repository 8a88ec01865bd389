"""A request in progress, as seen by gates, fallbacks and waits."""

from __future__ import annotations

from typing import Protocol

from agentpool._errors import DriverError


class Clock(Protocol):
    """The time limit of one request."""

    @property
    def seconds_left(self) -> float:
        """The time left; negative after the deadline."""
        ...

    def stop(self) -> None:
        """Stop the clock. Calls nest: it resumes after as many calls of ``go_on``."""

    def go_on(self) -> None:
        """Undo one ``stop``."""

    def spend(self, seconds: float) -> None:
        """Subtract *seconds* from the time left."""

    def end(self) -> None:
        """Stop limiting the scope: another limit takes over."""


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
            error: The error that the driver failed with. ``None``: the driver was not asked.
            model: The model of that driver. Empty: unknown.
            next_model: The model that is asked next. Empty: unknown.
        """


class Asking(Protocol):
    """A request to a model that is under way."""

    @property
    def clock(self) -> Clock | None:
        """The clock that limits the request. ``None``: it has no limit."""
        ...

    @property
    def watcher(self) -> RequestWatcher | None:
        """Reports to the observers of the request. ``None``: the request is not observed."""
        ...

    def leave(self) -> None:
        """Record that the first part of the request is sent now."""

    def count_failed(self, error: DriverError) -> None:
        """Count the request to a driver that has failed, if it was sent. Another may be asked."""

    def lose_price(self) -> None:
        """Record that the model that answers has no known price, whatever was reserved."""

    async def go_on(self) -> None:
        """Reserve and record the request to the next driver, if one that failed is counted.

        Raises:
            LimitExceededError: If a budget does not allow it. The driver must not be asked.
        """
