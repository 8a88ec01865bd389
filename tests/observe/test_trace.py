"""The trace: complete, linear, without keys, and no burden to the pool."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import random
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import attrs
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool import (
    AgentOutcome,
    AgentStatus,
    SpawnConfig,
    UsageError,
    open_pool,
    open_session,
)
from agentpool._cli._transcript_text import transcript
from agentpool._errors import AgentCancelledError
from agentpool._secrets import REDACTED, SHORTEST_SECRET_CHARS
from agentpool.abc import CompletionRequest, Observer, ToolContext
from agentpool.drivers import (
    Attachment,
    ChatMessage,
    FunctionDriver,
    NetworkError,
    ScriptedDriver,
    ToolMessage,
    UserMessage,
    say,
)
from agentpool.journal import InMemoryJournal
from agentpool.observe import (
    AgentFinished,
    AgentSpawned,
    AgentStarted,
    Event,
    EventsMissed,
    MessagesAdded,
    PoolInfo,
    RecordedError,
    TextDelta,
    ThoughtDelta,
    Trace,
    TraceError,
    TraceHeader,
    TraceWriter,
    _trace_writer,
    event_from_json,
    event_to_json,
    events_from_json,
    events_to_json,
    read_trace,
    record_of,
    render_report,
)
from agentpool.observe._content import Content
from agentpool.observe._redact import Redactor, forms_of, secrets_of_environment
from agentpool.observe._trace import MAX_HEADER, VERSION, format_words, lines_of, parse_trace
from agentpool.observe._trace_writer import FLUSH_EVENTS, MAX_BACKLOG
from agentpool.testing import check_observer
from agentpool.testing._check_observer import every_event
from agentpool.tools import ToolRegistry
from tests.support.busy_pool import HOSTILE_NAME, busy_pool
from tests.support.fakes import (
    FakeTool,
    Recorder,
    calling,
    echo_tool,
    job,
    manifest,
    of_type,
    tool_call,
)
from tests.support.small_disk import SMALL_BYTES, small_files

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))
"""What begins like an image."""

SECRET = "zwölf/Boxkämpfer+jagen=Viktor"  # noqa: S105  # it opens nothing
"""A key with what JSON, URLs and base64 each write in their own way."""


def finished(outcome: AgentOutcome) -> AgentFinished:
    """Return the event of *outcome*."""
    return AgentFinished(1, 0.0, 1, "a", outcome)


# --- events as JSON


def test_every_kind_of_event_comes_back_equal() -> None:
    """What is written can be read, and means the same."""
    events = tuple(every_event(0))
    assert events_from_json(events_to_json(events)) == events


def test_an_event_names_its_kind() -> None:
    """Readers in other languages go by it."""
    line = json.loads(event_to_json(AgentStarted(1, 0.5, 3, "a")))
    assert line == {
        "event": "agent_started",
        "sequence": 1,
        "at_seconds": 0.5,
        "agent_id": 3,
        "agent_name": "a",
    }


def test_an_error_comes_back_as_what_is_known_of_it() -> None:
    """Type, text, fields and the place; and it can be written again."""
    with pytest.raises(AgentCancelledError) as raised:
        raise AgentCancelledError("x was cancelled", cancelled_by="owner", reason="late")
    error = raised.value
    event = finished(AgentOutcome(agent_id=1, name="a", status=AgentStatus.CANCELLED, error=error))
    back = event_from_json(event_to_json(event))
    assert isinstance(back, AgentFinished)
    found = back.outcome.error
    assert isinstance(found, RecordedError)
    assert (found.kind, str(found)) == ("AgentCancelledError", "x was cancelled")
    assert found.details == {"cancelled_by": "owner", "reason": "late"}
    assert "test_an_error_comes_back" in found.traceback
    again = event_from_json(event_to_json(back))
    assert event_to_json(again) == event_to_json(back)


class Mute(Exception):  # noqa: N818  # it is silent
    """Cannot be printed."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


class Loud:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


@attrs.frozen
class Point:
    """A value that JSON knows."""

    x: int


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (Point(3), {"x": 3}),
        (10**30, "1000000000000000000000000000000"),
        ("half \ud800", "'half \\\\ud800'"),
        (object, "<class 'object'>"),
        ({1: {"a\ud800": [10**30]}}, None),
    ],
    ids=["none", "attrs", "huge", "surrogate", "type", "deep"],
)
def test_any_value_can_be_written(value: object, told: object) -> None:
    """An outcome's value is a user's; what JSON does not know is shown as text."""
    outcome = AgentOutcome(agent_id=1, name="a\udc80", status=AgentStatus.COMPLETED, value=value)
    back = event_from_json(event_to_json(finished(outcome)))
    assert isinstance(back, AgentFinished)
    assert back.outcome.name == "a\\udc80"
    if told is not None:
        assert back.outcome.value in (told, repr(value))


def test_what_fails_to_show_itself_is_shown_by_its_type() -> None:
    """Somebody else's code may raise anywhere."""
    outcome = AgentOutcome(
        agent_id=1, name="a", status=AgentStatus.FAILED, value=Loud(), error=Mute()
    )
    text = event_to_json(finished(outcome)).decode()
    assert "Loud object at" in text
    assert '"kind":"Mute","message":""' in text


def test_numbers_too_large_for_json_are_texts() -> None:
    """Whatever holds them."""
    event = EventsMissed(1, 0.0, 0, "a\ud800", 2**70)
    assert json.loads(event_to_json(event))["count"] == str(2**70)


@pytest.mark.parametrize("line", ["", "{", "[]", '{"event": "unheard_of"}', '{"event": 3}'])
def test_what_is_no_event_is_refused(line: str) -> None:
    """By one error, whatever is wrong."""
    with pytest.raises(TraceError, match="this is not an event"):
        event_from_json(line)


