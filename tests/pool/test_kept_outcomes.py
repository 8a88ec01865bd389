"""What is paid for is not lost: every agent's outcome is found, until it may be forgotten."""

from __future__ import annotations

import gc
import pickle
import sys
import tracemalloc

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Capability,
    CapabilityKind,
    PoolError,
    RestartLimitError,
    RestartPolicy,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, OverloadedError
from agentpool.testing import assert_quiescent, cancel_everywhere, simulate
from agentpool.testing._simulation.quiescent import agents_of
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    calling,
    job,
    jobs,
    manifest,
    query_of,
    results_of,
    tool_call,
)

PARENT = manifest("parent", capabilities=(Capability(CapabilityKind.MESSAGE), Capability.spawn(2)))


def act(request: CompletionRequest) -> Completion | str:
    """Call a tool that the query names, fail, or say the query."""
    query = query_of(request)
    if query.startswith("bad"):
        raise OverloadedError("broken", retryable=False)
    if results_of(request):
        return results_of(request)[0].content
    return calling(tool_call(query)) if query.startswith("call_") else query


@tool
async def call_child(context: ToolContext) -> str:
    """Run a child."""
    return (await context.agent.run_child("a child")).text


async def test_the_pool_knows_every_agent(autojump_clock: MockClock) -> None:
    """Those of a parent, a map, a race and a supervision: "the last one is 2", it said of 2."""
    async with open_pool(FunctionDriver(act), tools=ToolRegistry([call_child])) as pool:
        parent = await pool.spawn(SpawnConfig(PARENT, "call_child"))
        await parent.wait()
        assert pool[2].outcome is not None
        assert (pool[2].parent_id, pool[2].outcome.text) == (1, "a child")
        await pool.race(jobs("won"))
        await pool.supervise(jobs("watched"))
        async with pool.map(manifest(), ["mapped"]) as outcomes:
            async for outcome in outcomes:
                assert pool[outcome.agent_id].outcome is outcome
        names = [pool[n].outcome for n in range(1, 6)]
        assert [one and one.text for one in names] == [
            "a child", "a child", "won", "watched", "mapped",
        ]  # fmt: skip
        for wrong in (0, 6, True, "1"):
            with pytest.raises(UsageError, match="there is no agent"):
                pool[wrong]  # type: ignore[index]
        own = await pool.join_all()
        family = await pool.join_all(children=True)
    assert list(own) == [1]
    assert list(family) == [1, 2, 3, 4, 5]


