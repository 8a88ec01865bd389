"""Finds waits that no task order can end: for threads, child processes and pipes.

Rules:

1. A task waits for a thread if it waits directly in ``trio.to_thread.run_sync``. It does not wait
   for the thread while it carries out a call from that thread.
2. A thread that trio did not start counts if it exists now but did not exist when the run began.
3. A vigil ends when this process has been idle for the given time. Time in which this process works
   does not count, so a vigil takes longer on a busy machine.
"""

from __future__ import annotations

import threading
import time  # noqa: TID251  # it measures what happens outside of the run
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Final, Literal, TypeAlias, final

import trio

Outside: TypeAlias = Literal["thread", "child process", "own thread"]
"""What a task waits for: one of trio's threads, a child process and its pipes, or perhaps a thread
that the scenario itself started."""

IDLE_SHARE: Final = 0.01
"""The share of a beat for which this process may work and still count as idle."""

LONGEST: Final = 10
"""The longest extension of a vigil, as a multiple of its time, if the process never stops working.
Without this limit, a thread that computes forever would never be found."""

_TRIO: Final = Path(trio.__file__).parent
_CORE: Final = str(_TRIO / "_core")
_FILES: Final[tuple[tuple[str, Outside], ...]] = (
    (str(_TRIO / "_threads.py"), "thread"),
    (str(_TRIO / "_subprocess"), "child process"),  # the file, and the folder of its platforms
    (str(_TRIO / "_unix_pipes.py"), "child process"),
    (str(_TRIO / "_windows_pipes.py"), "child process"),
)
_IDLE_WORKER: Final = "Trio thread"
"""The name of trio's idle threads."""


def outside_wait(task: trio.lowlevel.Task) -> Outside | None:
    """Return what *task* waits for outside the run. ``None``: it waits for nothing outside."""
    innermost: CodeType | None = None
    for frame, _ in task.iter_await_frames():
        if not _is_core(frame.f_code.co_filename):
            innermost = frame.f_code
    return _kind(innermost.co_filename) if innermost is not None else None


@cache
def _is_core(filename: str) -> bool:
    return filename.startswith(_CORE)


@cache
def _kind(filename: str) -> Outside | None:
    return next((kind for start, kind in _FILES if filename.startswith(start)), None)


def own_threads() -> set[threading.Thread]:
    """Return the threads of this process except trio's idle ones."""
    return {one for one in threading.enumerate() if not one.name.startswith(_IDLE_WORKER)}


@final
class Vigil(threading.Thread):
    """Waits in real time until this process has been idle for a while."""

    def __init__(self, seconds: float, beat_seconds: float, then: Callable[[], object]) -> None:
        """Wait for *seconds* in beats of *beat_seconds*, and call *then* in its own thread."""
        super().__init__(name=_IDLE_WORKER, daemon=True)
        self._seconds = seconds
        self._beat = min(beat_seconds, seconds)
        self._then = then
        self._over = threading.Event()

    def run(self) -> None:
        """Run the waiting thread."""
        idle, beats = 0.0, 0
        most = LONGEST * self._seconds / self._beat
        worked = time.process_time()
        while idle < self._seconds and beats < most:
            if self._over.wait(self._beat):
                return
            beats += 1
            now = time.process_time()
            if now - worked <= IDLE_SHARE * self._beat:
                idle += self._beat
            worked = now
        self._then()

    def end(self) -> None:
        """End the wait, because something has happened."""
        self._over.set()
