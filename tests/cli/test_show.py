"""``--trace`` and ``agentpool show``: what happened, for whoever asks afterwards."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentOutcome, AgentStatus, LimitExceededError, SpawnConfig, open_pool
from agentpool._cli import _show
from agentpool._cli._event_text import event_line
from agentpool._cli._trace_text import TREE_ROWS, overview
from agentpool._cli._transcript_text import transcript
from agentpool._disk_file import mark_open
from agentpool.drivers import ScriptedDriver, ToolCall, call, calls
from agentpool.observe import (
    AgentFinished,
    AgentSpawned,
    AgentWarned,
    Event,
    ToolFinished,
    Trace,
    TraceHeader,
    TraceWriter,
    event_to_json,
    read_trace,
)
from agentpool.observe._chrome import chrome_trace
from agentpool.observe._record import record_of
from agentpool.testing._check_observer import every_event
from agentpool.tools import ToolRegistry, tool
from tests.support.busy_pool import busy_pool
from tests.support.cli_runner import Desk, make_desk
from tests.support.fakes import manifest
from tests.support.small_disk import SMALL_BYTES, small_files


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder in which commands run."""
    return make_desk(tmp_path, capsys, monkeypatch)


@pytest.fixture
def busy(desk: Desk) -> Path:
    """Return the trace of a pool in which everything happens."""
    path = desk.folder / "busy.trace"

    async def main() -> None:
        async with TraceWriter(path, secrets=()) as trace:
            await busy_pool([trace])

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return path


# --- writing


def test_a_run_is_traced(desk: Desk) -> None:
    """``--trace`` writes what ``show`` reads."""
    done = desk.scripted("run", "reader.toml", "hello", "--trace", "a.trace")
    assert done.code == 0
    shown = desk.call("show", "a.trace")
    assert shown.code == 0
    assert "1 agent in" in shown.out
    assert "1 reader" in shown.out
    assert "completed" in shown.out


def test_content_can_be_left_out_of_a_trace(desk: Desk) -> None:
    """Where nobody may keep what was said."""
    desk.scripted(
        "run", "reader.toml", "hello", "--trace", "a.trace", "--trace-content", "none"
    )  # fmt: skip
    assert "A note" not in (desk.folder / "a.trace").read_text()


def test_a_trace_that_cannot_be_written_is_told_before_anything_runs(desk: Desk) -> None:
    """It costs nothing, and the exit code says that the command is wrong."""
    done = desk.scripted("run", "reader.toml", "hello", "--trace", "no/a.trace")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("agentpool: error: the trace 'no/a.trace' cannot be written: ")


def test_a_trace_that_ends_early_is_told(desk: Desk) -> None:
    """A full disk costs no answer, but nobody may take the trace for whole."""
    query = "x" * SMALL_BYTES
    with small_files():
        done = desk.scripted("run", "reader.toml", query, "--trace", "a.trace")
    assert (done.code, done.out) == (5, "A note.\n")
    assert "the trace 'a.trace' is not complete: File too large" in done.err


def test_keys_of_the_manifests_are_kept_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their values, wherever they come from."""
    monkeypatch.setenv("SOME_API_KEY", "hush-hush-hush")
    desk.scripted("run", "reader.toml", "is hush-hush-hush mine?", "--trace", "a.trace")
    text = (desk.folder / "a.trace").read_text()
    assert "hush-hush" not in text
    assert "is [secret] mine?" in text


@pytest.mark.parametrize("also", [(), ("--trace", "a.trace")])
def test_a_run_can_be_made_a_page(desk: Desk, also: tuple[str, ...]) -> None:
    """With a trace that is kept, or without one; for its owner alone."""
    done = desk.scripted("run", "reader.toml", "hello", "--report", "a.html", *also)
    assert (done.code, done.err.count("warning")) == (0, 0)
    page = desk.folder / "a.html"
    assert page.read_text().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o600
    assert (desk.folder / "a.trace").exists() == bool(also)


def test_a_trace_can_be_made_a_page(desk: Desk, busy: Path) -> None:
    """Afterwards, on any machine. One that is there is replaced as a whole."""
    (desk.folder / "out.html").write_text("<!doctype html>before")
    done = desk.call("show", "busy.trace", "--html", "out.html")
    assert (done.code, done.out) == (0, "")
    assert "Failed first" in (desk.folder / "out.html").read_text()
    assert sorted(path.name for path in desk.folder.glob(".*")) == []


@pytest.mark.parametrize("page", ["no/a.html", "."])
def test_a_page_that_cannot_be_written_is_told_before_anything_runs(desk: Desk, page: str) -> None:
    """And a trace's page when it is asked for."""
    done = desk.scripted("run", "reader.toml", "hello", "--report", page)
    assert (done.code, done.out) == (2, "")
    assert "the report" in done.err
    desk.scripted("run", "reader.toml", "hello", "--trace", "a.trace")
    assert desk.call("show", "a.trace", "--html", "no/a.html").code == 2


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_page_that_cannot_be_made_costs_no_answer(desk: Desk, quiet: tuple[str, ...]) -> None:
    """It is told, also where only errors are, and the answers are there."""
    with small_files():
        done = desk.scripted("run", "reader.toml", "hello", "--report", "a.html", *quiet)
    assert (done.code, done.out) == (5, "A note.\n")
    assert "there is no report: the report 'a.html' cannot be written: File too large" in done.err
    assert not (desk.folder / "a.html").exists()


