"""Writes a trace while its pool runs.

Rules:

1. An event that is reported is only put into a list. A thread writes the list to the file at most
   ``FLUSH_SECONDS`` later, or immediately when many events wait or an agent was spawned. So a
   killed program leaves a trace that is complete up to then, even if the program's own thread was
   busy.
2. If writing fails for any reason, the recording ends, but the pool goes on. The failure is
   reported once, as the failure of an observer, and the pool's statistics say what it was.
3. API keys are removed before anything is written. When a text comes in pieces, an end that may be
   the beginning of a key is held back until the next piece.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self, final

import trio

from agentpool._base import Unique
from agentpool._budget.statistics import PoolStatistics
from agentpool._checks import expect_arguments
from agentpool._disk_file import check_file, mark_open, open_to_write, write_all
from agentpool._errors import TraceError, UsageError
from agentpool._events import LIFECYCLE, AgentSpawned, Event, EventsMissed, PoolInfo
from agentpool._messages import OWNER_ID
from agentpool._needs_trio import check_trio
from agentpool.abc import Observer
from agentpool.observe._content import Content
from agentpool.observe._error_data import text_of
from agentpool.observe._redact import secrets_of_environment
from agentpool.observe._trace import format_words, may_be_trace
from agentpool.observe._trace_lines import TraceLines

FLUSH_SECONDS: Final = 0.02
"""How long events wait before they are written. The promise is 50 ms, which leaves some time for a
busy machine."""

FLUSH_EVENTS: Final = 256
"""When this many events wait, they are written without waiting longer."""

MAX_BACKLOG: Final = 200_000
"""The most events that wait for a slow disk: some hundred megabytes. Further events are left out,
and counted."""

_UNKNOWN: Final = PoolInfo(run_id="0" * 32, name="", opened_at=0.0, max_concurrent=0)
"""Stands for the pool if events came before a pool was reported."""

GRACE_SECONDS: Final = 10.0
"""How long the end of the block waits for the disk. A disk that takes longer for some megabytes
never answers."""


@final
class TraceWriter(Unique, Observer):
    """Writes the events of a pool to a file as they happen.

    ``async with TraceWriter("run.trace") as trace:`` and then
    ``open_pool(..., observers=[trace])`` inside. One writer is for one pool.
    """

    __slots__ = (
        "_backlog", "_bell", "_closing", "_grace_seconds", "_info", "_is_asleep", "_is_rung",
        "_left_out", "_lines", "_path", "_problem", "_statistics", "_thread", "_told",
    )  # fmt: skip

    def __init__(
        self,
        path: str | Path,
        *,
        content: Content = "full",
        secrets: Iterable[str] | None = None,
        grace_seconds: float = GRACE_SECONDS,
        command: str = "",
    ) -> None:
        """Make a writer for the file at *path*. An existing trace is replaced.

        Args:
            path: The file. Only its owner can read a new one; an existing file that is not a trace
                is refused.
            content: How much of the texts is kept: ``full``, ``cut`` after 400 characters of each
                text, or ``none``.
            secrets: Texts of at least 8 characters that must not be in the file in any encoding.
                ``None``: the values of environment variables whose names look like those of API
                keys; see `secrets_of_environment`. Keys that this process gave to drivers and MCP
                servers are looked for as well, in any case.
            grace_seconds: How long the end of the block waits for a disk that does not answer.
            command: The command that runs the pool, for those who read the trace. Empty: none.

        Raises:
            UsageError: If *content* is none of these, or a secret is too short.
        """
        expect_arguments(TraceWriter.__init__, locals())
        self._path = Path(path)
        self._grace_seconds = grace_seconds
        known = secrets_of_environment() if secrets is None else secrets
        self._lines = TraceLines(known, content, command)
        self._backlog: deque[Event] = deque()
        # A queue in C: to ring and to wait take a fifth of what they do with an Event.
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Wakes the thread that writes. True: it writes without waiting for more events."""
        self._is_rung = False
        self._is_asleep = True
        self._thread: threading.Thread | None = None
        self._info: PoolInfo | None = None
        self._statistics: PoolStatistics | None = None
        self._problem: str | None = None
        self._told = self._closing = False
        self._left_out = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def _missing(self) -> str:
        """Why a pool cannot open with this observer yet. Empty: the pool can open."""
        if self._thread is not None:
            return ""
        return (
            f"the TraceWriter of {str(self._path)!r} is not open, so it would record nothing; "
            "write: async with TraceWriter(path) as trace, open_pool(..., observers=[trace])"
        )

    @property
    def problem(self) -> str | None:
        """Why the recording ended before the pool. ``None``: no problem."""
        return self._problem

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            TraceError: If the file cannot be written, or exists and is not a trace.

        Cancellation:
            Nothing is open.
        """
        check_trio("TraceWriter")
        if self._thread is not None or self._closing:
            raise UsageError(
                "this TraceWriter has already been entered; make a new one for each block"
            )
        file = await trio.to_thread.run_sync(_open, self._path)
        self._thread = threading.Thread(
            target=self._write, args=(file,), name=f"trace {self._path.name}", daemon=True
        )
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write the remaining events, and close the file.

        Cancellation:
            Everything was written.
        """
        thread, self._thread = self._thread, None
        assert thread is not None  # noqa: S101  # it was entered
        self._closing = True
        self._bell.put(True)  # noqa: FBT003  # a queue gives its items no names
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join, self._grace_seconds)
        if thread.is_alive():
            self._problem = f"the disk did not answer for {self._grace_seconds:g} s"

    # --- the pool's thread

    def on_open(self, pool: PoolInfo) -> None:
        """Note the pool that is recorded.

        Raises:
            UsageError: If this writer has recorded another pool.
        """
        if self._info is not None:
            raise UsageError("this TraceWriter already has a pool; make a new one for each pool")
        self._info = pool

    def on_event(self, event: Event) -> None:
        """Queue *event* for writing.

        Raises:
            TraceError: Once, when the file can no longer be written.
        """
        if self._problem is not None:
            self._complain(self._problem)
            return
        backlog = self._backlog
        if len(backlog) >= MAX_BACKLOG and not isinstance(event, LIFECYCLE):
            self._left_out += 1
            return
        if self._left_out:
            count, self._left_out = self._left_out, 0
            backlog.append(EventsMissed(event.sequence, event.at_seconds, OWNER_ID, "", count))
        backlog.append(event)
        is_urgent = type(event) is AgentSpawned or len(backlog) >= FLUSH_EVENTS
        if self._is_asleep or (is_urgent and not self._is_rung):
            self._is_asleep = False
            self._is_rung = is_urgent
            self._bell.put(is_urgent)

    def on_close(self, statistics: PoolStatistics) -> None:
        """Keep the pool's statistics for the last line.

        Raises:
            TraceError: As in ``on_event``.
        """
        self._statistics = statistics
        if self._problem is not None:
            self._complain(self._problem)

    def _complain(self, problem: str) -> None:
        if not self._told:
            self._told = True
            raise TraceError(f"the trace {str(self._path)!r} ends here: {problem}")

    # --- the thread that writes

    def _write(self, file: int) -> None:
        try:
            is_marked = False
            while not self._closing:
                self._wait()
                is_marked = is_marked or mark_open(file)
                self._is_rung = False
                self._flush(file)
            self._end(file)
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)
        except Exception as error:  # noqa: BLE001  # told by the next event, as a full disk is
            self._stop(f"the writer failed: {type(error).__name__}: {text_of(error)}")
        finally:
            os.close(file)

    def _stop(self, problem: str) -> None:
        self._problem = problem
        self._backlog.clear()

    def _wait(self) -> None:
        """Wait until there is something to write, then briefly wait for more.

        The pool's thread wakes this thread only for urgent events, and for the first event after
        everything was written. Each wake-up costs as much as encoding a turn.
        """
        self._is_asleep = True
        # The pool's thread looks whether this one sleeps after it has put an event into the
        # backlog. So what came since the last look is seen here, or rings.
        is_urgent = not self._backlog and self._bell.get()
        self._is_asleep = False
        if not is_urgent:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=FLUSH_SECONDS)

    def _flush(self, file: int) -> None:
        if not self._lines.begun and (self._info is not None or self._backlog):
            self._lines.begin(self._info or _UNKNOWN)
        backlog = self._backlog
        while backlog:
            self._lines.add([backlog.popleft() for _ in range(min(len(backlog), FLUSH_EVENTS))])
            write_all(file, self._lines.take())

    def _end(self, file: int) -> None:
        self._flush(file)
        if self._statistics is not None:
            self._lines.end(self._statistics)
        write_all(file, self._lines.take())


def _open(path: Path) -> int:
    """Open the file for writing, empty, for its owner alone.

    Raises:
        TraceError: If the file cannot be opened.
    """
    # Takes as long as an event may wait, and more on a busy machine: not when the first comes.
    format_words()
    what = f"the trace {str(path)!r} cannot be written"
    try:
        check_file(path)
        if path.exists() and not may_be_trace(path):
            raise TraceError(
                f"{what}: the existing file is not a trace; name another file, or delete it"
            )
        return open_to_write(path)
    except OSError as error:
        if not path.parent.is_dir():
            raise TraceError(
                f"{what}: {str(path.parent)!r} is not a folder; make it, or name another file"
            ) from error
        reason = error.strerror or type(error).__name__
        raise TraceError(f"{what}: {reason}") from error
