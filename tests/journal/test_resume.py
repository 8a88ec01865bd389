"""A pool with a journal goes on in another process, and nothing that was done is done again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import msgspec
import pytest
import trio

import agentpool.journal
from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Budget,
    Capability,
    CapabilityKind,
    ContextConfig,
    DeadlockError,
    ModelConfig,
    PoolError,
    ResourceQuota,
    SpawnConfig,
    StopReason,
    Usage,
    UsageError,
    UsageLimits,
    UserMessage,
    open_pool,
)
from agentpool._loop.window_strategy import ASK_FOR_SUMMARY
from agentpool.abc import (
    AgentContext,
    BudgetStore,
    Completion,
    CompletionRequest,
    Fragment,
    MemoryQuery,
    ToolContext,
)
from agentpool.drivers import Attachment, BadRequestError, FunctionDriver, ToolMessage, call, calls
from agentpool.drivers._scripted import Answer
from agentpool.journal import (
    InMemoryJournal,
    Journal,
    JournalError,
    JournalRecord,
    Lease,
    RecordKind,
    ResumeMismatchError,
)
from agentpool.memory import InMemoryMemory
from agentpool.testing import CrashPointError, crash_everywhere, simulate
from agentpool.tools import TEAM_TOOLS, ApprovalRequest, Changed, ToolRegistry, tool
from tests.support.fakes import FakeTool

THOUGHT = CompletionRequest(messages=(UserMessage("think"),))

READER = AgentManifest(name="reader", capabilities=())
PARENT = AgentManifest(name="parent", capabilities=(Capability.spawn(3),))

open_kept = partial(open_pool, name="kept", resume=True)


def told(outcome: AgentOutcome) -> tuple[Any, ...]:
    """Return what a crash must not change."""
    # Without the names of calls, which the drivers here count from one in each process.
    messages = re.sub(r"call_id='[^']*'", "", repr(outcome.messages))
    return (
        outcome.agent_id, outcome.status, outcome.text, outcome.usage, outcome.cost_usd,
        outcome.iterations, outcome.tool_calls, outcome.tool_calls_run, messages,
        outcome.stop_reason,
    )  # fmt: skip


async def all_told(pool: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401  # a pool
    """Return what became of all agents."""
    return [told(outcome) for outcome in (await pool.join_all()).values()]


def echo(request: CompletionRequest) -> Answer:
    """Say the last thing again."""
    return f"about {request.messages[-1].text}"  # type: ignore[union-attr]  # no tools here


def never(_: CompletionRequest) -> Answer:
    """Stand for a model that must not be asked."""
    raise AssertionError


# --- the same end, whatever the crash


def test_a_map_comes_to_the_same_after_any_crash() -> None:
    """Fifty queries, eight at a time."""
    asked: list[str] = []

    def answer(request: CompletionRequest) -> Answer:
        asked.append(request.messages[-1].text)  # type: ignore[union-attr]  # no tools here
        return echo(request)

    async def scenario(journal: Journal) -> object:
        driver = FunctionDriver(answer)
        async with open_kept(driver, journal=journal, max_concurrent=8) as pool:
            queries = [f"text {number}" for number in range(50)]
            async with pool.map(READER, queries, ordered=True) as outcomes:
                return [told(outcome) async for outcome in outcomes]

    report = crash_everywhere(scenario)
    assert report.points == 2 * report.writes > 30
    # Whole once without a crash; then at most the eight in flight are asked twice.
    assert len(asked) <= 50 + report.points * (50 + 8)


@attrs.define(eq=False)
class Shop:
    """Counts what was paid, as the world would: it outlives the process."""

    paid: list[str] = attrs.field(factory=list[str])

    def tools(self, on_unknown: Any = "report") -> ToolRegistry:  # noqa: ANN401  # a word
        """Return a tool that pays."""

        @tool(on_unknown=on_unknown)
        async def pay(context: ToolContext, amount: int) -> str:
            """Pay."""
            await trio.lowlevel.checkpoint()
            self.paid.append(context.idempotency_key)
            return f"paid {amount}"

        return ToolRegistry([pay])


def buyer(request: CompletionRequest) -> Answer:
    """Pay twice at once, then once more, then say what came of it."""
    results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
    if not results:
        return calls(call("pay", amount=1), call("pay", amount=1))
    if len(results) == 2:
        return call("pay", amount=2)
    return "; ".join(results)


def test_an_idempotent_call_comes_to_the_same_and_has_the_same_key() -> None:
    """It may run again, and the world can tell that it is the same."""
    shop = Shop()

    async def scenario(journal: Journal) -> object:
        driver = FunctionDriver(buyer, price_per_token_usd=0.001)
        tools = shop.tools("rerun")
        async with open_kept(driver, journal=journal, tools=tools) as pool:
            await pool.spawn(SpawnConfig(READER, "buy", key="one"))
            return await all_told(pool)

    crash_everywhere(scenario)

    # Each run of its own has three calls with three keys, at every resume the same.
    async def once() -> int:
        before = len(shop.paid)
        await scenario(InMemoryJournal())
        return len(set(shop.paid[before:]))

    assert simulate(once) == 3


def test_a_call_that_ended_never_runs_again() -> None:
    """And one that may have run is told as such, or ends the run, as it says itself."""
    for on_unknown, status in (("report", AgentStatus.COMPLETED), ("stop", AgentStatus.STOPPED)):
        journal, shop = InMemoryJournal(), Shop()

        async def run(
            journal: Journal = journal, shop: Shop = shop, on_unknown: str = on_unknown
        ) -> AgentOutcome:
            driver = FunctionDriver(buyer)
            async with open_kept(driver, journal=journal, tools=shop.tools(on_unknown)) as pool:
                return await (await pool.spawn(SpawnConfig(READER, "buy", key="one"))).wait()

        simulate(run)
        assert len(shop.paid) == 3
        # As if the program had been killed in the second of three calls.
        records = [r for r in journal._pools["kept"] if r.kind is not RecordKind.ENDED]
        place = records[-1].place
        results = [r for r in records if r.kind is RecordKind.RESULT]
        cut = max(i for i, r in enumerate(records) if r is results[2])
        assert place > records[cut].place
        journal._pools["kept"] = records[:cut]
        outcome = simulate(run)
        assert outcome.status is status
        assert len(shop.paid) == (4 if on_unknown == "report" else 3)
        unknown = [m for m in outcome.messages if isinstance(m, ToolMessage) and m.is_error]
        assert "it may or may not have been done" in unknown[0].content
        if on_unknown == "stop":
            assert outcome.stop_reason is StopReason.UNKNOWN_OUTCOME


def test_a_tool_that_says_nothing_of_it_is_not_run_a_second_time() -> None:
    """Whoever wrote it thought of no crash: the model is told, and decides."""

    async def scenario() -> None:
        journal = InMemoryJournal()

        async def pay(_: str, __: ToolContext) -> str:
            if len(fake.calls) == 1:
                await trio.sleep_forever()
            return "paid"

        fake = FakeTool("pay", pay)

        async def run() -> AgentOutcome:
            tools = ToolRegistry([fake])
            async with open_kept(FunctionDriver(payer), journal=journal, tools=tools) as pool:
                return await (await pool.spawn(SpawnConfig(READER, "buy", key="one"))).wait()

        def payer(request: CompletionRequest) -> Answer:
            results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
            return results[0] if results else call("pay")

        with trio.move_on_after(1):
            await run()
        assert "it may or may not have been done" in (await run()).text
        assert len(fake.calls) == 1

    simulate(scenario)


def test_children_three_deep_come_to_the_same() -> None:
    """With one slot: a child that had ended is not run again, one that had begun goes on."""

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        if isinstance(last, ToolMessage):
            return f"heard {last.content}"
        depth = int(last.text)
        return call("spawn_agent", query=str(depth - 1)) if depth else "the end"

    async def scenario(journal: Journal) -> object:
        driver = FunctionDriver(answer)
        tools = ToolRegistry(TEAM_TOOLS)
        async with open_kept(
            driver, journal=journal, tools=tools, max_concurrent=1, budget=Budget(requests=20)
        ) as pool:
            await pool.spawn(SpawnConfig(PARENT, "3", key="top"))
            found = await all_told(pool)
            budget = pool.statistics().budget
            assert budget is not None
            # A request that had left when the program ended may be charged a second time.
            assert budget.requests.committed in {7, 8}
            return found

    assert crash_everywhere(scenario).points > 20


def test_a_budget_that_the_journal_keeps_is_held_across_a_crash() -> None:
    """What it takes and gives back is written as well, and may be the last that is."""

    async def scenario(journal: Journal) -> object:
        assert isinstance(journal, BudgetStore)
        budget = Budget(requests=4, per="day", store=journal, name="team")
        driver = FunctionDriver(echo)
        async with open_kept(driver, journal=journal, budget=budget, max_concurrent=1) as pool:
            for number in "12":
                await pool.spawn(SpawnConfig(READER, number, key=number))
            found = await all_told(pool)
            # A request that had left when the program ended may be charged a second time.
            assert budget.statistics().requests.committed in {2, 3}
            return found

    report = crash_everywhere(scenario)
    assert report.points == 2 * report.writes
    assert report.writes > 6


def test_a_budget_may_be_all_that_the_journal_keeps() -> None:
    """Its writes are crash points as well, in a pool that keeps nothing else."""

    async def scenario(journal: Journal) -> object:
        assert isinstance(journal, BudgetStore)
        budget = Budget(requests=40, per="day", store=journal, name="team")
        async with open_pool(FunctionDriver(echo), budget=budget) as pool:
            return (await (await pool.spawn(SpawnConfig(READER, "x"))).wait()).text

    assert crash_everywhere(scenario).points > 0


def test_a_race_that_was_won_stays_won() -> None:
    """Whoever else was in it."""

    async def scenario(journal: Journal) -> object:
        async def answer(request: CompletionRequest) -> Answer:
            text = request.messages[-1].text  # type: ignore[union-attr]  # no tools here
            await trio.sleep(float(text))
            return text

        async with open_kept(FunctionDriver(answer), journal=journal) as pool:
            won: list[object] = []
            for seconds in (("3", "1", "1"), ("2", "4", "3", "2")):
                racers = [SpawnConfig(READER, one) for one in seconds]
                won.append(told(await pool.race(racers))[2])
            return won

    # How many records go into one write is up to the journal; none of these goes with another:
    # that a race's agents were accepted, what was asked, and what became of them.
    assert crash_everywhere(scenario).points > 20


def test_restarts_are_counted_across_a_crash() -> None:
    """An agent that failed twice before it succeeded is not asked those times again."""
    asked: list[int] = []

    async def scenario(journal: Journal) -> object:
        attempts = 0

        def answer(_: CompletionRequest) -> Answer:
            nonlocal attempts
            attempts += 1
            asked.append(1)
            if len(asked) <= 2:
                raise BadRequestError("not now")
            return "there"

        async with open_kept(FunctionDriver(answer), journal=journal) as pool:
            (outcome,) = await pool.supervise([SpawnConfig(READER, "go")])
            return outcome.text

    assert crash_everywhere(scenario).points > 2


def test_memory_messages_and_approvals_come_to_the_same() -> None:
    """What was recalled, told and approved before a crash is given back, not asked for again."""
    recalled: list[str] = []

    def answer(request: CompletionRequest) -> Answer:
        if isinstance(request.messages[-1], ToolMessage):
            return f"done: {request.messages[-1].content}"
        return call("pay", amount=1)

    def approve(_: ApprovalRequest) -> Changed:
        return Changed('{"amount": 5}')

    async def scenario(journal: Journal) -> object:
        memory = InMemoryMemory()
        await memory.remember(Fragment(content="pay little", scope="all"))

        @tool(needs_approval=True, on_unknown="rerun")
        async def pay(context: ToolContext, amount: int) -> str:
            """Pay."""
            found = await memory.recall(MemoryQuery(text="pay", scope="all"))
            recalled.append(found[0].fragment.content)
            await context.agent.complete(FunctionDriver(lambda _: "a thought"), THOUGHT)
            return f"paid {amount}"

        keeper = AgentManifest(name="keeper", capabilities=(Capability(CapabilityKind.MEMORY),))
        async with open_kept(
            FunctionDriver(answer), journal=journal, memory=memory, tools=ToolRegistry([pay]),
            approve=approve, budget=Budget(requests=9, tool_calls=9),
        ) as pool:  # fmt: skip
            config = SpawnConfig(keeper, "pay for it", key="k", memory_scope="all")
            handle = await pool.spawn(config)
            await handle.send("be quick")
            found = told(await handle.wait())
            budget = pool.statistics().budget
            assert budget is not None
            # A request that had left when the program ended is paid for a second time.
            assert budget.requests.committed >= 3
            return found, budget.tool_calls.committed

    report = crash_everywhere(scenario)
    assert report.points > 6
    assert "It was run with other arguments" in simulate(scenario, InMemoryJournal())[0][8]  # type: ignore[index]  # told


def test_a_team_comes_to_the_same() -> None:
    """A question is asked once and heard once, an answer too; so is what the owner gets."""
    team = AgentManifest(name="team", capabilities=(Capability(CapabilityKind.MESSAGE),))

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        if request.messages[0].text == "asker":  # type: ignore[union-attr]  # a query
            if isinstance(last, ToolMessage):
                return f"heard {last.content}"
            return call("ask_agent", to=2, question="how many?")
        if not isinstance(last, ToolMessage):
            return call("wait_for_message")
        if last.name == "wait_for_message":
            (number,) = re.findall(r"message (\d+) from agent 1", last.content)
            return call("send_message", to=1, content="seven", reply_to=int(number))
        if len(request.messages) == 5:
            return call("send_message", to=0, content="one asked")
        return "told"

    async def answer_in_turn(request: CompletionRequest) -> Answer:
        # Whoever is asked before it has begun to wait hears it at the beginning of its turn.
        await trio.sleep(1.0 if request.messages[0].text == "asker" else 0.1)  # type: ignore[union-attr]  # a query
        return answer(request)

    async def scenario(journal: Journal) -> object:
        driver, tools = FunctionDriver(answer_in_turn), ToolRegistry(TEAM_TOOLS)
        async with open_kept(driver, journal=journal, tools=tools) as pool:
            pool.fan_out_nowait(
                [SpawnConfig(team, "asker", key="a"), SpawnConfig(team, "answerer", key="b")]
            )
            heard = [message.content for message in await pool.receive_many()]
            return await all_told(pool), heard, pool.statistics().messages

    for seed in range(6):
        assert crash_everywhere(scenario, seed=seed).points > 10
    found = simulate(scenario, InMemoryJournal())
    assert found[1:] == (["one asked"], 3)  # type: ignore[index]  # as above
    assert found[0][0][2] == "heard seven"  # type: ignore[index]  # as above


# --- what is known, and what is not


async def run_one(journal: Journal, config: SpawnConfig, answer: Any, **terms: Any) -> AgentOutcome:  # noqa: ANN401  # as open_pool takes them
    """Run one agent in the pool that is kept."""
    async with open_kept(FunctionDriver(answer), journal=journal, **terms) as pool:
        return await (await pool.spawn(config)).wait()


async def buy_and_break_off(journal: Journal, config: SpawnConfig, shop: Shop) -> None:
    """End the run in the request after its first two calls."""

    async def stuck(request: CompletionRequest) -> Answer:
        if any(isinstance(one, ToolMessage) for one in request.messages):
            await trio.sleep_forever()
        return buyer(request)

    with trio.move_on_after(1):
        await run_one(journal, config, stuck, tools=shop.tools())


def test_what_has_ended_has_its_outcome_at_once() -> None:
    """Without a request: completed, stopped, and failed ones, with what they ended with."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        config = SpawnConfig(READER, "x", key="a")
        first = await run_one(journal, config, echo)
        assert told(await run_one(journal, config, never)) == told(first)
        with pytest.raises(PoolError):
            await run_failing(journal)
        async with open_kept(FunctionDriver(echo), journal=journal) as pool:
            again = await (await pool.spawn(SpawnConfig(READER, "y", key="bad"))).wait()
        assert again.status is AgentStatus.FAILED
        assert str(again.error) == "no"
        assert again.agent_id == 2

    async def run_failing(journal: Journal) -> None:
        def refuse(_: CompletionRequest) -> Answer:
            raise BadRequestError("no")

        async with open_kept(FunctionDriver(refuse), journal=journal) as pool:
            await pool.spawn(SpawnConfig(READER, "y", key="bad"))

    simulate(scenario)


