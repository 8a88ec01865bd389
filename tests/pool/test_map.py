"""Map over any number of queries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from itertools import count, pairwise
from typing import Any, final

import pytest
import trio
from trio.testing import MockClock

from agentpool import AgentStatus, PoolClosedError, UsageError, open_pool
from agentpool.abc import CompletionRequest, OnDelta
from agentpool.observe import AgentSpawned, Event, Observer
from agentpool.testing import cancel_everywhere, explore
from tests.support.fakes import (
    Gauge,
    LiveDriver,
    hanging_driver,
    job,
    jobs,
    manifest,
    query_of,
    sleepy_driver,
)


async def test_outcomes_come_as_they_end(autojump_clock: MockClock) -> None:
    """A slow query does not hold up the others."""
    queries = ["sleep 3 say a", "sleep 1 say b", "sleep 2 say c"]
    async with open_pool(sleepy_driver()) as pool, pool.map(manifest(), queries) as outcomes:
        texts = [outcome.text async for outcome in outcomes]
    assert texts == ["b", "c", "a"]


async def test_queries_may_come_from_anything_that_is_iterated_with_await() -> None:
    """A channel has no cleanup of a generator, and needs none."""
    send, receive = trio.open_memory_channel[str](2)
    with send:
        send.send_nowait("say a")
        send.send_nowait("say b")
    async with open_pool(sleepy_driver()) as pool, pool.map(manifest(), receive) as outcomes:
        assert {outcome.text async for outcome in outcomes} == {"a", "b"}


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


async def test_what_is_ready_before_its_turn_is_kept_in_bounds(autojump_clock: MockClock) -> None:
    """The first query of an endless iterable takes an hour: the others wait for it."""
    queries = (f"sleep {3600 if number == 0 else 1} say {number}" for number in count())
    async with open_pool(sleepy_driver(), max_concurrent=4) as pool:
        async with pool.map(manifest(), queries, ordered=True) as outcomes:
            first = await anext(outcomes)
            assert pool.statistics().spawned < 4 * 4
        assert (first.text, trio.current_time()) == ("0", 3600)


async def test_an_endless_iterable_is_read_only_as_far_as_needed(
    autojump_clock: MockClock,
) -> None:
    """The pool still knows the last ones that were given out, and reads not ahead."""
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
                assert pool[outcome.agent_id].outcome is outcome
                if given == 100:
                    break
        assert pool.active_count == 0
        assert pool.router.agent_count == 0
    assert gauge.peak == 4
    assert len(taken) <= 100 + 3 * 4 + 1


async def test_a_slow_reader_slows_the_map(autojump_clock: MockClock) -> None:
    """Outcomes that nobody reads must not pile up."""
    taken = 0

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
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
        with pytest.raises(PoolClosedError):
            async with pool.map(manifest(), ["say a"]):
                pass  # pragma: no cover  # refused


async def test_an_async_generator_of_queries_is_closed_with_the_map(
    autojump_clock: MockClock,
) -> None:
    """Its cleanup runs in the map's block, not whenever the garbage collector comes."""
    closed: list[float] = []

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
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


# --- several sources


async def test_several_sources_are_taken_level(autojump_clock: MockClock) -> None:
    """Heijunka: the short list is not behind the long one."""
    long, short = [f"say a{n}" for n in range(9)], [f"say b{n}" for n in range(3)]
    async with (
        open_pool(sleepy_driver(), max_concurrent=1) as pool,
        pool.map(manifest(), long, short, ordered=True) as outcomes,
    ):
        found = [outcome.text async for outcome in outcomes]
    assert sorted(found) == sorted(query.removeprefix("say ") for query in (*long, *short))
    places = [place for place, text in enumerate(found) if text.startswith("b")]
    assert places[0] <= 1
    assert [after - before for before, after in pairwise(places)] == [2, 2]


async def test_a_slow_source_keeps_no_other_one_waiting(autojump_clock: MockClock) -> None:
    """It is asked beside the others, and endless ones may be left."""

    async def slow() -> AsyncGenerator[str, None]:  # noqa: ASYNC900  # as users write them
        for number in range(3):
            await trio.sleep(100)
            yield f"say slow {number}"

    endless = (f"sleep 1 say quick {number}" for number in count())
    async with (
        open_pool(sleepy_driver(), max_concurrent=2) as pool,
        pool.map(manifest(), slow(), endless) as outcomes,
    ):
        found: list[str] = []
        async for outcome in outcomes:
            found.append(outcome.text)
            if outcome.text == "slow 2":
                break
    assert 300 <= trio.current_time() < 303
    assert sum(text.startswith("quick") for text in found) >= 590


@pytest.mark.parametrize("busy", [True, False])
async def test_an_agent_that_is_cancelled_as_it_is_spawned_leaves_its_place(
    autojump_clock: MockClock, *, busy: bool
) -> None:
    """The other source goes on, though nobody has read an outcome yet."""

    @final
    class CancelFirst(Observer):
        """Cancels the first agent of the map, which runs, or is queued in a busy pool."""

        def on_event(self, event: Event) -> None:
            """Cancel it."""
            if isinstance(event, AgentSpawned) and event.agent_id == 1 + busy:
                pool[event.agent_id].cancel()

    async with open_pool(sleepy_driver(), max_concurrent=1, observers=[CancelFirst()]) as pool:
        if busy:
            await pool.spawn(job("sleep 5"))
        async with pool.map(manifest(), ["say a"], ["say b"]) as outcomes:
            await trio.sleep(10)
            found = [outcome async for outcome in outcomes]
    assert [outcome.status for outcome in found] == [AgentStatus.CANCELLED, AgentStatus.COMPLETED]
    assert [outcome.finished_at for outcome in found] == [0, 5 * busy]


