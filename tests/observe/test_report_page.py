"""The report: one page that tells all of it, to people and to those who run no scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from trio.testing import MockClock

from agentpool import (
    AgentMessage,
    AgentOutcome,
    AgentStatus,
    LimitExceededError,
    SpawnConfig,
    StopReason,
    open_pool,
)
from agentpool._errors import AgentCancelledError
from agentpool.drivers import (
    AssistantMessage,
    FinishReason,
    ScriptedDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentQueued,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    AgentWarned,
    ApprovalGiven,
    BudgetNear,
    BudgetReached,
    CompletionReceived,
    Event,
    EventsMissed,
    FellBack,
    GateChanged,
    MessagesAdded,
    MessageSent,
    RecordedError,
    RequestRetried,
    RequestStarted,
    SlotsChanged,
    ToolFinished,
    Trace,
    TraceHeader,
    TraceWriter,
    WaitReason,
    read_trace,
    record_of,
    render_report,
)
from agentpool.observe._critical_path import Step, critical_path
from agentpool.observe._findings import BAD, NOTE, ODD, circle_of, findings_of
from agentpool.observe._report import STATIC_ROWS
from agentpool.observe._report_data import MAX_INTERVALS, MAX_TEXT, MAX_TEXTS, report_data
from tests.support.busy_pool import HOSTILE, busy_pool
from tests.support.fakes import Recorder, manifest
from tests.support.troubled_pool import TITLES, troubled_pool

HEADER = TraceHeader(run_id="ab" * 16, pool="night", opened_at=1.7e9, max_concurrent=2)


def trace_of(*events: Event) -> Trace:
    """Return a trace of these events, of a pool that had not closed."""
    return Trace(header=HEADER, events=events)


class Page(HTMLParser):
    """What a browser would make of the page, as far as the tests ask."""

    def __init__(self, html: str) -> None:
        """Read it."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._inside = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # only scripts and styles nest
        """Note that it is over."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Keep scripts and styles apart from what is read."""
        self.texts[self._inside] = self.texts.get(self._inside, "") + data


async def busy_page() -> str:
    """Return the report of a pool in which everything happens."""
    recorder = Recorder()
    await busy_pool([recorder])
    return render_report(trace_of(*recorder.events))


def read(html: str) -> Page:
    """Return the page, read."""
    return Page(html)


