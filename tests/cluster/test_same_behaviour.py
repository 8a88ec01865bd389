"""What a pool promises, it promises on a cluster: one suite for both."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest
import trio

from agentpool import (
    AgentCancelledError,
    AgentManifest,
    AgentStatus,
    Budget,
    Capability,
    DeadlockError,
    LimitExceededError,
    PoolClosedError,
    PoolError,
    PoolFullError,
    PrivacyError,
    PrivacyTier,
    ResourceQuota,
    RestartPolicy,
    ShutdownStep,
    SpawnConfig,
    StopReason,
    UsageError,
)
from agentpool.drivers import BadRequestError
from agentpool.journal import InMemoryJournal
from agentpool.observe import AgentFinished, AgentSpawned, TextDelta, ToolFinished
from agentpool.tools import ToolRegistry
from tests.cluster.conftest import Opener
from tests.support import node_work
from tests.support.fakes import Recorder, of_type

TOOLS = "tests.support.node_work:TOOLS"


def job(query: str, *, name: str = "worker", **terms: object) -> SpawnConfig:
    """Return an agent that does as it is told."""
    grants = (Capability.spawn(2),)
    # With a time limit, a tool's wait would end by itself, and no circle were one.
    resources = ResourceQuota(tool_seconds=None)
    manifest = AgentManifest(
        name=name, capabilities=grants, privacy=PrivacyTier.SOVEREIGN, resources=resources
    )
    return SpawnConfig(manifest, query, **terms)  # type: ignore[arg-type]


async def started(count: int, file: Path) -> None:
    """Wait until so many have begun what they do."""
    with trio.fail_after(60):
        while len(node_work.marks(file)) < count:  # noqa: ASYNC110  # it may be another process
            await trio.sleep(0.02)


async def test_an_agent_answers(open_any: Opener) -> None:
    """The smallest thing."""
    async with open_any() as pool:
        outcome = await (await pool.spawn(job("say hello"))).wait()
    assert (outcome.agent_id, outcome.status, outcome.text) == (1, AgentStatus.COMPLETED, "hello")
    assert outcome.unwrap() == "hello"
    assert outcome.usage.total_tokens > 0
    assert outcome.cost_usd == 0.0


async def test_all_are_joined_in_the_order_of_their_spawn(open_any: Opener) -> None:
    """Nobody is missing."""
    async with open_any() as pool:
        await pool.fan_out(job(f"say {number}") for number in range(20))
        outcomes = await pool.join_all()
    assert [(i, one.text) for i, one in outcomes.items()] == [(n + 1, str(n)) for n in range(20)]


async def test_each_is_given_out_once_as_it_ends(open_any: Opener) -> None:
    """In the order of the ends, and then nobody is left."""
    async with open_any(max_concurrent=1) as pool:
        await pool.fan_out([job("say a"), job("say b"), job("say c")])
        assert [one.text async for one in pool.as_completed()] == ["a", "b", "c"]
        assert await pool.join_next() is None


async def test_a_map_keeps_the_order_of_the_queries(open_any: Opener) -> None:
    """Also when the first is the slowest."""
    queries = ["sleep 0.2", *[f"say {number}" for number in range(10)]]
    async with open_any() as pool, pool.map(job("x").manifest, queries, ordered=True) as outcomes:
        texts = [one.text async for one in outcomes]
    assert texts == ["slept 0.2", *map(str, range(10))]


async def test_a_map_asks_again(open_any: Opener) -> None:
    """The last outcome counts."""
    async with open_any() as pool, pool.map(job("x").manifest, ["fail"], retries=1) as outcomes:
        assert [one.status async for one in outcomes] == [AgentStatus.FAILED]
        assert pool.statistics().spawned == 2


async def test_the_losers_of_a_race_end(open_any: Opener, tmp_path: Path) -> None:
    """On the node as well."""
    file = tmp_path / "marks"
    nap = json.dumps({"seconds": 600, "file": str(file)})
    async with open_any(tools=TOOLS) as pool:
        async with trio.open_nursery() as nursery:

            async def race() -> None:
                slow = f"sleep 600\nmark {file} ready sleep 0.3"
                winner = await pool.race([job(f"call nap {nap}"), job(slow)])
                assert winner.text == "slept 0.3"

            nursery.start_soon(race)
        assert pool.active_count == 0
        assert sorted(node_work.marks(file)) == ["began", "cancelled", "ready"]


async def test_a_failure_comes_whole(open_any: Opener) -> None:
    """With its type and fields, and nobody has to look at each."""
    async with open_any() as pool:
        outcome = await (await pool.spawn(job("fail"))).wait()
        value = await (await pool.spawn(job("fail value"))).wait()
    assert outcome.status is AgentStatus.FAILED
    assert isinstance(outcome.error, BadRequestError)
    assert outcome.error.status_code == 400
    assert isinstance(value.error, ValueError)


async def test_an_unseen_failure_is_raised_at_the_exit(open_any: Opener) -> None:
    """Errors do not pass silently."""
    with pytest.raises(PoolError, match="1 of 2 agents failed") as caught:
        async with open_any() as pool:
            await pool.fan_out([job("fail value"), job("say yes")])
    assert isinstance(caught.value.first, ValueError)


async def test_one_failure_may_end_the_others(open_any: Opener) -> None:
    """As ``on_failure`` says."""
    async with open_any(on_failure="abort") as pool:
        slow = await pool.spawn(job("sleep 600"))
        failing = await pool.spawn(job("fail"))
        assert (await slow.wait()).status is AgentStatus.CANCELLED
        assert (await failing.wait()).status is AgentStatus.FAILED


async def test_abort_ends_everybody(open_any: Opener, tmp_path: Path) -> None:
    """Queued ones as well, and none of them begins."""
    file = tmp_path / "marks"
    async with open_any(max_concurrent=4) as pool:
        await pool.fan_out(job(f"mark {file} m sleep 600") for _ in range(40))
        await started(4, file)
        pool.abort_all("enough")
        outcomes = await pool.join_all()
        assert {one.status for one in outcomes.values()} == {AgentStatus.CANCELLED}
        error = outcomes[1].error
        assert isinstance(error, AgentCancelledError)
        assert (error.cancelled_by, error.reason) == ("owner", "enough")
        after = await (await pool.spawn(job("say on"))).wait()
        assert after.text == "on"
    assert len(node_work.marks(file)) == 4


async def test_one_is_cancelled(open_any: Opener, tmp_path: Path) -> None:
    """The others go on."""
    file = tmp_path / "marks"
    async with open_any() as pool:
        handles = await pool.fan_out([job(f"mark {file} m sleep 600"), job("sleep 0.1")])
        await started(1, file)
        handles[0].cancel("not that one")
        assert (await handles[0].wait()).status is AgentStatus.CANCELLED
        assert (await handles[1].wait()).text == "slept 0.1"


async def test_a_shutdown_asks_waits_and_cancels(open_any: Opener, tmp_path: Path) -> None:
    """And says which it needed."""
    file = tmp_path / "marks"
    async with open_any() as pool:
        await pool.spawn(job(f"mark {file} m sleep 600"))
        await started(1, file)
        assert await pool.shutdown(grace_seconds=0.05) is ShutdownStep.CANCELLED
        with pytest.raises(PoolClosedError):
            await pool.spawn(job("say late"))


async def test_no_more_run_than_may(open_any: Opener, tmp_path: Path) -> None:
    """And the number can be changed."""
    file = tmp_path / "marks"
    async with open_any(max_concurrent=2) as pool:
        await pool.fan_out(job(f"mark {file} m sleep 600") for _ in range(5))
        await started(2, file)
        assert (pool.active_count, pool.queued_count) == (2, 3)
        pool.max_concurrent = 4
        await started(4, file)
        assert (pool.active_count, pool.queued_count) == (4, 1)
        pool.abort_all()


async def test_a_full_pool_says_so(open_any: Opener) -> None:
    """And nothing has changed."""
    async with open_any(max_concurrent=1, max_queued=0) as pool:
        pool.spawn_nowait(job("sleep 600"))
        with pytest.raises(PoolFullError):
            pool.spawn_nowait(job("say no"))
        assert pool.statistics().spawned == 1
        pool.abort_all()


async def test_a_budget_of_three_requests_lets_three_through(
    open_any: Opener, tmp_path: Path
) -> None:
    """Ten agents, wherever they are: exactly three reach a model."""
    file = tmp_path / "marks"
    async with open_any(budget=Budget(requests=3), max_concurrent=10) as pool:
        await pool.fan_out(job(f"mark {file} m sleep 0.05") for _ in range(10))
        outcomes = (await pool.join_all()).values()
        budget = pool.statistics().budget
    assert len(node_work.marks(file)) == 3
    assert sum(one.status is AgentStatus.COMPLETED for one in outcomes) == 3
    assert {one.stop_reason for one in outcomes} == {
        StopReason.END_TURN,
        StopReason.REQUEST_BUDGET,
    }
    assert budget is not None
    assert (budget.requests.committed, budget.requests.reserved) == (3, 0)


async def test_a_budget_of_tool_calls_is_exact(open_any: Opener) -> None:
    """The calls that run are counted before they run."""
    async with open_any(budget=Budget(tool_calls=2), tools=TOOLS, max_concurrent=6) as pool:
        await pool.fan_out(job("call process") for _ in range(6))
        outcomes = (await pool.join_all()).values()
    assert sum(one.tool_calls_run for one in outcomes) == 2


async def test_money_is_counted(open_any: Opener) -> None:
    """By the price of the driver that answered."""
    async with open_any(budget=Budget(cost_usd=1.0)) as pool:
        outcome = await (await pool.spawn(job("say hello", name="priced"))).wait()
        budget = pool.statistics().budget
    assert outcome.cost_usd == pytest.approx(outcome.usage.total_tokens / 1_000_000)
    assert budget is not None
    assert budget.cost.committed == pytest.approx(outcome.cost_usd)


async def test_a_tool_runs_and_refuses(open_any: Opener) -> None:
    """The model is told both."""
    async with open_any(tools=TOOLS) as pool:
        ran = await (await pool.spawn(job("call process"))).wait()
        refused = await (await pool.spawn(job("call refuse"))).wait()
        wrong = await (await pool.spawn(job('call tell {"recipient": "x"}'))).wait()
    assert int(ran.text) > 0
    assert refused.text == "not today"
    assert "recipient" in wrong.text


async def test_a_builder_makes_each_agent_its_tools(open_any: Opener) -> None:
    """One that breaks fails that agent alone."""
    async with open_any(tools="tests.support.node_work:build_kit") as pool:
        good = await (await pool.spawn(job("call process"))).wait()
        clumsy = await (await pool.spawn(job("say x", name="clumsy"))).wait()
    assert good.status is AgentStatus.COMPLETED
    assert isinstance(clumsy.error, ValueError)


async def test_a_tool_knows_its_agent(open_any: Opener) -> None:
    """All that is true where it runs."""
    async with open_any(tools=TOOLS) as pool:
        config = job("call look", deadline_seconds=60.0)
        outcome = await (await pool.spawn(config)).wait()
    assert json.loads(outcome.text) == [1, "worker", "worker", 0, 0, [], True, True, True]


async def test_agents_write_to_each_other_and_to_the_owner(open_any: Opener) -> None:
    """The sender is who calls, wherever the tool runs."""
    async with open_any(tools=TOOLS) as pool:
        outcome = await (
            await pool.spawn(job('call tell {"recipient": 0, "text": "here I am"}'))
        ).wait()
        (message,) = await pool.receive_many()
        assert (message.sender, message.content) == (1, "here I am")
        gone = await (await pool.spawn(job('call tell {"recipient": 1, "text": "?"}'))).wait()
        never = await (await pool.spawn(job('call tell {"recipient": 99, "text": "?"}'))).wait()
    assert outcome.text == "1 to 0"
    assert "has ended" in gone.text
    assert "99" in never.text


async def test_a_question_is_answered(open_any: Opener) -> None:
    """From one agent's tool to another's, without a slot."""
    async with open_any(tools=TOOLS, max_concurrent=1) as pool:
        answering = await pool.spawn(job('call reply {"text": "42"}'))
        asking = await pool.spawn(job('call ask {"recipient": 1, "text": "how much"}'))
        assert (await asking.wait()).text == "42"
        assert (await answering.wait()).text == "how much"
        assert pool.router.message_count == 2


async def test_a_circle_of_waits_is_named(open_any: Opener) -> None:
    """As soon as it closes."""
    async with open_any(tools=TOOLS) as pool:
        query = 'call ask {"recipient": %d, "text": "?"}'
        first, second = await pool.fan_out([job(query % 2), job(query % 1)])
        told = str([(await one.wait()).messages for one in (first, second)])
    assert "1 (worker) asks 2 (worker), which asks 1 (worker)" in told


async def test_the_owner_does_not_wait_for_ever(open_any: Opener) -> None:
    """If nobody is left who could write."""
    async with open_any() as pool:
        await pool.spawn(job("say hello"))
        with pytest.raises(DeadlockError):
            await pool.receive_many()


@pytest.mark.parametrize("other", [False, True])
async def test_a_child_needs_no_slot_of_its_own(open_any: Opener, other: bool) -> None:  # noqa: FBT001
    """Its parent gives its own back meanwhile."""
    query = json.dumps({"query": "say boo", "other": other})
    async with open_any(tools=TOOLS, max_concurrent=1) as pool:
        manifest = AgentManifest(capabilities=(Capability.spawn(1),))
        outcome = await (await pool.spawn(SpawnConfig(manifest, f"call child {query}"))).wait()
        assert outcome.text == "kid completed: boo"
        assert pool[2].parent_id == 1


async def test_a_tool_asks_another_model(open_any: Opener) -> None:
    """At the agent's expense."""
    async with open_any(tools=TOOLS, budget=Budget(requests=3)) as pool:
        outcome = await (await pool.spawn(job('call think {"text": "deep"}'))).wait()
        again = await (await pool.spawn(job('call think {"text": "more"}'))).wait()
    assert outcome.text == "deep ['deep']"
    assert again.stop_reason is StopReason.REQUEST_BUDGET