async def test_never_more_of_several_sources_than_run(autojump_clock: MockClock) -> None:
    """The bound of a map is for all of its sources together."""
    gauge = Gauge()
    sources = [[f"sleep 1 say {name}{n}" for n in range(5)] for name in "abcd"]
    async with (
        open_pool(sleepy_driver(gauge), max_concurrent=3) as pool,
        pool.map(manifest(), *sources) as outcomes,
    ):
        found = [outcome.text async for outcome in outcomes]
        assert pool.statistics().spawned == len(found) == 20
    assert gauge.peak == 3


@pytest.mark.parametrize(
    ("share", "started"),
    [({}, 0), ({"group": "few"}, 2), ({"group": "few", "weight": 3}, 3), ({"priority": 1}, 4)],
)
async def test_a_map_has_its_share_of_the_slots(
    autojump_clock: MockClock, share: Mapping[str, Any], started: int
) -> None:
    """Without one, what it asks stands behind the crowd that came before."""
    times: list[float] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        if query_of(request) == "few":
            times.append(trio.current_time())
        await trio.sleep(1)
        return "done"

    async with open_pool(LiveDriver(answer), max_concurrent=4) as pool:
        await pool.fan_out(jobs(*["crowd"] * 60))
        async with pool.map(manifest(), ["few"] * 8, **share) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 8
    # The first of the crowd end after a second, and four slots are given out again.
    assert times.count(1) == started


async def test_a_weight_without_meaning_is_refused_at_once() -> None:
    """Before a query is read, and not to the reader."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match="weight must be a whole number >= 1, got 0"):
            async with pool.map(manifest(), iter(["a"]), weight=0):
                pytest.fail("it must not open")


async def test_what_sources_raise_comes_after_the_outcomes(autojump_clock: MockClock) -> None:
    """The other sources end with it, and nothing that began is lost."""

    def broken() -> Iterator[str]:
        yield "say one"
        raise ValueError("broken source")

    endless = (f"sleep 1 say {number}" for number in count())
    async with (
        open_pool(sleepy_driver()) as pool,
        pool.map(manifest(), endless, broken()) as outcomes,
    ):
        found: list[str] = []

        async def read() -> None:
            async for outcome in outcomes:
                found.append(outcome.text)  # noqa: PERF401  # it raises before it is whole

        with pytest.raises(ValueError, match="broken source"):
            await read()
        assert "one" in found
        assert pool.active_count == 0


async def test_all_that_sources_raise_is_told(autojump_clock: MockClock) -> None:
    """One fails, and another one fails while it is closed for that: two errors."""

    async def broken() -> AsyncGenerator[str, None]:  # noqa: ASYNC900  # as users write them
        yield "say one"
        await trio.sleep(1)
        raise ValueError("broken source")

    async def unclean() -> AsyncGenerator[str, None]:  # noqa: ASYNC900  # as users write them
        yield "say one"
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("broken cleanup")

    async with (
        open_pool(sleepy_driver()) as pool,
        pool.map(manifest(), broken(), unclean()) as outcomes,
    ):
        assert [(await anext(outcomes)).text for _ in range(2)] == ["one", "one"]
        with pytest.RaisesGroup(ValueError, KeyError):
            await anext(outcomes)


async def test_an_empty_query_is_named_by_its_number() -> None:
    """One of two hundred files may be blank."""
    queries = ["say a", "say b", " ", "say c"]
    async with open_pool(sleepy_driver()) as pool, pool.map(manifest(), queries) as outcomes:
        texts = {(await anext(outcomes)).text for _ in range(2)}
        with pytest.raises(UsageError, match=r"or leave it out of the map \(query 3\)"):
            await anext(outcomes)
    assert texts == {"a", "b"}


async def test_a_map_over_nothing_is_refused() -> None:
    """Without any source somebody forgot it; an empty one is fine."""
    async with open_pool(sleepy_driver()) as pool:
        with pytest.raises(UsageError, match="at least one source"):
            async with pool.map(manifest()):
                raise AssertionError("unreachable")  # pragma: no cover
        async with pool.map(manifest(), [], []) as outcomes:
            assert [outcome async for outcome in outcomes] == []


def test_level_sources_leave_nothing_in_any_order_cancelled_anywhere() -> None:
    """G16: the tasks that take from the sources are the map's own."""

    async def scene() -> None:
        async def pages() -> AsyncGenerator[str, None]:  # noqa: ASYNC900  # as users write them
            for number in range(2):
                await trio.sleep(1)
                yield f"say page {number}"

        async with (
            open_pool(sleepy_driver(), max_concurrent=2) as pool,
            pool.map(manifest(), pages(), ["sleep 1 say x", "say y"]) as outcomes,
        ):
            async for outcome in outcomes:
                assert outcome.text

    explore(scene, schedules=50)
    assert cancel_everywhere(scene).points > 20
