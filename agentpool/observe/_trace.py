"""The trace of one pool: its file format, and how to read it.

A trace is lines of JSON: a header, then one event per line, and at the end the pool's statistics.
Lines of a kind that this version does not know are skipped, and counted.

Each message of a conversation is written once, in ``messages_added``, which gives the message its
place. Requests name the places of the messages that they send, and the outcome has only the
messages after the last request. A system prompt that several agents share is written once as well.
So is a conversation that another agent continues, as in a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast, final, get_args

import msgspec

from agentpool._budget.statistics import PoolStatistics
from agentpool._checks import expect_arguments
from agentpool._errors import TraceError
from agentpool._events import AgentFinished, AgentSpawned, Event, MessagesAdded
from agentpool._messages import AgentId, AssistantMessage, ChatMessage
from agentpool._outcome import AgentStatus
from agentpool.observe._codec import event_from_json
from agentpool.observe._content import Content, reduced
from agentpool.observe._error_data import ErrorData
from agentpool.observe._ran import ran_words

FORMAT: Final = "agentpool-trace"
"""The name of the format in the first line of a trace."""

VERSION: Final = 2
"""The version of the format. A reader reads its own version and lower ones. Since version 2, a
conversation that continues another agent's has only its new messages."""

MAX_LINE: Final = 256 * 1024 * 1024
"""The most bytes of one line. The longest real line is a message with several images."""

MAX_HEADER: Final = 64 * 1024
"""The most bytes of the first line. A file that is not a trace, such as a device, may have no line
end."""

_PIECE: Final = 1024 * 1024
"""How many bytes of a line are read in one go."""

_LAST_SECOND: Final = 253_402_214_400
"""The last day that `datetime` has, in seconds since 1970-01-01 UTC."""

_TOO_LONG: Final = b"too long\n"
"""Replaces a line that is too long. This is not valid JSON."""

MAX_EVENTS: Final = 2_000_000
"""The most events that are read from a trace. They take some gigabytes of memory. Further events
are left out, and `Trace.problems` says so."""

MAX_BYTES: Final = 1024 * 1024 * 1024
"""The most bytes of a trace whose texts are kept whole. Texts after that are cut, and
`Trace.problems` says so."""

_UNKNOWN: Final = "of a kind that this version does not know"
_MANY: Final = "since there are too many"

# The last: it is nested too deeply, which no trace of ours is.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@final
class TraceHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a trace, which says to which pool the trace belongs."""

    format: str = FORMAT
    """Always ``agentpool-trace``."""
    version: int = VERSION
    """The version of the format."""
    run_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,32}$")]
    """32 hexadecimal digits that no other pool has."""
    pool: str
    """The pool's name."""
    opened_at: Annotated[float, msgspec.Meta(ge=0, le=_LAST_SECOND)]
    """When the pool opened, in seconds since 1970-01-01 UTC. 0.0: the trace was made from a
    journal, and so has no times."""
    max_concurrent: float
    """The pool's slots when it opened."""
    content: str = "full"
    """How much of the texts is in the trace: ``full``, ``cut`` or ``none``."""
    command: str = ""
    """The command that ran the pool, such as ``agentpool map``. Empty: a program ran the pool, or
    the trace was written by an earlier version."""


@final
class TraceEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of a trace whose pool has closed."""

    end: bool = True
    """Always true."""
    statistics: PoolStatistics
    """The pool's statistics when it closed."""


@final
class Prompt(msgspec.Struct, frozen=True):
    """A system prompt, stored once for all agents that have it."""

    prompt: int
    """Its number."""
    text: str
    """The prompt."""


@final
class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that was read."""

    header: TraceHeader
    """The header, with the pool and when it opened."""
    events: tuple[Event, ...]
    """The events, in order."""
    statistics: PoolStatistics | None = None
    """The pool's statistics at its end. ``None``: the pool had not closed, or was killed."""
    problems: tuple[str, ...] = ()
    """What could not be read, in words. Empty: everything was read."""

    @property
    def has_times(self) -> bool:
        """Whether events have times. A trace made from a journal has none."""
        return self.header.opened_at > 0

    def ran_words(self) -> list[str]:
        """Return the command, the manifests and the models of the pool, if the trace has them."""
        return ran_words(self.header.command, self.events)


