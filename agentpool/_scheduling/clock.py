"""What a request's clock can do, for those who know no request."""

from __future__ import annotations

from typing import Protocol


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
