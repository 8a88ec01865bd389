"""``agentpool show`` of a journal: the same words as of a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from agentpool import (
    AgentManifest,
    Capability,
    CapabilityKind,
    SpawnConfig,
    open_pool,
    trace_of_journal,
)
from agentpool._recorded_results import Answered, Summed, encode
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import FunctionDriver, OverloadedError, ToolMessage, UserMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, JournalRecord, RecordKind
from agentpool.observe import Trace, record_of
from agentpool.testing import simulate
from agentpool.tools import (
    TEAM_TOOLS,
    ApprovalRequest,
    Changed,
    Decision,
    Denied,
    ToolRegistry,
    tool,
)
from tests.support.cli_runner import Desk, make_desk

MAP = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--journal", "j.db")


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with a journal of a map, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two")
    assert desk.scripted(*MAP, "--trace", "t").code == 0
    return desk


def test_a_journal_is_shown_as_its_trace(desk: Desk) -> None:
    """But for the times, which it does not have."""
    kept, traced = (desk.call("show", name, "--json").lines[0] for name in ("j.db", "t"))
    for name in ("usage", "cost_usd", "first_failure"):
        assert (name, kept[name]) == (name, traced[name])
    shown = ("agent_id", "name", "parent_id", "status", "turns", "requests", "usage", "cost_usd")
    for one, other in zip(kept["agents"], traced["agents"], strict=True):
        assert {name: one[name] for name in shown} == {name: other[name] for name in shown}
    one, other = (desk.call("show", name, "--agent", "1").out for name in ("j.db", "t"))
    assert one.partition("---")[2] == other.partition("---")[2]
    assert "A note." in one


def test_times_that_a_journal_does_not_keep_are_unknown(desk: Desk) -> None:
    """And not zero, or in 1970."""
    assert desk.call("show", "j.db", "--html", "j.html").code == 0
    page = (desk.folder / "j.html").read_text()
    assert "read from a journal, which keeps no times" in page
    assert "1970" not in page
    assert '<dt>time</dt><dd>?</dd><dd class="more"></dd>' in page
    assert "<td>?</td><td>1</td>" in page
    assert '"seconds":null' in page
    (found,) = desk.call("show", "j.db", "--json").lines
    assert (found["opened_at"], found["seconds"]) == (None, None)
    for name in ("spawned_at", "started_at", "finished_at", "seconds"):
        assert {agent[name] for agent in found["agents"]} == {None}
    shown = desk.call("show", "j.db").out
    assert "0.0" not in shown
    assert "times unknown" in desk.call("show", "j.db", "--agent", "1").out
    done = desk.call("show", "j.db", "--format", "chrome")
    assert (done.code, "is a journal and keeps no times" in done.err) == (2, True)


def test_a_pool_is_chosen(desk: Desk) -> None:
    """If there are several; a trace has one."""
    assert desk.scripted("run", "reader.toml", "q", "--journal", "j.db").code == 0
    done = desk.call("show", "j.db")
    assert (done.code, "say which pool with --pool; the journal has 'map', 'run'" in done.err) == (
        2, True,
    )  # fmt: skip
    assert desk.call("show", "j.db", "--pool", "run").code == 0
    wrong = desk.call("show", "j.db", "--pool", "rum").err
    assert "the journal has no pool 'rum'; it has 'map', 'run'" in wrong
    assert "--pool works with journals" in desk.call("show", "t", "--pool", "run").err
    assert "--follow works with traces only" in desk.call("show", "j.db", "--follow").err
    assert desk.call("show", "none").code == 2


# --- what a journal has of a run


@tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


OTHERS = (
    JournalRecord(0, RecordKind.HEAD),
    JournalRecord(2, RecordKind.TAKEN, body=b"[]"),
    JournalRecord(2, RecordKind.RESULT, 9, body=b'{"messages":[],"interrupted":true}'),
    JournalRecord(
        2, RecordKind.RESULT, 8, body=encode(Answered(None, passed_shared=False, exhausted=None))
    ),
    JournalRecord(2, RecordKind.RESULT, 10, body=encode(Summed("short", ""))),
    JournalRecord(2, RecordKind.RESULT, 11, body=encode(Summed("s", "", Completion("short")))),
)
"""What other pools have: of sessions, of interruptions, of full windows."""


def test_everything_that_is_kept_is_told() -> None:
    """Of an agent that ended, and of one that has not: requests, calls, approvals, messages."""
    asked = 0

    def answer(request: CompletionRequest) -> Answer:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OverloadedError("busy")
        first, done = request.messages[0], len(request.messages)
        assert isinstance(first, UserMessage)
        results = [one for one in request.messages if isinstance(one, ToolMessage)]
        if first.text == "stay" and done > 2:
            return call("wait_for_message")
        if len(results) < 2:
            return call("pay", amount=len(results))
        return call("send_message", to=0, content="paid") if len(results) == 2 else "done"

    def approve(request: ApprovalRequest) -> Decision:
        return (
            Denied("no")
            if '"amount":0' in request.call.arguments.replace(" ", "")
            else Changed('{"amount": 7}')
        )

    async def scenario() -> Trace:
        journal = InMemoryJournal()
        manifest = AgentManifest(capabilities=(Capability(CapabilityKind.MESSAGE),))
        async with open_pool(
            FunctionDriver(answer), tools=ToolRegistry([pay, *TEAM_TOOLS]), journal=journal,
            approve=approve,
        ) as pool:  # fmt: skip
            await (await pool.spawn(SpawnConfig(manifest, "go", key="a"))).wait()
            await pool.spawn(SpawnConfig(manifest, "stay", key="b"))
            await trio.sleep(1)
            pool.abort_all()
        return trace_of_journal("pool", (*await journal.read("pool"), *OTHERS))

    trace = simulate(scenario)
    kinds = {type(event).__name__ for event in trace.events}
    assert kinds == {
        "AgentSpawned", "AgentStarted", "AgentFinished", "ApprovalAsked", "ApprovalGiven",
        "CompletionReceived", "MessageSent", "MessagesAdded", "RequestFailed", "RequestStarted",
        "ToolFinished",
    }  # fmt: skip
    record = record_of(trace.events)
    ended, left = record.agents.values()
    assert (ended.status, left.status) == ("completed", "open")
    assert (ended.requests, ended.failed_requests, ended.tool_calls) == (5, 1, 3)
    assert left.messages[0] == UserMessage("stay")
    assert [one.reason for one in record.notices if hasattr(one, "reason")][:2] == ["no", ""]


@pytest.mark.parametrize("per", [(), ("--per", "day")])
def test_a_request_that_a_budget_refused_was_not_made(desk: Desk, per: tuple[str, ...]) -> None:
    """Nobody got it, and the command and its trace do not count it either."""
    words = (*MAP[:-1], "few.db", "--max-requests", "1", *per, "--trace", "few")
    assert desk.scripted(*words).code == 3
    for name in ("few.db", "few"):
        (found,) = desk.call("show", name, "--json").lines
        assert (found["requests"], found["failed_requests"]) == (1, 0)
        assert sorted(agent["requests"] for agent in found["agents"]) == [0, 1]


def test_a_summary_that_a_budget_refused_was_not_made() -> None:
    """One that failed was; one of the earliest version, whose answer was not kept, as well."""
    ends = (Summed("cut", "no budget"), Summed("short", ""), Summed("s", "", Completion("short")))
    begun = JournalRecord(1, RecordKind.STARTED, body=b"{}")

    async def scenario() -> list[int]:
        journal = InMemoryJournal()
        async with open_pool(FunctionDriver(lambda _: "yes"), journal=journal) as pool:
            await (await pool.spawn(SpawnConfig(AgentManifest(), "go", key="a"))).wait()
        kept = await journal.read("pool")
        counts: list[int] = []
        for end in ends:
            result = JournalRecord(1, RecordKind.RESULT, body=encode(end))
            record = record_of(trace_of_journal("pool", (*kept, begun, result)).events)
            counts.append(record.bill.requests)
        return counts

    assert simulate(scenario) == [1, 2, 2]
