"""Approvals that outlive the process: asked, the process ends, answered later, run once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from agentpool import AgentManifest, AgentOutcome, SpawnConfig, UsageError, open_pool
from agentpool.abc import CompletionRequest, OnUnknown
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import (
    InMemoryJournal,
    Journal,
    JournalError,
    JournalRecord,
    RecordKind,
    answer_question,
    open_journal,
    open_questions,
)
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import (
    ApprovalRequest,
    Approved,
    Changed,
    Decision,
    Denied,
    ToolRegistry,
    tool,
)
from tests.support.cli_runner import Desk, make_desk

BUYER = AgentManifest(name="buyer", capabilities=())
BUY = SpawnConfig(BUYER, "buy", key="one")

open_kept = partial(open_pool, name="kept", resume=True)


def buyer(request: CompletionRequest) -> Answer:
    """Pay once, and say what came of it."""
    last = request.messages[-1]
    return last.content if isinstance(last, ToolMessage) else call("pay", amount=5)


@attrs.define(eq=False)
class Till:
    """Pays after somebody said yes, and knows what it paid."""

    paid: list[int] = attrs.field(factory=list[int])
    asked: list[ApprovalRequest] = attrs.field(factory=list[ApprovalRequest])
    says: Decision | None = None
    """``None``: nobody is there."""

    async def approve(self, request: ApprovalRequest) -> Decision:
        """Answer, or never."""
        self.asked.append(request)
        if self.says is None:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        assert self.says is not None
        return self.says

    async def run(
        self,
        journal: Journal,
        *,
        on_unknown: OnUnknown = "report",
        dies: bool = False,
    ) -> AgentOutcome | None:
        """Let the agent buy; ``None``: the process ended before it was done."""

        @tool(needs_approval=True, on_unknown=on_unknown)
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            if dies:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return f"paid {amount}"

        driver, tools = FunctionDriver(buyer), ToolRegistry([pay])
        async with open_kept(driver, journal=journal, tools=tools, approve=self.approve) as pool:
            handle = await pool.spawn(BUY)
            with trio.move_on_after(60):
                return await handle.wait()
            pool.abort_all("the process ends")
            return None


@pytest.mark.parametrize(
    ("said", "paid", "text"),
    [
        (Approved("anna"), [5], "paid 5"),
        (Changed('{"amount": 3}'), [3], 'It was run with other arguments: {"amount": 3}\npaid 3'),
        (Denied("no money"), [], "not run: it was not approved: no money"),
    ],
)
def test_what_is_answered_later_is_done_once(said: Decision, paid: list[int], text: str) -> None:
    """And nobody is asked a second time."""

    async def scenario() -> None:
        journal, till = InMemoryJournal(), Till()
        assert await till.run(journal) is None
        (question,) = open_questions(await journal.read("kept"))
        assert (question.agent_id, question.call.name) == (1, "pay")
        assert await answer_question(journal, "kept", question.question_id, said) == question
        assert open_questions(await journal.read("kept")) == ()
        for _ in range(2):
            outcome = await till.run(journal)
            assert outcome is not None
            assert (outcome.text, till.paid, len(till.asked)) == (text, paid, 1)

    simulate(scenario)


def test_an_approval_comes_to_the_same_after_any_crash() -> None:
    """Who has said yes is not asked again once that is kept."""
    tills: list[Till] = []

    async def scenario(journal: Journal) -> object:
        till = Till(says=Approved())
        tills.append(till)
        outcome = await till.run(journal, on_unknown="rerun")
        assert outcome is not None
        return outcome.text

    assert crash_everywhere(scenario).points > 6
    assert 0 < sum(not till.asked for till in tills) < len(tills)


def test_an_answer_is_to_one_call_alone() -> None:
    """What asks for another call there is asked about anew; what is not a question is refused."""

    async def scenario() -> None:
        journal, till = InMemoryJournal(), Till()
        assert await till.run(journal) is None
        with pytest.raises(UsageError, match=r"no open question '9\.9\.9'"):
            await answer_question(journal, "kept", "9.9.9", Approved())
        (question,) = open_questions(await journal.read("kept"))
        await answer_question(journal, "kept", question.question_id, Approved())
        records = journal._pools["kept"]
        (at,) = [i for i, one in enumerate(records) if one.kind is RecordKind.ANSWERED]
        records[at] = JournalRecord(1, RecordKind.ANSWERED, 2, 0, "of another", records[at].body)
        assert await till.run(journal) is None
        assert len(till.asked) == 2

    simulate(scenario)


@pytest.mark.parametrize(
    ("says", "paid", "text"),
    [
        (Approved(), [5, 5], "paid 5"),
        (
            Denied("it was paid"),
            [5],
            "this call had begun when the program ended, and was not run again: it was paid",
        ),
    ],
)
def test_whoever_approves_says_whether_it_runs_again(
    says: Decision, paid: list[int], text: str
) -> None:
    """A call that may have been done is another question than whether it may be done."""

    async def scenario() -> None:
        journal, till = InMemoryJournal(), Till(says=Approved())
        assert await till.run(journal, on_unknown="ask", dies=True) is None
        till.says = says
        outcome = await till.run(journal, on_unknown="ask")
        assert outcome is not None
        assert (outcome.text, till.paid) == (text, paid)
        assert [one.may_have_run for one in till.asked] == [False, True]

    simulate(scenario)


def test_records_that_cannot_be_read_are_named() -> None:
    """Whoever changed them."""

    async def scenario() -> None:
        broken = JournalRecord(1, RecordKind.ASKED, 2, 0, "d", b"{")
        with pytest.raises(JournalError, match="a question that cannot be read"):
            open_questions([broken])
        assert open_questions([broken, JournalRecord(1, RecordKind.ENDED)]) == ()
        journal, till = InMemoryJournal(), Till()
        await till.run(journal)
        (question,) = open_questions(await journal.read("kept"))
        await answer_question(journal, "kept", question.question_id, Approved())
        records = journal._pools["kept"]
        (at,) = [i for i, one in enumerate(records) if one.kind is RecordKind.ANSWERED]
        found = records[at]
        records[at] = JournalRecord(1, found.kind, found.place, 0, found.digest, b"{")
        outcome = await till.run(journal)
        assert outcome is not None
        assert isinstance(outcome.error, JournalError)

    simulate(scenario)


# --- agentpool approve


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


def wait_in(file: Path, pool: str = "kept") -> None:
    """Leave a question in *file*, as a killed process does."""

    async def main() -> None:
        async with open_journal(file) as journal:
            lease = await journal.claim(pool)
            body = b'{"call_id": "c", "name": "pay", "arguments": "{\\"amount\\": 5}"}'
            await journal.append(
                lease,
                [
                    JournalRecord(0, RecordKind.ACCEPTED, body=b'{"run_id": "x"}'),
                    JournalRecord(1, RecordKind.ASKED, 2, 0, "d", body),
                ],
            )
            await journal.release(lease)

    trio.run(main)


def test_questions_are_listed_and_answered(desk: Desk) -> None:
    """At the command line, on another day."""
    file = desk.folder / "j.db"
    wait_in(file)
    listed = desk.call("approve", "j.db")
    assert listed.out == 'kept 1.2.0: agent 1 asks to call pay with {"amount": 5}\n'
    assert desk.call("approve", "j.db", "--json").lines[0]["question"] == "1.2.0"
    for words, why in (
        (("7.7.7", "yes"), "there is no open question '7.7.7'; these are open: kept 1.2.0"),
        (("--pool", "nope"), "the journal has no pool 'nope'; it has 'kept'"),
        (("1.2.0", "yes", "--pool", "nope"), "the journal has no pool 'nope'; it has 'kept'"),
        (("1.2.0", "maybe"), "say yes or no after the question, got 'maybe'"),
        (("1.2.0",), "say yes or no after the question, got ''"),
    ):
        done = desk.call("approve", "j.db", *words)
        assert done.code == 2
        assert why in done.err
    wait_in(file, "other")
    assert (
        "is open in several pools; choose one with --pool: "
        in desk.call("approve", "j.db", "1.2.0", "no").err
    )
    done = desk.call("approve", "j.db", "1.2.0", "no", "--reason", "not today", "--pool", "kept")
    assert done.out.startswith("no: 1.2.0: agent 1 asks to call pay")
    assert desk.call("approve", "j.db", "1.2.0", "yes").code == 0
    assert desk.call("approve", "j.db").out == "no questions\n"
    assert desk.call("approve", "none.db").code == 2

    async def said() -> list[bytes]:
        async with open_journal(file, read_only=True) as journal:
            return [r.body for r in await journal.read("kept") if r.kind is RecordKind.ANSWERED]

    assert trio.run(said) == [b'["denied","not today","agentpool approve"]']