# --- showing


def test_the_overview_tells_what_went_wrong(desk: Desk, busy: Path) -> None:
    """Who failed first and why, what took long, which tools failed; and steers no terminal."""
    shown = desk.call("show", "busy.trace")
    lines = shown.out.splitlines()
    assert lines[0].startswith("pool 'night <script>")
    assert lines[1].startswith("manifest ")
    assert "models m-1, small" in lines[1]
    assert lines[2].startswith("8 agents in ")
    assert "6 completed, 1 failed, 1 cancelled" in lines[2]
    assert "cached" in lines[3]
    assert any(
        line.startswith("failed first: agent 4 (fail ") and "NetworkError: the line" in line
        for line in lines
    )
    assert "Traceback (most recent call last):" in shown.out
    assert "slowest calls" in shown.out
    assert "search" in shown.out
    assert "dead letter: message 1 of 7 to 8" in shown.out
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out


def test_the_overview_says_why_agents_ended_early(desk: Desk, busy: Path) -> None:
    """Who stopped or cancelled them, and what tools failed with; of many, how many more."""
    shown = desk.call("show", "busy.trace").out
    assert re.search(r"^cancelled: agent \d+ \(.*\), after [\d.]+ s: \S", shown, re.MULTILINE)
    failed = r"^tool failed: search of agent 2 \(.*\), turn \d+, after [\d.]+ s: \S"
    assert re.search(failed, shown, re.MULTILINE)
    stopped = AgentOutcome(
        agent_id=1, name="a", status=AgentStatus.STOPPED,
        error=LimitExceededError("too many turns", kind="turns", used=3, limit=2),
    )  # fmt: skip
    events: list[Event] = []
    for number in range(1, 13):
        place = (number, 0.0, number, "a")
        events += [
            AgentSpawned(*place, 0),
            ToolFinished(*place, ToolCall("c", "dig", "{}"), "no shovel\x1b[2J", is_error=True),
            AgentFinished(*place, stopped),
        ]
    header = TraceHeader(run_id="ab" * 16, pool="p", opened_at=0.0, max_concurrent=1)
    text = overview(Trace(header=header, events=tuple(events)), record_of(events))
    assert "stopped: agent 1 (a): too many turns" in text
    assert "… and 2 more that ended early" in text
    assert "tool failed: dig of agent 1 (a), turn 0: no shovel [2J" in text
    assert "… and 2 more failed calls" in text


def test_what_agentpool_refuses_has_no_traceback(desk: Desk) -> None:
    """Its own lines say nothing to whoever wrote the schema."""
    desk.write(a_json='{"type":"object","properties":{"x":{"type":"string"}},"required":["x"]}')
    desk.scripted("run", "reader.toml", "Who?", "--schema", "a.json", "--trace", "a.trace")
    shown = desk.call("show", "a.trace").out
    assert "failed first: agent 1 (reader), after 0." in shown
    assert ": InvalidOutputError: none of 3 answers fits 'answer'" in shown
    assert "Traceback" not in shown


def test_the_overview_has_the_traceback_of_a_tool(desk: Desk) -> None:
    """Its agent has completed, so nothing failed first; equal ones are shown once."""

    @tool
    def divide() -> float:
        """Divide by zero."""
        return 1 / 0

    async def work() -> None:
        async with TraceWriter(desk.folder / "t.jsonl") as trace:
            driver = ScriptedDriver([calls(call("divide"), call("divide")), "It cannot be done."])
            config = SpawnConfig(manifest(name="a"), "Divide")
            async with open_pool(driver, tools=ToolRegistry([divide]), observers=[trace]) as pool:
                (await (await pool.spawn(config)).wait()).unwrap()

    trio.run(work)
    lines = desk.call("show", "t.jsonl").out.splitlines()
    (first, second) = [n for n, one in enumerate(lines) if one.startswith("tool failed: divide")]
    assert lines[first].startswith("tool failed: divide of agent 1 (a), turn 1, after ")
    assert lines[first + 1] == "  Traceback (most recent call last):"
    assert lines[second - 1] == "  ZeroDivisionError: division by zero"
    assert second < next(n for n, one in enumerate(lines) if one.startswith("agent "))
    assert not lines[second + 1].startswith("  Traceback")