async def test_the_page_may_load_nothing(autojump_clock: MockClock) -> None:
    """No request, whatever is in it; script and style are known by their hashes."""
    page = read(await busy_page())
    (policy,) = [
        attrs["content"] or ""
        for tag, attrs in page.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attrs in page.tags:
        assert tag not in {"img", "iframe", "link", "object", "embed", "base", "form"}
        assert not {"src", "style", "srcset", "action"} & set(attrs)
        assert not any(name.startswith("on") for name in attrs)
        assert (attrs.get("href") or "#").startswith("#")


async def test_what_agents_write_stays_text(autojump_clock: MockClock) -> None:
    """Scripts, escapes and marks of direction are shown and do nothing."""
    html = await busy_page()
    page = read(html)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert "\x1b" not in html
    assert "\u202e" not in html.replace(page.texts["data"], "")
    assert "\x00" not in html
    assert "⟨U+202E⟩gnp.exe" in page.texts[""]
    assert "<" not in page.texts["data"]
    assert HOSTILE in json.loads(page.texts["data"])["agents"][0][1]


async def test_the_summary_needs_no_script(autojump_clock: MockClock) -> None:
    """Who reads the source, or searches it, finds what matters."""
    text = read(await busy_page()).texts[""]
    assert "6 completed, 1 failed, 1 cancelled" in text
    for word in ("Failed first", "NetworkError", "it takes too"):
        assert word in text
    assert "Traceback (most recent call last):" in text
    assert "$0.0171" in text
    assert "5 plain" not in text


async def test_the_data_has_every_second_and_every_word(autojump_clock: MockClock) -> None:
    """What the lanes and the transcripts are drawn from."""
    data = json.loads(read(await busy_page()).texts["data"])
    agents = {agent[0]: agent for agent in data["agents"]}
    search = agents[2]
    assert search[3] == "completed"
    assert search[5:8] == [3, [3, 0], [320, 70, 140, 0, []]]
    life = search[15]
    reasons = [data["reasons"][life[at]] for at in range(1, len(life), 4)]
    assert reasons == ["model", "tool", "model", "tool", "model", "answer"]
    assert [life[at] for at in range(0, len(life), 4)] == [0, 0.5, 1.5, 2, 3, 3.5, 4]
    kinds = [message[0] for message in search[16]]
    assert kinds == ["user", "model", "tool", "model", "failed", "model"]
    assert data["tools"][0][:3] == ["search", 2, 1]
    assert {model[0] for model in data["models"]} == {"m-1", "small"}
    assert data["messages"][0][1:3] == [7, 8]


def test_an_empty_trace_has_a_page() -> None:
    """A pool in which nothing happened, and nothing went wrong."""
    closed = Trace(header=HEADER, events=(), statistics=None)
    page = read(render_report(closed)).texts[""]
    assert "the pool had not closed" in page
    assert critical_path(record_of(())) == ()


def spawned(sequence: int, agent_id: int, parent_id: int = 0, at: float = 0.0) -> AgentSpawned:
    """Return the spawn of an agent."""
    return AgentSpawned(sequence, at, agent_id, f"n{agent_id}", parent_id)


def ended(
    at: float, agent_id: int, status: AgentStatus, error: Exception | None = None
) -> AgentFinished:
    """Return the end of an agent."""
    outcome = AgentOutcome(agent_id=agent_id, name=f"n{agent_id}", status=status, error=error)
    return AgentFinished(99, at, agent_id, f"n{agent_id}", outcome)


# --- what went wrong


def titles(*events: Event) -> list[tuple[str, str]]:
    """Return level and title of each finding."""
    trace = trace_of(*events)
    return [(f.level, f.title) for f in findings_of(trace, record_of(events))]


def test_everything_that_explains_a_run_is_found() -> None:
    """What went wrong in the order in which it did, then what explains it, under its name."""
    at = (9, 1.0, 1, "n1")
    limit = LimitExceededError("spent", kind="token_budget", used=1, limit=1, source="night")
    cancelled = AgentCancelledError("enough", cancelled_by="owner", reason="late")
    found = titles(
        spawned(1, 1), spawned(2, 2), spawned(3, 3), spawned(4, 4), spawned(5, 5, 4),
        BudgetReached(*at, "night", StopReason.TOKEN_BUDGET, 10, 10),
        BudgetNear(*at, "night", StopReason.COST_BUDGET, 8, 10),
        FellBack(*at, 1, 2, "OverloadedError", "busy"),
        FellBack(*at, 1, 2, "", ""),
        GateChanged(*at, "home", 2, 1, 3, 5.0),
        RequestRetried(*at, 1, 2.0, "busy"),
        SlotsChanged(9, 1.0, 0, "", 4),
        EventsMissed(9, 1.0, 0, "", 7),
        AgentWarned(*at, "near"),
        ended(2, 1, AgentStatus.FAILED, ValueError("x")),
        ended(1, 2, AgentStatus.FAILED, ValueError("y")),
        ended(3, 3, AgentStatus.STOPPED, limit),
        ended(3, 4, AgentStatus.CANCELLED, cancelled),
    )  # fmt: skip
    assert found == [
        (BAD, "Failed first"),
        (ODD, "Budget spent"),
        (ODD, "Events are missing"),
        (ODD, "Warning"),
        (BAD, "Failed"),
        (ODD, "Stopped"),
        (ODD, "Cancelled"),
        (ODD, "Had not ended"),
        (ODD, "This trace"),
        (NOTE, "Budget nearly spent"),
        (NOTE, "Fallback"),
        (NOTE, "Fallback"),
        (NOTE, "Gate closed"),
        (NOTE, "Request retried"),
        (NOTE, "Slots changed"),
    ]


def test_who_failed_first_in_time_is_first() -> None:
    """Not who was spawned first; and of an open agent it is told what it did."""
    events = (
        spawned(1, 1), spawned(2, 2), spawned(3, 3), AgentStarted(4, 0.5, 3, "n3"),
        ended(1, 2, AgentStatus.FAILED, ValueError("y")),
        ended(2, 1, AgentStatus.FAILED, ValueError("x")),
    )  # fmt: skip
    found = findings_of(trace_of(*events), record_of(events))
    assert (found[0].agent_id, found[0].title) == (2, "Failed first")
    assert (found[0].at_seconds, found[0].text) == (1.0, "ValueError: y")
    assert found[2].text == "when the trace ends: its own code runs; since 0.50 s, for 1.50 s"


def test_a_trace_that_is_not_whole_says_so() -> None:
    """What could not be read may be what went wrong."""
    trace = Trace(header=HEADER, events=(), problems=("the last line is cut",))
    found = [finding.text for finding in findings_of(trace, record_of(()))]
    assert found == ["the last line is cut", "the pool had not closed when it ends"]


def test_many_of_a_kind_are_counted() -> None:
    """Eighty warnings hide what matters."""
    events = tuple(AgentWarned(n, 0.0, 0, "", f"w{n}") for n in range(30))
    found = findings_of(trace_of(spawned(1, 1), *events), record_of((spawned(1, 1), *events)))
    assert len([f for f in found if f.title == "Warning"]) <= 9


def left(at: float, agent_id: int, by: int) -> AgentFinished:
    """Return the end of an agent whose parent waits no more."""
    told = f"agent {agent_id} was cancelled by agent {by}: its parent no longer waits for it"
    error = AgentCancelledError(
        told, cancelled_by=f"agent {by}", reason="its parent no longer waits for it"
    )
    return ended(at, agent_id, AgentStatus.CANCELLED, error)


def cancelled(at: float, agent_id: int, reason: str) -> AgentFinished:
    """Return the end of an agent that its owner cancelled."""
    error = AgentCancelledError(f"by owner: {reason}", cancelled_by="owner", reason=reason)
    return ended(at, agent_id, AgentStatus.CANCELLED, error)


def test_a_cancelled_subtree_is_one_thing() -> None:
    """Whoever went along is named where it began; another reason is told on its own."""
    events: tuple[Event, ...] = (
        spawned(1, 1), spawned(2, 2, 1), spawned(3, 3, 2), spawned(4, 4, 1), spawned(5, 5, 1),
        spawned(6, 6), spawned(7, 7, 6), spawned(8, 8), spawned(9, 9, 8),
        left(1, 3, 2), left(1, 2, 1), cancelled(1, 4, "it is late"),
        ended(1, 5, AgentStatus.CANCELLED, ValueError("odd")), cancelled(2, 1, "drop it"),
        left(1, 7, 6), ended(2, 6, AgentStatus.FAILED, ValueError("x")),
        left(1, 9, 8), cancelled(2, 8, "drop that"),
    )  # fmt: skip
    found = findings_of(trace_of(*events), record_of(events))
    told = {f.agent_id: (f.text, f.count) for f in found if f.title == "Cancelled"}
    assert told == {
        1: ("by owner: drop it; with it 2 agents below it: 2 (n2), 3 (n3)", 3),
        4: ("by owner: it is late", 1),
        5: ("odd", 1),
        7: ("agent 7 was cancelled by agent 6: its parent no longer waits for it", 1),
        8: ("by owner: drop that; with it 1 agent below it: 9 (n9)", 2),
    }
    assert ">Cancelled (8)<" in render_report(trace_of(*events))


def test_a_large_subtree_names_some() -> None:
    """And counts the others."""
    many = range(2, 40)
    events: tuple[Event, ...] = (
        spawned(1, 1), *(spawned(n, n, 1) for n in many), *(left(1, n, 1) for n in many),
        cancelled(2, 1, "drop it"),
    )  # fmt: skip
    (found,) = (f for f in findings_of(trace_of(*events), record_of(events)) if f.agent_id == 1)
    assert "; with it 38 agents below it: 2 (n2), 3 (n3)," in found.text
    assert found.text.endswith("9 (n9), 30 more")
    assert ">Cancelled (39)<" in render_report(trace_of(*events))


def test_many_failures_are_counted_where_they_stand() -> None:
    """What follows is not between some of a kind and how many more there are."""
    ids = range(1, 13)
    events: tuple[Event, ...] = (
        *(spawned(n, n) for n in ids), AgentWarned(13, 0.5, 1, "n1", "near"),
        *(ended(n, n, AgentStatus.FAILED, ValueError("x")) for n in ids),
    )  # fmt: skip
    found = findings_of(trace_of(*events), record_of(events))
    place = next(i for i, f in enumerate(found) if f.text == "… and 3 more of these")
    assert (found[place].level, found[place].title, found[place].count) == (BAD, "Failed", 3)
    assert [f.title for f in found[:place]] == ["Warning", "Failed first", *["Failed"] * 8]
    assert "Failed" not in {f.title for f in found[place + 1 :]}
    kinds = render_report(trace_of(*events))
    assert ">Failed (11)<" in kinds
    assert ">Failed<" not in kinds.partition('<ol class="findings">')[0]


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        ("1 (a) asks 2 (b), which joins 1 (a)", (1, 2)),
        ("tool 'ask' failed: DeadlockError: 2 (b) asks 1 (a), which asks 2 (b)", (2, 1)),
        ("1 (a) waits for a message, and no running agent can unblock it", ()),
        ("1 (a) asks 9 (z), which asks 1 (a)", ()),
        ("", ()),
    ],
)
def test_a_deadlock_is_a_circle(text: str, circle: tuple[int, ...]) -> None:
    """Of agents that are known; other words make none."""
    record = record_of((spawned(1, 1), spawned(2, 2)))
    assert circle_of(record, text) == circle