async def test_joining_the_children_waits_for_them(autojump_clock: MockClock) -> None:
    """Also for a child whose parent does not."""

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.sleep({"call_child": 1, "a race": 20}.get(query_of(request), 5))
        return act(request)

    async with open_pool(LiveDriver(answer), tools=ToolRegistry([call_child])) as pool:
        await pool.spawn(SpawnConfig(PARENT, "call_child"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.race, jobs("a race"))
            await trio.sleep(2)
            family = await pool.join_all(children=True)
            assert trio.current_time() == 20
    assert [one.status for one in family.values()] == [AgentStatus.COMPLETED] * 3


async def test_a_supervision_that_gives_up_keeps_what_others_did() -> None:
    """The outcomes of those that had completed were nowhere."""
    async with open_pool(FunctionDriver(act)) as pool:
        with pytest.raises(RestartLimitError, match="more than 1 times") as caught:
            await pool.supervise(jobs("a", "b", "bad"), RestartPolicy(max_restarts=1))
        outcomes: tuple[AgentOutcome, ...] = caught.value.outcomes
        assert [one.text for one in outcomes if one.status is AgentStatus.COMPLETED] == ["a", "b"]
        assert [one.agent_id for one in outcomes if one.status is AgentStatus.FAILED] == [3, 4]
        assert [pool[one.agent_id].outcome for one in outcomes] == list(outcomes)
        copied = pickle.loads(pickle.dumps(caught.value))
        assert [one.agent_id for one in copied.outcomes] == [1, 2, 3, 4]
        assert (copied.kind, copied.used, copied.limit) == ("restarts", 2, 1)


async def test_a_race_that_nobody_wins_keeps_the_outcomes() -> None:
    """The error names the agents, and the pool has what they did."""
    async with open_pool(FunctionDriver(act)) as pool:
        with pytest.raises(PoolError, match="none of the 2 racers") as caught:
            await pool.race(jobs("bad 1", "bad 2"))
        for agent_id, error in caught.value.by_agent.items():
            outcome = pool[agent_id].outcome
            assert outcome is not None
            assert outcome.error is error


# --- A8


async def test_of_a_maps_agents_the_last_ones_are_known() -> None:
    """A map of any length needs as little memory, and its last agents are found."""
    async with open_pool(FunctionDriver(act)) as pool:
        async with pool.map(manifest(), (f"q{n}" for n in range(1200))) as outcomes:
            ids = [outcome.agent_id async for outcome in outcomes]
        assert pool[ids[-1]].outcome is not None
        with pytest.raises(UsageError, match="no longer kept"):
            pool[ids[0]]
        assert len(await pool.join_all(children=True)) == 1000


async def test_outcomes_that_were_given_out_are_forgotten_after_a_while() -> None:
    """So many are kept as the pool is told to keep."""
    async with open_pool(FunctionDriver(act), keep_outcomes=2) as pool:
        handles = await pool.fan_out(jobs("a", "b", "c", "d"))
        assert list(await pool.join_all()) == [1, 2, 3, 4]
        assert list(await pool.join_all()) == [3, 4]
        with pytest.raises(UsageError, match=r"agent 1 .*no longer kept.*keep_outcomes"):
            pool[1]
        assert pool[4] == handles[3]
        # Whoever has the handle has the outcome.
        assert (await handles[0].wait()).text == "a"
        assert await pool.join_next() is None


async def test_what_nobody_was_given_is_never_forgotten() -> None:
    """A failure still passes no one by in silence."""
    with pytest.raises(OverloadedError, match="broken") as caught:  # noqa: PT012
        try:
            async with open_pool(FunctionDriver(act), keep_outcomes=0) as pool:
                await pool.fan_out(jobs("bad", "b", "c"))
        except PoolError as error:
            raise error.by_agent[1] from None
    assert caught.value is not None
    async with open_pool(FunctionDriver(act), keep_outcomes=0) as pool:
        await pool.fan_out(jobs("a", "b", "c"))
        assert {one.text async for one in pool.as_completed()} == {"a", "b", "c"}


async def test_a_handle_is_forgotten_when_one_says_so() -> None:
    """Also if nobody looked at the outcome: whoever forgets has seen enough."""
    async with open_pool(FunctionDriver(act)) as pool:
        first, second = pool.fan_out_nowait(jobs("bad", "b"))
        with pytest.raises(UsageError, match=r"agent 1 .* goes on and cannot be forgotten"):
            first.forget()
        await second.wait()
        await wait_all_tasks_blocked()
        assert first.status is AgentStatus.FAILED
        first.forget()
        first.forget()
        assert list(await pool.join_all()) == [2]
        assert await pool.join_next() is None
        with pytest.raises(UsageError, match="no longer kept"):
            pool[1]
        assert_quiescent(pool)


async def cleans_up(request: CompletionRequest) -> str:
    """Hang; when cancelled, take a second to clean up, and fail at it if the query says so."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        if query_of(request).startswith("bad"):
            raise OverloadedError("broken", retryable=False) from None  # noqa: ASYNC104  # a driver of that kind
        raise
    raise AssertionError


@pytest.mark.parametrize("query", ["good", "bad"])
async def test_a_cancelled_agent_is_forgotten_at_its_end(
    query: str, autojump_clock: MockClock
) -> None:
    """Its handle has the outcome; nobody else is given it, nor told that it failed."""
    async with open_pool(FunctionDriver(cleans_up), keep_outcomes=100) as pool:
        first, other = pool.fan_out_nowait(jobs(query, "other"))
        await wait_all_tasks_blocked()
        first.cancel("nobody wants it")
        first.forget()
        first.forget()
        assert not first.has_ended
        assert (await first.wait()).agent_id == 1
        with pytest.raises(UsageError, match="no longer kept"):
            pool[1]
        other.cancel("the end")
        assert list(await pool.join_all()) == [2]
        assert_quiescent(pool)


@given(
    waits=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    slots=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_agents_that_nobody_waits_for_any_more_leave_nothing(
    waits: list[int], slots: int, seed: int
) -> None:
    """Who waits goes away at any time, beside others who take the next outcome, or all of them."""

    async def answers(request: CompletionRequest) -> str:
        await trio.sleep(3)
        return query_of(request)

    async def client(pool: AgentPool, patience: int, gone: set[int]) -> None:
        handle = await pool.spawn(job("q"))
        with trio.move_on_after(patience):
            await handle.wait()
            return
        handle.cancel("the client has gone")
        handle.forget()
        gone.add(handle.agent_id)

    async def main() -> None:
        gone: set[int] = set()
        driver = FunctionDriver(answers)
        async with open_pool(driver, max_concurrent=slots, keep_outcomes=2) as pool:
            async with trio.open_nursery() as nursery:
                for patience in waits:
                    nursery.start_soon(client, pool, patience, gone)
                nursery.start_soon(pool.join_next)
                nursery.start_soon(pool.join_all)
            await pool.join_all()  # has also those that have been cancelled, and go on
            left = await pool.join_all()
            assert not gone & set(left)
            assert len(left) <= 2
            assert await pool.join_next() is None
            statistics = pool.statistics()
            assert (statistics.spawned, statistics.running) == (len(waits), 0)
            assert_quiescent(pool)

    simulate(main, seed=seed)


@pytest.mark.parametrize("count", [1, 100])
async def test_no_next_outcome_is_one_that_was_forgotten(count: int) -> None:
    """Wherever among those that ended they are, few or many."""
    async with open_pool(FunctionDriver(act), max_queued=count + 4) as pool:
        handles = await pool.fan_out(jobs(*(f"q{number}" for number in range(count + 4))))
        for handle in handles:
            await handle.wait()
        for handle in (handles[0], *handles[2:-2], handles[-1]):
            handle.forget()
        kept = {handles[1].agent_id, handles[-2].agent_id}
        assert {one.agent_id async for one in pool.as_completed()} == kept
        assert await pool.join_next() is None
        assert_quiescent(pool)


async def test_the_failure_of_a_forgotten_agent_is_forgotten() -> None:
    """Whether the owner started it or a map did, or a pool that lives long would grow."""
    async with open_pool(FunctionDriver(act), keep_outcomes=0) as pool:
        async with pool.map(manifest(), ["bad", "bad", "good"]) as outcomes:
            assert [outcome.status.value async for outcome in outcomes].count("failed") == 2
        assert (await (await pool.spawn(job("bad"))).wait()).status is AgentStatus.FAILED
        assert not agents_of(pool).fan_in.failed
        assert_quiescent(pool)


async def test_fan_out_lets_a_config_go_when_its_agent_has_ended() -> None:
    """A hundred thousand configs took 14 MB until the last of their agents was accepted."""
    left: list[int] = []
    # The first one is in no config: what else refers to a key is the same for all.
    keys = [f"key {number}" for number in range(6)]

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        alone, *counts = [sys.getrefcount(key) for key in keys]
        left.append(sum(count > alone for count in counts))
        return "done"

    async with open_pool(LiveDriver(answer), max_concurrent=1, max_queued=0) as pool:
        await pool.fan_out(SpawnConfig(manifest(), "go", key=keys[at]) for at in range(1, 6))
        await pool.join_all()
    assert left == [5, 4, 3, 2, 1]


async def test_what_was_forgotten_takes_no_place_of_those_that_are_kept() -> None:
    """Of two that are kept one was forgotten by hand: the next one takes its place."""
    async with open_pool(FunctionDriver(act), keep_outcomes=2) as pool:
        first, second, third = await pool.fan_out(jobs("a", "b", "c"))
        await first.wait()
        await second.wait()
        second.forget()
        await third.wait()
        assert (pool[1], pool[3]) == (first, third)
        with pytest.raises(UsageError, match=r"agent 2 .*no longer kept"):
            pool[2]


async def test_a_join_has_those_that_were_forgotten_meanwhile() -> None:
    """No agent that it waits for is missing, whoever looks at it first."""

    async def look(handles: list[AgentStatus]) -> None:
        handles.append((await pool[1].wait()).status)

    async with open_pool(FunctionDriver(act), keep_outcomes=0) as pool:
        await pool.fan_out(jobs("a", "b"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, [])
            assert list(await pool.join_all()) == [1, 2]


IS_LONG = settings().max_examples >= 1000


async def test_a_pool_that_lives_long_stays_as_small() -> None:
    """Each outcome with its messages was kept for ever: 3 kB for every request."""

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * 2000

    async with open_pool(LiveDriver(answer), keep_outcomes=10) as pool:

        async def serve(count: int) -> None:
            for _ in range(count):
                await (await pool.spawn(job("q"))).wait()

        await serve(300)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await serve(100_000 if IS_LONG else 2_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # 2,000 outcomes would be 6 MB.
    assert after - before < 200_000


def test_keep_outcomes_is_a_number() -> None:
    """Or nothing, which is all of them."""

    async def scenario() -> None:
        with pytest.raises(UsageError, match="keep_outcomes must be a whole number >= 0"):
            async with open_pool(FunctionDriver(act), keep_outcomes=-1):
                pass  # pragma: no cover  # refused

    trio.run(scenario)


async def _forgets() -> None:
    """Give out, forget and join at the same time."""
    async with open_pool(FunctionDriver(act), keep_outcomes=1) as pool:
        handles = await pool.fan_out(jobs("a", "b", "c"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.join_next)
            nursery.start_soon(handles[1].wait)
            handles[2].cancel()
            handles[2].forget()
            await pool.join_all()
        assert_quiescent(pool)


def test_forgetting_leaks_at_no_point() -> None:
    """Cancelled before every step."""
    cancel_everywhere(_forgets)
