"""``agentpool show`` of a pool that still ran, or was killed: who waits for what, since when."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentpool import AgentCancelledError, AgentOutcome, AgentStatus
from agentpool._cli._trace_text import WARNINGS, overview
from agentpool._cli._transcript_text import transcript
from agentpool._scheduling.waits import WaitReason
from agentpool.drivers import ToolCall
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentQueued,
    AgentSpawned,
    AgentStarted,
    Event,
    FellBack,
    RequestFailed,
    RequestFirstPiece,
    RequestRetried,
    RequestStarted,
    ThoughtDelta,
    ToolFinished,
    ToolStarted,
    Trace,
    TraceHeader,
    WindowCut,
    record_of,
    render_report,
)
from tests.support.cli_runner import Desk, make_desk

HEADER = TraceHeader(run_id="ab" * 16, pool="night", opened_at=1.7e9, max_concurrent=2)


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder in which commands run."""
    return make_desk(tmp_path, capsys, monkeypatch)


def at(seconds: float, agent_id: int) -> tuple[int, float, int, str]:
    """Return the stamp of an event."""
    return round(seconds * 100) + agent_id, seconds, agent_id, f"n{agent_id}"


def begun(agent_id: int) -> list[Event]:
    """Return the begin of an agent's life."""
    return [AgentSpawned(*at(0.0, agent_id), 0, model="big"), AgentStarted(*at(0.01, agent_id))]


def asked(agent_id: int, seconds: float, model: str = "") -> RequestStarted:
    """Return the begin of a request."""
    return RequestStarted(*at(seconds, agent_id), 2, 1, model, by_tool=False, sent=())


def shown(*events: Event) -> str:
    """Return what is shown of a pool that had not closed."""
    return overview(Trace(header=HEADER, events=events), record_of(events))


def waiting_in(*events: Event) -> list[str]:
    """Return the lines of those that wait."""
    _, _, after = shown(*events).partition("waiting when the trace ends\n")
    return [line.strip() for line in after.partition("\n\n")[0].splitlines()]


def test_a_wait_in_a_tool_is_told_with_its_tool_and_since_when() -> None:
    """It is among the slowest calls, and the tool has a row, although the call never ended."""
    call = ToolCall("c", "wait_for_message", "{}")
    events = (
        *begun(1), *begun(2),
        ToolStarted(*at(0.1, 1), call, 1),
        AgentParked(*at(0.16, 1), "a message", WaitReason.MESSAGE),
        ToolStarted(*at(0.2, 2), ToolCall("d", "dig", "{}"), 1),
        ToolFinished(*at(13.0, 2), ToolCall("d", "dig", "{}"), "", False, 1, 12.8),  # noqa: FBT003  # by place, as others
    )  # fmt: skip
    text = shown(*events)
    assert waiting_in(*events) == [
        "agent 1 (n1): waits for a message, in wait_for_message, turn 1; since 0.16 s, for 12.84 s",
        "agent 2 (n2): its own code runs; since 13.00 s, for 0.00 s",
    ]
    assert "12.90 s  tool wait_for_message, agent 1 (n1), turn 1, still open" in text
    rows = [line.split()[:4] for line in text.splitlines() if line.startswith(("wait_for", "dig"))]
    assert rows == [["wait_for_message", "0", "1", "0"], ["dig", "1", "0", "0"]]
    page = render_report(Trace(header=HEADER, events=events))
    assert "when the trace ends: waits for a message, in wait_for_message" in page


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (AgentQueued(*at(1.0, 1), 2, 2, 0, again=True), "waits for a slot; since 1.00 s"),
        (asked(1, 1.0), "waits for its model, which has not said a word; since 1.00 s"),
        (ToolStarted(*at(1.0, 1), ToolCall("c", "dig", "{}"), 1), "runs dig; since 1.00 s"),
        (AgentParked(*at(1.0, 1), "gate 'x'", WaitReason.GATE), "waits for gate 'x'; since"),
    ],
)
def test_what_goes_on_is_said_in_words(event: Event, words: str) -> None:
    """Whatever it is that the agent does or waits for."""
    (line,) = waiting_in(*begun(1), event, AgentQueued(*at(3.0, 7), 0, 0, 0, again=False))
    assert f"agent 1 (n1): {words}" in line
    assert line.endswith("for 2.00 s")