def test_a_deadlock_is_drawn() -> None:
    """Of an agent that failed with it, or of its tool."""
    text = "1 (n1) asks 2 (n2), which asks 1 (n1)"
    call = ToolCall("c", "ask", "{}")
    events = (
        spawned(1, 1), spawned(2, 2),
        ToolFinished(3, 0.5, 2, "n2", call, f"DeadlockError: {text}", is_error=True,
                     error_type="DeadlockError"),
        ended(1, 1, AgentStatus.FAILED, RecordedError(text, kind="DeadlockError")),
    )  # fmt: skip
    html = render_report(trace_of(*events))
    assert html.count('data-circle="1 2"') == 2
    assert "1 n1, which waits for 2 n2, which waits for the first" in html
    assert "<strong>Deadlock</strong>" in html


# --- the critical path


def test_the_path_goes_through_who_was_waited_for() -> None:
    """A child that its parent joined, and who held the slot before that."""
    events: tuple[Event, ...] = (
        spawned(1, 1),
        AgentStarted(2, 0.0, 1, "n1"),
        spawned(3, 2),
        AgentQueued(4, 0.0, 2, "n2", 1, 1, 0, again=False),
        ended(2, 1, AgentStatus.COMPLETED),
        AgentStarted(6, 2.0, 2, "n2"),
        spawned(7, 3, 2, at=3.0),
        AgentParked(8, 3.0, 2, "n2", "the end of agent 3", WaitReason.AGENT, 3),
        AgentStarted(9, 3.0, 3, "n3"),
        ended(7, 3, AgentStatus.COMPLETED),
        AgentResumed(11, 7.0, 2, "n2"),
        ended(8, 2, AgentStatus.COMPLETED),
    )
    assert critical_path(record_of(events)) == (
        Step(1, 0.0, 2.0),
        Step(2, 2.0, 3.0),
        Step(3, 3.0, 7.0),
        Step(2, 7.0, 8.0),
    )


