"""FaultyDriver and the strategies: everything that is drawn is used, and can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import pytest
import trio
from hypothesis import Phase, given, settings
from hypothesis.strategies import SearchStrategy

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    DriverError,
    SpawnConfig,
    StopReason,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import FinishReason, ScriptedDriver, ToolCall, UserMessage
from agentpool.drivers._scripted import Step
from agentpool.testing import (
    Answer,
    CallWildly,
    Fail,
    Fault,
    FaultyDriver,
    Hang,
    Stall,
    Trickle,
    Truncate,
    simulate,
    strategies,
)
from agentpool.testing._simulation.quiescent import history_faults, outcome_faults

T = TypeVar("T")

REQUEST = CompletionRequest((UserMessage("hello"),))


async def ask(fault: Fault) -> tuple[Completion, list[str], float]:
    """Return the answer to one request, its pieces, and when it came."""
    pieces: list[str] = []
    completion = await FaultyDriver([fault]).complete(REQUEST, on_delta=pieces.append)
    return completion, pieces, trio.current_time()


@pytest.mark.parametrize(
    ("fault", "completion", "pieces", "seconds"),
    [
        (Answer(Completion("yes")), Completion("yes"), ["yes"], 0.0),
        (Stall(60.0, Completion("late")), Completion("late"), ["late"], 60.0),
        (Trickle(("a", "b"), 2.0), Completion("ab"), ["a", "b"], 4.0),
        (
            Truncate("half"),
            Completion("half", finish_reason=FinishReason.MAX_TOKENS),
            ["half"],
            0.0,
        ),
        (CallWildly(()), Completion(), [], 0.0),
        (
            CallWildly((ToolCall("1", "rm", "{"),)),
            Completion(tool_calls=(ToolCall("1", "rm", "{"),), finish_reason=FinishReason.TOOL_USE),
            [],
            0.0,
        ),
    ],
)
def test_a_fault_is_what_it_says(
    fault: Fault, completion: Completion, pieces: list[str], seconds: float
) -> None:
    """Each kind, with its text, its pieces and its time."""
    assert simulate(ask, fault) == (completion, pieces, seconds)


def test_a_request_fails_after_its_pieces() -> None:
    """What has arrived by then has been heard."""
    pieces: list[str] = []

    async def scenario() -> None:
        driver = FaultyDriver([Fail(ValueError("broken"), ("a", "b"))])
        with pytest.raises(ValueError, match="broken"):
            await driver.complete(REQUEST, on_delta=pieces.append)
        # Beyond its plan it says that it is done, also to somebody who does not listen.
        assert await driver.complete(REQUEST) == Completion("done")
        assert driver.taken == 1

    simulate(scenario)
    assert pieces == ["a", "b"]


def test_a_hang_lasts_until_it_is_cancelled() -> None:
    """A deadline ends it, and nothing else."""

    async def scenario() -> AgentOutcome:
        async with open_pool(FaultyDriver([Hang()]), random_seed=0) as pool:
            config = SpawnConfig(AgentManifest(capabilities=()), "hi", deadline_seconds=9)
            return await (await pool.spawn(config)).wait()

    outcome = simulate(scenario)
    assert (outcome.stop_reason, outcome.finished_at) == (StopReason.DEADLINE, 9.0)


@given(fault=strategies.faults("add", hangs=False))
def test_every_drawn_fault_can_happen(fault: Fault) -> None:
    """It ends in an answer or in the error that it says."""

    async def scenario() -> None:
        try:
            await FaultyDriver([fault]).complete(REQUEST)
        except (DriverError, ValueError):
            assert isinstance(fault, Fail)

    simulate(scenario)


def drawn(strategy: SearchStrategy[T]) -> list[T]:
    """Return some of what *strategy* draws."""
    seen: list[T] = []

    @given(value=strategy)
    @settings(max_examples=100, database=None, phases=[Phase.generate], derandomize=True)
    def draw(value: T) -> None:
        seen.append(value)

    draw()
    return seen


def test_every_kind_of_fault_is_drawn() -> None:
    """A plan may have any of them."""
    kinds = {type(fault) for plan in drawn(strategies.fault_plans("add")) for fault in plan}
    assert kinds == {Answer, Fail, Stall, Trickle, Truncate, CallWildly, Hang}


def test_bad_json_is_drawn() -> None:
    """Arguments that are none, and tools that there are not."""

    def is_bad(call: ToolCall) -> bool:
        try:
            json.loads(call.arguments)
        except ValueError:
            return True
        return False

    calls = drawn(strategies.tool_calls("add"))
    assert {(is_bad(call), call.name == "add") for call in calls} == {
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    }


@given(script=strategies.scripts("add"))
@settings(max_examples=20)
def test_a_drawn_script_ends(script: list[Step]) -> None:
    """Every script has an end, so every agent that follows one has."""

    async def scenario() -> None:
        async with open_pool(ScriptedDriver(script), random_seed=0) as pool:
            outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "hi"))).wait()
        assert outcome.status is not AgentStatus.CANCELLED
        assert not list(outcome_faults(outcome, 1))

    simulate(scenario)


@given(config=strategies.spawn_configs(), outcome=strategies.outcomes())
@settings(max_examples=20)
def test_drawn_values_make_sense(config: SpawnConfig, outcome: AgentOutcome) -> None:
    """What the values refuse is not drawn, and histories are whole."""
    assert config.agent_name
    assert not list(history_faults(config.history))
    assert not list(outcome_faults(outcome, outcome.agent_id))


@pytest.mark.parametrize(
    "strategy",
    [
        strategies.agent_messages,
        strategies.answers,
        strategies.events,
        strategies.fragments,
        strategies.memory_queries,
        strategies.resources,
        strategies.usages,
    ],
)
def test_each_strategy_draws(strategy: Callable[[], SearchStrategy[object]]) -> None:
    """Each of them draws something, and not always the same."""
    assert len({repr(value) for value in drawn(strategy())}) > 5
