"""What failed is tried again: after a while, as often as was said, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentStatus,
    Capability,
    CapabilityKind,
    RestartPolicy,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, OnDelta
from agentpool.journal import InMemoryJournal
from agentpool.testing import assert_quiescent, cancel_everywhere, explore
from agentpool.tools import TEAM_TOOLS, ToolRegistry
from tests.support.fakes import (
    LiveDriver,
    Recorder,
    calling,
    job,
    jobs,
    manifest,
    query_of,
    results_of,
    tool_call,
)


class Flaky:
    """Answers queries of the form ``name failures``: it fails so often, then it answers."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Take *seconds* for each answer."""
        self.asked: list[tuple[float, str]] = []
        self.tries: Counter[str] = Counter()
        self.seconds = seconds

    def driver(self) -> LiveDriver:
        """Return a driver that asks this."""

        async def answer(request: CompletionRequest, _: OnDelta) -> str:
            name, failures = query_of(request).split()
            self.asked.append((trio.current_time(), name))
            self.tries[name] += 1
            await trio.sleep(self.seconds)
            if self.tries[name] <= int(failures):
                raise ValueError(f"{name} broke {self.tries[name]} times")
            return f"{name} after {self.tries[name]}"

        return LiveDriver(answer)


async def test_a_query_is_asked_again_after_a_while(autojump_clock: MockClock) -> None:
    """One that goes on failing has its last outcome; the others are not held up."""
    flaky = Flaky()
    async with (
        open_pool(flaky.driver(), max_concurrent=4) as pool,
        pool.map(manifest(), ["a 2", "b 0", "c 9"], retries=3) as outcomes,
    ):
        found = [outcome async for outcome in outcomes]
    assert [outcome.text or str(outcome.error) for outcome in found] == [
        "b after 1",
        "a after 3",
        "c broke 4 times",
    ]
    assert [at for at, name in flaky.asked if name == "c"] == [0, 1, 3, 7]
    assert found[2].status is AgentStatus.FAILED