def test_a_request_without_an_end_counts_as_long_as_its_agent_or_the_trace_lives() -> None:
    """One that failed has an end."""
    outcome = AgentOutcome(
        agent_id=1, name="n1", status=AgentStatus.CANCELLED,
        error=AgentCancelledError("enough", cancelled_by="owner", reason="late"),
    )  # fmt: skip
    events: tuple[Event, ...] = (
        *begun(1), *begun(2), asked(1, 1.0, "small"), asked(2, 1.0), asked(2, 1.5),
        RequestFirstPiece(*at(1.5, 2), asked(2, 1.0).sequence, 0.5),
        RequestFailed(*at(1.6, 2), asked(2, 1.5).sequence, 1, "X", "gone", by_tool=False),
        AgentFinished(*at(4.0, 1), outcome),
        AgentQueued(*at(9.0, 7), 0, 0, 0, again=False),
    )  # fmt: skip
    text = shown(*events)
    assert "8.00 s  model big, agent 2 (n2), turn 2, still open" in text
    assert "3.00 s  model small, agent 1 (n1), turn 2, cut off" in text
    assert text.count("still open") == 1
    assert "agent 2 (n2): waits for its model, which writes; since 1.50 s" in text
    assert "1 cancelled, 1 open; the pool had not closed" in text
    assert record_of(events).agents[1].going_on == ""


def test_a_model_that_took_over_and_retries_are_told() -> None:
    """With the names of the models, how often, and how long it took."""
    events = (
        *begun(1), *begun(2),
        FellBack(*at(1.0, 1), 1, 2, "RateLimitError", "slow down", "big", "small"),
        FellBack(*at(1.0, 2), 1, 2, "", ""),
        *(RequestRetried(*at(float(n), 1), n, 1.5, f"busy {n}") for n in (1, 2, 3)),
        RequestRetried(*at(5.0, 2), 1, 0.5, "gone"),
    )  # fmt: skip
    text = shown(*events)
    assert "fell back: 1 n1 from big to small: RateLimitError: slow down" in text
    assert (
        "fell back: 2 n2 from driver 1 to driver 2: it was skipped, since it had failed too often"
        in text
    )
    assert "retried: 1 n1 3 times, after 4.5 s: busy 3" in text
    assert "retried: 2 n2 once, after 0.5 s: gone" in text
    many = [FellBack(*at(1.0, 1), 1, 2, "X", str(n)) for n in range(WARNINGS + 3)]
    assert "… and 3 more of these" in shown(*begun(1), *many)


def test_what_was_thought_when_the_trace_ends_is_read() -> None:
    """And what has left the window for a request that nothing came of, behind all messages."""
    cut = WindowCut(*at(1.0, 1), "drop", 3, 0, 900)
    thoughts = (ThoughtDelta(*at(1.2, 1), "Whales "), ThoughtDelta(*at(1.3, 1), "sing."))
    agent = record_of((*begun(1), cut, asked(1, 1.1), *thoughts)).agents[1]
    told = transcript(agent, has_times=True)
    assert told.index(cut.words()) < told.index("as far as it had come\nWhales sing.\n")


def test_only_the_first_of_those_that_failed_is_called_first() -> None:
    """Of many that fail with one line, each has its own."""
    ends = [
        AgentFinished(*at(n, n), AgentOutcome(
            agent_id=n, name=f"n{n}", status=AgentStatus.FAILED, error=ConnectionError(f"line {n}")
        )) for n in (1, 2)
    ]  # fmt: skip
    text = shown(*begun(1), *begun(2), *ends)
    assert "failed first: agent 1 (n1), after 1.00 s: ConnectionError: line 1" in text
    assert "\nfailed: agent 2 (n2), after 2.00 s: ConnectionError: line 2" in text


def test_a_thousand_that_wait_are_not_all_listed() -> None:
    """As in the tree."""
    spawned = [AgentSpawned(n, 0.0, n, f"n{n}", 0) for n in range(1, 231)]
    assert waiting_in(*spawned)[-1] == "… and 30 more that had not ended"


def test_a_journal_has_no_times_and_says_none(desk: Desk) -> None:
    """No year 1970, and no word about a pool that had not closed."""
    desk.scripted("run", "reader.toml", "hello", "--journal", "j.db")
    text = desk.call("show", "j.db", "--pool", "run").out
    assert "1 agent: 1 completed\n" in text
    assert not any(word in text for word in ("1970", "had not closed", "slowest", "waiting when"))
