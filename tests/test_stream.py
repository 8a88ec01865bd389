"""Map over any number of queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentStatus, PoolClosedError, UsageError, open_pool
from tests.fakes import Gauge, hanging_driver, manifest, sleepy_driver


async def test_outcomes_come_as_they_end(autojump_clock: MockClock) -> None:
    """A slow query does not hold up the others."""
    queries = ["sleep 3 say a", "sleep 1 say b", "sleep 2 say c"]
    async with open_pool(sleepy_driver()) as pool, pool.map(manifest(), queries) as outcomes:
        texts = [outcome.text async for outcome in outcomes]
    assert texts == ["b", "c", "a"]


async def test_ordered_outcomes_come_in_the_order_of_the_queries(
    autojump_clock: MockClock,
) -> None:
    """Whoever writes a report wants it in the order of the inputs."""
    queries = [f"sleep {(7 * place) % 5} say {place}" for place in range(20)]
    async with (
        open_pool(sleepy_driver(), max_concurrent=3) as pool,
        pool.map(manifest(), queries, ordered=True) as outcomes,
    ):
        texts = [outcome.text async for outcome in outcomes]
    assert texts == [str(place) for place in range(20)]


async def test_an_endless_iterable_is_read_only_as_far_as_needed(
    autojump_clock: MockClock,
) -> None:
    """Memory stays flat: the pool keeps no agent that was given out, and reads no ahead."""
    gauge = Gauge()
    taken: list[int] = []

    def endless() -> Iterator[str]:
        for number in count():
            taken.append(number)
            yield f"sleep 1 say {number}"

    async with open_pool(sleepy_driver(gauge), max_concurrent=4) as pool:
        async with pool.map(manifest(), endless()) as outcomes:
            given = 0
            async for outcome in outcomes:
                given += 1
                with pytest.raises(UsageError, match="no agent"):
                    pool[outcome.agent_id]
                if given == 100:
                    break
        assert pool.active_count == 0
        assert pool.router.agent_count == 0
    assert gauge.peak == 4
    assert len(taken) <= 100 + 3 * 4 + 1


async def test_a_slow_reader_slows_the_map(autojump_clock: MockClock) -> None:
    """Outcomes that nobody reads must not pile up."""
    taken = 0

    async def queries() -> AsyncIterator[str]:
        nonlocal taken
        for number in count():
            taken += 1
            await trio.lowlevel.checkpoint()
            yield f"say {number}"

    async with (
        open_pool(sleepy_driver(), max_concurrent=2) as pool,
        pool.map(manifest(), queries()) as outcomes,
    ):
        await trio.sleep(100)
        assert taken <= 2 * 2 + 2 + 1
        assert (await anext(outcomes)).text == "0"


async def test_an_error_of_the_queries_comes_after_every_outcome() -> None:
    """What was accepted is not lost to an error of the source."""

    def queries() -> Iterator[str]:
        yield "say a"
        yield "say b"
        raise OSError("source broke")

    texts: list[str] = []
    async with open_pool(sleepy_driver()) as pool, pool.map(manifest(), queries()) as outcomes:
        texts.extend([(await anext(outcomes)).text, (await anext(outcomes)).text])
        with pytest.raises(OSError, match="source broke"):
            await anext(outcomes)
    assert sorted(texts) == ["a", "b"]


async def test_leaving_the_block_ends_what_is_left() -> None:
    """No orphan: the agents of the map have ended when its block has."""
    driver = hanging_driver()
    async with open_pool(driver, max_concurrent=3) as pool:
        with pool.events() as events:
            async with pool.map(manifest(), ["a", "b", "c", "d"]):
                await trio.testing.wait_all_tasks_blocked()
                assert pool.active_count == 3
            assert pool.active_count == 0
        ended = [event.outcome async for event in events if hasattr(event, "outcome")]
    assert [outcome.status for outcome in ended] == [AgentStatus.CANCELLED] * 3


async def test_failed_outcomes_were_looked_at() -> None:
    """Whoever reads the stream has seen the failures: the pool's exit does not raise."""
    async with (
        open_pool(sleepy_driver()) as pool,
        pool.map(manifest(), ["raise boom"]) as outcomes,
    ):
        (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.status is AgentStatus.FAILED


async def test_join_next_does_not_know_the_map() -> None:
    """An outcome is given out once, to whoever asked for it."""
    async with (
        open_pool(sleepy_driver()) as pool,
        pool.map(manifest(), ["say a"]) as outcomes,
    ):
        assert (await anext(outcomes)).text == "a"
        assert await pool.join_next() is None
        assert await pool.join_all() == {}


async def test_a_closed_pool_maps_nothing() -> None:
    """A clear error, and not a wait for ever."""
    async with open_pool(sleepy_driver()) as pool:
        pool.close()
        async with pool.map(manifest(), ["say a"]) as outcomes:
            with pytest.raises(PoolClosedError):
                await anext(outcomes)


async def test_an_async_generator_of_queries_is_closed_with_the_map(
    autojump_clock: MockClock,
) -> None:
    """Its cleanup runs in the map's block, not whenever the garbage collector comes."""
    closed: list[float] = []

    async def queries() -> AsyncIterator[str]:
        try:
            for number in count():
                await trio.lowlevel.checkpoint()
                yield f"say {number}"
        finally:
            closed.append(trio.current_time())

    async with open_pool(sleepy_driver(), max_concurrent=2) as pool:
        async with pool.map(manifest(), queries()) as outcomes:
            assert (await anext(outcomes)).text == "0"
            await trio.sleep(1)
        assert closed == [1]
