"""Writes a trace while its pool runs.

Rules:

1. Whoever reports an event only puts it into a list. A thread writes the list to the file,
   at most ``FLUSH_SECONDS`` later, or at once when many events wait or an agent was spawned.
   So a program that is killed leaves a trace that is complete up to then, also if its own
   thread was busy.
2. What cannot be written ends the recording and not the pool, whatever the reason. It is told
   once, as the failure of an observer, and the pool's statistics say what it was.
3. Keys are taken out of the bytes before they are written. Of a text that comes in pieces,
   what may be the beginning of a key waits for the next piece.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self, final, get_args

import msgspec
import trio

from agentpool._budget.statistics import PoolStatistics
from agentpool._checks import expect_arguments
from agentpool._disk_file import mark_open, open_to_write, write_all
from agentpool._errors import TraceError, UsageError
from agentpool._events import (
    LIFECYCLE,
    AgentFinished,
    AgentSpawned,
    Event,
    EventsMissed,
    MessagesAdded,
    PoolInfo,
    TextDelta,
    ThoughtDelta,
)
from agentpool._messages import OWNER_ID, AgentId, AssistantMessage
from agentpool._outcome import AgentStatus
from agentpool.abc import Observer
from agentpool.observe._codec import Line, lines_to_json, unicode_text
from agentpool.observe._content import Content, reduced, reduced_text
from agentpool.observe._error_data import text_of
from agentpool.observe._redact import Redactor, secrets_of_environment
from agentpool.observe._trace import Prompt, TraceEnd, TraceHeader, format_words

FLUSH_SECONDS: Final = 0.02
"""What is promised is 50 ms: this leaves time to encode and to write on a busy machine."""

FLUSH_EVENTS: Final = 256
"""So many events do not wait for the time."""

MAX_BACKLOG: Final = 200_000
"""Events that wait for a slow disk: some hundred megabytes. More are left out, and counted."""

_UNKNOWN: Final = PoolInfo(run_id="0" * 32, name="", opened_at=0.0, max_concurrent=0)
"""The pool of events that came from no pool."""

_PLAIN: Final = frozenset(get_args(Event)) - {
    AgentFinished,
    AgentSpawned,
    MessagesAdded,
    TextDelta,
    ThoughtDelta,
}
"""Events that are written as they are."""

GRACE_SECONDS: Final = 10.0
"""A disk that takes longer for some megabytes will not answer at all."""


@final
class TraceWriter(Observer):
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
    ) -> None:
        """Make a writer to the file at *path*. An existing file is replaced.

        Args:
            path: Where. A new file is readable by its owner alone.
            content: How much of what was said is kept: ``full``, ``cut`` after 400
                characters of each text, or ``none``.
            secrets: What must not be in the file, in whatever form: texts of at least 8
                characters. ``None``: the values of environment variables whose names look
                like those of keys; see `secrets_of_environment`.
            grace_seconds: How long the end waits for a disk that does not answer.

        Raises:
            UsageError: If *content* is none of these, or a secret is too short.
        """
        expect_arguments(TraceWriter.__init__, locals())
        self._path = Path(path)
        self._grace_seconds = grace_seconds
        redactor = Redactor.of(secrets_of_environment() if secrets is None else secrets)
        self._lines = _Lines(redactor, content)
        self._backlog: deque[Event] = deque()
        # A queue in C: to ring and to wait take a fifth of what they do with an Event.
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Wakes the thread that writes. True: it is to write at once."""
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
    def problem(self) -> str | None:
        """Why the recording ended before the pool did. ``None``: it is complete."""
        return self._problem

    async def __aenter__(self) -> Self:
        """Open the file.

        Raises:
            TraceError: If it cannot be written.

        Cancellation:
            Nothing is open.
        """
        file = await trio.to_thread.run_sync(_open, self._path)
        self._thread = threading.Thread(
            target=self._write, args=(file,), name=f"trace {self._path.name}", daemon=True
        )
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write the remaining events, and close the file.

        Cancellation:
            It was written.
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
        """Remember which pool is recorded.

        Raises:
            UsageError: If it has written about another one.
        """
        if self._info is not None:
            raise UsageError("this TraceWriter has a pool already; make one for each pool")
        self._info = pool

    def on_event(self, event: Event) -> None:
        """Queue *event* for writing.

        Raises:
            TraceError: Once, if nothing can be written any more.
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
        """Wait until there is something to write, and for more of it.

        The pool's thread rings for the first event after all was written, and for what is
        urgent: nothing else is waited for twice, since each wake-up costs as much as to encode
        a turn.
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


