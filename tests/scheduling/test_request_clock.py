"""The time of a request: it is the model's, and nobody's turn is waited for in it."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentpool import AgentOutcome, AgentStatus, Budget, SpawnConfig, StopReason, Usage, open_pool
from agentpool._scheduling.request_clock import RequestClock, current_clock, waiting_for_turn
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta, ToolContext
from agentpool.drivers import (
    FallbackDriver,
    GatedDriver,
    NetworkError,
    RateLimitError,
    RequestGate,
    ScriptedDriver,
)
from agentpool.testing import cancel_everywhere, explore, simulate
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    FakeTool,
    LiveDriver,
    calling,
    hanging_driver,
    job,
    manifest,
    query_of,
    tool_call,
    turns_of,
)


@attrs.define(eq=False)
class Line:
    """A gate at which the first request waits: until *opens_at*, by the clock."""

    gate: RequestGate = attrs.field(factory=lambda: RequestGate(max_in_flight=1))

    async def hold(self, opens_at: float) -> None:
        """Be in flight until then."""
        async with self.gate.request():
            await trio.sleep_until(opens_at)


async def test_a_task_that_was_left_behind_moves_no_deadline_any_more(
    autojump_clock: MockClock,
) -> None:
    """It still waits for its turn when the request is over, and its scope limits the next thing."""
    turn = trio.Event()

    async def wait_turn() -> None:
        with waiting_for_turn():
            await turn.wait()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            with RequestClock(scope):
                scope.deadline = 5.0
                nursery.start_soon(wait_turn)
                await trio.testing.wait_all_tasks_blocked()
                assert scope.deadline == math.inf
            scope.deadline = 9.0
            turn.set()
            await trio.testing.wait_all_tasks_blocked()
            assert scope.deadline == 9.0


async def ask(
    driver: Driver, *lines: tuple[Line, float], seconds: float = 5.0, **limits: float
) -> AgentOutcome:
    """Run one agent that waits at these gates, until then; a request has *seconds*."""
    async with trio.open_nursery() as nursery:
        for line, opens_at in lines:
            nursery.start_soon(line.hold, opens_at)
        await trio.testing.wait_all_tasks_blocked()
        async with open_pool(driver) as pool:
            config = SpawnConfig(manifest(request_seconds=seconds, **limits), "ask")  # type: ignore[arg-type]  # seconds too
            outcome = await (await pool.spawn(config)).wait()
        nursery.cancel_scope.cancel()
    return outcome


def both(*drivers: Driver) -> LiveDriver:
    """Return a driver that asks all of these at the same time, and takes the first answer."""

    async def race(request: CompletionRequest, _: OnDelta) -> Completion:
        answers: list[Completion] = []

        async def run(driver: Driver) -> None:
            answers.append(await driver.complete(request))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for driver in drivers:
                nursery.start_soon(run, driver)
        return answers[0]

    return LiveDriver(race)


def after(seconds: float) -> LiveDriver:
    """Return a driver that answers after a while."""

    async def answer(_: CompletionRequest, __: OnDelta) -> str:
        await trio.sleep(seconds)
        return f"after {seconds:g}"

    return LiveDriver(answer)


@pytest.mark.parametrize("opens_at", [(60.0, 90.0), (90.0, 60.0), (60.0, 60.0)])
def test_g13_two_who_wait_at_two_gates_lose_no_limit(opens_at: tuple[float, float]) -> None:
    """The one that was let in first set the clock going, and the other one to no end at all."""
    lines = Line(), Line()

    async def scenario() -> tuple[AgentOutcome, float]:
        gated = [GatedDriver(hanging_driver(), line.gate) for line in lines]
        pairs = zip(lines, opens_at, strict=True)
        with trio.fail_after(1000):
            outcome = await ask(both(*gated), *pairs)
        return outcome, trio.current_time()

    outcome, ended_at = simulate(scenario)
    assert "no complete answer within 5 seconds" in str(outcome.error)
    # While one of them waits, nobody can say that the model takes its time.
    assert ended_at == max(opens_at) + 5


async def test_g13_a_clock_that_stands_still_goes_on_with_what_was_left(
    autojump_clock: MockClock,
) -> None:
    """Not with all of it: who is let in late has no more time than others."""
    line = Line()

    async def slow_first(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.sleep(3)
        return await GatedDriver(after(3), line.gate).complete(request, on_delta=on_delta)

    outcome = await ask(LiveDriver(slow_first), (line, 60.0))
    assert outcome.status is AgentStatus.FAILED
    assert trio.current_time() == 62


async def test_g13_time_stands_still_while_others_have_the_budget(
    autojump_clock: MockClock,
) -> None:
    """It did at a gate only: who waited for others' reservations was said to be slow."""

    async def answer(_: CompletionRequest, __: OnDelta) -> Completion:
        await trio.sleep(4)
        return Completion("done", usage=Usage(60, 40))

    config = SpawnConfig(manifest(request_seconds=5.0), "ask")
    async with open_pool(LiveDriver(answer), budget=Budget(tokens=1500)) as pool:
        await pool.fan_out([config] * 4)
        outcomes = await pool.join_all()
    assert {outcome.status for outcome in outcomes.values()} == {AgentStatus.COMPLETED}
    assert trio.current_time() == 16