@pytest.mark.parametrize("error", ['"x"', "[1]", "3"])
def test_an_error_must_be_an_error(error: str) -> None:
    """A damaged line is not taken for another."""
    outcome = AgentOutcome(agent_id=1, name="a", status=AgentStatus.FAILED, error=ValueError())
    line = event_to_json(finished(outcome)).decode()
    start, end = line.index('"error":') + 8, line.index(',"stop_reason"')
    with pytest.raises(TraceError, match="expected an error"):
        event_from_json(line[:start] + error + line[end:])


# --- writing and reading


async def traced(path: Path, content: Content = "full") -> tuple[Trace, Recorder]:
    """Return what was written of a busy pool, and what was seen of it."""
    recorder = Recorder()
    async with TraceWriter(path, content=content, secrets=()) as trace:
        await busy_pool([trace, recorder])
    assert trace.problem is None
    return read_trace(path), recorder


async def test_a_trace_has_all_that_happened(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Events, conversations and outcomes come back as they were; texts in one piece."""
    trace, recorder = await traced(tmp_path / "a.trace")
    assert trace.problems == ()
    assert trace.header.pool == HOSTILE_NAME
    assert trace.statistics is not None
    assert trace.statistics.spawned == 8
    seen = [event for event in recorder.events if not isinstance(event, TextDelta | AgentFinished)]
    read = [event for event in trace.events if not isinstance(event, TextDelta | AgentFinished)]
    assert read == seen
    for was, now in zip(
        of_type(recorder.events, AgentFinished), of_type(trace.events, AgentFinished), strict=True
    ):
        assert now.outcome.messages == was.outcome.messages
        assert now.outcome.text == was.outcome.text
        assert now.outcome.usage == was.outcome.usage
        assert str(now.outcome.error) == str(was.outcome.error)
    for agent_id in {event.agent_id for event in recorder.events}:
        assert said(trace.events, agent_id) == said(tuple(recorder.events), agent_id)


def said(events: tuple[Event, ...], agent_id: int) -> str:
    """Return the pieces that arrived for one agent, together."""
    return "".join(e.text for e in of_type(events, TextDelta) if e.agent_id == agent_id)


async def test_a_trace_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It has what agents were told. One that is there is replaced, and keeps its mode."""
    path = tmp_path / "a.trace"
    path.write_text('{"format":"agentpool-trace"}\n' + "what was here before " * 100)
    path.chmod(0o640)
    async with TraceWriter(path) as trace:
        assert trace.path == path
        async with open_pool(ScriptedDriver(["hi"]), observers=[trace]):
            pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "before" not in path.read_text()
    assert read_trace(path).events == ()
    async with TraceWriter(tmp_path / "new.trace"):
        assert stat.S_IMODE((tmp_path / "new.trace").stat().st_mode) == 0o600


async def test_a_file_that_is_no_trace_is_left_alone(tmp_path: Path) -> None:
    """A slip in a name would cost it. One that is empty is taken."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(TraceError, match="the existing file is not a trace; name another file, or"):
        await TraceWriter(path).__aenter__()
    assert path.read_text() == "my notes"
    path.write_text("")
    async with TraceWriter(path) as trace, open_pool(ScriptedDriver([]), observers=[trace]):
        pass
    assert read_trace(path).events == ()


async def test_a_prompt_is_written_once(tmp_path: Path) -> None:
    """A thousand agents of one manifest share it; who has none needs none."""
    path = tmp_path / "a.trace"
    configs = [SpawnConfig(manifest(system_prompt="Be kind. " * 50), "hi") for _ in range(5)]
    configs.append(SpawnConfig(manifest(system_prompt=""), "hi"))
    async with (
        TraceWriter(path) as trace,
        open_pool(ScriptedDriver(["hi"] * 6), observers=[trace]) as pool,
    ):
        await pool.fan_out(configs)
        await pool.join_all()
    assert path.read_text().count("Be kind. Be kind. ") == 25
    prompts = [event.system_prompt for event in of_type(read_trace(path).events, AgentSpawned)]
    assert prompts == ["Be kind. " * 50] * 5 + [""]


async def test_content_can_be_cut_or_left_out(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Numbers stay; what was said does not, where nobody may keep it."""
    whole, _ = await traced(tmp_path / "full.trace")
    none, _ = await traced(tmp_path / "none.trace", "none")
    text = (tmp_path / "none.trace").read_text()
    for word in ("the answer", "attic", "let me see", "the line is dead", "hello", "nowhere"):
        assert word in (tmp_path / "full.trace").read_text()
        assert word not in text
    assert "LookupError" in text
    assert "it takes too long" in text  # who cancelled, and why, is nothing that was said
    counts = [Counter(type(event) for event in trace.events) for trace in (none, whole)]
    for count in counts:
        del count[TextDelta]  # how pieces are put together depends on the clock
    assert counts[0] == counts[1]


async def test_texts_are_cut_after_some_characters(tmp_path: Path) -> None:
    """With how many are left out. A key is taken out before: half of one is found by nobody."""
    path = tmp_path / "a.trace"
    query = "x" * 390 + SECRET + "y" * 100
    async with (
        TraceWriter(path, content="cut", secrets=[SECRET]) as trace,
        open_pool(ScriptedDriver(["short"]), observers=[trace]) as pool,
    ):
        await (await pool.spawn(SpawnConfig(manifest(), query))).wait()
    (spawned,) = of_type(read_trace(path).events, AgentSpawned)
    assert spawned.query == "x" * 390 + REDACTED + "yy… [98 more]"
    assert "zwölf" not in path.read_text()
    assert "short" in path.read_text()


async def test_images_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """What is attached cannot be cut, and a damaged one damages its line alone."""
    image = Attachment("image/png", PNG, "chart")
    said = (UserMessage("look", (image,)), ToolMessage("c", "t", "here", attachments=(image,)))
    contents: list[tuple[Content, tuple[Attachment, ...]]] = [("full", (image,)), ("cut", ())]
    for content, kept in contents:
        async with TraceWriter(tmp_path / content, content=content) as trace:
            trace.on_event(MessagesAdded(1, 0.0, 1, "a", 0, said))
        (added,) = of_type(read_trace(tmp_path / content).events, MessagesAdded)
        for message in added.messages:
            assert isinstance(message, UserMessage | ToolMessage)
            assert message.attachments == kept
    data = (tmp_path / "full").read_bytes()
    (tmp_path / "full").write_bytes(data.replace(base64.b64encode(PNG)[:8], b"AAAAAAAA"))
    assert read_trace(tmp_path / "full").problems != ()


def test_what_is_attached_is_named_where_it_is_shown() -> None:
    """A page and a terminal show no images; they say that there are some."""
    image = Attachment("image/png", PNG, "chart")
    said = (UserMessage("look", (image,)), ToolMessage("c", "t", "here", attachments=(image,)))
    spawned = AgentSpawned(1, 0.0, 1, "a", 0)
    events: list[Event] = [spawned, MessagesAdded(2, 0.0, 1, "a", 0, said)]
    record = record_of(events)
    note = f"[chart: image/png, {len(PNG)} bytes]"
    assert transcript(record.agents[1], has_times=True).count(note) == 2
    header = TraceHeader(run_id="ab", pool="p", opened_at=0.0, max_concurrent=1)
    assert render_report(Trace(header=header, events=tuple(events))).count(note) == 2


async def test_one_line_that_is_hard_to_write_costs_no_other(tmp_path: Path) -> None:
    """A name that is not Unicode, among those that are."""
    path = tmp_path / "a.trace"
    async with (
        TraceWriter(path) as trace,
        open_pool(ScriptedDriver(["hi"] * 2), observers=[trace], max_concurrent=1) as pool,
    ):
        await pool.fan_out([SpawnConfig(manifest(), "hello", name=n) for n in ("a", "b\ud800")])
        await pool.join_all()
    names = {event.agent_name for event in read_trace(path).events if event.agent_id}
    assert names == {"a", "b\ufffd"}


async def test_one_writer_is_for_one_pool(tmp_path: Path) -> None:
    """Two pools in one file could not be told apart; the second goes unrecorded."""
    async with TraceWriter(tmp_path / "a.trace") as trace:
        trace.on_open(PoolInfo(run_id="1", name="a", opened_at=0.0, max_concurrent=1))
        with pytest.raises(UsageError, match="one for each pool"):
            trace.on_open(PoolInfo(run_id="2", name="b", opened_at=0.0, max_concurrent=1))


async def test_a_writer_that_was_not_entered_is_refused(tmp_path: Path) -> None:
    """It would record nothing, without a word. So it is after its block."""
    trace = TraceWriter(tmp_path / "a.trace")
    with pytest.raises(UsageError, match=r"a\.trace.* is not open.*async with TraceWriter"):
        async with open_pool(ScriptedDriver([]), observers=[trace]):
            pass
    assert not (tmp_path / "a.trace").exists()
    async with trace, open_pool(ScriptedDriver([]), observers=[trace]):
        pass
    with pytest.raises(UsageError, match="is not open"):
        async with open_pool(ScriptedDriver([]), observers=[trace]):
            pass


async def test_it_is_an_observer_like_any_other(tmp_path: Path) -> None:
    """Also of events that come from no pool, and more than fit at once."""
    await check_observer(lambda: TraceWriter(tmp_path / "a.trace"))
    assert len(read_trace(tmp_path / "a.trace").events) > 2000


def test_content_must_be_a_word_that_is_known() -> None:
    """Whoever means `none` must not get all."""
    with pytest.raises(UsageError, match="got 'nothing'"):
        TraceWriter("a.trace", content="nothing")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["missing/a.trace", ".", "pipe"])