def test_a_conversation_can_be_read(desk: Desk, busy: Path) -> None:
    """System, user, model, calls and their results."""
    shown = desk.call("show", "busy.trace", "--agent", "2")
    assert "--- system\nYou are a helpful assistant." in shown.out
    assert "--- user\nsearch" in shown.out
    assert 'calls search (call-0): {"place": "the attic"}' in shown.out
    assert "--- search (call-1), failed" in shown.out
    failed = desk.call("show", "busy.trace", "--agent", "4")
    assert "NetworkError: the line is dead" in failed.out


def test_numbers_come_as_json(desk: Desk, busy: Path) -> None:
    """For other programs; the same as in words."""
    (found,) = desk.call("show", "busy.trace", "--json").lines
    assert found["first_failure"] == 4
    assert found["closed"]
    agents = found["agents"]
    assert [agent["agent_id"] for agent in agents] == list(range(1, 9))
    assert agents[3]["error"]["type"] == "NetworkError"
    assert agents[1]["seconds"]["tool"] == pytest.approx(2.0)
    (one,) = desk.call("show", "busy.trace", "--json", "--agent", "2").lines
    assert [message["role"] for message in one["messages"]] == [
        "user", "assistant", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert one["query"] == "search"


def test_chrome_gets_its_own_format(desk: Desk, busy: Path) -> None:
    """A thread for each agent, and no slice beyond another's end."""
    (found,) = desk.call("show", "busy.trace", "--format", "chrome").lines
    slices = [event for event in found["traceEvents"] if event["ph"] == "X"]
    assert {event["tid"] for event in slices} == set(range(1, 9))
    assert {"queued", "model", "answer", "tool", "approval", "retry"} <= {
        event["name"] for event in slices
    }


def test_traces_are_compared(desk: Desk, busy: Path) -> None:
    """Times and pieces of texts differ each time; what happened must not."""
    for name in ("a", "b"):
        desk.scripted("run", "reader.toml", "hello", "--trace", f"{name}.trace")
    desk.scripted("run", "reader.toml", "goodbye", "--trace", "c.trace")
    same = desk.call("show", "a.trace", "--diff", "b.trace")
    assert (same.code, same.out.split(",")[0]) == (0, "the same events happened in both")
    other = desk.call("show", "a.trace", "--diff", "c.trace")
    assert other.code == 1
    lines = other.out.splitlines()
    assert lines[0] == "they differ from event 1 on:"
    assert lines[1].endswith("spawned by the owner: hello")
    assert lines[2].endswith("spawned by the owner: goodbye")


def test_a_shorter_trace_ends_first(desk: Desk) -> None:
    """What follows in the other one is the difference."""
    desk.scripted("run", "reader.toml", "hello", "--trace", "a.trace")
    lines = (desk.folder / "a.trace").read_bytes().splitlines(keepends=True)
    (desk.folder / "b.trace").write_bytes(b"".join(lines[:4]))
    done = desk.call("show", "b.trace", "--diff", "a.trace")
    assert "- (no more events)" in done.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("no.trace",), "cannot be read: No such file"),
        (("reader.toml",), "is not a trace of agentpool"),
        (("busy.trace", "--agent", "99"), "there is no agent 99"),
        (("busy.trace", "--diff", "no.trace"), "cannot be read"),
        (("busy.trace", "--agent", "0"), "must be a whole number >= 1"),
        (("busy.trace", "--html", "a.html", "--json"), "--html writes a page with all agents"),
        (("busy.trace", "--html", "a.html", "--agent", "1"), "open the page with #agent=3"),
        (
            ("busy.trace", "--follow", "--html", "a.html"),
            "--follow and --html each print something of their own; leave one out",
        ),
        (("busy.trace", "--follow", "--diff", "busy.trace"), "--follow and --diff each"),
        (("busy.trace", "--follow", "--format", "chrome"), "--follow and --format chrome each"),
        (("busy.trace", "--diff", "busy.trace", "--html", "a.html"), "--diff and --html each"),
        (("busy.trace", "--diff", "busy.trace", "--agent", "1"), "--diff and --agent each"),
        (("busy.trace", "--html", "a.html", "--format", "chrome"), "--html and --format chrome"),
        (("busy.trace", "--agent", "1", "--format", "chrome"), "--agent and --format chrome"),
        (("busy.trace", "--json", "--format", "chrome"), "--json and --format chrome each"),
    ],
)
def test_what_cannot_be_shown_is_told(
    desk: Desk, busy: Path, words: tuple[str, ...], why: str
) -> None:
    """In one line, with exit code 2."""
    done = desk.call("show", *words)
    assert done.code == 2
    assert why in done.err
    assert len(done.err.splitlines()) == 1