async def test_the_wait_is_never_longer_than_a_minute(autojump_clock: MockClock) -> None:
    """It doubles up to there, however often a query is asked."""
    flaky = Flaky()
    async with (
        open_pool(flaky.driver()) as pool,
        pool.map(manifest(), ["a 200"], retries=200) as outcomes,
    ):
        (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.text == "a after 201"
    times = [at for at, _ in flaky.asked]
    assert times[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert times[-1] - times[-2] == 60


async def test_an_ordered_map_waits_for_the_query_whose_turn_it_is(
    autojump_clock: MockClock,
) -> None:
    """And memory stays flat meanwhile: one that waits keeps its place."""
    flaky = Flaky(1)
    taken: list[str] = []

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900, ASYNC124  # as users write them
        for number in range(12):
            query = f"{number} {number % 3}"
            taken.append(query)
            yield query

    async with (
        open_pool(flaky.driver(), max_concurrent=2) as pool,
        pool.map(manifest(), queries(), ordered=True, retries=2) as outcomes,
    ):
        found = []
        async for outcome in outcomes:
            found.append(outcome.text)
            assert len(taken) - len(found) <= 2 * 2 + 2 + 1
    assert found == [f"{number} after {number % 3 + 1}" for number in range(12)]


async def test_failed_tries_are_known_by_their_numbers(autojump_clock: MockClock) -> None:
    """Nobody has to look at them: the query has an outcome."""
    flaky = Flaky()
    async with open_pool(flaky.driver()) as pool:
        async with pool.map(manifest(), ["a 1"], retries=1) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
        assert outcome.agent_id == 2
        assert str(pool[1].outcome and pool[1].outcome.error) == "a broke 1 times"


async def test_a_source_that_raises_gives_out_what_waited_for_its_next_try(
    autojump_clock: MockClock,
) -> None:
    """With the outcome that it has."""
    flaky = Flaky()

    async def queries() -> AsyncIterator[str]:  # noqa: ASYNC900  # as users write them
        yield "a 9"
        await trio.sleep(0.5)
        raise OSError("the disk is gone")

    async with (
        open_pool(flaky.driver()) as pool,
        pool.map(manifest(), queries(), retries=5) as outcomes,
    ):
        first = await anext(outcomes)
        with pytest.raises(OSError, match="the disk is gone"):
            await anext(outcomes)
    assert str(first.error) == "a broke 1 times"
    assert len(flaky.asked) == 1


async def test_leaving_a_map_asks_nothing_again(autojump_clock: MockClock) -> None:
    """What waits for its next try when the block ends is not tried."""
    flaky = Flaky()
    async with open_pool(flaky.driver()) as pool:
        async with pool.map(manifest(), ["a 9", "b 0"], retries=5) as outcomes:
            assert (await anext(outcomes)).text == "b after 1"
        await trio.sleep(100)
        assert len(flaky.asked) == 2
        assert_quiescent(pool)


def test_one_that_is_cancelled_is_not_tried_again() -> None:
    """Whoever cancelled it meant it; so did whoever closed the pool."""

    async def scenario() -> None:
        flaky = Flaky(5)
        async with (
            open_pool(flaky.driver()) as pool,
            pool.map(manifest(), ["a 9"], retries=5) as outcomes,
        ):
            await trio.sleep(1)
            pool.abort_all("enough")
            found = [outcome async for outcome in outcomes]
        assert [outcome.status for outcome in found] == [AgentStatus.CANCELLED]

    explore(scenario, schedules=20, late_clock=False)


async def _retrying(*, ordered: bool, slots: int, take: int = 99) -> None:
    seen = Recorder()
    flaky = Flaky(1)
    queries = ["0 0", "1 1", "2 2"]
    found: list[str] = []
    try:
        async with open_pool(
            flaky.driver(), max_concurrent=slots, max_queued=1, observers=[seen]
        ) as pool:
            async with pool.map(manifest(), queries, ordered=ordered, retries=1) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome.text or "failed")
                    if len(found) == take:
                        break
            assert_quiescent(pool)
    finally:
        assert max(flaky.tries.values(), default=0) <= 2
    if take == 99:
        right = ["0 after 1", "1 after 2", "failed"]
        assert (found if ordered else sorted(found)) == (right if ordered else sorted(right))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("ordered", [False, True])
def test_retries_hold_in_every_order_and_at_every_cancellation(
    slots: int, *, ordered: bool
) -> None:
    """No query is lost, given twice or tried too often."""

    async def whole() -> None:
        await _retrying(ordered=ordered, slots=slots)

    async def left() -> None:
        await _retrying(ordered=ordered, slots=slots, take=2)

    explore(whole, schedules=20)
    explore(left, schedules=20)
    cancel_everywhere(whole if ordered else left)


async def test_an_owner_who_waits_beside_a_retry_is_no_deadlock(
    autojump_clock: MockClock,
) -> None:
    """Nobody runs while a query waits for its next try, which may write to the owner."""
    tries = 0

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:  # noqa: ASYNC124  # a driver is async
        nonlocal tries
        if results_of(request):
            return "told"
        tries += 1
        if tries == 1:
            raise ValueError("broke")
        return calling(tool_call("send_message", to=0, content="hello"))

    team = manifest(capabilities=(Capability(CapabilityKind.MESSAGE),))
    async with (
        open_pool(LiveDriver(answer), tools=ToolRegistry(TEAM_TOOLS)) as pool,
        pool.map(team, ["tell"], retries=1),
    ):
        (letter,) = await pool.receive_many()
    assert letter.content == "hello"
    assert trio.current_time() == 1


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None])
async def test_retries_that_are_no_number_are_refused(wrong: object) -> None:
    """The error names the argument and the value."""
    async with open_pool(Flaky().driver()) as pool:
        with pytest.raises(UsageError, match=f"retries must be a whole number >= 0, got {wrong}"):
            async with pool.map(manifest(), ["a 0"], retries=wrong):  # type: ignore[arg-type]  # a slip
                pass


async def test_tries_are_kept_in_a_journal(autojump_clock: MockClock) -> None:
    """A process that comes after a crash goes on with the next try."""
    flaky, journal = Flaky(), InMemoryJournal()
    for resume in (False, True, True):
        async with (
            open_pool(flaky.driver(), journal=journal, resume=resume) as pool,
            pool.map(manifest(), ["a 3", "b 0"], retries=3) as outcomes,
        ):
            found = [(await anext(outcomes)).text]
            if not resume:
                await trio.sleep(1.5)
                continue
            found += [outcome.text async for outcome in outcomes]
        assert found == ["b after 1", "a after 4"]
    assert flaky.tries == {"a": 4, "b": 1}


# --- supervision


async def test_a_restart_waits_longer_each_time(autojump_clock: MockClock) -> None:
    """And the others work on meanwhile."""
    flaky = Flaky()
    policy = RestartPolicy(max_restarts=9, delay_seconds=2, max_delay_seconds=5)
    async with open_pool(flaky.driver()) as pool:
        outcomes = await pool.supervise(jobs("a 4", "b 0", "c 1"), policy)
    assert [outcome.text for outcome in outcomes] == ["a after 5", "b after 1", "c after 2"]
    assert [at for at, name in flaky.asked if name == "a"] == [0, 2, 6, 11, 16]
    assert [at for at, name in flaky.asked if name == "c"] == [0, 2]


async def test_who_ran_for_a_whole_period_begins_with_the_shortest_wait(
    autojump_clock: MockClock,
) -> None:
    """It was not a fault that stays."""
    flaky = Flaky(60)
    policy = RestartPolicy(max_restarts=9, delay_seconds=2, period_seconds=50)
    async with open_pool(flaky.driver()) as pool:
        await pool.supervise(jobs("a 3"), policy)
    assert [at for at, _ in flaky.asked] == [0, 62, 124, 186]


