"""The errors of the testing kit, which say what it found and how to repeat it.

They are ``AssertionError``s, not ``AgentPoolError``s: the code under test has broken a promise,
which is nothing that an application could handle.
"""

from __future__ import annotations

from collections.abc import Sequence
from traceback import walk_tb
from typing import cast

from agentpool._errors import leaves
from agentpool.testing._simulation.places import Place, innermost


class HangError(AssertionError):
    """No task can go on, and the scenario has not ended."""

    def __init__(
        self, message: str, waiting: Sequence[str] = (), last_steps: Sequence[str] = ()
    ) -> None:
        super().__init__(message, tuple(waiting), tuple(last_steps))
        self.waiting: tuple[str, ...] = tuple(waiting)
        """Which tasks wait, and where: one line for each task."""
        self.last_steps: tuple[str, ...] = tuple(last_steps)
        """The last steps before the hang, oldest first: one line each."""

    def __str__(self) -> str:
        """Return the message, with where each task waits and the last steps."""
        lines = [str(self.args[0]), *(f"  {line}" for line in self.waiting)]
        if self.last_steps:
            lines += ["the last steps before:", *(f"  {line}" for line in self.last_steps)]
        return "\n".join(lines)


class LeakError(AssertionError):
    """Something was left running that should have ended, or something is missing."""

    def __init__(self, message: str, leaks: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(leaks))
        self.leaks: tuple[str, ...] = tuple(leaks)
        """What is left or missing: one line for each thing."""

    def __str__(self) -> str:
        """Return the message and the list of leaks."""
        return "\n".join((str(self.args[0]), *(f"  {line}" for line in self.leaks)))


class ScheduleError(AssertionError):
    """A scenario fails in one task order. The cause is what the scenario raised."""

    def __init__(
        self, message: str, seed: int, token: str = "", preemptions: int | None = None
    ) -> None:
        super().__init__(message, seed, token, preemptions)
        self.seed: int = seed
        """The seed that fails: repeat it with ``simulate(scenario, seed=...)``."""
        self.token: str = token
        """The order that fails. Repeat it with ``replay(scenario, token)``, even if a later version
        of the kit draws other orders from the same seed. Empty: the scenario differs from run to
        run."""
        self.preemptions: int | None = preemptions
        """The fewest preemptions found that make the scenario fail. ``None``: there is no token."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class CrashPointError(AssertionError):
    """A crash at one point changes a scenario's result. The cause is what the scenario raised."""

    def __init__(self, message: str, point: str) -> None:
        super().__init__(message, point)
        self.point: str = point
        """The point: ``before 3`` is before the third write to the journal, and ``after 3`` is
        after this write."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class CancelPointError(AssertionError):
    """A cancellation at one point breaks a guarantee. The cause says which one, and how."""

    def __init__(
        self, message: str, seed: int, point: int, token: str = "", cancelled: Sequence[str] = ()
    ) -> None:
        super().__init__(message, seed, point, token, tuple(cancelled))
        self.seed: int = seed
        """The seed of the schedule."""
        self.point: int = point
        """The number of the point, from 1."""
        self.token: str = token
        """The order and the point: repeat them with ``replay(scenario, token)``."""
        self.cancelled: tuple[str, ...] = tuple(cancelled)
        """Each cancelled task, with the await at which it was cancelled."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


def headline(error: BaseException) -> str:
    """Return the errors in *error* in words, each with its type and notes."""
    lines: list[str] = []
    for leaf in leaves(error):
        lines.append(f"{type(leaf).__name__}: {leaf}")
        lines += getattr(leaf, "__notes__", [])
    if isinstance(error, BaseExceptionGroup):
        lines += getattr(cast("BaseException", error), "__notes__", [])
    return "\n".join(dict.fromkeys(lines))


def summary(error: BaseException) -> frozenset[str]:
    """Return the type and the first words of each error in *error*."""
    return frozenset(
        f"{type(leaf).__name__}: "
        f"{leaf.args[0] if isinstance(leaf, HangError | LeakError) else leaf}"
        for leaf in leaves(error)
    )


def alike(error: BaseException, other: BaseException) -> bool:
    """Return whether both failures have the same type, and the same text or line.

    Comparing texts alone would not do: a text may contain an address or a count that differs from
    run to run.
    """
    return summary(error) == summary(other) or _lines(error) == _lines(other)


def _lines(error: BaseException) -> frozenset[tuple[type, Place, Place]]:
    """Return the type of each error in *error*, with the user's line and the line that raised."""
    found: set[tuple[type, Place, Place]] = set()
    for leaf in leaves(error):
        frames = list(walk_tb(leaf.__traceback__))
        last = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in frames]
        found.add((type(leaf), innermost(frames), last[-1] if last else ("", 0, "")))
    return frozenset(found)
