"""Budgets that outlive their pool: per hour, day and month, over several processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Budget,
    LimitExceededError,
    Session,
    SpawnConfig,
    StopReason,
    Usage,
    UsageError,
    UserMessage,
    open_pool,
    session_pool_name,
)
from agentpool._budget.period import Period
from agentpool._budget.store import Spending
from agentpool._journal_records import begins_call
from agentpool.abc import (
    BudgetStore,
    Completion,
    CompletionRequest,
    Correction,
    Driver,
    StoredUse,
    ToolContext,
)
from agentpool.drivers import (
    BadRequestError,
    FallbackDriver,
    FunctionDriver,
    NetworkError,
    OverloadedError,
    ToolMessage,
    call,
    calls,
    say,
)
from agentpool.drivers._scripted import Answer
from agentpool.journal import (
    InMemoryJournal,
    JournalError,
    JournalRecord,
    Lease,
    RecordKind,
    open_journal,
)
from agentpool.journal._joint import JointJournal, Spendings
from agentpool.testing import cancel_everywhere, crash_everywhere, simulate
from agentpool.tools import ApprovalRequest, Approved, ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())

RESERVED = 3_000
"""Tokens that a request may take, as is estimated before it leaves; they are fewer."""


def short(_: CompletionRequest) -> Answer:
    """Answer, at a known price."""
    return Completion(text="yes", usage=Usage(60, 40))


async def ask(budget: Budget, times: int = 1, **terms: Any) -> list[AgentOutcome]:  # noqa: ANN401  # as open_pool takes them
    """Run some agents one after the other, in a pool of their own, once it is opened and ready."""
    terms = {"driver": FunctionDriver(short), "ready": trio.lowlevel.checkpoint, **terms}
    driver, ready, key = terms.pop("driver"), terms.pop("ready"), terms.pop("key", None)
    async with open_pool(driver, budget=budget, max_concurrent=1, **terms) as pool:
        await ready()
        for number in range(times):
            await pool.spawn(SpawnConfig(READER, f"ask {number}", key=key))
        return list((await pool.join_all()).values())


def reasons(outcomes: Sequence[AgentOutcome]) -> list[StopReason | None]:
    """Return how they ended."""
    return [outcome.stop_reason for outcome in outcomes]


END, SPENT = StopReason.END_TURN, StopReason.REQUEST_BUDGET


def test_a_budget_goes_on_in_the_next_pool_and_begins_anew_in_the_next_period() -> None:
    """Whatever object stands for it."""

    async def scenario() -> None:
        store = InMemoryJournal()
        budget = Budget()
        for wanted in ([END, END], [END, SPENT]):
            budget = Budget(requests=3, per="hour", store=store, name="team")
            assert reasons(await ask(budget, 2)) == wanted
        assert budget.statistics().requests.committed == 3
        assert budget.statistics().tokens.committed == 300
        assert budget.statistics().refused == 1
        with pytest.raises(
            LimitExceededError, match="1 are wanted; the limit is for the hour 1970"
        ):
            budget.reserve(requests=1)
        await trio.sleep(3600)
        assert reasons(await ask(budget, 2)) == [END, END]
        assert budget.statistics().requests.committed == 2
        other = Budget(requests=3, per="hour", store=store, name="other")
        assert reasons(await ask(other)) == [END]

    simulate(scenario)


@pytest.mark.parametrize(
    ("per", "says"),
    [
        (
            "day",
            "the day 1970-01-01 (UTC), and whole again at 1970-01-02 00:00 UTC: increase it, or",
        ),
        (
            "month",
            "the month 1970-01 (UTC), and whole again at 1970-02-01 00:00 UTC: increase it, or",
        ),
        ("ever", "is for as long as the store lasts: increase it to go on"),
    ],
)
def test_a_spent_budget_says_when_it_begins_again(per: Period, says: str) -> None:
    """That is the first question of whoever reads it."""

    async def scenario() -> None:
        budget = Budget(requests=1, per=per, store=InMemoryJournal())
        first, second = await ask(budget, 2)
        assert (first.error, type(second.error)) == (None, LimitExceededError)
        assert says in str(second.error)

    simulate(scenario)


@pytest.mark.parametrize("limit", ["requests", "tool_calls"])
@pytest.mark.parametrize("per", [None, "day", "ever"])
def test_an_end_that_a_journal_keeps_says_what_asks_it_again(
    per: Period | None, limit: str
) -> None:
    """No greater limit does, and no later day, so its error names neither."""

    @tool
    async def look() -> str:
        """Look."""
        await trio.lowlevel.checkpoint()
        return "nothing"

    async def scenario() -> None:
        store = None if per is None else InMemoryJournal()
        requests, tool_calls = (1, None) if limit == "requests" else (None, 1)
        budget = Budget(requests=requests, tool_calls=tool_calls, per=per, store=store)
        driver, tools = FunctionDriver(lambda _: call("look")), ToolRegistry([look])
        journal = InMemoryJournal()
        (outcome,) = await ask(budget, driver=driver, tools=tools, journal=journal, key="a")
        told = str(outcome.error)
        assert "; the journal keeps this end, whatever the limit is now: another journal" in told
        assert "increase" not in told
        assert ("whole again at 1970-01-02" in told) == (per == "day")

    simulate(scenario)


def test_what_is_asked_anew_with_the_same_journal_is_not_said_to_be_kept() -> None:
    """Whoever has no key is another agent each time, and so is each turn of a session."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        _, outcome = await ask(Budget(requests=1), 2, journal=journal)
        assert str(outcome.error).endswith("are wanted; increase the limit to go on")
        driver, name = FunctionDriver(short), session_pool_name("talk")
        async with open_pool(driver, journal=journal, name=name, budget=Budget(requests=1)) as pool:
            session = Session.of(pool)
            for _ in range(2):
                handle = await session.begin(SpawnConfig(READER, "Well?"))
                outcome = await handle.wait()
        assert str(outcome.error).endswith("are wanted; increase the limit to go on")

    simulate(scenario)


