"""assert_quiescent: everything that can be left in a pool is named."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from agentpool import OWNER_ID, AgentOutcome, AgentPool, AgentStatus, open_pool
from agentpool.drivers import (
    AssistantMessage,
    GatedDriver,
    RequestGate,
    ScriptedDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.journal import InMemoryJournal
from agentpool.testing import LeakError, assert_quiescent
from agentpool.testing._simulation.quiescent import (
    agents_of,
    history_faults,
    outcome_faults,
    pool_leaks,
)
from tests.support.fakes import jobs
from tests.support.scenarios import crew, member


def leaks(pool: AgentPool, *, closed: bool = False) -> list[str]:
    """Return what is left in *pool*."""
    return list(pool_leaks(agents_of(pool), (), closed=closed))


@asynccontextmanager
async def background_crew() -> AsyncGenerator[tuple[AgentPool, trio.Nursery], None]:
    """Open a pool of one slot, and a nursery whose tasks end before its agents do."""
    async with crew(max_concurrent=1) as pool:
        async with trio.open_nursery() as nursery:
            yield pool, nursery
            nursery.cancel_scope.cancel()
        pool.abort_all()


async def test_a_pool_at_rest_is_at_rest(autojump_clock: trio.testing.MockClock) -> None:
    """Before the first agent, after the last, and after the block."""
    async with crew() as pool:
        assert_quiescent(pool)
        await pool.fan_out([member("a nap"), member("b tell=1"), member("c spawn=child.nap")])
        await pool.join_all()
        assert_quiescent(pool)
    assert_quiescent(pool)
    assert leaks(pool, closed=True) == []


async def test_a_pool_with_a_journal_is_at_rest(autojump_clock: trio.testing.MockClock) -> None:
    """What writes its records is the pool's, and waits for more of them until the block ends."""
    async with open_pool(ScriptedDriver(["a"]), journal=InMemoryJournal()) as pool:
        await pool.fan_out(jobs("a"))
        await pool.join_all()
        await trio.sleep(1)
        assert_quiescent(pool)
        assert "task 'journal' is in the pool's nursery" in leaks(pool, closed=True)
    assert leaks(pool, closed=True) == []


async def test_the_owner_may_have_post(autojump_clock: trio.testing.MockClock) -> None:
    """What the owner has not read is the owner's business."""
    async with crew() as pool:
        await (await pool.spawn(member("a tell=0"))).wait()
        assert pool.statistics().messages == 1
        assert_quiescent(pool)


async def test_whoever_is_at_work_is_named(autojump_clock: trio.testing.MockClock) -> None:
    """Running, parked, queued; slots, inboxes, tasks, joins and questions."""
    async with background_crew() as (pool, nursery):
        await pool.fan_out([member("a hear"), member("b nap"), member("c nap")])
        nursery.start_soon(pool.join_all)
        await trio.sleep(0.5)
        with pytest.raises(LeakError) as caught:
            assert_quiescent(pool)
    assert "pool 'pool' is not at rest" in str(caught.value)
    found = set(caught.value.leaks)
    assert {
        "agent 2 (b) is running",
        "1 agents are in the queue",
        "1 slots are borrowed",
        "3 agents count as active",
        "agent 2 is registered with the router",
        "task 'b' is in the pool's nursery",
        "a task still waits in join_all()",
        "agent 3 (c) has no outcome: it is queued",
    } <= found
    assert_quiescent(pool)


async def test_whoever_waits_at_a_gate_is_named(autojump_clock: trio.testing.MockClock) -> None:
    """Its slot is lent: not taken, and not free either."""
    driver = GatedDriver(ScriptedDriver(["a", "b"]), RequestGate(requests_per_minute=1))
    async with open_pool(driver, max_concurrent=1) as pool:
        await pool.fan_out(jobs("one", "two"))
        await trio.sleep(1)
        assert "1 slots are lent for agents at a gate" in leaks(pool)
        await pool.join_all()
        assert leaks(pool) == []


async def test_a_question_without_an_answer_is_named() -> None:
    """Whoever asks waits, also when it is the owner."""
    async with background_crew() as (pool, nursery):
        await pool.fan_out([member("a nap=3"), member("b nap")])
        nursery.start_soon(pool[2].ask, "well?")
        await trio.testing.wait_all_tasks_blocked()
        assert "agent 0 waits for agent 2 to answer 1" in leaks(pool)


async def test_whoever_waits_for_a_slot_is_named() -> None:
    """A parked agent whose wait is over, in a pool whose slot is taken."""
    async with crew(max_concurrent=1) as pool:
        await pool.fan_out([member("a hear"), member("b nap=3")])
        await trio.testing.wait_all_tasks_blocked()
        await pool[1].send("wake up")
        await trio.testing.wait_all_tasks_blocked()
        assert "agent 1 waits for a slot" in leaks(pool)
        pool.abort_all()


async def test_a_pool_that_is_still_open_has_an_owner() -> None:
    """After the block even the owner is gone."""
    async with crew() as pool:
        assert leaks(pool, closed=True) == ["the owner is registered with the router"]


async def test_more_dead_letters_than_messages_are_a_lie() -> None:
    """The numbers must fit together."""
    async with crew() as pool:
        pool._agents.router._dead_count = 1  # the lie that is planted
        assert leaks(pool) == ["1 dead letters of 0 messages"]
        pool._agents.router._dead_count = OWNER_ID


def outcome(**changes: object) -> AgentOutcome:
    """Return an outcome that is in order but for *changes*."""
    plain = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED)
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"agent_id": 2}, "agent 1 (a) has the outcome of agent 2"),
        (
            {"status": AgentStatus.RUNNING, "error": ValueError()},
            "agent 1 (a) has ended, but its outcome says running",
        ),
        ({"status": AgentStatus.FAILED}, "agent 1 (a) is failed with the error None"),
        ({"error": ValueError("x")}, "agent 1 (a) is completed with the error ValueError('x')"),
        ({"started_at": 2.0, "finished_at": 1.0}, "agent 1 (a) finished at 1, started at 2"),
    ],
)
def test_an_outcome_that_makes_no_sense_is_named(changes: dict[str, object], text: str) -> None:
    """Each way to be wrong has its line."""
    assert list(outcome_faults(outcome(), 1)) == []
    assert list(outcome_faults(outcome(**changes), 1)) == [text]


def test_a_call_without_its_one_result_is_named() -> None:
    """Providers refuse such a history, so whoever goes on from it fails."""
    asked = AssistantMessage("", (ToolCall("1", "add", "{}"), ToolCall("2", "add", "{}")))
    one, two = ToolMessage("1", "add", "3"), ToolMessage("2", "add", "4")
    assert list(history_faults((UserMessage("hi"), asked, two, one, asked, one, two))) == []
    assert list(history_faults((asked, one))) == ["tool call '2' has no result"]
    assert list(history_faults((asked, two, UserMessage("so?")))) == ["tool call '1' has no result"]
    assert list(history_faults((asked, one, two, two))) == [
        "there is a result for call '2', which was never made"
    ]
    found = outcome_faults(outcome(messages=(asked, one)), 1)
    assert list(found) == ["the history of agent 1 (a): tool call '2' has no result"]