async def test_g13_the_deadline_of_a_run_holds_while_it_waits_for_a_budget(
    autojump_clock: MockClock,
) -> None:
    """Nothing waits without an end: the clock that goes on is the run's."""

    async def answer(_: CompletionRequest, __: OnDelta) -> Completion:
        await trio.sleep(60)
        return Completion("done", usage=Usage(60, 40))

    hurried = SpawnConfig(manifest(request_seconds=5.0, run_seconds=10.0), "ask")
    budget = Budget(tokens=1500)
    async with open_pool(LiveDriver(answer), budget=budget) as pool:
        await pool.spawn(job())
        await trio.testing.wait_all_tasks_blocked()
        outcome = await (await pool.spawn(hurried)).wait()
        assert (outcome.stop_reason, trio.current_time()) == (StopReason.DEADLINE, 10)
    assert budget.statistics().requests.committed == 1


async def test_g13_patience_is_for_who_was_asked(autojump_clock: MockClock) -> None:
    """A queue before a healthy provider was held against it, and its breaker opened."""
    line = Line()
    first = GatedDriver(ScriptedDriver(["one"]), line.gate)
    driver = FallbackDriver(first, ScriptedDriver(["two"]), patience_seconds=20, max_failures=1)
    outcome = await ask(driver, (line, 60.0))
    assert (outcome.text, trio.current_time()) == ("one", 60)
    assert driver.counts()[0].failed == 0


@pytest.mark.parametrize(("seconds", "text", "ended_at"), [(30.0, "two", 80.0), (10.0, "", 70.0)])
async def test_g13_both_clocks_go_on_after_the_gate(
    seconds: float, text: str, ended_at: float, autojump_clock: MockClock
) -> None:
    """Patience and the request's time stand still there, and neither is lost."""
    line = Line()
    driver = FallbackDriver(
        GatedDriver(hanging_driver(), line.gate), ScriptedDriver(["two"]), patience_seconds=20
    )
    outcome = await ask(driver, (line, 60.0), seconds=seconds)
    assert (outcome.text, trio.current_time()) == (text, ended_at)


async def test_the_first_word_ends_patience_though_another_one_waits(
    autojump_clock: MockClock,
) -> None:
    """A word that comes while the clock stands still is a word."""
    line = Line()

    async def dictate(_: CompletionRequest, on_delta: OnDelta) -> str:
        on_delta("well")
        await trio.sleep(100)
        return "well"

    async def race(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        waiting = GatedDriver(hanging_driver(), line.gate)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.complete, request)
            await trio.testing.wait_all_tasks_blocked()
            answer = await LiveDriver(dictate).complete(request, on_delta=on_delta)
            nursery.cancel_scope.cancel()
        return answer

    driver = FallbackDriver(LiveDriver(race), ScriptedDriver(["two"]), patience_seconds=20)
    outcome = await ask(driver, (line, 10.0), seconds=200)
    assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "well")


async def test_an_agent_does_not_stop_the_clock_of_whoever_starts_it(
    autojump_clock: MockClock,
) -> None:
    """A task has the clock of who started it around it, and an agent may be started by any."""
    line = Line()
    gated = GatedDriver(after(0), line.gate)

    async def ask_another_pool(_: CompletionRequest, __: OnDelta) -> str:
        async with open_pool(gated) as pool:
            return (await (await pool.spawn(job())).wait()).text

    outcome = await ask(LiveDriver(ask_another_pool), (line, 60.0))
    assert "no complete answer within 5 seconds" in str(outcome.error)
    assert trio.current_time() == 5


