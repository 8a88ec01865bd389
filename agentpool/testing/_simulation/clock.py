"""A clock that stands still while anything happens, and then jumps to the next deadline.

Rules:

1. Time moves only when no task can run and nobody waits for that moment with
   ``wait_all_tasks_blocked``. It moves to the next deadline: exactly, or past it by as much
   as the order of the run says, so that timers near each other go off together.
2. While threads work or sockets are waited for, real time passes first, but not for ever.
3. When no deadline is left either, that is a hang. ``Stage`` ends it; it is never real.

``trio.testing.MockClock`` with autojump does the first. It jumps while threads work, so
that a tool in a thread always times out, and it does not tell a hang from an endless wait.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from typing import Final, final

import trio
from trio.testing import active_thread_count

from agentpool.testing._simulation.findings import HangError

IDLE_SECONDS: Final = 3600.0
"""trio is ready to sleep so long only if nobody waits for anything but our clock."""

SOCKET_PATIENCE_SECONDS: Final = 0.05
"""Real time for bytes that are under way on this machine, before the clock jumps."""

THREAD_PATIENCE_SECONDS: Final = 5.0
"""Real time for a thread at work, before the clock jumps; also the longest real hang."""


class Stage(ABC):
    """Whoever runs on the clock."""

    __slots__ = ()

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether the run has ended. What trio waits for then comes by itself."""

    @abstractmethod
    def late_seconds(self, deadline: float) -> float:
        """Return how long after *deadline*, the next one, the clock wakes up."""

    @abstractmethod
    def end_hang(self) -> None:
        """End a run in which nothing can happen any more."""


@final
class JumpingClock(trio.abc.Clock, trio.abc.Instrument):
    """Give it to ``trio.run`` both as the clock and as an instrument."""

    def __init__(self, stage: Stage) -> None:
        """Begin at 0.0."""
        self._stage = stage
        self._now = 0.0
        self._next_deadline = math.inf
        self._sockets_at_rest = 0
        self._timer: threading.Timer | None = None
        self._impatient = False
        self._hopeless = False

    # --- the clock

    def start_clock(self) -> None:
        """Begin."""

    def current_time(self) -> float:
        """Return the seconds since the run began, on this clock."""
        if self._hopeless:
            # The last way out of a run that nothing can end: trio asks for the time in
            # each round, and gives up when its clock does.
            raise HangError("the scenario cannot be ended: it swallows whatever is raised")
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long trio should sleep until *deadline*: not at all, or for ever."""
        self._next_deadline = deadline
        return 0.0 if deadline <= self._now else math.inf

    def jump(self, seconds: float) -> None:
        """Move on by *seconds*. Who waits for something in between wakes up then."""
        self._now += max(0.0, seconds)

    def give_up(self) -> None:
        """Break the run off, whatever its tasks do."""
        self._hopeless = True

    # --- the instrument

    def before_io_wait(self, timeout: float) -> None:
        """Go on to the next deadline if trio would sleep for ever."""
        if timeout < IDLE_SECONDS or self._stage.is_over:
            return
        token = trio.lowlevel.current_trio_token()
        patience = 0.0 if self._impatient else self._patience_seconds()
        self._impatient = False
        if patience:
            self._timer = threading.Timer(patience, token.run_sync_soon, (self._lose_patience,))
            self._timer.daemon = True
            self._timer.start()
        elif self._next_deadline == math.inf:
            token.run_sync_soon(self._stage.end_hang)
        else:
            deadline = self._next_deadline
            self._now = deadline + self._stage.late_seconds(deadline)
            token.run_sync_soon(_wake)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # as trio calls it
        """Stop waiting in real time: something happened."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note_start(self) -> None:
        """Take note of the sockets that trio itself waits for. Called from a task."""
        self._sockets_at_rest = _sockets_waited_for()

    def _patience_seconds(self) -> float:
        if active_thread_count():
            return THREAD_PATIENCE_SECONDS
        if _sockets_waited_for() > self._sockets_at_rest:
            last = self._next_deadline == math.inf
            return THREAD_PATIENCE_SECONDS if last else SOCKET_PATIENCE_SECONDS
        return 0.0

    def _lose_patience(self) -> None:
        self._impatient = True


def _wake() -> None:
    """Do nothing: that it was called made trio look at the clock."""


def _sockets_waited_for() -> int:
    """Return how many tasks wait for a socket, whatever the platform calls it."""
    waiting = trio.lowlevel.current_statistics().io_statistics
    kinds = ("", "_read", "_write", "_overlapped")
    return sum(int(getattr(waiting, f"tasks_waiting{kind}", 0)) for kind in kinds)
