"""What is known of a request while it is made, to those who know no request."""

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
        """Stop the clock. Calls nest: it runs again after as many ``go_on`` calls."""

    def go_on(self) -> None:
        """Undo one ``stop``."""

    def spend(self, seconds: float) -> None:
        """Subtract *seconds* from the time left."""

    def end(self) -> None:
        """Leave its scope alone from now on: it limits something else."""


class Asking(Protocol):
    """A request to a model that is under way."""

    @property
    def clock(self) -> Clock | None:
        """What limits it. ``None``: nothing does."""
        ...

    def take_failure(self, error: DriverError) -> None:
        """Take the error of a driver that was asked, in whose place another one is asked."""