async def test_a_tool_asks_another_model_for_the_whole_answer(open_any: Opener) -> None:
    """Nothing has to listen to its pieces."""
    async with open_any(tools=TOOLS) as pool:
        call = 'call think {"text": "deep", "aloud": false}'
        outcome = await (await pool.spawn(job(call))).wait()
    assert outcome.text == "deep []"


async def test_a_tool_waits_without_a_slot(open_any: Opener) -> None:
    """So another agent runs meanwhile."""
    async with open_any(tools=TOOLS, max_concurrent=1) as pool:
        first = await pool.spawn(job('call outside {"seconds": 2}'))
        second = await pool.spawn(job("say quick"))
        assert (await second.wait()).text == "quick"
        assert not first.has_ended
        assert (await first.wait()).text == "back"


async def test_a_deadline_ends_a_run(open_any: Opener) -> None:
    """And is told from a cancellation."""
    async with open_any() as pool:
        outcome = await (await pool.spawn(job("sleep 600", deadline_seconds=0.2))).wait()
    assert outcome.stop_reason is StopReason.DEADLINE
    assert isinstance(outcome.error, LimitExceededError)


async def test_a_tool_that_takes_too_long_is_ended(open_any: Opener, tmp_path: Path) -> None:
    """On the node, and the model is told."""
    file = tmp_path / "marks"
    nap = json.dumps({"seconds": 600, "file": str(file)})
    manifest = AgentManifest(resources=ResourceQuota(tool_seconds=0.3))
    async with open_any(tools=TOOLS) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, f"call nap {nap}"))).wait()
    assert "timed out after 0.3 seconds" in outcome.text
    assert node_work.marks(file) == ["began", "cancelled"]


