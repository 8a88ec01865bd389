"""What the testing kit raises: what it found, and how to see it again.

They are ``AssertionError``s and no ``AgentPoolError``s: nothing that an application could
handle went wrong, the code under test did not keep a promise.
"""

from __future__ import annotations

from collections.abc import Sequence


class HangError(AssertionError):
    """Nothing can happen any more, and the scenario has not ended."""

    def __init__(self, message: str, waiting: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(waiting))
        self.waiting: tuple[str, ...] = tuple(waiting)
        """Who waits, and where: one line for each task."""

    def __str__(self) -> str:
        """Return the message, and who waits where."""
        return "\n".join((str(self.args[0]), *(f"  {line}" for line in self.waiting)))


class LeakError(AssertionError):
    """Something is left that should have ended, or something is missing."""

    def __init__(self, message: str, leaks: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(leaks))
        self.leaks: tuple[str, ...] = tuple(leaks)
        """What is left or missing: one line for each thing."""

    def __str__(self) -> str:
        """Return the message, and everything that is left."""
        return "\n".join((str(self.args[0]), *(f"  {line}" for line in self.leaks)))


class ScheduleError(AssertionError):
    """A scenario fails under one order of its tasks. The cause is what it failed with."""

    def __init__(self, message: str, seed: int) -> None:
        super().__init__(message, seed)
        self.seed: int = seed
        """The seed that fails: ``simulate(scenario, seed=...)`` shows it again."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class CancelPointError(AssertionError):
    """A cancellation at one point breaks a promise. The cause is which."""

    def __init__(self, message: str, seed: int, point: int) -> None:
        super().__init__(message, seed, point)
        self.seed: int = seed
        """The seed of the schedule."""
        self.point: int = point
        """The task step before which the cancellation came, from 1."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])