def test_tokens_are_corrected_to_what_was_used() -> None:
    """An estimate that was too high keeps nobody out later."""

    async def scenario() -> None:
        store, budget = InMemoryJournal(), Budget()
        for _ in range(4):
            budget = Budget(tokens=10_000, per="day", store=store)
            (outcome,) = await ask(budget)
            assert outcome.status is AgentStatus.COMPLETED
        assert budget.statistics().tokens.committed == 400
        assert store._used == {
            ("budget", "day 1970-01-01"): (400, 0, 4, 0),
            ("budget (under way)", "day 1970-01-01"): (0, 0, 0, 0),
        }

    simulate(scenario)


@pytest.mark.parametrize("answers", [True, False])
def test_the_store_knows_of_attempts_that_a_fallback_stood_in_for(*, answers: bool) -> None:
    """They were paid for: the next process would spend the same once more."""

    async def scenario() -> None:
        def broken(_: CompletionRequest) -> Answer:
            error = NetworkError("cut", retryable=False)
            error.has_begun, error.tokens = True, (300, 200)
            raise error

        store = InMemoryJournal()
        last = FunctionDriver(short if answers else broken)
        driver = FallbackDriver(FunctionDriver(broken), FunctionDriver(broken), last)
        budget = Budget(tokens=10_000, per="day", store=store)
        await ask(budget, driver=driver)
        used = 1000 + (100 if answers else 500)
        assert budget.statistics().tokens.committed == used
        assert store._used == {
            ("budget", "day 1970-01-01"): (used, 0, 3, 0),
            # The tokens of those that failed are known, and their cost is not.
            ("budget (unknown)", "day 1970-01-01"): (2 if answers else 3, 0, 0, 0),
            ("budget (under way)", "day 1970-01-01"): (0, 0, 0, 0),
        }

    simulate(scenario)


def test_what_a_dead_process_had_reserved_is_spent() -> None:
    """Nobody knows whether it was."""

    async def scenario() -> None:
        store = InMemoryJournal()
        await store.spend("budget", "month", (None, None, 2, None), (9, 0, 1, 0), ())
        budget = Budget(requests=2, per="month", store=store)
        assert reasons(await ask(budget, 2)) == [END, SPENT]

    simulate(scenario)