async def test_text_arrives_as_it_is_written(open_any: Opener) -> None:
    """And the agent's events come in order."""
    recorder = Recorder()
    async with open_any(observers=[recorder]) as pool:
        handle = await pool.spawn(job("say piece by piece"))
        with handle.stream() as pieces:
            text = "".join([piece async for piece in pieces])
    assert text == "piece by piece"
    assert "".join(one.text for one in of_type(recorder.events, TextDelta)) == text
    assert [type(recorder.events[0]), type(recorder.events[-1])] == [AgentSpawned, AgentFinished]
    numbers = [event.sequence for event in recorder.events]
    assert numbers == sorted(numbers)


async def test_events_tell_of_tools(open_any: Opener) -> None:
    """With their results."""
    recorder = Recorder()
    async with open_any(observers=[recorder], tools=TOOLS) as pool:
        await (await pool.spawn(job("call refuse"))).wait()
    (finished,) = of_type(recorder.events, ToolFinished)
    assert (finished.content, finished.is_error) == ("not today", True)


async def test_an_agent_stops_after_its_turn(open_any: Opener, tmp_path: Path) -> None:
    """When it is asked to."""
    file = tmp_path / "marks"
    nap = json.dumps({"seconds": 0.5, "file": str(file)})
    async with open_any(tools=TOOLS) as pool:
        handle = await pool.spawn(job(f"call nap {nap}"))
        await started(1, file)
        handle.interrupt()
        outcome = await handle.wait()
    assert outcome.stop_reason is StopReason.INTERRUPTED
    assert node_work.marks(file) == ["began", "ended"]


