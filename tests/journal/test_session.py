"""Conversations of many turns: kept whole, gone on with, taken back, branched, one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    Capability,
    ModelConfig,
    Session,
    SpawnConfig,
    UsageError,
    UserMessage,
    open_pool,
    open_session,
    session_names,
    session_pool_name,
)
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import BadRequestError, FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import (
    InMemoryJournal,
    Journal,
    JournalError,
    JournalRecord,
    Lease,
    RecordKind,
    RunBusyError,
    SessionBusyError,
    open_journal,
)
from agentpool.observe import outcome_from_json
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import ToolRegistry, tool

FRIEND = AgentManifest(name="friend", capabilities=())


def heard(request: CompletionRequest) -> Answer:
    """Say all that the user has said so far."""
    said = [one.text for one in request.messages if isinstance(one, UserMessage)]
    if said[-1] == "break":
        raise BadRequestError("broken")
    return " ".join(said)


open_anna = partial(open_session, name="anna", driver=FunctionDriver(heard))


def ask(query: str, manifest: AgentManifest = FRIEND) -> SpawnConfig:
    """Return the config of one turn."""
    return SpawnConfig(manifest, query)


def queries(session: Session) -> list[str]:
    """Return what was asked in the whole turns."""
    return [turn.query for turn in session.turns]


def test_a_session_is_taken_from_a_pool_that_has_been_open_for_a_while() -> None:
    """Its turns have ended again by then, and are known all the same."""

    async def scenario() -> None:
        journal, driver = InMemoryJournal(), FunctionDriver(heard)
        async with open_anna(journal) as session:
            await session.ask(ask("a"))
            await session.ask(ask("b"))
        name = session_pool_name("anna")
        async with open_pool(driver, journal=journal, resume=True, name=name) as pool:
            await trio.testing.wait_all_tasks_blocked()
            session = Session.of(pool)
            assert queries(session) == ["a", "b"]
            assert (await session.ask(ask("c"))).text == "a b c"

    simulate(scenario)


def test_a_conversation_goes_on_in_another_process() -> None:
    """With another model, if somebody likes that better."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        async with open_anna(journal) as session:
            assert session.messages == ()
            assert (await session.ask(ask("a"))).text == "a"
            assert repr(session) == "<Session 'anna': 1 turn>"
            with pytest.raises(UsageError, match="has 1 turn; cannot undo 2"):
                await session.go_back(2)
            with pytest.raises(UsageError, match="has 1 turn; cannot copy 2"):
                await session.branch("bea", turns=2)
            assert (await session.ask(ask("b"))).text == "a b"
            assert repr(session) == "<Session 'anna': 2 turns>"
        other = attrs.evolve(FRIEND, model=ModelConfig(model_path="another.gguf"))
        async with open_anna(journal) as session:
            assert queries(session) == ["a", "b"]
            outcome = await session.ask(ask("c", other))
            assert outcome.text == "a b c"
            assert session.messages == outcome.messages
            assert session.unfinished is None
        assert session_names([one.pool for one in await journal.pools()]) == ("anna",)

    simulate(scenario)


def test_what_failed_or_was_cancelled_is_no_turn() -> None:
    """The conversation goes on before it, here and in another process."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        async with open_anna(journal) as session:
            await session.ask(ask("a"))
            assert (await session.ask(ask("break"))).status is AgentStatus.FAILED
            handle = await session.begin(ask("b"))
            handle.cancel("enough")
            assert (await handle.wait()).status is AgentStatus.CANCELLED
            assert (await session.ask(ask("c"))).text == "a c"
        async with open_anna(journal) as session:
            assert queries(session) == ["a", "c"]

    simulate(scenario)


def test_turns_are_taken_back_and_branched() -> None:
    """Nothing is forgotten, and both branches go on by themselves."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        async with open_anna(journal) as session:
            for query in "abc":
                await session.ask(ask(query))
            await session.go_back(2)
            assert queries(session) == ["a"]
            assert (await session.ask(ask("d"))).text == "a d"
            await session.branch("bea")
            await session.branch("cleo", turns=1)
            await session.go_back(2)
            for wrong in (0, 1):
                with pytest.raises(UsageError, match=r"has 0 turns; cannot undo \d"):
                    await session.go_back(wrong)
            with pytest.raises(UsageError, match="has 0 turns; cannot copy 1"):
                await session.branch("dora", turns=1)
            with pytest.raises(UsageError, match="there is already a session 'bea'"):
                await session.branch("bea")
        async with open_anna(journal) as session:
            assert queries(session) == []
            assert (await session.ask(ask("e"))).text == "e"
        for name, wanted in (("bea", "a d f"), ("cleo", "a f")):
            async with open_session(journal, name, FunctionDriver(heard)) as session:
                assert (await session.ask(ask("f"))).text == wanted
                assert (await session.ask(ask("g"))).text == f"{wanted} g"

    simulate(scenario)