async def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    """At the start, before anything has been spent."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match=r"cannot be written|must be a regular file"):
        await TraceWriter(tmp_path / name).__aenter__()


async def test_a_device_is_no_file() -> None:
    """Nor is what only looks like one."""
    with pytest.raises(TraceError, match="must be a regular file"):
        await TraceWriter("/dev/null").__aenter__()


# --- a full disk, a slow disk


def wait_for_problem(trace: TraceWriter) -> None:
    """Wait until the thread has found the disk full."""
    for _ in range(1000):
        if trace.problem is not None:
            return
        time.sleep(0.005)
    raise AssertionError("the disk is never full")


async def test_a_full_disk_ends_the_recording_and_not_the_pool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Agents go on; the statistics say so; what is there can be read."""
    path = tmp_path / "a.trace"
    with small_files():
        async with (
            TraceWriter(path) as trace,
            open_pool(ScriptedDriver(["hi"] * 200), observers=[trace]) as pool,
        ):
            for _ in range(100):
                await pool.spawn(job())
            outcomes = await pool.join_all()
            await trio.to_thread.run_sync(wait_for_problem, trace)
            await (await pool.spawn(job())).wait()
    assert all(outcome.text == "hi" for outcome in outcomes.values())
    assert pool.statistics().observer_failures == 1
    assert trace.problem == "File too large"
    told = f"TraceWriter: the trace {str(path)!r} ends here: File too large"
    assert pool.statistics().observer_failure == told
    assert "ends here: File too large" in caplog.text
    read = read_trace(path)
    assert read.problems == ("the last line is cut",)
    assert read.statistics is None
    assert path.stat().st_size == SMALL_BYTES