def test_agents_without_a_key_go_on_by_themselves() -> None:
    """Those that had ended have their outcomes; numbers go on after the highest."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        with trio.move_on_after(5):
            await first_process(journal)
        async with open_kept(FunctionDriver(echo), journal=journal) as pool:
            assert pool.active_count + pool.queued_count == 2
            new = await pool.spawn(SpawnConfig(READER, "new"))
            outcomes = await pool.join_all()
        assert new.agent_id == 3
        assert [one.text for one in outcomes.values()] == ["about quick", "about slow", "about new"]

    async def first_process(journal: Journal) -> None:
        async def answer(request: CompletionRequest) -> Answer:
            if request.messages[-1].text == "slow":  # type: ignore[union-attr]  # no tools here
                await trio.sleep_forever()
            return echo(request)

        async with open_kept(FunctionDriver(answer), journal=journal) as pool:
            await pool.fan_out([SpawnConfig(READER, "quick"), SpawnConfig(READER, "slow")])

    simulate(scenario)


@pytest.mark.parametrize("aborts", [1, 2])
@pytest.mark.parametrize("queued", [False, True])
def test_an_abort_leaves_agents_open_and_a_cancel_ends_them(queued: bool, aborts: int) -> None:  # noqa: FBT001  # parametrized
    """Ctrl-C, once or twice, is not the end of the work; to cancel one agent is."""

    async def scenario() -> None:
        journal = InMemoryJournal()

        async def hang(_: CompletionRequest) -> Answer:
            await trio.sleep_forever()
            raise AssertionError

        slots = 1 if queued else 3
        async with open_kept(FunctionDriver(hang), journal=journal, max_concurrent=slots) as pool:
            handles = await pool.fan_out(
                [SpawnConfig(READER, key, key=key) for key in ("a", "b", "c")]
            )
            await trio.sleep(1)
            handles[2].cancel("not wanted")
            for _ in range(aborts):
                pool.abort_all("Ctrl-C")
            await pool.join_all()
        async with open_kept(FunctionDriver(echo), journal=journal) as pool:
            await pool.fan_out([SpawnConfig(READER, key, key=key) for key in ("c", "b", "a")])
            outcomes = await pool.join_all()
        assert [outcomes[number].status for number in (1, 2, 3)] == [
            AgentStatus.COMPLETED, AgentStatus.COMPLETED, AgentStatus.CANCELLED,
        ]  # fmt: skip

    simulate(scenario)


def test_a_repeated_request_is_counted() -> None:
    """One that had left before the crash, and whose answer nobody heard, is paid twice."""

    async def scenario() -> None:
        journal = InMemoryJournal()

        async def hang(_: CompletionRequest) -> Answer:
            await trio.sleep_forever()
            raise AssertionError

        config = SpawnConfig(READER, "x", key="a")
        with trio.move_on_after(1):
            await run_one(journal, config, hang)
        budget = Budget(requests=9, cost_usd=1.0)
        outcome = await run_one(journal, config, echo, budget=budget)
        assert outcome.repeated_requests == 1
        assert budget.statistics().requests.committed == 2
        assert (await run_one(journal, config, never)).repeated_requests == 1

    simulate(scenario)


# --- summaries


NARROW = attrs.evolve(
    READER,
    model=ModelConfig(max_tokens=200, context_window=1_500),
    resources=ResourceQuota(max_iterations=100),
    context=ContextConfig(strategy="summary"),
)
"""An agent whose window is full after some turns, and who sums up what leaves it."""


@tool(on_unknown="rerun")
async def count_on(number: int) -> str:
    """Say the number, at length."""
    await trio.lowlevel.checkpoint()
    return f"{number} " + "the same old story, told at length; " * 12


@attrs.define(eq=False)
class Counter:
    """A model that calls a tool eleven times, and sums up when it is asked to."""

    requests: int = 0
    summaries: int = 0

    def answer(self, request: CompletionRequest) -> Answer:
        """Sum up, or go on counting from the last result."""
        self.requests += 1
        last = request.messages[-1]
        if last == ASK_FOR_SUMMARY:
            self.summaries += 1
            return Completion("in short", usage=Usage(100, 7))
        number = int(last.content.split()[0]) if isinstance(last, ToolMessage) else 0
        return "done" if number == 11 else call("count_on", number=number + 1)

    async def run(self, journal: Journal, **terms: Any) -> AgentOutcome:  # noqa: ANN401  # as open_pool takes them
        """Run one agent, or go on with it."""
        driver = FunctionDriver(self.answer, price_per_token_usd=0.001)
        tools = ToolRegistry([count_on])
        async with open_kept(driver, journal=journal, tools=tools, **terms) as pool:
            return await (await pool.spawn(SpawnConfig(NARROW, "count", key="one"))).wait()


def records_to(journal: InMemoryJournal, summary: int) -> list[JournalRecord]:
    """Return what is kept up to the result of one of the summaries, counted from 1."""
    records = list(journal._pools["kept"])
    ends = [i for i, one in enumerate(records) if one.body.startswith(b'["in short"')]
    return records[: ends[summary - 1] + 1]


def test_a_run_that_was_condensed_comes_to_the_same_after_any_crash() -> None:
    """What a summary took counts for the run and its budget, as if nothing had happened."""

    async def scenario(journal: Journal) -> object:
        budget = Budget(requests=100)
        outcome = await Counter().run(journal, budget=budget)
        # What was in flight at a crash was paid twice.
        paid = budget.statistics().requests.committed - outcome.repeated_requests
        return told(outcome), outcome.messages_left_out, paid

    crash_everywhere(scenario)


def test_a_summary_that_is_known_is_not_asked_for_again() -> None:
    """Nor paid: only what comes after the crash is requested."""

    async def scenario() -> None:
        journal, whole = InMemoryJournal(), Counter()
        outcome = await whole.run(journal)
        assert whole.summaries == 2
        journal._pools["kept"] = records_to(journal, 1)
        rest = Counter()
        again = await rest.run(journal)
        assert told(again) == told(outcome)
        assert rest.summaries == 1
        assert 0 < rest.requests < whole.requests

    simulate(scenario)


def test_a_summary_that_had_left_is_asked_for_again_and_counted() -> None:
    """Nobody knows whether it was answered, so it may have been charged."""

    async def scenario() -> None:
        journal, whole = InMemoryJournal(), Counter()
        await whole.run(journal)
        journal._pools["kept"] = records_to(journal, 1)[:-1]
        budget = Budget(requests=100)
        outcome = await Counter().run(journal, budget=budget)
        assert outcome.repeated_requests == 1
        assert budget.statistics().requests.committed == whole.requests + 1

    simulate(scenario)


def test_what_a_run_that_has_ended_spent_on_summaries_is_counted() -> None:
    """In the budget of the next process, without a request."""

    async def scenario() -> None:
        journal, budgets = InMemoryJournal(), (Budget(requests=100), Budget(requests=100))
        model = Counter()
        for budget in budgets:
            await model.run(journal, budget=budget)
        spent = [budget.statistics() for budget in budgets]
        assert spent[0].requests.committed == spent[1].requests.committed == model.requests
        assert spent[0].tokens.committed == spent[1].tokens.committed

    simulate(scenario)


def test_a_request_that_a_budget_refused_was_none() -> None:
    """It had begun and has a result, and nobody was asked."""

    async def scenario() -> None:
        journal, budgets = InMemoryJournal(), (Budget(requests=3), Budget(requests=3))
        model = Counter()
        for budget in budgets:
            outcome = await model.run(journal, budget=budget)
            assert outcome.stop_reason is StopReason.REQUEST_BUDGET
            assert budget.statistics().requests.committed == model.requests == 3

    simulate(scenario)


# --- what differs


CHANGES: dict[str, Callable[[SpawnConfig], SpawnConfig]] = {
    "query": lambda config: msgspec.structs.replace(config, query="y"),
    "prompt": lambda config: msgspec.structs.replace(
        config, manifest=attrs.evolve(READER, model=ModelConfig(system_prompt="Be terse."))
    ),
    "limits": lambda config: msgspec.structs.replace(
        config, manifest=attrs.evolve(READER, resources=ResourceQuota(max_iterations=1))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_manifest_or_query_is_refused_at_the_spawn(change: str) -> None:
    """Nothing has changed; whoever means it says so."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        config = SpawnConfig(READER, "x", key="a")
        await run_one(journal, config, echo)
        changed = CHANGES[change](config)
        before = len(await journal.read("kept"))
        with pytest.raises(
            ResumeMismatchError, match="with key 'a' has already been spawned with another"
        ):
            await run_one(journal, changed, echo)
        assert len(await journal.read("kept")) == before
        outcome = await run_one(journal, changed, never, resume="accept")
        assert outcome.text == "about x"

    simulate(scenario)