def test_a_circle_of_waits_has_an_end() -> None:
    """Two that wait for each other lead nowhere, and the walk ends."""
    events: tuple[Event, ...] = (
        spawned(1, 1), spawned(2, 2), AgentStarted(3, 0.0, 1, "n1"), AgentStarted(4, 0.0, 2, "n2"),
        AgentParked(5, 1.0, 1, "n1", "an answer", WaitReason.ANSWER, 2),
        AgentParked(6, 1.0, 2, "n2", "an answer", WaitReason.ANSWER, 1),
        AgentWarned(7, 5.0, 1, "n1", "nothing happens"),
    )  # fmt: skip
    assert critical_path(record_of(events)) == ()


def test_who_waits_for_the_unknown_is_on_the_path_itself() -> None:
    """An agent of another pool, or one that came later, explains nothing."""
    events: tuple[Event, ...] = (
        spawned(1, 1), AgentStarted(2, 0.0, 1, "n1"),
        AgentParked(3, 0.0, 1, "n1", "agent 9", WaitReason.AGENT, 9),
        ended(4, 1, AgentStatus.FAILED),
    )  # fmt: skip
    assert critical_path(record_of(events)) == (Step(1, 0.0, 4.0),)


# --- what is left out


def test_what_left_the_window_is_marked() -> None:
    """It is in the conversation, and the last request did not send it."""
    said = (UserMessage("a"), AssistantMessage("b"), UserMessage("c"))
    events: tuple[Event, ...] = (
        spawned(1, 1),
        MessagesAdded(2, 0.0, 1, "n1", 0, said),
        RequestStarted(3, 0.0, 1, "n1", 1, 1, "", by_tool=False, sent=((0, 1), (2, 3))),
        CompletionReceived(4, 1.0, 1, "n1", FinishReason.END_TURN, None, 1.0),
    )
    data = json.loads(report_data(trace_of(*events), record_of(events))[0])
    assert [message[-1] for message in data["agents"][0][16]] == [0, 1, 0]
    assert data["models"] == [["(not said)", 1, None, None, None, None, 1.0, None]]