async def test_g13_a_task_that_a_request_left_behind_sets_no_time_of_the_next_step(
    autojump_clock: MockClock,
) -> None:
    """All steps have one scope: the tool was ended with what was left of the request."""
    line = Line()

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if turns_of(request):
            return "done"
        others.start_soon(GatedDriver(after(0), line.gate).complete, request)
        await trio.sleep(1)
        return calling(tool_call("nap"))

    async def sleep(_: str, __: ToolContext) -> str:
        await trio.sleep(100)
        return "slept"

    tools = ToolRegistry([FakeTool("nap", sleep)])
    async with trio.open_nursery() as others, open_pool(LiveDriver(answer), tools=tools) as pool:
        others.start_soon(line.hold, 60.0)
        await trio.testing.wait_all_tasks_blocked()
        wanted = manifest(request_seconds=20.0, tool_seconds=None)
        outcome = await (await pool.spawn(SpawnConfig(wanted, "ask"))).wait()
    assert (outcome.text, outcome.error) == ("done", None)
    assert trio.current_time() == 101


@pytest.mark.parametrize(("seconds", "text"), [(4.0, "done"), (2.4, "")])
async def test_g13_a_retry_waits_for_its_slot_in_nobodys_time(
    seconds: float, text: str, autojump_clock: MockClock
) -> None:
    """It failed because others were at work; what the provider asked to wait does count."""
    asked: list[float] = []

    async def answer(request: CompletionRequest, _: OnDelta) -> str:
        if query_of(request) == "busy":
            await trio.sleep(60)
            return "worked"
        asked.append(trio.current_time())
        if len(asked) == 1:
            raise RateLimitError("slow down", retry_after_seconds=1)
        await trio.sleep(1.5)
        return "done"

    config = SpawnConfig(manifest(request_seconds=seconds), "ask")
    async with open_pool(LiveDriver(answer), max_concurrent=1, random_seed=0) as pool:
        handle, _ = await pool.fan_out([config, job("busy")])
        outcome = await handle.wait()
    assert outcome.text == text
    assert asked == [0, 60]


async def test_what_is_left_is_known_while_it_stands_still(autojump_clock: MockClock) -> None:
    """A retry asks for it, while another part of the request may wait."""
    with trio.fail_after(5) as scope, RequestClock(scope) as outer:
        await trio.sleep(1)
        with trio.fail_after(3) as nearer, RequestClock(nearer) as inner, waiting_for_turn():
            await trio.sleep(60)
            assert (inner.seconds_left, outer.seconds_left) == (3, 4)
            inner.spend(1)
            assert (inner.seconds_left, outer.seconds_left) == (2, 4)
        assert current_clock() is outer
        assert outer.seconds_left == 4
    assert current_clock() is None


@pytest.mark.parametrize("waits_at_gate", [True, False])
async def test_a_task_that_was_left_behind_has_no_part_in_its_agents_requests(
    *, waits_at_gate: bool, autojump_clock: MockClock
) -> None:
    """Its wait at a gate stops no clock of the agent, and its failures cost the agent nothing."""
    line = Line()
    fails = LiveDriver(lambda _, __: breaking())
    inner = GatedDriver(after(0), line.gate) if waits_at_gate else FallbackDriver(fails, after(0))

    async def breaking() -> Completion:
        await trio.sleep(1)
        raise NetworkError("broke off")

    async def left(request: CompletionRequest) -> None:
        await trio.sleep(1)
        await inner.complete(request)

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        if turns_of(request):
            await trio.sleep(4 if not waits_at_gate else 100)
            return "done"
        requests.append(request)
        return calling(tool_call("start"))

    async def start(_: str, __: ToolContext) -> str:
        others.start_soon(left, requests[0])
        await trio.lowlevel.checkpoint()
        return "started"

    requests: list[CompletionRequest] = []
    tools = ToolRegistry([FakeTool("start", start)])
    async with trio.open_nursery() as others, open_pool(LiveDriver(answer), tools=tools) as pool:
        others.start_soon(line.hold, 60.0)
        await trio.testing.wait_all_tasks_blocked()
        config = SpawnConfig(manifest(request_seconds=5.0), "ask")
        outcome = await (await pool.spawn(config)).wait()
        assert trio.current_time() == (5 if waits_at_gate else 4)
    assert outcome.status is (AgentStatus.FAILED if waits_at_gate else AgentStatus.COMPLETED)
    assert outcome.unmeasured_requests == 2  # its own; the drivers here say no usage


def test_g16_a_clock_is_left_as_it_was_found() -> None:
    """Cancelled anywhere, in any order, a request waits for its turn and the next one is made."""

    async def scenario() -> None:
        line = Line()
        gated = [GatedDriver(after(1), line.gate) for _ in range(2)]
        driver = FallbackDriver(both(*gated), patience_seconds=3)
        outcome = await ask(driver, (line, 10.0), seconds=4, run_seconds=100.0)
        assert outcome.status in {AgentStatus.COMPLETED, AgentStatus.CANCELLED}

    explore(scenario, schedules=25)
    cancel_everywhere(scenario)