def test_another_tool_is_seen_at_the_first_request_that_differs() -> None:
    """The run ends there, and is left open: it goes on when the change is undone."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop()
        config = SpawnConfig(READER, "x", key="a")

        await buy_and_break_off(journal, config, shop)

        @tool
        def pay(amount: int, to: str = "all") -> str:
            """Pay somebody."""
            return f"{to}: {amount}"

        changed = ToolRegistry([pay])
        outcome = await run_one(journal, config, buyer, tools=changed)
        assert isinstance(outcome.error, ResumeMismatchError)
        assert (outcome.error.agent_id, outcome.error.place) == (1, 1)
        accepted = await run_one(journal, config, buyer, tools=changed, resume="accept")
        assert accepted.text == "paid 1; paid 1; all: 2"

    simulate(scenario)


def test_a_called_tool_that_is_gone_is_never_accepted() -> None:
    """Its call has no place any more: what is gone and what to do is told, and nothing is lost."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop()
        config = SpawnConfig(READER, "x", key="a")

        await buy_and_break_off(journal, config, shop)
        kept = await journal.read("kept")
        outcome = await run_one(journal, config, buyer, tools=ToolRegistry(), resume="accept")
        assert isinstance(outcome.error, ResumeMismatchError)
        differs = "tool 'pay' was called, which it no longer has or may not call,"
        assert outcome.error.differs == differs
        assert "undo the change, or resume with resume='branch'" in str(outcome.error)
        assert await journal.read("kept") == kept
        again = await run_one(journal, config, buyer, tools=shop.tools())
        assert again.status is AgentStatus.COMPLETED

    simulate(scenario)