def test_long_texts_are_cut_and_many_are_left_out() -> None:
    """A page that opens; what is not in it is said."""
    long = "x" * (MAX_TEXT + 5)
    said = (UserMessage(long), ToolMessage("c", "t", "half \ud800"))
    count = MAX_TEXTS // (MAX_TEXT * 100) + 3
    events: list[Event] = []
    for number in range(1, count + 1):
        events += [spawned(number, number), MessagesAdded(number, 0.0, number, "n", 0, said * 100)]
    html = render_report(trace_of(*events))
    data = json.loads(read(html).texts["data"])
    first = data["agents"][0][16][0][1]
    assert first.endswith("… [5 more characters in the trace]")
    assert data["agents"][0][16][1][1] == "half \\ud800"
    assert data["agents"][-1][16] == []
    assert re.search(r"the conversations of \d agents are left out", html)


def test_a_pool_with_too_many_steps_is_shown_without_some() -> None:
    """Ten agents with each a million turns, say."""
    record = record_of((spawned(1, 1), AgentStarted(2, 1.0, 1, "n1"), spawned(3, 2)))
    record.agents[1].intervals = record.agents[1].intervals * (MAX_INTERVALS + 1)
    data, problems = report_data(trace_of(), record)
    assert json.loads(data)["agents"][0][15] == []
    assert problems == ["the times of some agents are left out: there are too many"]


def test_many_agents_are_listed_in_part_for_those_without_scripts() -> None:
    """And long times are said as people say them."""
    events: list[Event] = [spawned(n, n) for n in range(1, STATIC_ROWS + 6)]
    events.append(MessageSent(500, 4000.0, 1, "n1", AgentMessage(1, 2, "x", 1)))
    text = read(render_report(trace_of(*events))).texts[""]
    assert "… and 5 more agents." in text
    assert "1 h 6 min" in text
    assert "1 min 30 s" in read(render_report(trace_of(spawned(1, 1), *minute()))).texts[""]


def minute() -> tuple[Event, ...]:
    """Return what happens a minute and a half later."""
    return (AgentWarned(9, 90.0, 1, "n1", "late"),)


async def test_nothing_that_went_wrong_is_said(tmp_path: Path) -> None:
    """Whoever opens the page need not wonder whether something is missing."""
    async with (
        TraceWriter(tmp_path / "a") as trace,
        open_pool(ScriptedDriver(["hi"]), observers=[trace]) as pool,
    ):
        await pool.spawn(SpawnConfig(manifest(), "hi"))
    html = render_report(read_trace(tmp_path / "a"))
    assert '<header class="top good">' in html
    assert "<h2>What went wrong</h2><p>Nothing.</p>" in html


async def test_each_thing_that_went_wrong_is_found(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One question, one place: a deadlock, a budget, a fallback, an approval and the rest."""
    async with TraceWriter(tmp_path / "a.trace", secrets=()) as writer:
        await troubled_pool([writer])
    page = render_report(read_trace(tmp_path / "a.trace"))
    section = page[page.index('<section id="findings">') : page.index('<section id="timeline"')]
    kinds = section[section.index('<ul class="kinds">') : section.index("</ul>")]
    assert [title for title in TITLES if f">{title}" not in kinds] == []
    assert "Cancelled (4)" in kinds
    assert re.search('data-circle="(1 2|2 1)"', section)
    for told in (
        "with it 2 agents below it: 11 (helper", "budget &#x27;reading&#x27;",
        "from driver 1 to driver 2",
        "erase: by kim after 1.5 s: the archive stays", "too many requests",
        "from the owner to 10", "the archive has no page 12",
    ):  # fmt: skip
        assert told in section, told


def test_an_approved_call_is_told_too() -> None:
    """It explains where the time went."""
    given = ApprovalGiven(
        2, 1.5, 1, "a", ToolCall("c", "erase", "{}"), approved=True, reason="", waited_seconds=1.5
    )
    events = (AgentSpawned(1, 0.0, 1, "a", 0), given)
    trace = Trace(
        header=TraceHeader(run_id="ab" * 16, pool="p", opened_at=0.0, max_concurrent=1),
        events=events,
    )
    page = render_report(trace)
    assert "Call approved" in page
    assert "erase: after 1.5 s" in page