def test_one_turn_at_a_time() -> None:
    """Who comes second is refused, or waits; so does who opens it a second time."""

    async def scenario() -> None:
        journal, go_on = InMemoryJournal(), trio.Event()

        async def answer(request: CompletionRequest) -> Answer:
            await go_on.wait()
            return heard(request)

        async with open_session(journal, "anna", FunctionDriver(answer)) as session:
            handle = await session.begin(ask("a"))
            with pytest.raises(SessionBusyError, match="has a turn that has not ended"):
                await session.ask(ask("b"))
            with pytest.raises(SessionBusyError):
                await session.go_back()
            with pytest.raises(SessionBusyError) as caught:
                await session.branch("bea")
            assert caught.value.session == "anna"
            with pytest.raises(SessionBusyError, match="is open elsewhere"):
                async with open_anna(journal):
                    raise AssertionError
            go_on.set()
            await handle.wait()
            texts: list[str] = []

            async def wait_for_it() -> None:
                # Once whoever opened it first is done.
                async with (
                    open_anna(journal, on_busy="wait") as again,
                    trio.open_nursery() as nursery,
                ):
                    for query in "bcd":
                        nursery.start_soon(say, again, query)

            async def say(again: Session, query: str) -> None:
                texts.append((await again.ask(ask(query))).text)

            async with trio.open_nursery() as outer:
                outer.start_soon(wait_for_it)
                await trio.sleep(1)
                assert not texts
                outer.cancel_scope.cancel()
        await wait_for_it()
        assert len(texts) == 3
        assert max(texts, key=len).split()[0] == "a"
        assert sorted(map(len, texts)) == [3, 5, 7]

    simulate(scenario)