def test_a_deadlock_is_seen_with_a_journal_as_well() -> None:
    """What writes the records is nobody who could end a wait."""

    async def scenario() -> None:
        team = AgentManifest(name="team", capabilities=(Capability(CapabilityKind.MESSAGE),))
        answer = FunctionDriver(lambda _: call("wait_for_message"))
        tools = ToolRegistry(TEAM_TOOLS)
        async with open_kept(answer, journal=InMemoryJournal(), tools=tools) as pool:
            handle = await pool.spawn(SpawnConfig(team, "wait"))
            with pytest.raises(DeadlockError, match="the owner waits for a message"):
                await pool.receive_many()
            handle.cancel()

    simulate(scenario)


def test_a_fan_out_with_a_key_that_is_taken_starts_nobody() -> None:
    """All or nothing: whether another agent has it, or two of the new ones."""

    async def scenario() -> None:
        one, two, three = (SpawnConfig(READER, "x", key=key) for key in "abc")
        async with open_kept(FunctionDriver(echo), journal=InMemoryJournal()) as pool:
            pool.spawn_nowait(one)
            with pytest.raises(UsageError, match="key 'a' already belongs to agent 1"):
                pool.fan_out_nowait([two, SpawnConfig(READER, "x"), one])
            with pytest.raises(UsageError, match="key 'c' is the key of two of 3 agents"):
                pool.fan_out_nowait([two, three, three])
            assert pool.statistics().spawned == 1

    simulate(scenario)