async def test_a_resumed_pool_runs_nothing_twice(open_any: Opener, tmp_path: Path) -> None:
    """What has ended is known."""
    file, journal = tmp_path / "marks", InMemoryJournal()
    for _ in range(2):
        async with open_any(journal=journal, resume=True) as pool:
            handle = await pool.spawn(job(f"mark {file} m say once", key="a"))
            assert (await handle.wait()).text == "once"
    assert len(node_work.marks(file)) == 1


async def test_supervised_agents_are_started_again(open_any: Opener) -> None:
    """As the policy says."""
    async with open_any() as pool:
        policy = RestartPolicy(max_restarts=1)
        with pytest.raises(LimitExceededError):
            await pool.supervise([job("fail")], policy)
        assert pool.statistics().spawned == 2


@attrs.frozen
class Point:
    """What an answer may have to be."""

    x: int


async def test_an_answer_has_the_form_that_was_asked_for(open_any: Opener) -> None:
    """As everywhere."""
    async with open_any() as pool:
        outcome = await (await pool.spawn(job('say {"x": 3}', output_type=Point))).wait()
    assert outcome.unwrap_as(Point) == Point(3)


async def test_a_tier_is_kept(open_any: Opener) -> None:
    """Nothing is sent to a driver that is too lax."""
    async with open_any() as pool:
        try:
            outcome = await (await pool.spawn(job("say secret", name="leaky"))).wait()
        except PrivacyError:
            return
    assert isinstance(outcome.error, PrivacyError)