def test_a_running_trace_is_followed(desk: Desk, busy: Path) -> None:
    """Events as they come, the other half of a line when it comes, up to the pool's end."""
    whole = busy.read_bytes()
    half = len(whole) // 2
    growing = desk.folder / "growing.trace"
    growing.write_bytes(whole[:half])

    def grow() -> None:
        time.sleep(0.3)
        writer.write(b'..."}\n{"event":"of a newer version"}\n')
        writer.write(whole[half:])
        writer.close()

    writer = growing.open("ab")
    assert mark_open(writer.fileno())
    thread = threading.Thread(target=grow)
    thread.start()
    shown = desk.call("show", "growing.trace", "--follow")
    thread.join()
    assert shown.code == 0
    assert "spawned by the owner: plain" in shown.out
    assert "cancelled: agent 8 " in shown.out


def test_a_trace_whose_writer_was_killed_is_followed_to_its_end(desk: Desk) -> None:
    """Everything that is there is told, and that no more comes: it waited for ever."""
    words = ("run", "reader.toml", "endless", "--driver", "script:script.toml")
    writer = desk.start(*words, "--trace", "killed.trace")
    path = desk.folder / "killed.trace"
    until = time.monotonic() + 60
    while not (path.exists() and b"request_started" in path.read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.02)
    reader = desk.start("show", "killed.trace", "--follow")
    assert reader.stdout is not None
    assert b"spawned by the owner" in reader.stdout.readline()
    assert reader.poll() is None
    writer.kill()
    writer.communicate(timeout=60)
    out = reader.stdout.read()  # its buffer has what came with the first line
    _, err = reader.communicate(timeout=60)
    assert (reader.returncode, b"asks its model" in out) == (1, True)
    assert err.decode() == (
        "agentpool: error: the trace 'killed.trace' ends here because the program that "
        "wrote it has ended, but its pool had not closed\n"
    )


def test_one_agent_is_followed_as_json(desk: Desk, busy: Path) -> None:
    """Events as the file has them, and of no other agent."""
    shown = desk.call("show", "busy.trace", "--follow", "--agent", "4", "--json")
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert {event["agent_id"] for event in events} == {4}
    assert events[0]["event"] == "agent_spawned"


def test_a_difference_names_its_fields(desk: Desk) -> None:
    """Another answer is no other line: what is in it is."""
    for word, script in (("bees", "one"), ("wasps", "two")):
        (desk.folder / f"{script}.toml").write_text(f'[[answers]]\ntext = "About {word}."\n')
        driver = ("--driver", f"script:{script}.toml")
        desk.call("run", "reader.toml", "hi", *driver, "--trace", f"{word}.trace")
    shown = desk.call("show", "bees.trace", "--diff", "wasps.trace")
    assert shown.code == 1
    assert '  outcome.text: "About bees." / "About wasps."' in shown.out.splitlines()
    found = json.loads(desk.call("show", "bees.trace", "--diff", "wasps.trace", "--json").out)
    assert found["first"]["outcome"]["text"] == "About bees."
    assert found["fields"][0]["path"] == "outcome.text"
    same = desk.call("show", "bees.trace", "--diff", "bees.trace", "--json")
    assert (same.code, json.loads(same.out)) == (0, None)
    (desk.folder / "cut.trace").write_bytes(
        b"".join((desk.folder / "bees.trace").read_bytes().splitlines(keepends=True)[:3])
    )
    shorter = json.loads(desk.call("show", "bees.trace", "--diff", "cut.trace", "--json").out)
    assert (shorter["second"], shorter["fields"]) == (None, [])