def test_a_fan_out_of_a_call_that_asks_for_something_else_starts_nobody() -> None:
    """All or nothing: also where the first of its children are the same as before."""

    async def scenario() -> None:
        journal = InMemoryJournal()

        async def start(*queries: str) -> tuple[str, int]:
            @tool(on_unknown="rerun")
            async def fan_out() -> str:
                """Start some others."""
                await trio.lowlevel.checkpoint()
                pool.fan_out_nowait([SpawnConfig(READER, query) for query in queries])
                return "started"

            def answer(request: CompletionRequest) -> Answer:
                last = request.messages[-1]
                if isinstance(last, ToolMessage):
                    return last.content
                return call("fan_out") if last == UserMessage("start") else echo(request)

            tools = ToolRegistry([fan_out])
            async with open_kept(FunctionDriver(answer), journal=journal, tools=tools) as pool:
                parent = await pool.spawn(SpawnConfig(READER, "start", key="a"))
                return (await parent.wait()).text, len(await pool.join_all())

        assert await start("one", "two") == ("started", 3)
        # As if it had been killed before the call had a result.
        kept = journal._pools["kept"]
        journal._pools["kept"] = [
            record for record in kept if record.agent_id != 1 or record.kind is RecordKind.ACCEPTED
        ]
        text, agents = await start("one", "other")
        assert "has already been spawned with another manifest" in text
        assert agents == 1

    simulate(scenario)