async def test_a_disk_that_fills_at_the_very_end_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No event follows that could tell it."""
    with small_files():
        async with TraceWriter(tmp_path / "a.trace") as trace:
            async with open_pool(ScriptedDriver(["hi"] * 200), observers=[trace]) as pool:
                await pool.fan_out([job() for _ in range(100)])
                await pool.join_all()
                await trio.to_thread.run_sync(wait_for_problem, trace)
            assert pool.statistics().observer_failures == 1
    assert "File too large" in caplog.text


class UnwritableError(Exception):
    """Neither has it a form in JSON nor does its absence."""

    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]
        """Have no fields to tell."""
        raise RuntimeError("no fields")


async def test_whatever_fails_in_the_writer_ends_the_recording_and_not_the_pool(
    tmp_path: Path,
) -> None:
    """Not only a disk can fail, and a recording that stopped in silence is worse than none."""

    def refuse(_: CompletionRequest) -> str:
        raise UnwritableError("broken")

    async with (
        TraceWriter(tmp_path / "a.trace") as trace,
        open_pool(FunctionDriver(refuse), observers=[trace]) as pool,
    ):
        first = await pool.spawn(job())
        assert (await first.wait()).status is AgentStatus.FAILED
        await trio.to_thread.run_sync(wait_for_problem, trace)
        assert (await (await pool.spawn(job())).wait()).status is AgentStatus.FAILED
        statistics = pool.statistics()
    assert statistics.observer_failures == 1
    assert trace.problem == "the writer failed: RuntimeError: no fields"
    assert statistics.observer_failure.endswith(
        "ends here: the writer failed: RuntimeError: no fields"
    )


async def test_what_a_slow_disk_leaves_out_is_counted(tmp_path: Path) -> None:
    """Memory is bounded; what begins and ends agents is kept."""
    trace = TraceWriter(tmp_path / "a.trace")  # nobody writes yet
    for number in range(MAX_BACKLOG + 5):
        trace.on_event(TextDelta(number + 1, 0.0, 1, "a", "x"))
    last = MAX_BACKLOG + 6
    trace.on_event(AgentStarted(last, 0.0, 1, "a"))
    async with trace:
        pass
    missed, started = read_trace(tmp_path / "a.trace").events[-2:]
    assert isinstance(missed, EventsMissed)
    assert missed.count == 5
    assert isinstance(started, AgentStarted)


class Stuck:
    """A value that takes for ever to show: as long as a disk that does not answer."""

    def __init__(self) -> None:
        """Let nobody through."""
        self.go_on = threading.Event()

    def __repr__(self) -> str:
        """Wait."""
        self.go_on.wait(30)
        return "at last"


async def test_a_disk_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    """The end is bounded, as every end is."""
    stuck = Stuck()
    outcome = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED, value=stuck)
    async with TraceWriter(tmp_path / "a.trace", grace_seconds=0.01) as trace:
        trace.on_event(finished(outcome))
    assert trace.problem == "the disk did not answer for 0.01 s"
    stuck.go_on.set()


# --- reading


HEADER = (
    b'{"format":"agentpool-trace","version":1,"run_id":"ab","pool":"p","opened_at":1.0,'
    b'"max_concurrent":2}\n'
)
WHAT_TO_DO = (
    "its first line is not that of a trace; name a file that --trace or a TraceWriter wrote$"
)
STARTED = b'{"event":"agent_started","sequence":1,"at_seconds":0.5,"agent_id":1,"agent_name":"a"}\n'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty: its pool never opened"),
        (b"hello\n", f"is not a trace of agentpool: {WHAT_TO_DO}"),
        (b'{"traceEvents":[]}\n', f"is not a trace of agentpool: {WHAT_TO_DO}"),
        (b"\xff\xfe\n", f"is not a trace of agentpool: {WHAT_TO_DO}"),
        (b'{"x":' + b"[" * 50_000 + b"\n", f"is not a trace of agentpool: {WHAT_TO_DO}"),
        (
            HEADER.replace(b"agentpool-trace", b"other"),
            "is not a trace of agentpool, but 'other'; ",
        ),
        (HEADER.replace(b":1,", b":3,", 1), "version 3 of the format, but this agentpool reads up"),
    ],
    ids=["empty", "text", "JSON", "binary", "nested", "another", "newer"],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """With the reason, in one line."""
    assert VERSION == 2
    path = tmp_path / "a.trace"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=why):
        read_trace(path)


@pytest.mark.parametrize(("name", "why"), [("no", "No such file"), (".", "Is a directory")])
def test_a_trace_that_cannot_be_read_is_told(tmp_path: Path, name: str, why: str) -> None:
    """As what the system says."""
    with pytest.raises(TraceError, match=why):
        read_trace(tmp_path / name)


def test_what_cannot_be_read_is_counted() -> None:
    """Lines of a newer version, damaged ones, and the last one, which is cut."""
    newer = b'{"event":"agent_dreamt","sequence":2}\n{"colour":"red"}\n'
    nested = b"[" * 50_000
    damaged = b'{"event":"agent_sta\n\xff\n' + nested + b"\n" + b'{"prompt":' + nested + b"\n"
    trace = parse_trace([HEADER, STARTED, *(newer + damaged).splitlines(keepends=True), b'{"ev'])
    assert [event.sequence for event in trace.events] == [1]
    assert trace.problems == (
        "4 lines are damaged",
        "2 lines are of a kind that this version does not know",
        "the last line is cut",
    )


def test_ten_gigabytes_of_something_else_are_refused_at_once(tmp_path: Path) -> None:
    """Nobody reads them all into memory to find the end of the first line."""
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(10 * 2**30)  # it takes no room
    with pytest.raises(TraceError, match="is not a trace of agentpool"):
        read_trace(tmp_path / "disk.img")


class CountedFile(io.BytesIO):
    """A file that knows how much of it was asked for at once."""

    most = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line."""
        self.most = max(self.most, -1 if size is None else size)
        return super().readline(size)


