"""What one of many agents costs is what one of few costs: counted in lines, at n and at 2n."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentPool,
    Budget,
    ResourceQuota,
    RestartPolicy,
    RetryPolicy,
    SpawnConfig,
    Usage,
    open_pool,
)
from agentpool.abc import AgentContext
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FunctionDriver,
    ToolMessage,
    UserMessage,
    call,
    calls,
    say,
)
from agentpool.observe import AgentFinished
from agentpool.tools import ToolContext, ToolRegistry, tool
from tests.support.fakes import hanging_driver, job, manifest, query_of
from tests.support.growth import lines_run

N = 100
MOST_GROWTH = 2.3
"""Of twice as many. What grows with the square takes four times as many lines."""

FEW_AT_ONCE = 20_000
"""Tokens that some requests need at once, by their estimates."""


async def slow(_: CompletionRequest) -> str:
    """Answer in a while."""
    await trio.sleep(1)
    return "ok"


async def cheap(_: CompletionRequest) -> Completion:
    """Use less than was estimated."""
    await trio.sleep(1)
    return say("ok", usage=Usage(input_tokens=1, output_tokens=1))


async def run_all(n: int, config: Callable[[int], SpawnConfig], budget: Budget | None) -> None:
    """Run *n* agents at once, which all get their answers."""
    driver = FunctionDriver(cheap, record=False)
    async with open_pool(driver, budget=budget, max_concurrent=n) as pool:
        await pool.fan_out(map(config, range(n)))
        assert all(one.text == "ok" for one in (await pool.join_all()).values())


async def wait_for_one_budget(n: int) -> None:
    """Wait for the tokens of the pool's budget."""
    await run_all(n, lambda _: job("q"), Budget(tokens=FEW_AT_ONCE + 4 * n))


async def want_different_amounts(n: int) -> None:
    """Wait for the same tokens, each for some more or less of them."""
    budget = Budget(tokens=FEW_AT_ONCE + 4 * n)
    await run_all(n, lambda at: job("q" * (1 + at * 7 % 997)), budget)


async def wait_for_a_part(n: int) -> None:
    """Wait for the tokens of a budget inside another."""
    part = Budget(tokens=FEW_AT_ONCE + 4 * n, parent=Budget(tokens=10**9))
    await run_all(n, lambda _: SpawnConfig(manifest(), "q", budget=part), None)


async def wait_below_one_budget(n: int) -> None:
    """Wait with a budget of one's own for the tokens of the one above."""
    above = Budget(tokens=FEW_AT_ONCE + 4 * n)

    def config(_: int) -> SpawnConfig:
        return SpawnConfig(manifest(), "q", budget=Budget(tokens=10**6, parent=above))

    await run_all(n, config, None)


