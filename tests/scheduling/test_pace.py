"""Calls that find everything ready let others run at every 32nd of them, and not at each.

Those that start an agent do so at every 24th before Python 3.13, whose collector runs less often.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from itertools import groupby, pairwise
from typing import TypeAlias

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from agentpool import AgentPool, PoolClosedError, open_pool
from agentpool.drivers import CompletionRequest, FunctionDriver
from tests.support.fakes import LiveDriver, job, jobs, manifest, query_of

STEPS = 32
AGENTS = 32 if sys.version_info >= (3, 13) else 24
CALLS = 200

Call: TypeAlias = Callable[[], Awaitable[object]]


async def longest_row(call: Call) -> int:
    """Return how many calls were made in a row while another task waited for its turn."""
    turns = 0
    seen: list[int] = []

    async def bystander() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystander)
        await wait_for_turn()
        for _ in range(CALLS):
            seen.append(turns)
            await call()
        nursery.cancel_scope.cancel()
    return max(len(list(same)) for _, same in groupby(seen))


async def wait_for_turn() -> None:
    """Let whoever was started take a step."""
    await trio.lowlevel.checkpoint()


async def sleep(_: CompletionRequest, __: object) -> str:
    """Be a model that never answers."""
    await trio.sleep_forever()
    raise AssertionError


async def spawn(pool: AgentPool) -> Call:  # noqa: ASYNC124  # a stand-in for one that waits
    """Spawn agents one by one."""
    return lambda: pool.spawn(job())


async def send(pool: AgentPool) -> Call:
    """Send to an agent with room for all."""
    handle = await pool.spawn(job())
    return lambda: handle.send("a message")


async def receive(pool: AgentPool) -> Call:
    """Receive messages that are there."""
    await pool.fan_out([job()] * CALLS)
    messages = iter(range(CALLS))

    async def call() -> object:
        # From an agent's side of the post: each time there is one message.
        pool._agents.router.send_nowait(1, 0, str(next(messages)))
        return await pool.receive_many()

    return call


@pytest.mark.parametrize(("prepare", "steps"), [(spawn, AGENTS), (send, STEPS), (receive, STEPS)])
async def test_calls_that_need_not_wait_let_others_run(
    prepare: Callable[[AgentPool], Coroutine[object, object, Call]], steps: int
) -> None:
    """At least at every 32nd, or 24th, and by far not at each."""
    async with open_pool(LiveDriver(sleep), max_concurrent=300, inbox_capacity=300) as pool:
        call = await prepare(pool)
        longest = await longest_row(call)
        pool.abort_all()
    # Of two turns of ours, the other task may take its own before the first and after the last.
    assert steps // 2 < longest <= 2 * steps


async def test_agents_of_a_fan_out_start_and_end_a_few_at_a_time() -> None:
    """However many there is room for: when many come and go together, collections do as well."""
    running = most = 0

    async def answer(_: CompletionRequest, __: object) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.lowlevel.checkpoint()
        running -= 1
        return "done"

    async with open_pool(LiveDriver(answer), max_concurrent=CALLS) as pool:
        await pool.fan_out([job()] * CALLS)
        outcomes = await pool.join_all()
    assert len(outcomes) == CALLS
    assert AGENTS // 2 < most <= 3 * AGENTS


async def test_outcomes_that_are_there_let_others_run() -> None:
    """As calls do that need not wait."""
    async with open_pool(FunctionDriver(lambda _: "done")) as pool:
        await pool.fan_out([job()] * CALLS)
        await wait_all_tasks_blocked()
        longest = await longest_row(pool.join_next)
        assert await pool.join_next() is None
    assert STEPS // 2 < longest <= 2 * STEPS


async def test_outcomes_of_a_map_let_others_run() -> None:
    """Those that wait for the reader as well."""
    async with (
        open_pool(FunctionDriver(lambda _: "done"), max_concurrent=CALLS) as pool,
        pool.map(manifest(), ["q"] * CALLS) as outcomes,
    ):
        await wait_all_tasks_blocked()
        longest = await longest_row(outcomes.__anext__)
        assert [one async for one in outcomes] == []
    assert STEPS // 2 < longest <= 2 * STEPS


async def test_a_fan_out_lets_others_run_once_at_least() -> None:
    """Also an empty one."""
    async with open_pool(FunctionDriver(lambda _: "done")) as pool:
        for configs in ((), jobs("a", "b"), [job()] * CALLS):
            with assert_checkpoints():
                await pool.fan_out(configs)


async def test_a_fan_out_that_is_cancelled_half_way_leaves_what_was_accepted() -> None:
    """The agents of whole batches, found by ``join_all``; of the rest none."""
    async with open_pool(FunctionDriver(lambda _: "done"), max_concurrent=CALLS) as pool:
        await pool.fan_out([job()] * STEPS)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel() -> None:  # noqa: ASYNC124  # a stand-in for one that waits
                    scope.cancel()

                nursery.start_soon(cancel)
                await pool.fan_out([job()] * CALLS)
        assert scope.cancelled_caught
        accepted = pool.statistics().spawned
        assert STEPS < accepted <= STEPS + 3 * AGENTS
        assert list(await pool.join_all()) == list(range(1, accepted + 1))


async def test_calls_that_are_cancelled_do_nothing() -> None:
    """Whether or not it is their turn to yield."""
    async with open_pool(LiveDriver(sleep), inbox_capacity=300) as pool:
        handle = await pool.spawn(job())
        for _ in range(2 * STEPS):
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.spawn(job())
            assert scope.cancelled_caught
            with trio.CancelScope() as scope:
                scope.cancel()
                await handle.send("never")
            assert scope.cancelled_caught
        assert (pool.statistics().spawned, pool.statistics().messages) == (1, 0)
        pool.abort_all()


async def test_a_pool_that_closes_in_the_middle_of_a_fan_out_says_so() -> None:
    """What was accepted before stays."""
    async with open_pool(FunctionDriver(lambda _: "done"), max_concurrent=CALLS) as pool:
        await pool.fan_out([job()] * STEPS)
        async with trio.open_nursery() as nursery:

            async def close() -> None:  # noqa: ASYNC124  # a stand-in for one that waits
                pool.close()

            nursery.start_soon(close)
            with pytest.raises(PoolClosedError):
                await pool.fan_out([job()] * CALLS)
        assert STEPS < len(await pool.join_all()) <= STEPS + 3 * AGENTS


async def test_the_first_agents_start_in_the_order_of_their_spawn() -> None:
    """Each call of a small pool lets others run."""
    started: list[str] = []

    def answer(request: CompletionRequest) -> str:
        started.append(query_of(request))
        return "done"

    names = [str(number) for number in range(STEPS)]
    async with open_pool(FunctionDriver(answer), max_concurrent=STEPS) as pool:
        await pool.fan_out(jobs(*names))
    assert started == names


@pytest.mark.parametrize("ordered", [False, True])
async def test_agents_of_a_map_start_a_few_at_a_time(ordered: bool) -> None:  # noqa: FBT001
    """As those of a fan-out do, whatever is read from it meanwhile."""
    count = 100 * AGENTS
    seen = [0]

    async def bystander() -> None:
        while seen[-1] < count:
            seen.append(pool.statistics().spawned)
            await wait_for_turn()

    driver = FunctionDriver(lambda _: "ok", record=False)
    async with trio.open_nursery() as nursery, open_pool(driver, max_concurrent=100) as pool:
        nursery.start_soon(bystander)
        queries = ("q" for _ in range(count))
        async with pool.map(manifest(), queries, ordered=ordered) as outcomes:
            assert len([outcome async for outcome in outcomes]) == count
    begun = [after - before for before, after in pairwise(seen)]
    # Two steps of a source may come between two of the bystander: tasks run in any order.
    assert max(begun) <= 2 * AGENTS
    assert len(begun) < STEPS + 1.25 * count / AGENTS