@cache
def format_words() -> frozenset[str]:
    """Return all field names and fixed values that lines of a trace can have."""
    types = (*get_args(Event), TraceHeader, Prompt, TraceEnd, ErrorData)
    # What has any form is no word of the format.
    _, found = msgspec.json.schema_components(types, schema_hook=lambda _: {"title": "any"})
    words, rest = {FORMAT, *get_args(Content)}, list[object]([found])
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            schema = cast("dict[str, object]", part)
            words.update(cast("dict[str, object]", schema.get("properties", {})))
            words.update(map(str, cast("list[object]", schema.get("enum", []))))
            words.add(str(schema.get("const", "")))
            rest += schema.values()
        elif isinstance(part, list):
            rest += cast("list[object]", part)
    return frozenset(words)


def read_trace(path: str | Path) -> Trace:
    """Read the trace in the file at *path*, even if the file is cut off or still being written.

    Raises:
        TraceError: If the file is missing, is not a trace, or has a newer version.
    """
    expect_arguments(read_trace, locals())
    try:
        with Path(path).open("rb", buffering=_PIECE) as file:
            return parse_trace(lines_of(file), name=str(path))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = "; name a trace in it" if isinstance(error, IsADirectoryError) else ""
        raise TraceError(f"the trace {str(path)!r} cannot be read: {reason}{hint}") from error