def test_names_keys_and_resuming_are_checked() -> None:
    """A second pool of one name, a key twice, a key that is ours, nothing to resume."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        await run_one(journal, SpawnConfig(READER, "x", key="a"), echo)
        with pytest.raises(UsageError, match="already has pool 'kept'; open it with resume=True"):
            async with open_pool(FunctionDriver(echo), journal=journal, name="kept"):
                raise AssertionError
        with pytest.raises(UsageError, match="resume=True needs a journal"):
            async with open_pool(FunctionDriver(echo), resume=True):
                raise AssertionError
        with pytest.raises(UsageError, match="'a' already belongs to agent 1"):
            async with open_kept(FunctionDriver(echo), journal=journal) as pool:
                await pool.fan_out([SpawnConfig(READER, "x", key="a")] * 2)
        for key in ("", "#1", "=x"):
            with pytest.raises(UsageError, match="key must be text that does not begin with"):
                SpawnConfig(READER, "x", key=key)

    simulate(scenario)


@attrs.frozen
class Note:
    """An answer with a form."""

    text: str = ""


def test_what_no_file_can_keep_needs_a_key() -> None:
    """Else nobody could go on with it; with one it is spawned again as it was."""

    async def scenario() -> None:
        budget = Budget(requests=5)
        for terms in ({"output_type": Note}, {"budget": Budget(requests=1, parent=budget)}):
            async with open_kept(
                FunctionDriver(lambda _: "{}"), journal=InMemoryJournal(), budget=budget
            ) as pool:
                with pytest.raises(UsageError, match="which no journal can keep; give it a key"):
                    await pool.spawn(SpawnConfig(READER, "x", **terms))
                await pool.spawn(SpawnConfig(READER, "x", key="a", **terms))

    simulate(scenario)


def test_attachments_and_limits_are_there_again() -> None:
    """And others make it another question."""

    async def scenario() -> None:
        journal, seen = InMemoryJournal(), list[str]()
        photo = Attachment("image/png", PIXEL, "photo.png")

        def look(request: CompletionRequest) -> Answer:
            seen.append(repr(request.messages[0]))
            return "seen"

        async with open_kept(never_answers(), journal=journal) as pool:
            config = SpawnConfig(
                READER, "What is it?", attachments=(photo,), limits=UsageLimits(request_limit=1)
            )
            await pool.spawn(config)
            await trio.sleep(1)
            pool.abort_all("enough")
        async with open_kept(FunctionDriver(look), journal=journal) as pool:
            await pool.join_all()
        assert "photo.png" in seen[0]
        async with open_kept(FunctionDriver(look), journal=journal) as pool:
            await (await pool.spawn(msgspec.structs.replace(config, key="a"))).wait()
            other = msgspec.structs.replace(config, key="a", attachments=())
        async with open_kept(FunctionDriver(look), journal=journal) as pool:
            with pytest.raises(ResumeMismatchError):
                await pool.spawn(other)

    simulate(scenario)


def never_answers() -> FunctionDriver:
    """Return a model that is asked and says nothing."""

    async def wait(_: CompletionRequest) -> Answer:
        await trio.sleep_forever()

    return FunctionDriver(wait)


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cf"
    "c0000003010100c9fe92ef0000000049454e44ae426082"
)


# --- what can go wrong with the journal


@attrs.define(eq=False)
class Breaking(Journal):
    """Cannot be written from some write on."""

    good_writes: int
    inside: InMemoryJournal = attrs.field(factory=InMemoryJournal)

    async def claim(self, pool: str, *, lease_seconds: float = 30.0) -> Lease:
        """Take the right to write."""
        return await self.inside.claim(pool, lease_seconds=lease_seconds)

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, as long as there is room."""
        self.good_writes -= 1
        if self.good_writes < 0:
            await trio.lowlevel.checkpoint()
            raise JournalError("the disk is full")
        await self.inside.append(lease, records)

    async def read(self, pool: str) -> Sequence[JournalRecord]:
        """Return records."""
        return await self.inside.read(pool)

    async def release(self, lease: Lease) -> None:
        """Give the right to write back."""
        await self.inside.release(lease)