@attrs.define(eq=False)
class Taken(Journal):
    """One of which another process has everything but anna's session."""

    kept: InMemoryJournal = attrs.field(factory=InMemoryJournal)

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take what is free."""
        if pool != "session anna":
            raise RunBusyError("it has it", host="h", pid=1, until=2.0)
        return await self.kept.claim(pool, lease_seconds=lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep."""
        await self.kept.append(lease, records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Read."""
        return await self.kept.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give back."""
        await self.kept.release(lease)


def test_a_branch_to_a_session_of_another_process_is_refused() -> None:
    """That one is being written."""

    async def scenario() -> None:
        async with open_anna(Taken()) as session:
            with pytest.raises(SessionBusyError, match="it has it"):
                await session.branch("bea")

    simulate(scenario)


def test_a_cancelled_question_goes_on_in_a_later_process() -> None:
    """As one does that a crash cut off: asked the same, it is the same turn."""

    async def scenario() -> None:
        journal = InMemoryJournal()

        async def never(_: CompletionRequest) -> Answer:
            await trio.sleep_forever()

        async with open_anna(journal) as session:
            await session.ask(ask("a"))
        async with open_session(journal, "anna", FunctionDriver(never)) as session:
            with trio.move_on_after(1):
                await session.ask(ask("b"))
            assert queries(session) == ["a"]
        async with open_anna(journal) as session:
            left = session.unfinished
            assert left is not None
            assert left.query == "b"
            budget = Budget(requests=5)
            outcome = await session.ask(left)
            assert (outcome.text, outcome.repeated_requests) == ("a b", 1)
            assert session.unfinished is None
        async with open_session(journal, "anna", FunctionDriver(never), budget=budget) as session:
            with trio.move_on_after(1):
                await session.ask(ask("c"))
        async with open_anna(journal) as session:
            assert (await session.ask(ask("d"))).text == "a b d"  # c is given up
        async with open_session(journal, "anna", FunctionDriver(never)) as session:
            with trio.move_on_after(1):
                await session.ask(ask("e"))
        async with open_anna(journal) as session:
            assert (await session.ask(ask("e"))).repeated_requests == 1
            assert queries(session) == ["a", "b", "d", "e"]

    simulate(scenario)


def test_a_cancelled_question_has_ended() -> None:
    """Its caller asks the next one at once, also when the driver takes its time to stop."""

    async def answer(request: CompletionRequest) -> Answer:
        try:
            if "slow" in str(heard(request)):
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
        return heard(request)

    async def scenario() -> None:
        async with open_session(InMemoryJournal(), "anna", FunctionDriver(answer)) as session:
            for _ in range(2):
                with trio.move_on_after(1) as limit:
                    await session.ask(ask("slow"))
                assert limit.cancelled_caught
                assert pool_is_empty(session)
            assert (await session.ask(ask("quick"))).text == "quick"
            assert queries(session) == ["quick"]

    simulate(scenario)


def pool_is_empty(session: Session) -> bool:
    """Return whether no turn runs or waits."""
    return not (session.pool.active_count or session.pool.queued_count)


def test_what_has_no_meaning_is_refused() -> None:
    """A name, a history, a key, a pool that is not a session's."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        for name in ("", " ", "a\nb"):
            with pytest.raises(UsageError, match="a session's name must be a line of text"):
                async with open_session(journal, name, FunctionDriver(heard)):
                    raise AssertionError
        with pytest.raises(UsageError, match="on_busy must be"):
            async with open_anna(journal, on_busy="maybe"):  # type: ignore[arg-type]  # wrong on purpose
                raise AssertionError
        async with open_pool(FunctionDriver(heard)) as pool:
            with pytest.raises(UsageError, match="pool 'pool' is not a session"):
                Session.of(pool)
        async with open_anna(journal) as session:
            with pytest.raises(UsageError, match="on_busy must be 'refuse' or 'wait', got 'maybe'"):
                Session.of(session.pool, on_busy="maybe")  # type: ignore[arg-type]  # see above
            for config in (
                SpawnConfig(FRIEND, "a", key="x"),
                SpawnConfig(FRIEND, "a", history=(UserMessage("b"),)),
            ):
                with pytest.raises(UsageError, match="has its history and its key"):
                    await session.ask(config)

    simulate(scenario)


def test_a_file_grows_with_its_turns(tmp_path: Path) -> None:
    """Ten times the turns take at most 10.5 times the bytes, and all of them are read again."""

    async def size(turns: int) -> int:
        async with open_journal(tmp_path / f"{turns}.db") as journal:
            driver = FunctionDriver(lambda _: "well, well " * 20)
            async with open_session(journal, "anna", driver) as session:
                for number in range(turns):
                    await session.ask(ask(f"{number:04}" + " what about it?" * 10))
            async with open_session(journal, "anna", driver) as session:
                assert len(session.turns) == turns
                assert len(session.messages) == 2 * turns
            (pool,) = await journal.pools()
            return pool.bytes

    few, many = trio.run(size, 10), trio.run(size, 100)
    assert many <= 10.5 * few


def test_a_child_of_a_turn_is_no_turn() -> None:
    """Nor is it gone on after."""

    @tool
    async def have_it_done(context: ToolContext) -> str:
        """Let a child say it."""
        return (await context.agent.run_child("a child's", name="child")).text

    def answer(request: CompletionRequest) -> Answer:
        said = [one.text for one in request.messages if isinstance(one, UserMessage)]
        last = request.messages[-1]
        if said[-1] == "ask" and not isinstance(last, ToolMessage):
            return call("have_it_done")
        return last.content if isinstance(last, ToolMessage) else " ".join(said)

    async def scenario() -> None:
        journal, parent = (
            InMemoryJournal(),
            attrs.evolve(FRIEND, capabilities=(Capability.spawn(1),)),
        )
        for query, wanted in (("ask", "a child's"), ("b", "ask b")):
            tools = ToolRegistry([have_it_done])
            async with open_anna(journal, driver=FunctionDriver(answer), tools=tools) as session:
                assert (await session.ask(ask(query, parent))).text == wanted
                assert session.turns[-1].query == query

    simulate(scenario)


def test_a_turn_without_the_one_before_is_named() -> None:
    """A file that somebody has cut."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        async with open_anna(journal) as session:
            await session.ask(ask("a"))
            await session.ask(ask("b"))
        records = journal._pools["session anna"]
        journal._pools["session anna"] = [
            one for one in records if one.kind is not RecordKind.ENDED or one.agent_id != 1
        ]
        with pytest.raises(JournalError, match="a turn after agent 1"):
            async with open_anna(journal):
                raise AssertionError

    simulate(scenario)


def test_a_session_comes_to_the_same_after_any_crash() -> None:
    """Three turns, one of them taken back, and what the model said of it."""

    async def scenario(journal: Journal) -> object:
        async with open_anna(journal) as session:
            done = queries(session)
            went_back = any(
                one.kind is RecordKind.HEAD for one in await journal.read("session anna")
            )
            if not went_back:
                for query in "abc"[len(done) :]:
                    await session.ask(ask(query))
                await session.go_back()
                done = queries(session)
            if done == ["a", "b"]:
                await session.ask(ask("d"))
            return queries(session), session.messages

    assert crash_everywhere(scenario).points > 20


@pytest.mark.parametrize("begins", [False, True])
def test_a_turn_that_was_given_out_is_kept(*, begins: bool) -> None:
    """Whenever the process ends after that: the next one knows it as a turn."""
    given = dict[object, list[str]]()

    async def scenario(journal: Any) -> object:  # noqa: ANN401  # a journal that may be ended
        known = given.setdefault(journal._kept, [])
        async with open_anna(journal) as session:
            assert queries(session)[: len(known)] == known
            for query in "abc"[len(queries(session)) :]:
                if begins:
                    outcome = await (await session.begin(ask(query))).wait()
                    await session.flush()
                else:
                    outcome = await session.ask(ask(query))
                outcome.unwrap()
                known.append(query)
            return queries(session)

    assert crash_everywhere(scenario).points > 20


class SessionMachine(RuleBasedStateMachine):
    """Sessions of one journal against lists of what was asked."""

    def __init__(self) -> None:
        """Begin with one, and nothing said."""
        super().__init__()
        self.journal = InMemoryJournal()
        self.said: dict[str, list[str]] = {"s0": []}
        self.name = "s0"

    def do(self, work: Callable[[Session], Awaitable[None]]) -> None:
        """Open the session, as another process would, and do *work* in it."""

        async def scenario() -> None:
            driver = FunctionDriver(heard)
            async with open_session(self.journal, self.name, driver) as session:
                assert queries(session) == self.said[self.name]
                await work(session)
                assert queries(session) == self.said[self.name]

        simulate(scenario)

    @rule(asked=st.lists(st.sampled_from(["x", "y", "break", "cancel"]), max_size=4))
    def ask(self, asked: list[str]) -> None:
        """Take some turns."""

        async def work(session: Session) -> None:
            for query in asked:
                handle = await session.begin(ask(query))
                if query == "cancel":
                    handle.cancel()
                elif query != "break":
                    self.said[self.name].append(query)
                outcome = await handle.wait()
                if query in {"x", "y"}:
                    assert outcome.text == " ".join(self.said[self.name])

        self.do(work)

    @precondition(lambda self: self.said[self.name])
    @rule(share=st.floats(0, 1))
    def go_back(self, share: float) -> None:
        """Take some turns back."""
        said = self.said[self.name]
        turns = max(1, round(share * len(said)))

        async def work(session: Session) -> None:
            await session.go_back(turns)
            del said[len(said) - turns :]

        self.do(work)

    @rule(share=st.floats(0, 1))
    def branch(self, share: float) -> None:
        """Begin another one with a part of this."""
        said = self.said[self.name]
        turns, other = round(share * len(said)), f"s{len(self.said)}"

        async def work(session: Session) -> None:
            await session.branch(other, turns=turns)
            self.said[other] = said[:turns]

        self.do(work)

    @rule(share=st.floats(0, 0.999))
    def change(self, share: float) -> None:
        """Go to another session."""
        self.name = list(self.said)[int(share * len(self.said))]

    @rule()
    def die(self) -> None:
        """Lose what the last process wrote last, and what it would have said of its end."""
        records: list[JournalRecord] = self.journal._pools.get(f"session {self.name}", [])
        if not records or records[-1].kind is not RecordKind.ENDED:
            return
        if outcome_from_json(records.pop().body).status is AgentStatus.COMPLETED:
            self.said[self.name].pop()

    @invariant()
    def all_are_there(self) -> None:
        """Every session is listed, once it has been opened."""
        assert len(self.said) >= 1


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