def test_no_more_is_read_of_a_first_line_than_a_trace_can_have() -> None:
    """64 KiB: not the 256 MiB that a message with images may take."""
    file = CountedFile(b"x" * 200_000 + b"\n")
    with pytest.raises(TraceError, match="is not a trace of agentpool"):
        parse_trace(lines_of(file))
    assert file.most == file.tell() == MAX_HEADER == 65_536
    longest = b'{"x":"' + b"y" * (MAX_HEADER - 9) + b'"}\n'
    assert list(lines_of(io.BytesIO(longest + STARTED))) == [longest, STARTED]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs the device")
def test_what_has_no_end_is_refused_at_once() -> None:
    """The first line of a trace is short, so no more is read of what is none."""
    with pytest.raises(TraceError, match="is not a trace of agentpool"):
        read_trace("/dev/zero")


def test_a_line_that_is_too_long_costs_no_other() -> None:
    """It is passed over, wherever it ends."""
    assert list(lines_of(io.BytesIO(b"a\n" + b"b" * 25 + b"\nc\n"), 10)) == [
        b"a\n", b"too long\n", b"c\n"
    ]  # fmt: skip
    assert list(lines_of(io.BytesIO(b"b" * 30), 10)) == [b"too long\n"]
    assert list(lines_of(io.BytesIO(b"b" * 9 + b"\ncut"), 10)) == [b"b" * 9 + b"\n", b"cut"]


def test_a_line_that_cannot_be_of_a_trace_is_not_kept() -> None:
    """A file that a crash left full of zeros takes no memory, whatever its size."""
    file = CountedFile(b"{}\n" + b"\0" * 5_000_000 + b"\n{}\n")
    tracemalloc.start()
    lines = list(lines_of(file))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == [b"{}\n", b"too long\n", b"{}\n"]
    assert most < 4_000_000


def test_a_long_line_of_a_trace_is_read_whole() -> None:
    """A message with images is one line, of more than is read at once."""
    line = b'{"event": "' + b"a" * 5_000_000 + b'"}\n'
    assert list(lines_of(io.BytesIO(b"{}\n" + line + b"{}\n"))) == [b"{}\n", line, b"{}\n"]
    assert list(lines_of(io.BytesIO(b"{}\n" + line[:-1]))) == [b"{}\n", line[:-1]]


def test_a_trace_that_is_too_long_keeps_what_begins_and_ends_agents() -> None:
    """And says what it left out."""
    texts = [event_to_json(TextDelta(n, 0.0, 1, "a", "x")) + b"\n" for n in range(2, 12)]
    last = event_to_json(finished(AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED)))
    trace = parse_trace([HEADER, STARTED, *texts, last + b"\n"], max_events=4)
    assert len(trace.events) == 5
    assert trace.problems == ("7 events are left out, since there are too many",)


def test_a_trace_with_too_much_text_keeps_the_beginnings() -> None:
    """All numbers are there, and it says that texts are cut."""
    texts = [event_to_json(TextDelta(n, 0.0, 1, "a", "x" * 1000)) + b"\n" for n in range(2, 12)]
    trace = parse_trace([HEADER, STARTED, *texts], max_bytes=4000)
    said = [event.text for event in of_type(trace.events, TextDelta)]
    assert said[:3] == ["x" * 1000] * 3
    assert said[3:] == ["x" * 400 + "… [600 more]"] * 7
    assert trace.problems == ("7 events have cut texts, since there are too many",)


def test_one_is_not_several() -> None:
    """What could not be read is counted in words that fit the number."""
    text = event_to_json(TextDelta(2, 0.0, 1, "a", "x" * 500)) + b"\n"
    assert parse_trace([HEADER, b"{\n"]).problems == ("1 line is damaged",)
    known = "1 line is of a kind that this version does not know"
    assert parse_trace([HEADER, b"{}\n"]).problems == (known,)
    gone = "1 event is left out, since there are too many"
    assert parse_trace([HEADER, STARTED, text], max_events=1).problems == (gone,)
    cut = "1 event has a cut text, since there are too many"
    assert parse_trace([HEADER, text], max_bytes=1).problems == (cut,)


async def test_a_trace_can_be_cut_anywhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whatever byte a kill stopped at, the rest is read."""
    path = tmp_path / "a.trace"
    await traced(path)
    data = path.read_bytes()
    chance = random.Random(1)  # noqa: S311  # no secret
    for cut in [chance.randrange(len(data)) for _ in range(150)]:
        lines = data[:cut].splitlines(keepends=True)
        if data.index(b"\n") >= cut:
            with pytest.raises(TraceError):
                parse_trace(lines)
            continue
        trace = parse_trace(lines)
        assert trace.problems in ((), ("the last line is cut",))
        spawned = {event.agent_id for event in of_type(trace.events, AgentSpawned)}
        assert len(spawned) == data[:cut].count(b'{"event":"agent_spawned"') - (
            0 if lines[-1].endswith(b"\n") else lines[-1].count(b'"agent_spawned"')
        )


KILLED = """
import trio
from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.drivers import FunctionDriver
from agentpool.observe import TraceWriter

async def answer(request):
    await trio.sleep(0.02)
    return "hi"

async def main():
    async with (
        TraceWriter("killed.trace") as trace,
        open_pool(FunctionDriver(answer), observers=[trace], max_concurrent=4) as pool,
    ):
        number = 0
        while True:
            handle = await pool.spawn(SpawnConfig(AgentManifest(name="a"), "hello"))
            print(handle.agent_id, flush=True)
            await trio.sleep(0.005)