async def test_each_job_up_to_so_many_times(autojump_clock: MockClock) -> None:
    """One that fails more often keeps its outcome, and ends nobody else."""
    flaky = Flaky()
    policy = RestartPolicy(max_restarts=1000, max_restarts_each=2)
    async with open_pool(flaky.driver()) as pool:
        outcomes = await pool.supervise(jobs("a 2", "b 2", "c 2", "d 3"), policy)
    assert [outcome.text or str(outcome.error) for outcome in outcomes] == [
        "a after 3",
        "b after 3",
        "c after 3",
        "d broke 3 times",
    ]


async def test_all_wait_for_one_that_is_started_again_with_them(
    autojump_clock: MockClock,
) -> None:
    """Two that fail one after the other are started once, with everybody."""
    started: list[tuple[float, str]] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        name = query_of(request)
        started.append((trio.current_time(), name))
        first = [one for _, one in started].count(name) == 1
        if name != "c" and first:
            await trio.sleep(1)
            raise ValueError("broke")
        await trio.sleep(1.5)
        return name

    policy = RestartPolicy(strategy="one_for_all", max_restarts=9, delay_seconds=10)
    async with open_pool(LiveDriver(answer)) as pool:
        outcomes = await pool.supervise(jobs("a", "b", "c"), policy)
    assert [outcome.text for outcome in outcomes] == ["a", "b", "c"]
    assert [at for at, name in started if name == "c"] == [0, 11]


async def test_rest_for_one_takes_those_that_wait_along(autojump_clock: MockClock) -> None:
    """The second waits for its start when the first one fails: both begin when that does."""
    started: list[tuple[float, str]] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        name = query_of(request)
        started.append((trio.current_time(), name))
        first = [one for _, one in started].count(name) == 1
        await trio.sleep({"a": 5, "b": 1, "c": 20}[name] if first else 1)
        if first and name != "c":
            raise ValueError("broke")
        return name

    policy = RestartPolicy(strategy="rest_for_one", max_restarts=9, delay_seconds=10)
    async with open_pool(LiveDriver(answer)) as pool:
        outcomes = await pool.supervise(jobs("a", "b", "c"), policy)
    assert [outcome.text for outcome in outcomes] == ["a", "b", "c"]
    assert sorted((at, name) for at, name in started if at) == [(15, "a"), (15, "b"), (15, "c")]


def test_a_supervision_with_delays_ends_at_any_point() -> None:
    """Also while an agent waits for its restart."""

    async def scenario() -> None:
        flaky = Flaky(1)
        policy = RestartPolicy(max_restarts=9, delay_seconds=3)
        async with open_pool(flaky.driver(), max_concurrent=1) as pool:
            try:
                outcomes = await pool.supervise(
                    [job("a 2"), SpawnConfig(manifest(), "b 1")], policy
                )
            finally:
                assert_quiescent(pool)
        assert [outcome.text for outcome in outcomes] == ["a after 3", "b after 2"]

    explore(scenario, schedules=50)
    cancel_everywhere(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_restarts_each": -1},
        {"delay_seconds": -1},
        {"delay_seconds": float("nan")},
        {"max_delay_seconds": float("inf")},
    ],
)
def test_a_delay_without_meaning_is_refused(wrong: dict[str, float]) -> None:
    """The error names the field and the value."""
    (name,) = wrong
    with pytest.raises(UsageError, match=f"{name} must be .*>= 0, got"):
        RestartPolicy(**wrong)  # type: ignore[arg-type]  # one of several


def test_a_delay_after_any_number_of_restarts_is_a_number() -> None:
    """Two to that power is none."""
    policy = RestartPolicy(delay_seconds=0.5, max_delay_seconds=7)
    assert [policy.delay(count) for count in (0, 1, 2, 4, 10**6)] == [0.5, 1, 2, 7, 7]


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_pool_that_closes_gives_out_what_would_have_been_tried_again(
    ordered: bool,  # noqa: FBT001  # a parameter of the test
    autojump_clock: MockClock,
) -> None:
    """No new agents are taken; the others of the pool go on, and the map ends in order."""
    flaky = Flaky(seconds=0.25)
    async with open_pool(flaky.driver(), max_concurrent=4) as pool:
        bystander = await pool.spawn(job("bystander 0"))

        async def close() -> None:
            await trio.sleep(0.5)
            pool.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            queries = ["a 5", "b 0", "c 5"]
            async with pool.map(manifest(), queries, ordered=ordered, retries=3) as outcomes:
                found = {one.agent_id: one.status async for one in outcomes}
        assert (await bystander.wait()).status is AgentStatus.COMPLETED
    assert sorted(status.value for status in found.values()) == ["completed", "failed", "failed"]
    assert_quiescent(pool)
