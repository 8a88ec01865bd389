"""A request in progress, as seen by gates and waits."""

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


class Asking(Protocol):
    """A request to a model that is under way."""

    @property
    def clock(self) -> Clock | None:
        """The clock that limits the request. ``None``: it has no limit."""
        ...

    def take_failure(self, error: DriverError) -> None:
        """Count the failure of a driver after which another driver is asked."""