async def give_up(n: int) -> None:
    """Wait for tokens, and be cancelled from the middle on."""
    budget = Budget(tokens=FEW_AT_ONCE)
    async with open_pool(hanging_driver(), budget=budget, max_concurrent=n) as pool:
        handles = [pool.spawn_nowait(job("q")) for _ in range(n)]
        await wait_all_tasks_blocked()
        for handle in handles[n // 2 :] + handles[: n // 2]:
            handle.cancel()
        for handle in handles:
            await handle.wait()


async def watched(n: int, watch: Callable[[AgentPool, AgentHandle], Awaitable[object]]) -> None:
    """Watch a pool, or its first agent, in *n* ways at once."""
    async with (
        open_pool(FunctionDriver(slow, record=False), max_concurrent=n) as pool,
        trio.open_nursery() as nursery,
    ):
        first = await pool.spawn(job("q"))
        for _ in range(n):
            nursery.start_soon(watch, pool, first)


async def stream_each(n: int) -> None:
    """Watch the text of each agent by a stream of its own."""

    async def watch(pool: AgentPool, _: AgentHandle) -> None:
        handle = await pool.spawn(job("q"))
        with handle.stream() as pieces:
            assert [piece async for piece in pieces] == ["ok"]

    await watched(n, watch)


async def stream_one(n: int) -> None:
    """Watch the text of one agent by many streams."""

    async def watch(_: AgentPool, first: AgentHandle) -> None:
        with first.stream() as pieces:
            assert [piece async for piece in pieces] == ["ok"]

    await watched(n, watch)


async def wait_for_one(n: int) -> None:
    """Wait for the end of one agent in many tasks."""

    async def watch(_: AgentPool, first: AgentHandle) -> None:
        assert (await first.wait()).text == "ok"

    await watched(n, watch)


async def join_each(n: int) -> None:
    """Wait for the next end in many tasks."""

    async def watch(pool: AgentPool, _: AgentHandle) -> None:
        pool.spawn_nowait(job("q"))
        await pool.join_next()

    await watched(n, watch)


async def in_one_tool(
    n: int,
    wait: Callable[[AgentContext, AgentPool], Awaitable[object]],
    *,
    is_joined: bool = False,
) -> None:
    """Wait in *n* ways at once in one tool of one agent, for which its owner waits.

    *is_joined*: The owner waits for all agents.
    """

    @tool
    async def work(context: ToolContext) -> None:
        """Do all of it."""
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(wait, context.agent, pool)

    @tool
    async def have_a_child(context: ToolContext) -> str:
        """Have one."""
        return (await context.agent.run_child(job("q"))).text

    async def answer(request: CompletionRequest) -> Completion:
        await trio.sleep(1)
        match list(request.messages):
            case [UserMessage("parent")]:
                return call("work")
            case [UserMessage("have a child")]:
                return call("have_a_child")
        return say("ok")

    driver, tools = FunctionDriver(answer, record=False), ToolRegistry([work, have_a_child])
    async with open_pool(driver, tools=tools, max_concurrent=2, max_queued=n) as pool:
        plenty = ResourceQuota(max_iterations=10**6, max_tool_calls=10**6, tool_seconds=None)
        parent = AgentManifest(resources=plenty)
        handle = await pool.spawn(SpawnConfig(parent, "parent"))
        if is_joined:
            await pool.join_all()
        outcome = await handle.wait()
    assert not any(isinstance(one, ToolMessage) and one.is_error for one in outcome.messages)


async def have_children(n: int) -> None:
    """Have many children at once."""
    await in_one_tool(n, lambda agent, _: agent.run_child(job("q")))


async def have_races(n: int) -> None:
    """Have many races of two children at once."""

    async def race(_: AgentContext, pool: AgentPool) -> None:
        assert (await pool.race([job("q"), job("q")])).text == "ok"

    await in_one_tool(n, race)


async def have_maps(n: int) -> None:
    """Have many maps of two children at once."""

    async def read(_: AgentContext, pool: AgentPool) -> None:
        async with pool.map(manifest(), ["q", "q"]) as outcomes:
            assert [outcome.text async for outcome in outcomes] == ["ok", "ok"]

    await in_one_tool(n, read)


async def have_maps_of_parents(n: int) -> None:
    """Have many maps of children at once, which have children themselves."""

    async def read(_: AgentContext, pool: AgentPool) -> None:
        async with pool.map(AgentManifest(), ["have a child"]) as outcomes:
            assert [outcome.text async for outcome in outcomes] == ["ok"]

    await in_one_tool(n, read, is_joined=True)


async def wait_without_a_slot(n: int) -> None:
    """Wait for something else in many tasks."""

    async def wait(agent: AgentContext, _: AgentPool) -> None:
        async with agent.without_slot("others"):
            await trio.sleep(1)

    await in_one_tool(n, wait)


async def wait_for_room(n: int) -> None:
    """Let spawns wait for room, which comes for two at a time."""
    async with open_pool(hanging_driver(), max_concurrent=2, max_queued=2) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(pool.spawn, job("q"))
            while pool.statistics().spawned < n:
                await wait_all_tasks_blocked()
                pool.max_concurrent = int(pool.max_concurrent) + 2
        pool.abort_all()


async def read_events(n: int) -> None:
    """Read the events of one agent by many readers."""

    async def watch(pool: AgentPool, _: AgentHandle) -> None:
        with pool.events() as events:
            async for event in events:
                if isinstance(event, AgentFinished):
                    return

    await watched(n, watch)


async def restart_all(n: int, *, delay_seconds: float = 0) -> None:
    """Restart supervised agents that all fail in the same moment."""
    asked = set[str]()

    async def fail_first(request: CompletionRequest) -> str:
        await trio.sleep(1)
        query = query_of(request)
        if query not in asked:
            asked.add(query)
            raise ValueError(query)
        return "ok"

    once, driver = RetryPolicy(max_attempts=1), FunctionDriver(fail_first, record=False)
    policy = RestartPolicy(max_restarts=n, delay_seconds=delay_seconds)
    async with open_pool(driver, max_concurrent=n, max_queued=n, request_retries=once) as pool:
        outcomes = await pool.supervise([job(str(place)) for place in range(n)], policy)
    assert [outcome.text for outcome in outcomes] == ["ok"] * n


async def restart_all_later(n: int) -> None:
    """Restart them after a while."""
    await restart_all(n, delay_seconds=1)


async def restart_those_that_end_slowly(n: int) -> None:
    """Restart agents together that take different times to end."""
    cleaned = set[str]()

    async def end_slowly(request: CompletionRequest) -> str:
        place = query_of(request)
        if place not in cleaned:
            cleaned.add(place)
            if place == "0":
                await trio.sleep(1)
                raise ValueError(place)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(int(place))
        return "ok"

    once, driver = RetryPolicy(max_attempts=1), FunctionDriver(end_slowly, record=False)
    policy = RestartPolicy(max_restarts=1, strategy="one_for_all")
    async with open_pool(driver, max_concurrent=n, max_queued=n, request_retries=once) as pool:
        outcomes = await pool.supervise([job(str(place)) for place in range(n)], policy)
    assert [outcome.text for outcome in outcomes] == ["ok"] * n


@pytest.mark.parametrize(
    "work",
    [
        wait_for_one_budget, want_different_amounts, wait_for_a_part, wait_below_one_budget,
        give_up, stream_each, stream_one, wait_for_one, join_each, have_children, have_races,
        have_maps, have_maps_of_parents, wait_without_a_slot, wait_for_room, read_events,
    ],
    ids=lambda work: work.__name__.replace("_", " "),
)  # fmt: skip
def test_one_of_many_costs_what_one_of_few_does(work: Callable[[int], Awaitable[None]]) -> None:
    """Each stream heard the events of all agents, and each wait looked at all that waited."""
    assert_linear_lines(work, "")


async def call_side_by_side(n: int, run: Callable[[ToolContext], Awaitable[object]]) -> None:
    """Call a tool *n* times in one answer."""

    @tool
    async def work(context: ToolContext, number: int) -> str:
        """Do one of it."""
        await run(context)
        return str(number)

    async def answer(request: CompletionRequest) -> Completion:  # noqa: ASYNC124  # as drivers are
        if [UserMessage("parent")] == list(request.messages):
            return calls(*[call("work", number=number) for number in range(n)])
        return say("ok")

    driver, tools = FunctionDriver(answer, record=False), ToolRegistry([work])
    async with open_pool(driver, tools=tools, max_concurrent=2, max_queued=n) as pool:
        plenty = ResourceQuota(max_tool_calls=10**6)
        handle = await pool.spawn(SpawnConfig(AgentManifest(resources=plenty), "parent"))
        outcome = await handle.wait()
    results = [one.content for one in outcome.messages if isinstance(one, ToolMessage)]
    assert results == [str(number) for number in range(n)]


async def sleep_side_by_side(n: int) -> None:
    """Let each of them sleep."""

    async def run(_: ToolContext) -> None:
        await trio.sleep(1)

    await call_side_by_side(n, run)


async def have_children_side_by_side(n: int) -> None:
    """Let each of them have a child."""
    await call_side_by_side(n, lambda context: context.agent.run_child(job("q")))


@pytest.mark.parametrize(
    "work", [sleep_side_by_side, have_children_side_by_side], ids=lambda work: work.__name__
)
def test_one_of_many_calls_of_an_answer_costs_what_one_of_few_does(
    work: Callable[[int], Awaitable[None]],
) -> None:
    """Each end of a call, and each wait in one, looked at all the others."""
    assert_linear_lines(work, "_scheduling/slot.py", "_scheduling/strand.py")


@pytest.mark.parametrize(
    "work",
    [restart_all, restart_all_later, restart_those_that_end_slowly],
    ids=lambda work: work.__name__.replace("_", " "),
)
def test_one_of_many_restarts_costs_what_one_of_few_does(
    work: Callable[[int], Awaitable[None]],
) -> None:
    """Each restart looked at all agents that had ended, and at all restarts to come."""
    assert_linear_lines(work, "_pool/supervisor.py")


def assert_linear_lines(work: Callable[[int], Awaitable[None]], *rooms: str) -> None:
    """Do twice as much, which runs about twice as many lines of *rooms*."""

    def lines(n: int) -> int:
        clock = MockClock(autojump_threshold=0)
        return lines_run(partial(trio.run, work, n, clock=clock), *rooms)

    lines(10)  # what is made on first use
    assert lines(2 * N) <= MOST_GROWTH * lines(N)
