"""A clock that stands still while tasks run, and jumps to the next deadline when all wait.

Rules:

1. Time moves only when no task can run and no task waits for that moment in
   ``wait_all_tasks_blocked``. It moves to the next deadline, or beyond that deadline by as much as
   the order of the run says, so that timers near each other go off together.
2. While a task waits for a thread, the clock stands still. While a task waits for a child process,
   the clock goes no faster than a real clock. While a task waits for a socket, the clock lets bytes
   that are under way arrive first. A wait during which nothing has happened for long gets no more
   such time before the next jump.
3. If time should move but no deadline is left, the run hangs. ``Stage`` then ends the run, so the
   test never really hangs.

``trio.testing.MockClock`` with autojump follows only the first rule. It jumps while threads work,
so that a tool in a thread always times out, and it cannot tell a hang from an endless wait.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Final, TypeAlias, final

import trio
from trio.testing import active_thread_count

from agentpool._base import Shown
from agentpool.testing._simulation.findings import HangError
from agentpool.testing._simulation.outside import Outside, Vigil, own_threads

Wait: TypeAlias = tuple[int, int]
"""One wait of a task: the numbers of the task and of its last step before the wait."""

IDLE_SECONDS: Final = 3600.0
"""If trio wants to sleep this long, no task waits for anything but our clock."""

THREAD_PATIENCE_SECONDS: Final = 30.0
"""How long a thread or a child process may take in real time while this process does nothing. No
call that ever returns takes this long, even on a busy machine."""

SOCKET_PATIENCE_SECONDS: Final = 0.05
"""How long the clock waits in real time for bytes under way on this machine before it jumps."""

LAST_PATIENCE_SECONDS: Final = 5.0
"""How long the clock waits in real time before it reports a hang, if there is no deadline to which
it can jump. It waits for bytes, and for threads that trio did not start, which may have a different
purpose."""

BEAT_SECONDS: Final = 0.5
"""How often the clock checks whether this process does something."""


class Stage(ABC):
    """The facts about a run that the clock needs."""

    __slots__ = ()

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether the run has ended, so that only trio's own tasks are left."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many steps the run's tasks have taken."""

    @abstractmethod
    def outside_waits(self) -> Mapping[Wait, Outside]:
        """Return every wait for something that is not part of the run."""

    @abstractmethod
    def late_seconds(self, deadline: float) -> float:
        """Return how long after the next *deadline* the clock wakes up."""

    @abstractmethod
    def end_hang(self) -> None:
        """End a run in which no task can go on."""


@final
class JumpingClock(Shown, trio.abc.Clock, trio.abc.Instrument):
    """A virtual clock. Pass it to ``trio.run`` both as the clock and as an instrument."""

    def __init__(self, stage: Stage) -> None:
        """Make a clock that starts at 0.0."""
        self._stage = stage
        self._now = 0.0
        self._next_deadline = math.inf
        self._sockets_at_rest = 0
        self._threads_at_rest: set[Thread] = set()
        self._vigil: Vigil | None = None
        self._tired_at = -1
        self._waits: dict[Wait, Outside] = {}
        self._waited: dict[Wait, float] = {}
        self._hopeless = False

    # --- the clock

    def start_clock(self) -> None:
        """Start the clock."""

    def current_time(self) -> float:
        """Return the seconds since the run began, on this clock."""
        if self._hopeless and not _in_task():
            # The last way out of a run that nothing can end: trio asks for the time in
            # each round, and gives up when its clock does. A task that asks would swallow it.
            raise HangError("the scenario cannot be ended: it swallows whatever is raised")
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long trio should sleep until *deadline*: 0 or forever."""
        self._next_deadline = deadline
        return 0.0 if deadline <= self._now else math.inf

    def jump(self, seconds: float) -> None:
        """Advance by *seconds*. Tasks whose deadline has come wake up."""
        self._now += max(0.0, seconds)

    @property
    def gave_up(self) -> bool:
        """Whether the run was aborted."""
        return self._hopeless

    def give_up(self) -> None:
        """Abort the run, even if its tasks resist."""
        self._hopeless = True

    # --- the instrument

    def before_io_wait(self, timeout: float) -> None:
        """Jump to the next deadline if trio would sleep forever."""
        if timeout < IDLE_SECONDS or self._stage.is_over:
            return
        token = trio.lowlevel.current_trio_token()
        if self._hopeless:
            token.run_sync_soon(_wake)
            return
        # Patience that was lost is lost for this moment alone: if a task has taken a step
        # since, there is something new to wait for.
        patience = 0.0 if self._tired_at == self._stage.steps else self._patience_seconds()
        if patience:
            tired = partial(self._lose_patience, self._stage.steps, patience)
            wake = partial(_call_soon, token, tired)
            self._vigil = Vigil(patience, BEAT_SECONDS, wake)
            self._vigil.start()
        elif self._next_deadline == math.inf:
            token.run_sync_soon(self._stage.end_hang)
        else:
            deadline = self._next_deadline
            self._now = deadline + self._stage.late_seconds(deadline)
            token.run_sync_soon(_wake)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002  # as trio calls it
        """Stop waiting in real time, because something has happened."""
        if self._vigil is not None:
            self._vigil.end()
            self._vigil = None

    def note_start(self) -> None:
        """Record the sockets that trio itself waits for. Called from a task."""
        self._sockets_at_rest = _sockets_waited_for()
        self._threads_at_rest = own_threads()

    def _patience_seconds(self) -> float:
        sockets = _sockets_waited_for() - self._sockets_at_rest
        # To look at every task is not for free, and most runs have neither.
        looked = sockets > 0 or active_thread_count() > 0
        waits: dict[Wait, Outside] = dict(self._stage.outside_waits()) if looked else {}
        sockets -= sum(kind == "child process" for kind in waits.values())
        own = own_threads() - self._threads_at_rest
        # Threads of trio's that are not waited for have called back, and wait for a task.
        if not waits and len(own) > active_thread_count():
            waits = {(-1, one.ident or 0): "own thread" for one in own}
        left = self._next_deadline - self._now
        patience = 0.0
        if sockets > 0:
            patience = LAST_PATIENCE_SECONDS if left == math.inf else SOCKET_PATIENCE_SECONDS
        for wait, kind in waits.items():
            due = _whole_patience(kind) - self._waited.get(wait, 0.0)
            patience = max(patience, due if kind == "thread" else min(due, left))
        self._waits = waits
        return patience

    def _lose_patience(self, steps: int, seconds: float) -> None:
        self._tired_at = steps
        for wait in self._waits:
            self._waited[wait] = self._waited.get(wait, 0.0) + seconds


def _whole_patience(kind: Outside) -> float:
    return LAST_PATIENCE_SECONDS if kind == "own thread" else THREAD_PATIENCE_SECONDS


def _call_soon(token: trio.lowlevel.TrioToken, tired: Callable[[], object]) -> None:
    """Call *tired* in the run, unless the run has ended."""
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(tired)


def _wake() -> None:
    """Do nothing. The mere call makes trio look at the clock."""


def _in_task() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def _sockets_waited_for() -> int:
    """Return how many tasks wait for a socket, on any platform."""
    waiting = trio.lowlevel.current_statistics().io_statistics
    kinds = ("", "_read", "_write", "_overlapped")
    return sum(int(getattr(waiting, f"tasks_waiting{kind}", 0)) for kind in kinds)