async def test_tools_that_are_objects_run_here(open_any: Opener) -> None:
    """Beside a model that is elsewhere."""
    if open_any.__name__ == "open_here":
        pool_of = open_any(tools="tests.support.node_work:TOOLS")
    else:
        pool_of = open_any(tools=ToolRegistry([node_work.process]))
    async with pool_of as pool:
        outcome = await (await pool.spawn(job("call process"))).wait()
    assert int(outcome.text) == os.getpid()


async def test_a_body_that_raises_ends_everybody(open_any: Opener, tmp_path: Path) -> None:
    """And its error comes out as itself."""
    file = tmp_path / "marks"
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012  # its block is what is tested
        async with open_any() as pool:
            await pool.spawn(job(f"mark {file} m sleep 600"))
            await started(1, file)
            raise KeyError("mine")


async def test_wrong_arguments_are_refused(open_any: Opener) -> None:
    """Before anything has begun."""
    with pytest.raises(UsageError):
        async with open_any(max_concurrent=0):
            raise AssertionError("it was opened")


async def test_ids_and_handles(open_any: Opener) -> None:
    """As ``pool[id]`` says."""
    async with open_any() as pool:
        handles = await pool.fan_out([job("say a"), job("say b")])
        assert [one.agent_id for one in handles] == [1, 2]
        assert pool[2] == handles[1]
        with pytest.raises(UsageError):
            pool[3]
        await pool.join_all()