@pytest.mark.parametrize(
    ("field", "value"), [("opened_at", 1e308), ("opened_at", -1), ("run_id", "not hex")]
)
def test_a_header_with_impossible_values_is_no_trace(
    desk: Desk, busy: Path, field: str, value: object
) -> None:
    """It is told in one line, before anything is made of it."""
    first, _, rest = busy.read_bytes().partition(b"\n")
    header = json.dumps({**json.loads(first), field: value}).encode()
    (desk.folder / "odd.trace").write_bytes(header + b"\n" + rest)
    done = desk.call("show", "odd.trace")
    assert done.code == 2
    assert "'odd.trace' is not a trace of agentpool" in done.err
    assert field in done.err


def test_a_line_that_never_ends_is_not_followed(
    desk: Desk, busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes it is no TraceWriter, and memory is bounded."""
    header = busy.read_bytes().partition(b"\n")[0] + b"\n"
    monkeypatch.setattr(_show, "MAX_LINE", 1000)
    (desk.folder / "endless.trace").write_bytes(header + b"x" * 2000)
    done = desk.call("show", "endless.trace", "--follow")
    assert done.code == 2
    assert "the trace has a line that does not end; it is damaged" in done.err


def test_every_event_has_a_line() -> None:
    """Also one that tells no more than its kind."""
    lines = [event_line(event) for event in every_event(0)]
    assert all(line and "\n" not in line for line in lines)
    assert any("answered after 0.50 s, 3 tokens" in line for line in lines)
    failed = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED)
    assert event_line(AgentFinished(1, 0.0, 1, "a", failed)).endswith("1 a: completed")


async def test_a_large_pool_is_shown_in_part(tmp_path: Path) -> None:
    """And says how much is left out; a tree has its branches."""
    path = tmp_path / "a.trace"
    many = TREE_ROWS + 5
    async with (
        TraceWriter(path) as trace,
        open_pool(ScriptedDriver(["hi"] * many), observers=[trace]) as pool,
    ):
        long = "a name that is longer than its column is wide"
        await pool.fan_out([SpawnConfig(manifest(), "hi", name=long) for _ in range(many)])
        await pool.join_all()
    read = read_trace(path)
    text = overview(read, record_of(read.events))
    assert "… and 5 more agents; --json has all of them" in text
    assert "1 a name that is longer than its column…" in text


def test_children_stand_below_their_parents_and_warnings_are_counted(tmp_path: Path) -> None:
    """The tree, with its branches; what is tolerated is told a few times."""
    from agentpool.observe import AgentSpawned

    def spawned(number: int, agent_id: int, parent_id: int) -> AgentSpawned:
        return AgentSpawned(number, 0.0, agent_id, f"n{agent_id}", parent_id)

    events: list[Event] = [
        spawned(1, 1, 0), spawned(2, 2, 1), spawned(3, 3, 2), spawned(4, 4, 1), spawned(5, 5, 0),
    ]  # fmt: skip
    events += [AgentWarned(n, 0.0, 1, "n1", f"warning {n}") for n in range(6, 18)]
    path = tmp_path / "a.trace"
    header = b'{"format":"agentpool-trace","version":1,"run_id":"ab","pool":"p","opened_at":1.0,'
    lines = b"".join(event_to_json(event) + b"\n" for event in events)
    path.write_bytes(header + b'"max_concurrent":2}\n' + lines + b"{")
    read = read_trace(path)
    text = overview(read, record_of(read.events))
    tree = [line[:12].rstrip() for line in text.splitlines() if "open" in line and line[0] != "5"]
    assert "1 n1" in tree
    assert "├─ 2 n2" in tree
    assert "│  └─ 3 n3" in tree
    assert "└─ 4 n4" in tree
    assert "5 open; the pool had not closed" in text
    assert "… and 2 more warnings" in text
    assert "this trace: the last line is cut" in text
    record = record_of(read.events)
    assert record.with_children()[record.agents[1].agent_id].unpriced == 0
    arrows = json.loads(chrome_trace(read.header, record))["traceEvents"]
    assert [(e["tid"], e["id"]) for e in arrows if e["ph"] == "s"] == [(1, 2), (2, 3), (1, 4)]
    assert transcript(record.agents[1], has_times=True).endswith("never ran\n")


def test_what_an_agent_said_steers_no_terminal_behind_a_pipe(desk: Desk) -> None:
    """A pager hands on what it is given."""
    desk.write(script_toml='[[answers]]\ntext = "a\\u001b[2Jb\\u202ec\\nd"')
    desk.scripted("run", "reader.toml", "hello", "--trace", "a.trace")
    shown = desk.call("show", "a.trace", "--agent", "1").out
    assert "a\\x1b[2Jb\\u202ec\nd" in shown
    assert all(sign.isprintable() or sign in "\n\t" for sign in shown)
