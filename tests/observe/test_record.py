"""What a trace comes to: every second has a reason, and the accounts add up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool import AgentMessage, Budget, SpawnConfig, Usage, open_pool
from agentpool._scheduling.waits import WaitReason
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FinishReason,
    FunctionDriver,
    GatedDriver,
    OverloadedError,
    RequestGate,
    ToolCall,
)
from agentpool.observe import (
    AgentFinished,
    AgentParked,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    CompletionReceived,
    Event,
    EventsMissed,
    MessageDropped,
    MessageSent,
    Phase,
    PhaseChanged,
    RequestStarted,
    ToolFinished,
)
from agentpool.observe._intervals import Interval, Reason, intervals_of
from agentpool.observe._record import PoolRecord, record_of
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry
from tests.support.busy_pool import busy_pool
from tests.support.fakes import Recorder, echo_tool, manifest, of_type, query_of, turns_of


async def busy() -> PoolRecord:
    """Return the record of a busy pool, in its own words."""
    recorder = Recorder()
    await busy_pool([recorder])
    return record_of(recorder.events)


def seconds_by_reason(record: PoolRecord, query: str) -> dict[str, float]:
    """Return where the time of the agent with *query* went."""
    (agent,) = (one for one in record.agents.values() if one.spawned.query == query)
    return {reason.value: seconds for reason in Reason if (seconds := agent.seconds_of(reason))}


async def test_each_second_of_each_agent_has_its_reason(autojump_clock: MockClock) -> None:
    """The record, in numbers that follow from what the pool does."""
    record = await busy()
    plain = seconds_by_reason(record, "plain")
    assert plain == {"model": 0.5, "answer": 0.5}
    searched = seconds_by_reason(record, "search")
    assert (searched["model"], searched["answer"], searched["tool"]) == (1.5, 0.5, 2.0)
    erased = seconds_by_reason(record, "erase")
    assert erased["approval"] == 2.0
    assert seconds_by_reason(record, "retry")["retry"] > 0.4
    assert "queued" in seconds_by_reason(record, "hang")
    summed = seconds_by_reason(record, "sum")
    assert summed["model"] == 1.0 + 0.25  # its tool's own request is not a time of the tool
    assert "tool" not in summed


def check_tiles(events: list[Event]) -> None:
    """Check that the intervals of each agent are its whole life, without gap or overlap."""
    ends = {event.agent_id: event.at_seconds for event in of_type(events, AgentFinished)}
    for spawned in of_type(events, AgentSpawned):
        intervals = intervals_of(events)[spawned.agent_id]
        first, last = spawned.at_seconds, ends[spawned.agent_id]
        if first == last:
            assert intervals == ()
            continue
        assert (intervals[0].begin_seconds, intervals[-1].end_seconds) == (first, last)
        for before, after in pairwise(intervals):
            assert before.end_seconds == after.begin_seconds
        assert all(i.begin_seconds < i.end_seconds for i in intervals)


@st.composite
def plans(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Draw agents: turns, failures before the first answer, and tokens of each answer."""
    agent = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 500))
    return draw(st.lists(agent, min_size=1, max_size=6))