@pytest.mark.parametrize("good_writes", range(6))
def test_a_pool_ends_when_its_journal_cannot_be_written(good_writes: int) -> None:
    """With that error, as itself: nothing more is done that nobody keeps."""

    async def scenario() -> None:
        shop = Shop()
        journal = Breaking(good_writes)
        with pytest.raises(JournalError, match="the disk is full"):
            await run_one(journal, SpawnConfig(READER, "buy", key="a"), buyer, tools=shop.tools())
        begun = [r for r in await journal.read("kept") if r.kind is RecordKind.STARTED]
        assert len(shop.paid) <= len(begun)

    simulate(scenario)


@attrs.define(eq=False)
class Stuck(Breaking):
    """Some write takes for ever."""

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, until one write does not end."""
        self.good_writes -= 1
        if self.good_writes < 0:
            await trio.sleep_forever()
        await self.inside.append(lease, records)


def test_a_pool_that_is_aborted_waits_half_a_minute_for_its_journal() -> None:
    """Whoever has pressed Ctrl-C waits no longer for a disk that does not answer."""

    async def abort() -> None:
        async with open_kept(FunctionDriver(echo), journal=Stuck(1)) as pool:
            await pool.spawn(SpawnConfig(READER, "a", key="a"))
            await trio.sleep(1)
            pool.abort_all("Ctrl-C")

    async def scenario() -> None:
        with pytest.raises(JournalError, match="the journal's file stayed busy for 30 seconds"):
            await abort()
        assert trio.current_time() == 31

    simulate(scenario)


@attrs.define(eq=False)
class Slow(Breaking):
    """Takes two seconds for each write."""

    async def append(self, lease: Lease, records: Sequence[JournalRecord]) -> None:
        """Keep records, late."""
        await trio.sleep(2)
        await self.inside.append(lease, records)


@pytest.mark.parametrize(
    "limits",
    [
        ResourceQuota(tool_seconds=1),
        ResourceQuota(request_seconds=1),
        ResourceQuota(tool_seconds=1, request_seconds=1),
    ],
)
def test_a_slow_disk_takes_no_time_of_a_request_or_a_call(limits: ResourceQuota) -> None:
    """A step that has not begun cannot be late, whatever the one before had left."""
    manifest = attrs.evolve(READER, resources=limits)

    async def scenario() -> None:
        config = SpawnConfig(manifest, "buy", key="a")
        outcome = await run_one(Slow(good_writes=0), config, buyer, tools=Shop().tools())
        assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "paid 1; paid 1; paid 2")

    simulate(scenario)


def test_an_error_of_the_block_comes_out_as_itself() -> None:
    """Also with a journal around it, and together with failures of agents."""

    async def scenario() -> None:
        with pytest.raises(KeyError, match="mine"):
            async with open_kept(FunctionDriver(echo), journal=InMemoryJournal()):
                raise KeyError("mine")

        def refuse(_: CompletionRequest) -> Answer:
            raise BadRequestError("no")

        with pytest.raises(PoolError) as caught:
            async with open_kept(FunctionDriver(refuse), journal=InMemoryJournal()) as pool:
                await pool.fan_out([SpawnConfig(READER, "x"), SpawnConfig(READER, "y")])
        assert len(caught.value.exceptions) == 2

    simulate(scenario)


def test_calls_with_other_arguments_are_not_taken_for_the_old_ones() -> None:
    """A model that answers something else at the same place is another model."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop()
        config = SpawnConfig(READER, "buy", key="a")
        await run_one(journal, config, buyer, tools=shop.tools())
        records = journal._pools["kept"]
        changed = [
            msgspec.structs.replace(one, digest="another")
            if one.kind is RecordKind.RESULT and one.digest
            else one
            for one in records
            if one.kind is not RecordKind.ENDED
        ]
        journal._pools["kept"] = changed
        outcome = await run_one(journal, config, buyer, tools=shop.tools())
        assert isinstance(outcome.error, ResumeMismatchError)
        assert outcome.error.differs == "call 'pay' has different arguments"

    simulate(scenario)