@final
class _Lines:
    """Formats the lines of a trace, in the thread that writes them."""

    __slots__ = ("_content", "_prompts", "_ready", "_redactor", "_texts", "_told", "begun")

    def __init__(self, redactor: Redactor, content: Content) -> None:
        self._redactor = redactor
        self._content: Content = content
        self._ready: list[Line] = []
        self._prompts: dict[str, int] = {}
        self._told: dict[AgentId, int] = {}
        """Messages of each agent that are in the file."""
        self._texts: dict[AgentId, TextDelta | ThoughtDelta] = {}
        """Pieces of answers that are not."""
        self.begun = False

    def begin(self, info: PoolInfo) -> None:
        """Add the first line."""
        self.begun = True
        header = TraceHeader(
            run_id=info.run_id,
            pool=info.name,
            opened_at=info.opened_at,
            max_concurrent=info.max_concurrent,
            content=self._content,
        )
        self._ready.append(header)

    def add(self, events: Sequence[Event]) -> None:
        """Add the lines of *events*."""
        is_whole, texts = self._content == "full", self._texts
        for event in events:
            if is_whole and type(event) in _PLAIN and event.agent_id not in texts:
                # Most events, and the thread takes its time from the pool's.
                self._ready.append(event)
            else:
                self._add(event)

    def _add(self, event: Event) -> None:
        text = self._texts.pop(event.agent_id, None)
        if isinstance(event, TextDelta | ThoughtDelta):
            if text is not None and type(text) is type(event):
                event = msgspec.structs.replace(event, text=text.text + event.text)
            elif text is not None:
                self._put(text)
            self._texts[event.agent_id] = event
            return
        if text is not None:
            self._put(text)
        if isinstance(event, AgentSpawned):
            event = self._spawned(event)
        elif isinstance(event, MessagesAdded):
            self._told[event.agent_id] = event.place + len(event.messages)
        elif isinstance(event, AgentFinished):
            event = self._finished(event)
        self._put(event)

    def _spawned(self, event: AgentSpawned) -> AgentSpawned:
        prompt = event.system_prompt
        if not prompt:
            return event
        if prompt not in self._prompts:
            self._prompts[prompt] = number = len(self._prompts) + 1
            text = reduced_text(prompt, self._content, self._redactor.clean_text)
            self._ready.append(Prompt(number, unicode_text(text)))
        return msgspec.structs.replace(event, system_prompt="", prompt_id=self._prompts[prompt])

    def _finished(self, event: AgentFinished) -> AgentFinished:
        outcome = event.outcome
        told = self._told.pop(event.agent_id, 0)
        text, last = outcome.text, outcome.messages[-1] if outcome.messages else None
        if outcome.status is AgentStatus.COMPLETED and isinstance(last, AssistantMessage):
            text = "" if text == last.text else text
        outcome = msgspec.structs.replace(outcome, messages=outcome.messages[told:], text=text)
        return msgspec.structs.replace(event, outcome=outcome)

    def _put(self, event: Event) -> None:
        if self._content != "full":
            event = reduced(event, self._content, self._redactor.clean_text)
        self._ready.append(event)

    def end(self, statistics: PoolStatistics) -> None:
        """Add the last line."""
        for text in self._texts.values():
            self._put(text)
        self._texts.clear()
        self._ready.append(TraceEnd(statistics=statistics))

    def take(self) -> bytes:
        """Return the finished lines, without any key."""
        self._take_texts()
        ready, self._ready = self._ready, []
        return self._redactor.clean_lines(lines_to_json(ready), format_words())

    def _take_texts(self) -> None:
        """Turn the pieces so far into lines, except what may be the beginning of a key."""
        for agent_id, event in tuple(self._texts.items()):
            keep = self._redactor.open_end(event.text)
            cut = len(event.text) - keep
            if not keep:
                self._put(event)
                del self._texts[agent_id]
                continue
            if cut:
                self._put(msgspec.structs.replace(event, text=event.text[:cut]))
            self._texts[agent_id] = msgspec.structs.replace(event, text=event.text[cut:])


def _open(path: Path) -> int:
    """Open the file for writing, empty, for its owner alone.

    Raises:
        TraceError: If that cannot be.
    """
    # Takes as long as an event may wait, and more on a busy machine: not when the first comes.
    format_words()
    try:
        return open_to_write(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TraceError(f"the trace {str(path)!r} cannot be written: {reason}") from error