def test_a_refusal_gives_back_what_the_others_took() -> None:
    """Of two stored budgets one above the other, neither counts a request that was not made."""

    async def scenario() -> None:
        store = InMemoryJournal()
        month = Budget(requests=1, per="month", store=store, name="month")
        day = Budget(requests=9, per="day", store=store, name="day", parent=month)
        assert reasons(await ask(day)) == [END]
        # By another process, so that the look at what is known here does not suffice.
        month = Budget(requests=1, per="month", store=store, name="month")
        day = Budget(requests=9, per="day", store=store, name="day", parent=month)
        assert reasons(await ask(Budget(parent=day))) == [SPENT]
        assert store._used["day", "day 1970-01-01"][2] == 1
        assert store._used["month", "month 1970-01"][2] == 1

    simulate(scenario)


def test_a_provider_that_refuses_takes_the_request_alone() -> None:
    """As in every budget."""

    def refuse(_: CompletionRequest) -> Answer:
        raise BadRequestError("no")

    async def scenario() -> None:
        store = InMemoryJournal()
        budget = Budget(requests=2, tokens=100_000, per="day", store=store)
        (outcome,) = await ask(budget, driver=FunctionDriver(refuse))
        assert outcome.status is AgentStatus.FAILED
        assert store._used["budget", "day 1970-01-01"] == (0, 0, 1, 0)

    simulate(scenario)


def test_tool_calls_and_what_tools_reserve_are_kept() -> None:
    """The latter with the next request at the latest."""

    @tool
    async def buy(context: ToolContext) -> str:
        """Buy."""
        await trio.lowlevel.checkpoint()
        assert context.budget is not None
        context.budget.reserve(cost_usd=0.5).commit(tokens=0, cost_usd=0.25)
        return "bought"

    def answer(request: CompletionRequest) -> Answer:
        done = isinstance(request.messages[-1], ToolMessage)
        return Completion(text="so", usage=Usage(1, 1), cost_usd=0.0) if done else call("buy")

    async def scenario() -> None:
        store, tools = InMemoryJournal(), ToolRegistry([buy])
        wanted = [END, StopReason.TOOL_CALL_BUDGET]
        for reason in wanted:
            budget = Budget(tool_calls=1, per="day", store=store)
            driver = FunctionDriver(answer, price_per_token_usd=0.0)
            (outcome,) = await ask(budget, driver=driver, tools=tools)
            assert outcome.stop_reason is reason
        assert store._used["budget", "day 1970-01-01"][1:] == (250_000_000_000, 3, 1)

    simulate(scenario)


def test_a_resumed_pool_counts_nothing_twice() -> None:
    """What the store knows is not spent again."""

    async def scenario() -> None:
        store = InMemoryJournal()
        for _ in range(3):
            budget = Budget(requests=5, per="day", store=store)
            outcomes = await ask(budget, 2, journal=store, resume=True, name="kept")
            assert reasons(outcomes[:2]) == [END, END]
        assert store._used["budget", "day 1970-01-01"][2] == 2 * 3

    async def keyed() -> None:
        store = InMemoryJournal()
        for _ in range(3):
            budget = Budget(requests=2, per="day", store=store)
            async with open_pool(
                FunctionDriver(short), budget=budget, journal=store, resume=True
            ) as pool:
                handle = await pool.spawn(SpawnConfig(READER, "ask", key="one"))
                assert (await handle.wait()).stop_reason is END
        assert store._used["budget", "day 1970-01-01"][2] == 1

    simulate(keyed)


