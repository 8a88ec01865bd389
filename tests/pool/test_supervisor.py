"""Supervision: who is started again, how often, and together with whom."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from agentpool import (
    AgentCancelledError,
    AgentOutcome,
    AgentStatus,
    LimitExceededError,
    RestartPolicy,
    UsageError,
    open_pool,
)
from agentpool._pool.restart_policy import Restart, RestartCounter
from agentpool.abc import CompletionRequest, OnDelta
from tests.support.fakes import (
    LiveDriver,
    hanging_driver,
    job,
    jobs,
    manifest,
    query_of,
    sleepy_driver,
)


class Flaky:
    """Answers queries of the form ``name failures``: it fails so often, then it answers."""

    def __init__(self) -> None:
        """Begin with nobody asked."""
        self.starts: Counter[str] = Counter()
        self.order: list[str] = []

    def driver(self) -> LiveDriver:
        """Return a driver that asks this."""

        async def answer(request: CompletionRequest, _: OnDelta) -> str:
            name, failures = query_of(request).split()
            self.starts[name] += 1
            self.order.append(name)
            await trio.sleep(1 if failures != "hang" else trio.current_time() + 1000)
            if self.starts[name] <= int(failures):
                raise ValueError(f"{name} broke")
            return f"{name} after {self.starts[name]}"

        return LiveDriver(answer)


async def test_a_failed_agent_is_started_again(autojump_clock: MockClock) -> None:
    """Each restart is an agent of its own; the last outcome counts."""
    flaky = Flaky()
    async with open_pool(flaky.driver()) as pool:
        outcomes = await pool.supervise(jobs("a 2", "b 0"))
    assert [outcome.text for outcome in outcomes] == ["a after 3", "b after 1"]
    assert [outcome.agent_id for outcome in outcomes] == [4, 2]


async def test_never_restarts_nobody(autojump_clock: MockClock) -> None:
    """The failure is the outcome, and it counts as seen."""
    flaky = Flaky()
    async with open_pool(flaky.driver()) as pool:
        (outcome,) = await pool.supervise([job("a 9")], RestartPolicy(restart="never"))
    assert outcome.status is AgentStatus.FAILED
    assert flaky.starts == {"a": 1}


async def test_too_many_restarts_end_everybody(autojump_clock: MockClock) -> None:
    """A fault that does not go away must not cost for ever."""
    flaky = Flaky()
    policy = RestartPolicy(max_restarts=2, period_seconds=60)
    async with open_pool(flaky.driver()) as pool:
        with pytest.raises(LimitExceededError, match="more than 2 times") as caught:
            await pool.supervise(jobs("a 99", "b 0"), policy)
        assert pool.active_count == 0
    assert flaky.starts["a"] == 3
    assert isinstance(caught.value.__cause__, ValueError)


async def test_permanent_restarts_what_completed(autojump_clock: MockClock) -> None:
    """Until it was started again too often."""
    flaky = Flaky()
    policy = RestartPolicy(restart="permanent", max_restarts=4)
    async with open_pool(flaky.driver()) as pool:
        with pytest.raises(LimitExceededError):
            await pool.supervise([job("a 0")], policy)
    assert flaky.starts == {"a": 5}


@pytest.mark.parametrize(
    ("strategy", "started"),
    [
        ("one_for_one", {"a": 1, "b": 2, "c": 1}),
        ("rest_for_one", {"a": 1, "b": 2, "c": 2}),
        ("one_for_all", {"a": 2, "b": 2, "c": 2}),
    ],
)
async def test_strategies_start_the_right_ones_together(
    strategy: str, started: dict[str, int], autojump_clock: MockClock
) -> None:
    """The middle one of three fails once, while the others are at work."""
    starts: Counter[str] = Counter()

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        name = query_of(request)
        starts[name] += 1
        await trio.sleep(1 if name == "b" else 10)
        if name == "b" and starts["b"] == 1:
            raise ValueError("broke")
        return name

    policy = RestartPolicy(strategy=strategy)  # type: ignore[arg-type]  # parametrised
    async with open_pool(LiveDriver(answer)) as pool:
        outcomes = await pool.supervise(jobs("a", "b", "c"), policy)
    assert [outcome.text for outcome in outcomes] == ["a", "b", "c"]
    assert starts == started


async def test_an_agent_that_somebody_cancelled_stays_ended() -> None:
    """Whoever cancelled it meant it."""
    async with open_pool(hanging_driver()) as pool, trio.open_nursery() as nursery:

        async def cancel() -> None:
            await trio.testing.wait_all_tasks_blocked()
            pool.abort_all("enough")

        nursery.start_soon(cancel)
        (outcome,) = await pool.supervise([job("a")], RestartPolicy(restart="permanent"))
    assert outcome.status is AgentStatus.CANCELLED


async def test_a_cancelled_supervision_leaves_nobody_running() -> None:
    """Cancelled from outside, it cancels and awaits everybody."""
    async with open_pool(hanging_driver(), max_concurrent=1) as pool:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.supervise, jobs("a", "b"))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert pool.active_count == pool.queued_count == 0


def test_the_counter_forgets_what_is_over_a_period_ago() -> None:
    """At most n in t seconds, and not n in all."""
    counter = RestartCounter(RestartPolicy(max_restarts=1, period_seconds=10))
    assert [counter.allows(now) for now in (0, 5, 20, 31)] == [True, False, True, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"restart": "always"},
        {"strategy": "all"},
        {"max_restarts": -1},
        {"period_seconds": 0},
        {"period_seconds": float("nan")},
    ],
)
def test_a_policy_without_meaning_is_refused(wrong: dict[str, object]) -> None:
    """The error names the field and the value."""
    (field,) = wrong
    with pytest.raises(UsageError, match=f"{field} must be"):
        RestartPolicy(**wrong)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_sleeping_driver_is_interrupted_by_shutdown(autojump_clock: MockClock) -> None:
    """Shutdown asks first, and cancels who does not end in time."""
    async with open_pool(sleepy_driver(), max_concurrent=1) as pool:
        await pool.fan_out(jobs("sleep 99 say late", "say queued"))
        await trio.testing.wait_all_tasks_blocked()
        step = await pool.shutdown(grace_seconds=5)
        outcomes = await pool.join_all()
    assert step.value == "cancelled"
    assert trio.current_time() == pytest.approx(5, abs=1e-3)
    assert [o.status for o in outcomes.values()] == [AgentStatus.CANCELLED] * 2


async def test_supervised_agents_wait_for_room(autojump_clock: MockClock) -> None:
    """They and their restarts never pass the bound of the queue."""
    flaky, most = Flaky(), 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, pool.queued_count)
            await trio.sleep(0.1)

    async with (
        open_pool(flaky.driver(), max_concurrent=1, max_queued=1) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch)
        outcomes = await pool.supervise(jobs("a 1", "b 0", "c 1", "d 0"))
        nursery.cancel_scope.cancel()
    assert [outcome.status for outcome in outcomes] == [AgentStatus.COMPLETED] * 4
    assert most == 1


def breaks_when_cancelled() -> LiveDriver:
    """Return a driver that works for a long time, and whose cleanup breaks."""

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        try:
            await trio.sleep(1000)
        finally:
            raise ConnectionError("it broke while it was closed")

    return LiveDriver(answer)


@pytest.mark.parametrize("way", ["cancel", "abort_all"])
@pytest.mark.parametrize("restart", ["transient", "permanent"])
async def test_cancelled_with_a_broken_cleanup_is_cancelled(
    way: str, restart: Restart, autojump_clock: MockClock
) -> None:
    """Whoever cancels means it: nothing is started again, and the outcome says both."""
    driver = breaks_when_cancelled()
    found: list[AgentOutcome] = []
    async with open_pool(driver) as pool, trio.open_nursery() as nursery:

        async def supervise() -> None:
            found.extend(await pool.supervise(jobs("a"), RestartPolicy(restart=restart)))

        async def ask_again() -> None:
            async with pool.map(manifest(), ["b"], retries=3) as outcomes:
                found.extend([one async for one in outcomes])

        nursery.start_soon(supervise)
        nursery.start_soon(ask_again)
        await trio.sleep(1)
        if way == "cancel":
            pool[1].cancel("stop it")
            pool[2].cancel("stop it")
        else:
            pool.abort_all("stop it")
    assert [one.status for one in found] == [AgentStatus.CANCELLED] * 2
    assert (driver.calls, pool.statistics().spawned) == (2, 2)
    for one in found:
        assert isinstance(one.error, AgentCancelledError)
        assert (one.error.cancelled_by, one.error.reason) == ("owner", "stop it")
        assert str(one.error).endswith(
            "by owner: stop it; then it failed: ConnectionError: it broke while it was closed"
        )
        assert isinstance(one.error.__cause__, ConnectionError)