trio.run(main)
"""


def test_a_trace_is_complete_after_a_kill(tmp_path: Path) -> None:
    """Every agent is in it that was there 50 ms before."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        known = [int(process.stdout.readline()) for _ in range(60)]
        time.sleep(0.05)
        process.kill()
    trace = read_trace(tmp_path / "killed.trace")
    assert trace.statistics is None
    spawned = {event.agent_id for event in of_type(trace.events, AgentSpawned)}
    assert spawned >= set(known)


async def test_a_spawn_does_not_wait_for_more_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed program may lose what an agent said last, and not the agent."""
    path = tmp_path / "a.trace"
    monkeypatch.setattr(_trace_writer, "FLUSH_SECONDS", 3600.0)
    async with TraceWriter(path) as trace:
        trace.on_event(AgentSpawned(1, 0.0, 1, "first", 0))
        await trio.to_thread.run_sync(wait_for, path, b"first")
        trace.on_event(AgentStarted(2, 0.0, 1, "not yet"))
        trace.on_event(AgentSpawned(3, 0.0, 2, "newcomer", 0))
        await trio.to_thread.run_sync(wait_for, path, b"newcomer")
    assert [event.sequence for event in read_trace(path).events] == [1, 2, 3]


# --- Linear


@given(st.integers(3, 30))
def test_a_trace_grows_with_the_turns_and_not_with_their_square(turns: int) -> None:
    """Ten times the turns, at most 10.5 times the bytes."""

    async def run(turns: int) -> int:
        driver = ScriptedDriver([calling(tool_call("echo", f"c{n}")) for n in range(turns)] + ["x"])
        config = manifest(max_iterations=10_000, max_tool_calls=10_000, max_repeated_calls=10_000)
        async with (
            TraceWriter(path) as trace,
            open_pool(driver, tools=ToolRegistry([echo_tool()]), observers=[trace]) as pool,
        ):
            await (await pool.spawn(SpawnConfig(config, "hello"))).wait()
        return path.stat().st_size

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.trace"
        small = trio.run(run, turns)
        large = trio.run(run, turns * 10)
    assert large <= 10.5 * small


def asked(number: int) -> SpawnConfig:
    """Return a turn of a session."""
    return SpawnConfig(manifest(), f"question {number}")


def answered(request: CompletionRequest) -> str:
    """Return another answer to each question."""
    return f"answer {len(request.messages)}"


async def by_session(path: Path, turns: int) -> Sequence[Event]:
    """Return the events of a session of *turns*, with its trace at *path*."""
    driver, log = FunctionDriver(answered, context_window=None), Recorder()
    async with (
        TraceWriter(path) as trace,
        open_session(InMemoryJournal(), "anna", driver, observers=[trace, log]) as session,
    ):
        for number in range(turns):
            await session.ask(asked(number))
    return log.events


async def by_history(path: Path, turns: int) -> Sequence[Event]:
    """Return the same of agents that are given what earlier ones said, two after each."""
    driver, log = FunctionDriver(answered, context_window=None), Recorder()
    async with (
        TraceWriter(path) as trace,
        open_pool(driver, observers=[trace, log]) as pool,
    ):
        messages: tuple[ChatMessage, ...] = ()
        for number in range(turns):
            config = msgspec.structs.replace(asked(number), history=messages)
            await (await pool.spawn(config)).wait()
            messages = (await (await pool.spawn(config)).wait()).messages
    return log.events


@pytest.mark.parametrize("run", [by_session, by_history])
async def test_a_conversation_that_other_agents_go_on_with_is_written_once(
    tmp_path: Path, run: Callable[[Path, int], Awaitable[Sequence[Event]]]
) -> None:
    """Ten times the turns of a session, at most 10.5 times the bytes; all is read again."""
    path = tmp_path / "a.trace"
    await run(path, 5)
    small = path.stat().st_size
    events = await run(path, 50)
    assert path.stat().st_size <= 10.5 * small
    read = read_trace(path).events
    assert of_type(read, MessagesAdded) == of_type(events, MessagesAdded)
    finished = [one.outcome.messages for one in of_type(read, AgentFinished)]
    assert finished == [one.outcome.messages for one in of_type(events, AgentFinished)]
    assert len(finished[-1]) == 100


async def test_what_is_only_like_the_beginning_of_another_conversation_is_written(
    tmp_path: Path,
) -> None:
    """A history may be cut or changed behind its first messages."""
    path, log = tmp_path / "a.trace", Recorder()
    driver = FunctionDriver(answered, context_window=None)
    async with (
        TraceWriter(path) as trace,
        open_pool(driver, observers=[trace, log]) as pool,
    ):
        first = (await (await pool.spawn(asked(0))).wait()).messages
        for history in (first[:1], (*first[:1], UserMessage("other")), first[1:], first):
            await (await pool.spawn(msgspec.structs.replace(asked(1), history=history))).wait()
    read = read_trace(path).events
    assert of_type(read, MessagesAdded) == of_type(log.events, MessagesAdded)
    assert of_type(read, AgentFinished) == of_type(log.events, AgentFinished)


async def test_messages_that_are_missing_are_not_referred_to(tmp_path: Path) -> None:
    """What was left out on a slow disk may have been a part of the conversation."""
    path, log = tmp_path / "a.trace", Recorder()
    driver = FunctionDriver(answered, context_window=None)
    async with (
        TraceWriter(path) as trace,
        open_pool(driver, observers=[trace, log]) as pool,
    ):
        first = (await (await pool.spawn(asked(0))).wait()).messages
        trace.on_event(EventsMissed(99, 0.0, 0, "", 1))
        await (await pool.spawn(msgspec.structs.replace(asked(1), history=first))).wait()
    added = [line for line in path.read_text().splitlines() if '"messages_added"' in line]
    assert "question 0" in added[-1]
    read = read_trace(path).events
    assert of_type(read, MessagesAdded) == of_type(log.events, MessagesAdded)


# --- No key


def shapes(secret: str) -> list[str]:
    """Return a key as it can turn up in what agents say."""
    data = secret.encode()
    return [
        secret,
        f"before{secret}after",
        json.dumps({"key": secret}),
        json.dumps(json.dumps({"key": secret})),
        f"https://example.org/?key={quote(secret, safe='')}",
        f"https://example.org/{quote(secret)}",
        data.hex(),
        *(base64.b64encode(b"x" * n + data + b"y").decode() for n in range(4)),
        *(base64.b64encode(b"x" * n + data).decode() for n in range(4)),
        base64.urlsafe_b64encode(b"??" + data).decode(),
    ]


SHAPES = shapes(SECRET)


async def test_no_key_reaches_the_disk(tmp_path: Path) -> None:
    """In no form, from no place where agents put it."""

    async def leak(arguments: str, _: ToolContext) -> str:
        await trio.lowlevel.checkpoint()
        raise ValueError(f"wrong key: {arguments}")

    path = tmp_path / "a.trace"
    async with TraceWriter(path, secrets=[SECRET]) as trace:
        for shape in SHAPES:
            driver = ScriptedDriver(
                [
                    calling(tool_call("leak", shape, key=shape), text=shape),
                    say(f"so it is {shape}"),
                    NetworkError(f"cannot send {shape}", retryable=False),
                ]
            )
            config = SpawnConfig(manifest(shape, system_prompt=shape), shape, name=shape)
            tools = ToolRegistry([FakeTool("leak", leak)])
            async with open_pool(driver, tools=tools, observers=[Relay(trace)]) as pool:
                outcome = await (await pool.spawn(config)).wait()
                assert shape in outcome.text
                await (await pool.spawn(config)).wait()
                await pool[2].wait()
    data = path.read_bytes()
    assert data.count(REDACTED.encode()) > 100
    for form in forms_of(SECRET):
        assert form.encode() not in data, form
    assert "Viktor" not in data.decode()


@attrs.define(eq=False)
class Relay(Observer):
    """Hands the events of several pools on as if they were of one."""

    trace: TraceWriter

    def on_event(self, event: Event) -> None:
        """Hand it on."""
        self.trace.on_event(event)


@given(st.lists(st.integers(1, 29), max_size=6))
def test_a_key_that_comes_in_pieces_is_found(cuts: list[int]) -> None:
    """A model may write it letter by letter; each piece alone is harmless."""
    places = [0, *sorted(set(cuts)), len(SECRET)]
    pieces = [SECRET[a:b] for a, b in itertools.pairwise(places)]

    async def run(path: Path) -> None:
        async with TraceWriter(path, secrets=[SECRET]) as trace:
            for number, piece in enumerate(["it is ", *pieces, " zwö", "lf"]):
                trace.on_event(TextDelta(number + 1, 0.0, 1, "a", piece))
                for _ in range(FLUSH_EVENTS):  # written at once, and not with the next piece
                    trace.on_event(AgentStarted(number + 1, 0.0, 2, "b"))
            await trio.to_thread.run_sync(wait_for, path, b"agent_started")
            trace.on_event(AgentStarted(99, 0.0, 1, "a"))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.trace"
        trio.run(run, path)
        written = path.read_text()
        text = "".join(e.text for e in of_type(read_trace(path).events, TextDelta))
    assert "Viktor" not in written
    assert text == f"it is {REDACTED} zwölf"


async def test_what_waited_for_the_rest_of_a_key_is_written_at_the_end(tmp_path: Path) -> None:
    """It was not a key: nothing of what was said is lost."""
    path = tmp_path / "a.trace"
    async with (
        TraceWriter(path, secrets=[SECRET]) as trace,
        open_pool(ScriptedDriver([]), observers=[trace]),
    ):
        trace.on_event(TextDelta(1, 0.0, 1, "a", f"it is {SECRET[:9]}"))
    (text,) = of_type(read_trace(path).events, TextDelta)[1:]
    assert text.text == SECRET[:9]


async def test_thoughts_and_answers_are_kept_apart(tmp_path: Path) -> None:
    """Pieces of one kind go together, in the order in which they came."""
    path = tmp_path / "a.trace"
    async with TraceWriter(path) as trace:
        for number, word in enumerate(("so ", "that"), 1):
            trace.on_event(ThoughtDelta(number, 0.0, 1, "a", word))
        trace.on_event(TextDelta(3, 0.0, 1, "a", "yes"))
        trace.on_event(ThoughtDelta(4, 0.0, 1, "a", "hm"))
        trace.on_event(AgentStarted(5, 0.0, 1, "a"))
    thought, text, again, _ = read_trace(path).events
    assert thought == ThoughtDelta(2, 0.0, 1, "a", "so that")
    assert (text, again) == (TextDelta(3, 0.0, 1, "a", "yes"), ThoughtDelta(4, 0.0, 1, "a", "hm"))


def wait_for(path: Path, data: bytes) -> None:
    """Wait until *data* is in the file."""
    for _ in range(30_000):
        if data in path.read_bytes():
            return
        time.sleep(0.002)
    raise AssertionError("it is never written")


def test_keys_of_the_environment_are_known_by_their_names() -> None:
    """Whoever forgets to name a key has it kept out all the same; short values are none."""
    found = secrets_of_environment(
        {
            "MY_API_KEY": "0123456789",
            "NAME": "0123456789",
            "PIN_TOKEN": "1234",
            "git_token": "abcdefgh",
        }
    )
    assert set(found) == {"0123456789", "abcdefgh"}
    assert secrets_of_environment() is not None


def test_passwords_have_many_names() -> None:
    """With an underscore or without. What things are sorted by is no key."""
    names = (
        "PASSWORD", "SECRET", "TOKEN", "APIKEY", "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "GITHUB_PAT",
        "PASSPHRASE", "SSH_KEY",
    )  # fmt: skip
    assert len(secrets_of_environment(dict.fromkeys(names, "Correct-horse"))) == len(names)
    assert secrets_of_environment({"SORT_KEY": "created_at", "PWD": "/home/me/work"}) == ()
    assert secrets_of_environment({"SOME_KEY": "created_at_or_at_no_time"}) != ()


def test_nothing_to_keep_out_leaves_all_as_it_is() -> None:
    """And what is too short to be looked for is refused, and not passed over in silence."""
    redactor = Redactor.of([])
    assert redactor.clean(b"abc abc") == b"abc abc"
    assert redactor.open_end("abc") == 0
    with pytest.raises(UsageError, match="secret 2 of 2 has 7 characters") as caught:
        TraceWriter("never", secrets=["long enough", "hunter2"])
    assert "hunter2" not in str(caught.value)


async def written_with(path: Path, secret: str, text: str, value: object = None) -> Trace:
    """Return the trace of an agent that answers *text*, kept without *secret*."""
    outcome = AgentOutcome(
        agent_id=1, name="a", status=AgentStatus.COMPLETED, text=text, value=value
    )
    async with TraceWriter(path, secrets=[secret]) as trace:
        trace.on_open(PoolInfo(run_id="0" * 24 + "12345678", name="p", opened_at=1.0,
                               max_concurrent=1))  # fmt: skip
        trace.on_event(AgentSpawned(1, 0.0, 1, "a", 0, query=text))
        trace.on_event(AgentFinished(2, 1.0, 1, "a", outcome))
    return read_trace(path)


def test_no_word_of_the_format_is_taken_for_a_key() -> None:
    """Neither as a name nor as a whole value."""
    for word in format_words():
        if len(word) >= SHORTEST_SECRET_CHARS:
            line = json.dumps({word: [word, f"by {word}"], "run_id": word}).encode()
            cleaned = json.dumps({word: [word, "by [secret]"], "run_id": word}).encode()
            found = Redactor.of([word]).clean_lines(line + b"\n", format_words())
            assert json.loads(found) == json.loads(cleaned)


@pytest.mark.parametrize(
    "word", ["sequence", "agent_id", "completed", "input_tokens", "agent_finished", "12345678"]
)
async def test_a_word_of_the_format_as_a_key_spoils_no_line(tmp_path: Path, word: str) -> None:
    """A variable such as SORT_KEY may hold it; texts alone are without it."""
    trace = await written_with(tmp_path / "a", word, f"by {word}", {"my own": f"x{word}"})
    assert trace.problems == ()
    spawned, finished = trace.events
    assert isinstance(spawned, AgentSpawned)
    assert isinstance(finished, AgentFinished)
    assert spawned.query == finished.outcome.text == "by [secret]"
    assert finished.outcome.status is AgentStatus.COMPLETED
    assert finished.outcome.value == {"my own": "x[secret]"}


async def test_a_key_with_a_line_break_in_it_breaks_no_line(tmp_path: Path) -> None:
    """Its letters are looked for in the text, and not in what JSON writes for it."""
    key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"
    trace = await written_with(tmp_path / "a", key, f"it is {key[:9]}\n{key[9:]}")
    assert trace.problems == ()
    (_, finished) = trace.events
    assert isinstance(finished, AgentFinished)
    assert finished.outcome.text == f"it is {key[:9]}\n[secret]"
    lines = "line1line1\nline2line2"
    trace = await written_with(tmp_path / "b", lines, lines.replace("\n", "\r\n"))
    assert trace.problems == ()


async def test_a_key_deep_in_a_value_is_found(tmp_path: Path) -> None:
    """As the name of a field too."""
    trace = await written_with(tmp_path / "a", "0123-4567", "", {"0123-4567": 1})
    (_, finished) = trace.events
    assert isinstance(finished, AgentFinished)
    assert finished.outcome.value == {"[secret]": 1}


@pytest.mark.usefixtures("no_collection")
def test_a_key_where_a_walk_would_go_too_deep_is_found() -> None:
    """The line is looked through as it stands then."""
    deep = sys.getrecursionlimit()
    line = b"[" * deep + b'"0123-4567"' + b"]" * deep + b"\n"
    cleaned = Redactor.of(["0123-4567"]).clean_lines(line, ())
    assert cleaned == line.replace(b"0123-4567", b"[secret]")


def test_a_key_in_the_url_of_another_library_is_found() -> None:
    """Some write percent codes in small letters."""
    redactor = Redactor.of(["ab+cd/ef=gh"])
    assert redactor.clean(b"?k=ab%2bcd%2fef%3dgh&x") == b"?k=[secret]&x"


@pytest.mark.parametrize("kept", [12, 15, 23])
@pytest.mark.parametrize("is_end", [False, True])
async def test_half_of_a_key_that_was_cut_is_none_as_well(
    tmp_path: Path,
    kept: int,
    is_end: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """A tool, an error or a page cuts a text before anybody looks for keys in it."""
    key = 'sk-0123"4567\\89abcdefghi'
    part = key[-kept:] if is_end else key[:kept]
    path = tmp_path / "a.trace"
    async with (
        TraceWriter(path, secrets=[key]) as trace,
        open_pool(ScriptedDriver(["hi"]), observers=[trace]) as pool,
    ):
        await pool.spawn(SpawnConfig(manifest(), f"read {part}… [9 more], {part}, {key}"))
        await pool.join_all()
    (spawned,) = [event for event in read_trace(path).events if isinstance(event, AgentSpawned)]
    assert spawned.query == "read [secret]… [9 more], [secret], [secret]"