def test_a_message_to_nobody_in_particular_is_kept_like_any_other() -> None:
    """What the owner sends again is the old message, received or not."""

    async def scenario(journal: Journal) -> object:
        async with open_kept(FunctionDriver(echo), journal=journal, max_concurrent=1) as pool:
            first = await pool.spawn(SpawnConfig(READER, "one", key="a"))
            second = await pool.spawn(SpawnConfig(READER, "two", key="b"))
            await second.send("for later")
            await first.wait()
            return [told(await handle.wait())[2] for handle in (first, second)]

    assert crash_everywhere(scenario).points > 4


def test_an_agent_serves_no_call_of_another() -> None:
    """It begins while the other waits in a call, and writes under its own key."""

    async def build(context: AgentContext) -> ToolRegistry:
        if context.name == "two":
            await context.send(0, "from two")

        @tool(on_unknown="rerun")
        async def rest() -> str:
            """Let the other one begin, then write."""
            async with context.without_slot("a rest"):
                await trio.sleep(1)
            await context.send(0, "from one")
            return "rested"

        return ToolRegistry([rest])

    def answer(request: CompletionRequest) -> Answer:
        is_first = request.messages == (UserMessage("rest"),)
        return call("rest") if is_first else "done"

    async def scenario(journal: Journal) -> object:
        driver = FunctionDriver(answer)
        async with open_kept(driver, journal=journal, tools=build, max_concurrent=1) as pool:
            await pool.spawn(SpawnConfig(READER, "rest", name="one", key="a"))
            await pool.spawn(SpawnConfig(READER, "write", name="two", key="b"))
            await pool.join_all()
            return sorted(message.content for message in await pool.receive_many())

    assert crash_everywhere(scenario).points > 4


async def test_journals_say_what_they_have() -> None:
    """One in memory as one in a file; names that need SQLite are loaded when asked for."""
    journal = InMemoryJournal()
    config = SpawnConfig(READER, "x", key="a")
    await run_one(journal, config, echo)
    (summary,) = await journal.pools()
    assert (summary.pool, summary.agents, summary.ended) == ("kept", 1, 1)
    assert "open_journal" in dir(agentpool.journal)


def test_records_that_cannot_be_read_are_named() -> None:
    """Cut, or of another program."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        lease = await journal.claim("kept")
        await journal.append(lease, [JournalRecord(0, RecordKind.ACCEPTED, body=b"{")])
        with pytest.raises(JournalError, match="has a record that cannot be read"):
            async with open_kept(FunctionDriver(echo), journal=journal):
                raise AssertionError

    simulate(scenario)


# --- the kit


def test_a_crash_that_changes_the_end_is_found() -> None:
    """A scenario that keeps nothing does its work again, and comes to something else."""
    runs = 0

    async def forgetful(journal: Journal) -> object:
        nonlocal runs
        runs += 1
        await run_one(journal, SpawnConfig(READER, "x", key="a"), echo)
        return runs

    with pytest.raises(
        CrashPointError, match=r"after a crash before write 1 to the journal"
    ) as caught:
        crash_everywhere(forgetful)
    assert caught.value.point == "before 1"


def test_a_crash_that_is_not_survived_is_found() -> None:
    """By what the scenario raises when it goes on."""
    runs = 0

    async def brittle(journal: Journal) -> object:
        nonlocal runs
        runs += 1
        if runs == 3:
            raise ValueError("not again")
        return (await run_one(journal, SpawnConfig(READER, "x", key="a"), echo)).text

    with pytest.raises(CrashPointError, match=r"fails after a crash .*: ValueError: not again"):
        crash_everywhere(brittle)


def test_what_a_scenario_raises_before_its_crash_comes_out() -> None:
    """It is no matter of the journal."""
    runs = 0

    async def moody(journal: Journal) -> object:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise ValueError("not today")
        return (await run_one(journal, SpawnConfig(READER, "x", key="a"), echo)).text

    with pytest.raises(ValueError, match="not today"):
        crash_everywhere(moody)


def test_a_spent_budget_stays_spent() -> None:
    """An agent that a budget was about to stop is stopped, and asks nobody."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        config = SpawnConfig(READER, "buy", key="a")
        terms = {"tools": Shop().tools("rerun"), "budget": Budget(requests=1)}
        first = await run_one(journal, config, buyer, **terms)
        assert first.stop_reason is StopReason.REQUEST_BUDGET
        kept = journal._pools["kept"]
        journal._pools["kept"] = [one for one in kept if one.kind is not RecordKind.ENDED]
        again = await run_one(journal, config, never, **{**terms, "budget": Budget(requests=1)})
        assert told(again) == told(first)

    simulate(scenario)


def test_what_a_scenario_raises_itself_comes_out() -> None:
    """It has nothing to do with a crash."""

    async def broken(_: Journal) -> object:  # noqa: ASYNC124  # a scenario is async
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        crash_everywhere(broken)