def test_a_tool_call_that_another_process_took_meanwhile_does_not_run() -> None:
    """What is known here had room for it."""
    store, ran = InMemoryJournal(), list[str]()

    @tool(needs_approval=True)
    async def buy() -> str:
        """Buy."""
        await trio.lowlevel.checkpoint()
        ran.append("bought")
        return "bought"

    async def approve(_: ApprovalRequest) -> Approved:
        await store.spend("budget", "day", (None, None, None, 1), (0, 0, 0, 1), ())
        return Approved()

    def answer(request: CompletionRequest) -> Answer:
        return "so" if isinstance(request.messages[-1], ToolMessage) else call("buy")

    async def scenario() -> None:
        budget = Budget(tool_calls=1, per="day", store=store)
        (outcome,) = await ask(
            budget, driver=FunctionDriver(answer), tools=ToolRegistry([buy]), approve=approve
        )
        assert outcome.stop_reason is StopReason.TOOL_CALL_BUDGET
        assert not ran
        assert store._used["budget", "day 1970-01-01"][3] == 1

    simulate(scenario)


@pytest.mark.parametrize("levels", [1, 2])
def test_after_any_crash_the_store_has_exactly_what_was_spent_and_cannot_be_known(
    levels: int,
) -> None:
    """What the outcome counts: no reservation is left over, and none is missing."""
    asked: dict[object, int] = {}
    """Requests that a model was asked, in all processes with the same store."""
    repeated = set[int]()

    @tool(on_unknown="rerun")
    async def look() -> str:
        """Look."""
        await trio.lowlevel.checkpoint()
        return "seen"

    async def scenario(journal: Any) -> str:  # noqa: ANN401  # a journal and a store
        store = journal._kept

        def answer(request: CompletionRequest) -> Answer:
            asked[store] = asked.get(store, 0) + 1
            done = sum(isinstance(one, ToolMessage) for one in request.messages)
            usage = Usage(60, 40)
            return say("so", usage=usage) if done == 2 else calls(call("look"), usage=usage)

        driver, tools = FunctionDriver(answer), ToolRegistry([look])
        budget = own = Budget(tokens=100_000, per="day", store=journal)
        if levels == 2:
            budget = Budget(requests=50, per="ever", store=journal, name="team", parent=budget)
        async with open_pool(
            driver, tools=tools, budget=budget, journal=journal, resume=True, name="p"
        ) as pool:
            handle = await pool.spawn(SpawnConfig(READER, "go", key="a"))
            outcome = await handle.wait()
        tokens, _, requests, calls_taken = store._used["budget", "day 1970-01-01"]
        rows = [record for record in await store.read("p") if record.agent_id > 0]
        lost = [json.loads(row.body)["tokens"] for row in rows if row.kind is RecordKind.LOST]
        # One that runs again is the same call, and no call more.
        begun = {row.place for row in rows if row.kind is RecordKind.STARTED and begins_call(row)}
        assert requests == 3 + outcome.repeated_requests == 3 + len(lost)
        assert 0 <= requests - asked[store] <= 1  # it had begun, and had not left
        assert tokens == 300 + sum(lost)
        under_way = store._used["budget (under way)", "day 1970-01-01"]
        assert under_way == (len(lost), 0, 0, 0)
        assert own.statistics().unmeasured == len(lost)
        assert calls_taken == len(begun)
        assert levels == 1 or store._used["team", "ever"] == (tokens, 0, requests, calls_taken)
        repeated.add(outcome.repeated_requests)
        return outcome.text

    # A look at each store, the pool, each request and call as it begins, their results, the end.
    assert crash_everywhere(scenario).points == 2 * (8 + levels)
    assert repeated == {0, 1}