def may_be_trace(path: Path) -> bool:
    """Return whether the file at *path* is empty, or its first line is that of a trace.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        first = file.readline(MAX_HEADER)
    return not first or f'"{FORMAT}"'.encode() in first


def parse_trace(
    lines: Iterable[bytes],
    *,
    name: str = "trace",
    max_events: int = MAX_EVENTS,
    max_bytes: int = MAX_BYTES,
) -> Trace:
    """Parse the *lines* of a trace.

    Args:
        lines: The lines, as a binary file has them.
        name: The name of the trace in errors.
        max_events: How many events are kept. After that, only events that begin or end agents are
            kept.
        max_bytes: The most bytes to read with whole texts. Later texts are cut.

    Raises:
        TraceError: If *lines* are not a trace, or the trace has a newer version.
    """
    rest = iter(lines)
    reading = _Reading(_header_of(next(rest, b""), name), max_events, max_bytes)
    for line in rest:
        reading.take(line)
    return reading.done()


def lines_of(file: BinaryIO, longest: int = MAX_LINE) -> Iterator[bytes]:
    """Yield the lines of *file*. A line longer than *longest* is replaced by an invalid one.

    A file that is not a trace may have gigabytes without a line end. The first line of a trace is
    short and identifies the trace. If the first line of the file is too long, nothing more is read.
    """
    header = min(MAX_HEADER, longest)
    if (first := file.readline(header)) and (first.endswith(b"\n") or len(first) < header):
        yield first
    elif first:
        yield _TOO_LONG
        return
    piece = min(_PIECE, longest)
    while line := file.readline(piece):
        is_whole = line.endswith(b"\n") or len(line) < piece
        yield line if is_whole else _with_rest(line, file, longest)


def _with_rest(begun: bytes, file: BinaryIO, longest: int) -> bytes:
    """Return the whole line that begins with *begun*.

    A line that cannot belong to a trace is read but not kept.
    """
    parts, size = [begun], len(begun)
    while not parts[-1].endswith(b"\n") and (part := file.readline(_PIECE)):
        size += len(part)
        if size > longest or not begun.startswith(b"{"):
            parts.clear()
        parts.append(part)
    return b"".join(parts) if parts[0] is begun else _TOO_LONG


def _header_of(line: bytes, name: str) -> TraceHeader:
    if not line:
        raise TraceError(
            f"the trace {name!r} is empty: its pool never opened, or its program was ended at once"
        )
    try:
        header = msgspec.json.decode(line, type=TraceHeader)
    except _UNREADABLE as error:
        # What a decoder has to say helps only where the file would be one of ours.
        is_ours = FORMAT.encode() in line
        why = f"{error}, so it is damaged" if is_ours else "its first line is not that of a trace"
        raise TraceError(
            f"{name!r} is not a trace of agentpool: {why}; name a file that --trace or a "
            "TraceWriter wrote"
        ) from error
    if header.format != FORMAT:
        raise TraceError(
            f"{name!r} is not a trace of agentpool, but {header.format!r}; open it with the "
            "program that wrote it"
        )
    if header.version > VERSION:
        raise TraceError(
            f"{name!r} has version {header.version} of the format, but this agentpool reads "
            f"up to {VERSION}; install a newer one"
        )
    return header


class _Reading:
    """The state of reading one trace."""

    __slots__ = (
        "_bad", "_bytes_left", "_cut", "_cut_texts", "_header", "_left_out", "_max_events",
        "_messages", "_prompts", "_sorted", "_statistics", "_unknown", "_whole_of", "events",
    )  # fmt: skip

    def __init__(self, header: TraceHeader, max_events: int, max_bytes: int) -> None:
        self._header = header
        self._max_events, self._bytes_left = max_events, max_bytes
        self.events: list[Event] = []
        self._messages: dict[AgentId, list[ChatMessage]] = {}
        self._whole_of: dict[AgentId, tuple[ChatMessage, ...]] = {}
        self._prompts: dict[int, str] = {}
        self._statistics: PoolStatistics | None = None
        self._sorted = True
        self._cut = False
        self._bad = self._unknown = self._left_out = self._cut_texts = 0

    def take(self, line: bytes) -> None:
        """Read one line."""
        if not line.endswith(b"\n"):
            self._cut = True  # whoever wrote it was ended in the middle of it
            return
        if not line.startswith(b"{"):
            self._bad += 1  # every version writes objects
            return
        try:
            if line.startswith(b'{"event":'):
                self._take_event(self._with_little_text(event_from_json(line), len(line)))
            elif line.startswith(b'{"prompt":'):
                prompt = msgspec.json.decode(line, type=Prompt)
                self._prompts[prompt.prompt] = prompt.text
            elif line.startswith(b'{"end":'):
                self._statistics = msgspec.json.decode(line, type=TraceEnd).statistics
            else:
                self._count(line)
        except (TraceError, *_UNREADABLE):
            self._count(line)

    def _count(self, line: bytes) -> None:
        """Count a line that is damaged or was written by a newer version."""
        try:
            msgspec.json.decode(line)
        except _UNREADABLE:
            self._bad += 1
        else:
            self._unknown += 1

    def _with_little_text(self, event: Event, size: int) -> Event:
        """Return *event*, whose line has *size* bytes.

        Its texts are cut once too many have been read.
        """
        self._bytes_left -= size
        if self._bytes_left > 0 or (shorter := reduced(event, "cut", str)) == event:
            return event
        self._cut_texts += 1
        return shorter

    def _take_event(self, event: Event) -> None:
        match event:
            case AgentSpawned(prompt_id=number) if number:
                prompt = self._prompts.get(number, "")
                event = msgspec.structs.replace(event, system_prompt=prompt, prompt_id=0)
            case MessagesAdded():
                if event.shared:
                    before = self._whole_of.get(event.after, ())[: event.shared]
                    messages = (*before, *event.messages)
                    event = msgspec.structs.replace(event, messages=messages, after=0, shared=0)
                self._messages.setdefault(event.agent_id, []).extend(event.messages)
            case AgentFinished():
                event = self._whole(event)
            case _:
                pass
        if len(self.events) >= self._max_events and not isinstance(
            event, AgentSpawned | AgentFinished
        ):
            self._left_out += 1
            return
        if self.events and event.sequence < self.events[-1].sequence:
            self._sorted = False
        self.events.append(event)

    def _whole(self, event: AgentFinished) -> AgentFinished:
        """Return *event* with the complete conversation and text in its outcome."""
        outcome = event.outcome
        messages = (*self._messages.pop(event.agent_id, ()), *outcome.messages)
        self._whole_of[event.agent_id] = messages
        text, last = outcome.text, messages[-1] if messages else None
        if not text and outcome.status is AgentStatus.COMPLETED:
            text = last.text if isinstance(last, AssistantMessage) else text
        outcome = msgspec.structs.replace(outcome, messages=messages, text=text)
        return msgspec.structs.replace(event, outcome=outcome)

    def done(self) -> Trace:
        """Return the trace."""
        if not self._sorted:
            # Pieces of a text wait for each other, and so may come after what followed.
            self.events.sort(key=lambda event: event.sequence)
        counts = (
            (self._bad, "line is damaged", "lines are damaged"),
            (self._unknown, f"line is {_UNKNOWN}", f"lines are {_UNKNOWN}"),
            (self._left_out, f"event is left out, {_MANY}", f"events are left out, {_MANY}"),
            (self._cut_texts, f"event has a cut text, {_MANY}", f"events have cut texts, {_MANY}"),
        )
        problems = [
            f"{count:,} {one if count == 1 else several}" for count, one, several in counts if count
        ]
        if self._cut:
            problems.append("the last line is cut")
        return Trace(
            header=self._header,
            events=tuple(self.events),
            statistics=self._statistics,
            problems=tuple(problems),
        )