@given(plans(), st.integers(1, 3), st.integers(0, 2**20), st.sampled_from(["plain", "gated"]))
def test_random_pools_add_up(
    plan: list[tuple[int, int, int]], slots: int, seed: int, kind: str
) -> None:
    """Tokens, money, requests and calls equal the books; time has no gap."""
    failures = {str(number): failed for number, (_, failed, _) in enumerate(plan)}

    async def answer(request: CompletionRequest) -> Completion:
        query, turn = query_of(request), turns_of(request)
        turns, _, tokens = plan[int(query)]
        await trio.sleep(0.25)
        if failures[query]:
            failures[query] -= 1
            raise OverloadedError("busy")
        usage = Usage(tokens, 7, tokens // 2)
        if turn < turns:
            call = ToolCall(f"c{turn}", "echo", "{}")
            return Completion("", (call,), FinishReason.TOOL_USE, usage, "m", 0.25)
        return Completion("done", (), FinishReason.END_TURN, usage, "m", 0.5)

    recorder = Recorder()
    budget = Budget(tokens=10**7, name="all")

    async def run() -> None:
        driver = FunctionDriver(answer)
        gate = RequestGate(max_in_flight=1)
        async with open_pool(
            GatedDriver(driver, gate) if kind == "gated" else driver,
            max_concurrent=slots,
            observers=[recorder],
            budget=budget,
            tools=ToolRegistry([echo_tool()]),
        ) as pool:
            config = manifest(max_repeated_calls=100)
            await pool.fan_out([SpawnConfig(config, str(n)) for n in range(len(plan))])
            outcomes = await pool.join_all()
        record = record_of(recorder.events)
        for agent_id, outcome in outcomes.items():
            agent = record.agents[agent_id]
            assert agent.usage == outcome.usage
            assert agent.turns == outcome.iterations
            assert agent.tool_calls == outcome.tool_calls_run
            assert outcome.cost_usd == pytest.approx(agent.cost_usd)
            assert tuple(agent.messages) == outcome.messages
        books = budget.statistics()
        assert record.usage.total_tokens == books.tokens.committed
        assert record.cost_usd == pytest.approx(books.cost.committed)
        assert sum(agent.requests for agent in record.agents.values()) == books.requests.committed
        assert sum(a.tool_calls for a in record.agents.values()) == books.tool_calls.committed

    simulate(run, seed=seed)
    check_tiles(recorder.events)


# --- corners of the intervals


def life(*events: Event) -> list[tuple[float, float, str, str]]:
    """Return the intervals of agent 1."""
    intervals: tuple[Interval, ...] = intervals_of(events)[1]
    return [(i.begin_seconds, i.end_seconds, i.reason.value, i.detail) for i in intervals]


def stamps() -> Iterator[tuple[int, float, int, str]]:
    """Yield stamps, a second apart."""
    for number in range(100):
        yield number + 1, float(number), 1, "a"


def test_an_agent_that_has_not_ended_lives_to_the_last_event() -> None:
    """Whatever it did then goes on."""
    at = stamps()
    told: list[Event] = [AgentSpawned(*next(at), 0), AgentStarted(*next(at)), RequestStarted(
        *next(at), 1, 1, "", by_tool=False, sent=()
    ), EventsMissed(9, 9.0, 0, "", 3)]  # fmt: skip
    assert life(*told) == [(0.0, 1.0, "queued", ""), (1.0, 2.0, "own", ""), (2.0, 9.0, "model", "")]


def test_what_an_agent_waits_for_is_kept() -> None:
    """In words, and by its number."""
    at = stamps()
    spawned, started = AgentSpawned(*next(at), 0), AgentStarted(*next(at))
    parked = AgentParked(*next(at), "agent 2 (b)", WaitReason.AGENT, 2)
    told: list[Event] = [spawned, started, parked, AgentResumed(*next(at))]
    (wait,) = (i for i in intervals_of(told)[1] if i.reason is Reason.PARKED)
    assert (wait.detail, wait.target_id) == ("agent 2 (b)", 2)


def test_what_was_not_seen_from_its_spawn_has_no_life() -> None:
    """Whoever came late knows nothing of it."""
    assert intervals_of([AgentStarted(1, 0.0, 1, "a")]) == {}
    assert record_of([AgentStarted(1, 0.0, 1, "a")]).agents == {}


async def test_an_error_that_is_still_there_is_told_with_its_place() -> None:
    """Not only what was read from a file."""

    async def answer(_: CompletionRequest) -> str:
        await trio.lowlevel.checkpoint()
        raise ValueError("no")

    recorder = Recorder()
    async with open_pool(FunctionDriver(answer), observers=[recorder]) as pool:
        await (await pool.spawn(SpawnConfig(manifest(), "hello"))).wait()
    record = record_of(recorder.events)
    assert record.first_failure is record.agents[1]
    error = record.agents[1].error
    assert error is not None
    assert error[:2] == ("ValueError", "no")
    assert "in answer" in error[2]


def test_what_nobody_knows_is_not_zero() -> None:
    """No price, no usage, no start: each is left out, and said."""
    at = stamps()
    call = ToolCall("c", "echo", "{}")
    message = AgentMessage(0, 1, "hello", 1)
    events: list[Event] = [
        AgentSpawned(*next(at), 0),
        CompletionReceived(*next(at), FinishReason.END_TURN, None, 0.5),
        ToolFinished(*next(at), call, "x", is_error=False),
        MessageSent(9, 9.0, 0, "", message),
        MessageDropped(10, 10.0, 7, "", message, "it never was there"),
        PhaseChanged(11, 11.0, 0, "", Phase.DONE),
    ]
    record = record_of(events)
    assert record.cost_usd is None
    assert record.agents[1].unpriced == 1
    assert record.usage == Usage()
    assert record.tools["echo"].percentile(0.5) is None
    assert [sent.message for sent in record.messages] == [message]
    assert [letter.message for letter in record.dead_letters] == [message]
    assert record.agents[1].error is None


def spawned_by(*parents: int) -> list[Event]:
    """Return the spawns of agents 1, 2, … by these parents."""
    return [AgentSpawned(n, 0.0, n, f"n{n}", parent_id) for n, parent_id in enumerate(parents, 1)]


def test_who_is_not_spawned_by_an_earlier_agent_is_the_owners() -> None:
    """A damaged file may make an agent its own parent, or say twice that it was spawned."""
    record = record_of([*spawned_by(1, 3, 1), *spawned_by(2)])
    assert [agent.agent_id for agent in record.roots()] == [1, 2]
    assert record.agents[1].children == [3]
    assert record.with_children()[record.agents[1].agent_id].unpriced == 0


def test_sums_with_children_are_of_all_below() -> None:
    """In one pass over a chain of 3,000."""
    events = spawned_by(*range(3_000))
    last = CompletionReceived(3_001, 0.0, 3_000, "n", FinishReason.END_TURN, Usage(1, 2), 0.0)
    sums = record_of([*events, last]).with_children()
    assert {bill.usage.output_tokens for bill in sums.values()} == {2}
    assert {bill.unpriced for bill in sums.values()} == {1}