def test_what_the_store_has_counted_is_not_counted_again_from_the_journal() -> None:
    """By a process that is given an outcome of before after it has asked something itself."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        for keys, asked in (("a", 1), ("ba", 2)):
            budget = Budget(requests=1000, per="day", store=journal)
            async with open_pool(
                FunctionDriver(short), budget=budget, journal=journal, resume=True
            ) as pool:
                for key in keys:
                    await (await pool.spawn(SpawnConfig(READER, "go", key=key))).wait()
            assert budget.statistics().requests.committed == asked
            assert journal._used["budget", "day 1970-01-01"][2] == asked

    simulate(scenario)


@attrs.define(eq=False)
class Slow(BudgetStore):
    """A store that takes a second."""

    kept: InMemoryJournal = attrs.field(factory=InMemoryJournal)

    async def spend(self, *words: Any) -> StoredUse:  # noqa: ANN401  # passed on
        """Spend, after a while."""
        await trio.sleep(1)
        return await self.kept.spend(*words)


@pytest.mark.parametrize("asked_first", [1, 2, 3])
def test_an_answer_that_has_come_is_kept_however_soon_its_pool_is_cut(asked_first: int) -> None:
    """While the stores are told what it used; the model is not asked again for it."""

    async def scenario(cut: int) -> None:
        journal, store, asked = InMemoryJournal(), Slow(), list[str]()

        async def answer(request: CompletionRequest) -> Answer:
            asked.append(request.system)
            await trio.sleep(1)
            if len(asked) == asked_first:
                nursery.start_soon(end_soon)
            is_first = len(request.messages) == 1
            return calls(call("think"), usage=Usage(1, 1)) if is_first else short(request)

        async def end_soon() -> None:
            await trio.sleep(cut / 4)
            scope.cancel()

        @tool(on_unknown="rerun")
        async def think(context: ToolContext) -> str:
            """Think."""
            request = CompletionRequest((UserMessage("a"), UserMessage("b")))
            return (await context.agent.complete(FunctionDriver(answer), request)).text

        used = list[tuple[float, float]]()
        for is_cut in (True, False):
            top = Budget(requests=100, per="ever", store=store, name="top")
            pool_budget = Budget(requests=100, parent=top)
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    async with open_pool(
                        FunctionDriver(answer), budget=pool_budget, journal=journal, resume=True,
                        tools=ToolRegistry([think]),
                    ) as pool:  # fmt: skip
                        now = pool_budget.statistics()
                        used.append((now.tokens.committed, now.unmeasured))
                        await (await pool.spawn(SpawnConfig(READER, "go", key="a"))).wait()
                nursery.cancel_scope.cancel()
            if is_cut:
                now = pool_budget.statistics()
                used.append((now.tokens.committed, now.unmeasured))
                assert store.kept._used["top", "ever"][0] == now.tokens.committed
        assert used[1] == used[2]

    for cut in range(12):
        simulate(scenario, cut)


def test_after_any_crash_the_store_has_each_driver_that_a_fallback_asked() -> None:
    """Also those that had failed before it."""
    asked: dict[object, int] = {}
    """Requests that left, in all processes with the same store."""

    async def scenario(journal: Any) -> str:  # noqa: ANN401  # a journal and a store
        store = journal._kept

        def fail(_: CompletionRequest) -> Answer:
            asked[store] = asked.get(store, 0) + 1
            raise OverloadedError("busy")

        def answer(_: CompletionRequest) -> Answer:
            asked[store] = asked.get(store, 0) + 1
            return say("so", usage=Usage(60, 40))

        driver = FallbackDriver(*map(FunctionDriver, (fail, fail, answer)))
        budget = Budget(tokens=100_000, per="day", store=journal)
        async with open_pool(driver, budget=budget, journal=journal, resume=True, name="p") as pool:
            outcome = await (await pool.spawn(SpawnConfig(READER, "go", key="a"))).wait()
        requests = store._used["budget", "day 1970-01-01"][2]
        assert 0 <= requests - asked[store] <= 1  # one had begun, and had not left
        return outcome.text

    # The pool, the three as they begin, and the end.
    assert crash_everywhere(scenario).points >= 2 * 5


def test_what_has_no_meaning_is_refused() -> None:
    """A period without a store, a store without a period, a week."""
    store = InMemoryJournal()
    for terms in ({"per": "day"}, {"store": store}, {"per": "week", "store": store}):
        with pytest.raises(
            UsageError, match=r"give both per= and store=, or neither|per must be 'hour', 'day'"
        ):
            Budget(requests=1, **terms)


@attrs.define(eq=False)
class Broken(BudgetStore):
    """One that fails once, at the call of that number."""

    fails_at: int
    kept: InMemoryJournal = attrs.field(factory=InMemoryJournal)
    calls: int = 0

    async def spend(self, *words: Any) -> StoredUse:  # noqa: ANN401  # passed on
        """Fail, or not."""
        self.calls += 1
        if self.calls == self.fails_at:
            await trio.lowlevel.checkpoint()
            raise JournalError("the disk is full")
        return await self.kept.spend(*words)


def test_a_pool_does_not_open_with_a_store_that_cannot_be_read() -> None:
    """Nothing has happened, and it opens when the store can be read again."""

    async def scenario() -> None:
        store = Broken(1)
        budget = Budget(requests=5, per="day", store=store)
        with pytest.raises(JournalError, match="the disk is full"):
            await ask(budget)
        assert reasons(await ask(budget)) == [END]
        assert store.kept._used["budget", "day 1970-01-01"] == (100, 0, 1, 0)

    simulate(scenario)


def test_a_pool_that_lives_over_midnight_has_what_the_new_day_allows() -> None:
    """Though several agents ask at once, before anybody knows that the day is new."""

    async def scenario() -> None:
        budget = Budget(requests=3, per="day", store=InMemoryJournal())
        async with open_pool(FunctionDriver(short), budget=budget) as pool:
            for times in (2, 3):
                handles = [await pool.spawn(SpawnConfig(READER, "ask")) for _ in range(times)]
                assert reasons([await handle.wait() for handle in handles]) == [END] * times
                await trio.sleep(24 * 3600)

    for seed in range(20):
        simulate(scenario, seed=seed)


def test_what_was_spent_yesterday_takes_nothing_of_today() -> None:
    """Though the journal of the pool has it: agents that go on all have what the day allows."""

    async def scenario() -> None:
        journal, limit = InMemoryJournal(), 4
        for keys in ("abcd", "abcdefgh"):
            budget = Budget(requests=limit, per="day", store=journal)
            async with open_pool(
                FunctionDriver(short), budget=budget, journal=journal, resume=True,
            ) as pool:  # fmt: skip
                assert budget.statistics().requests.committed == 0
                for key in keys:
                    await pool.spawn(SpawnConfig(READER, "go", key=key))
                assert reasons(list((await pool.join_all()).values())) == [END] * len(keys)
            assert budget.statistics().requests.committed == limit
            same_day = Budget(requests=limit, per="day", store=journal)
            async with open_pool(
                FunctionDriver(short), budget=same_day, journal=journal, resume=True,
            ) as pool:  # fmt: skip
                assert same_day.statistics().requests.committed == limit
            await trio.sleep(24 * 3600)

    for seed in range(20):
        simulate(scenario, seed=seed)


@pytest.mark.parametrize(("fails_at", "used"), [(4, 1), (5, 1), (6, 2), (7, 2)])
def test_a_store_that_fails_ends_the_agent_and_loses_nothing(fails_at: int, used: int) -> None:
    """What it was not told, it is told with the next request."""

    async def scenario() -> None:
        store = Broken(fails_at)
        budget = Budget(requests=5, tokens=100_000, per="day", store=store)
        first, second = await ask(budget, 2)
        assert isinstance(first.error, JournalError)
        assert second.status is AgentStatus.COMPLETED
        assert store.kept._used["budget", "day 1970-01-01"] == (100 * used, 0, used, 0)
        assert store.kept._used["budget (under way)", "day 1970-01-01"] == (0, 0, 0, 0)

    simulate(scenario)


@attrs.define(eq=False)
class Failing(JointJournal):
    """A journal whose write of that number fails: the disk is full from then on."""

    fails_at: int
    kept: InMemoryJournal = attrs.field(factory=InMemoryJournal)
    writes: int = 0

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write."""
        return await self.kept.claim(pool, lease_seconds=lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Store, or fail."""
        await self._expect_room()
        await self.kept.append(lease, records)

    async def append_and_spend(
        self, lease: Lease, records: Sequence[JournalRecord], together: Sequence[Spendings]
    ) -> Sequence[Sequence[StoredUse]]:
        """Store and spend, or fail."""
        await self._expect_room()
        return await self.kept.append_and_spend(lease, records, together)

    async def spend_together(self, spendings: Sequence[Spending]) -> Sequence[StoredUse]:
        """Spend, or fail."""
        await self._expect_room()
        return await self.kept.spend_together(spendings)

    async def _expect_room(self) -> None:
        self.writes += 1
        await trio.lowlevel.checkpoint()
        if self.writes == self.fails_at:
            raise JournalError("the disk is full")

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records."""
        return await self.kept.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give the right to write back."""
        await self.kept.release(lease)


@pytest.mark.parametrize("fails_at", range(1, 8))
def test_a_journal_that_fails_leaves_a_shared_budget_right(fails_at: int) -> None:
    """What was not written with a record, the store is told by the next pool that spends."""

    async def scenario() -> None:
        journal, asked = Failing(fails_at), 0

        def answer(_: CompletionRequest) -> Answer:
            nonlocal asked
            asked += 1
            return Completion(text="yes", usage=Usage(60, 40))

        budget = Budget(tokens=100_000, per="day", store=journal)
        driver = FunctionDriver(answer)
        try:
            await ask(budget, 2, driver=driver, journal=journal, name="first")
        except* JournalError:
            assert journal.writes >= fails_at
        await ask(budget, 1, driver=driver)
        assert journal.kept._used["budget", "day 1970-01-01"] == (100 * asked, 0, asked, 0)
        used = budget.statistics()
        assert (used.requests.committed, used.requests.reserved) == (asked, 0)

    simulate(scenario)


def test_a_request_that_a_store_refuses_leaves_no_record() -> None:
    """Nor does it take of another store, wherever that is: in the journal, or elsewhere."""

    async def scenario() -> None:
        journal, elsewhere = InMemoryJournal(), InMemoryJournal()
        week = Budget(tokens=99_000, per="ever", store=elsewhere, name="elsewhere")
        month = Budget(requests=1, per="month", store=journal, name="month", parent=week)
        day = Budget(requests=9, per="day", store=journal, name="day", parent=month)

        async def spend_elsewhere() -> None:
            await journal.spend("month", "month", (None,) * 4, (0, 0, 1, 0), ())

        month_was_not_seen = await ask(day, journal=journal, name="p", ready=spend_elsewhere)
        assert reasons(month_was_not_seen) == [SPENT]
        assert not [one for one in await journal.read("p") if one.kind is RecordKind.STARTED]
        assert journal._used.get(("day", "day 1970-01-01"), (0, 0, 0, 0)) == (0, 0, 0, 0)
        assert elsewhere._used["elsewhere", "ever"] == (0, 0, 0, 0)
        day = Budget(requests=9, per="day", store=journal, name="day", parent=week)
        assert reasons(await ask(day, journal=journal, name="q")) == [END]
        assert journal._used["day", "day 1970-01-01"] == (100, 0, 1, 0)
        assert elsewhere._used["elsewhere", "ever"] == (100, 0, 1, 0)

    simulate(scenario)


def test_a_request_that_is_made_again_is_reserved_again_with_its_record() -> None:
    """What the first attempt took goes with the record that it was lost."""

    async def scenario() -> None:
        answers = [NetworkError("cut", retryable=True), None]
        answers[0].has_begun, answers[0].tokens = True, (300, 200)  # type: ignore[union-attr]

        def answer(_: CompletionRequest) -> Answer:
            error = answers.pop(0)
            if error is not None:
                raise error
            return Completion(text="yes", usage=Usage(60, 40))

        journal = InMemoryJournal()
        budget = Budget(tokens=10_000, per="day", store=journal)
        outcomes = await ask(budget, driver=FunctionDriver(answer), journal=journal, name="p")
        assert reasons(outcomes) == [END]
        assert journal._used["budget", "day 1970-01-01"] == (600, 0, 2, 0)
        kinds = [one.kind.value for one in await journal.read("p") if one.agent_id > 0]
        assert kinds == ["accepted", "started", "lost", "started", "result", "ended"]

    simulate(scenario)


def test_wherever_a_pool_is_cancelled_the_store_has_what_was_asked_or_may_have_been() -> None:
    """Nothing stays set aside for a request that never left."""

    async def scenario() -> None:
        asked, answered = 0, 0

        def answer(request: CompletionRequest) -> Answer:
            done = isinstance(request.messages[-1], ToolMessage)
            return (
                say("so", usage=Usage(60, 40)) if done else calls(call("look"), usage=Usage(60, 40))
            )

        inside = FunctionDriver(answer)

        class Counted(Driver):
            context_window = inside.context_window
            privacy = inside.privacy

            async def complete(self, request: Any, *, on_delta: Any = None) -> Completion:  # noqa: ANN401
                nonlocal asked, answered
                asked += 1
                completion = await inside.complete(request, on_delta=on_delta)
                answered += 1
                return completion

        @tool
        async def look() -> str:
            """Look."""
            await trio.lowlevel.checkpoint()
            return "seen"

        journal = InMemoryJournal()
        budget = Budget(tokens=100_000, per="day", store=journal)
        try:
            await ask(budget, 2, driver=Counted(), tools=ToolRegistry([look]), journal=journal)
        finally:
            tokens, _, requests, _ = journal._used.get(("budget", "day 1970-01-01"), (0, 0, 0, 0))
            assert requests == asked == budget.statistics().requests.committed
            assert budget.statistics().requests.reserved == 0
            assert 100 * answered <= tokens
            assert (tokens == 100 * answered) is (asked == answered)

    assert cancel_everywhere(scenario).points > 20


# --- in a file


def test_a_clock_that_goes_back_gives_nothing_back(tmp_path: Path) -> None:
    """The latest period that was ever seen stays the one that is."""

    async def spend(path: Path) -> StoredUse:
        async with open_journal(path) as journal:
            limits = (None, None, 5, None)
            await journal.spend("b", "day", limits, (0, 0, 1, 0), ())
            gone = [Correction("", (7, 0, 0, 0)), Correction("day 2000-01-01", (1, 0, 0, 0))]
            return await journal.spend("b", "day", limits, (0, 0, 1, 0), gone)

    path = tmp_path / "j.db"
    assert trio.run(spend, path).used == (7, 0, 2, 0)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE budgets SET period = 'day 9999-01-01' WHERE requests = 2")
    connection.close()
    found = trio.run(spend, path)
    assert (found.period, found.used) == ("day 9999-01-01", (14, 0, 4, 0))


CHILD = """
import os, sys, trio
from agentpool import AgentManifest, AgentStatus, Budget, open_pool
from agentpool.drivers import FunctionDriver
from agentpool.journal import open_journal

async def main():
    asked = 0
    _, path, limit, joint = sys.argv
    limit = int(limit)
    def answer(_):
        nonlocal asked
        asked += 1
        return "yes"
    manifest = AgentManifest(name="reader", capabilities=())
    async with open_journal(path) as journal:
        budget = Budget(requests=limit, per="month", store=journal, name="team")
        kept = {"journal": journal, "name": str(os.getpid())} if joint == "joint" else {}
        async with open_pool(FunctionDriver(answer), budget=budget, **kept) as pool:
            async with pool.map(manifest, map(str, range(limit))) as outcomes:
                ended = [o.status async for o in outcomes]
    assert asked == ended.count(AgentStatus.COMPLETED)
    print(asked)

trio.run(main)
"""


@pytest.mark.parametrize("joint", ["joint", "apart"])
def test_two_processes_spend_exactly_what_there_is(tmp_path: Path, joint: str) -> None:
    """Each would have made all of the requests; with a journal in the same file or without."""
    words = [sys.executable, "-c", CHILD, str(tmp_path / "j.db"), "100", joint]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    asked = [int(one.communicate(timeout=120)[0]) for one in both]
    assert sum(asked) == 100
    with closing(sqlite3.connect(tmp_path / "j.db")) as file:
        assert file.execute("SELECT SUM(requests) FROM budgets").fetchone() == (100,)
        begun = "SELECT COUNT(*) FROM records WHERE kind = 'started'"
        assert file.execute(begun).fetchone() == (100 if joint == "joint" else 0,)
