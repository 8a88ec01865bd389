"""Numbers of a subclass of ``int`` or ``float``, such as those of numpy: they enter as plain ones.

Encoders write only plain numbers, so one that was let in would break what is written later.
"""

# these drivers look at nothing

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from agentpool import (
    AgentStatus,
    Budget,
    ModelConfig,
    ResourceQuota,
    RetryPolicy,
    SpawnConfig,
    Usage,
    UsageError,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import (
    FunctionDriver,
    GatedDriver,
    RateLimitError,
    RequestGate,
    ScriptedDriver,
)
from agentpool.journal import open_journal
from agentpool.observe import AgentWarned, TraceWriter, outcome_to_json, read_trace
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import Recorder, manifest


class Count(int):
    """A whole number of a subclass, whose sums and texts are of it as well."""

    def __add__(self, other: int) -> Count:
        """Add."""
        return Count(int(self) + other)

    __radd__ = __add__

    def __str__(self) -> str:
        """Return no number."""
        return f"Count({int(self)})"

    __repr__ = __str__


class Real(float):
    """A number as numpy makes them."""

    def __mul__(self, other: float) -> Real:
        """Multiply."""
        return Real(float(self) * other)

    __rmul__ = __mul__

    def __add__(self, other: float) -> Real:
        """Add."""
        return Real(float(self) + other)

    __radd__ = __add__

    def __str__(self) -> str:
        """Return the text of numpy."""
        return f"np.float64({float(self)})"

    __repr__ = __str__


class Level(enum.IntEnum):
    """A whole number with a name."""

    HIGH = 3


def _plain(value: object) -> bool:
    return type(value) in {int, float}


async def test_what_a_driver_counts_is_kept_as_plain_numbers(tmp_path: Path) -> None:
    """An answer that was paid was lost, since the journal could not write its price."""
    answer = Completion("paid", usage=Usage(Count(3), Count(4)), cost_usd=Real(0.25))
    recorder, path = Recorder(), tmp_path / "t.jsonl"
    driver = GatedDriver(FunctionDriver(lambda _: answer), RequestGate("g", tokens_per_minute=9999))
    async with (
        open_journal(tmp_path / "runs.db") as journal,
        TraceWriter(path) as trace,
        open_pool(
            driver, journal=journal, observers=[trace, recorder], budget=Budget(tokens=9999)
        ) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
    assert outcome.error is None
    assert (outcome.text, outcome.usage, outcome.cost_usd) == ("paid", Usage(3, 4), 0.25)
    assert type(outcome.usage.input_tokens) is int
    assert type(outcome.cost_usd) is float
    assert outcome.unmeasured_requests == 0
    assert not [one for one in recorder.events if isinstance(one, AgentWarned)]
    assert '"cost_usd":0.25' in outcome_to_json(outcome)
    assert len(read_trace(path).events) == len(recorder.events)


@pytest.mark.parametrize("count", [Count(-3), True, Real(3.0), "3"], ids=repr)
async def test_an_impossible_count_stays_unknown(count: Any) -> None:  # noqa: ANN401
    """Only whole numbers of at least 0 are counts."""
    usage = Usage(1, output_tokens=count)
    async with open_pool(FunctionDriver(lambda _: Completion("x", usage=usage))) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
    assert (outcome.usage, outcome.unmeasured_requests) == (Usage(), 1)


async def test_a_price_is_a_plain_number(tmp_path: Path) -> None:
    """Also if it is computed from the price of one token, and for requests that broke off."""

    async def slow(request: CompletionRequest) -> Completion:
        await trio.sleep_forever()
        raise AssertionError

    for price in (Real(0.5), Count(1)):
        driver = FunctionDriver(slow, price_per_token_usd=price)
        async with (
            open_journal(tmp_path / f"{price}.db") as journal,
            open_pool(driver, journal=journal, budget=Budget(cost_usd=1e9)) as pool,
        ):
            handle = await pool.spawn(SpawnConfig(manifest(), "q"))
            await trio.testing.wait_all_tasks_blocked()
            handle.cancel("enough")
            assert (await handle.wait()).status is AgentStatus.CANCELLED
        free = FunctionDriver(
            lambda _: Completion("x", usage=Usage(1, 1)), price_per_token_usd=price
        )
        async with open_pool(free) as pool:
            outcome = await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
        assert _plain(outcome.cost_usd)


@pytest.mark.parametrize(
    "terms",
    [
        {"deadline_seconds": Real(30)},
        {"priority": Count(3)},
        {"priority": Level.HIGH},
        {"weight": Count(2)},
    ],
    ids=repr,
)
async def test_a_config_with_such_a_number_is_journaled(
    tmp_path: Path, terms: dict[str, Any]
) -> None:
    """It cancelled all other agents of the pool."""
    async with (
        open_journal(tmp_path / "runs.db") as journal,
        open_pool(ScriptedDriver(["x"]), journal=journal) as pool,
    ):
        config = SpawnConfig(manifest(), "q", **terms)
        outcome = await (await pool.spawn(config)).wait()
    assert outcome.text == "x"
    assert all(_plain(getattr(config, name)) for name in terms)


async def test_a_pool_with_such_numbers_has_a_trace(tmp_path: Path) -> None:
    """The first line of the trace could not be read."""
    path = tmp_path / "t.jsonl"
    async with (
        TraceWriter(path) as trace,
        open_pool(
            ScriptedDriver(["x"]), max_concurrent=Count(2), max_queued=Count(5),
            inbox_capacity=Count(7), keep_outcomes=Count(8), random_seed=Count(9),
            observers=[trace],
        ) as pool,
    ):  # fmt: skip
        assert type(pool.max_concurrent) is int
        await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
        pool.max_concurrent = Count(3)
        assert type(pool.max_concurrent) is int
        assert type(pool.statistics().max_concurrent) is int
    assert read_trace(path).events
    with pytest.raises(UsageError, match="max_concurrent must be a whole number >= 1, got True"):
        async with open_pool(ScriptedDriver(["x"]), max_concurrent=True):
            pass


async def test_a_provider_s_refusal_is_told_in_plain_numbers(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What a driver read with numpy went into the trace as a text."""
    path, tries = tmp_path / "t.jsonl", iter([0, 1])
    gate = RequestGate("g", max_in_flight=Count(4), random_seed=1)

    def answer(request: CompletionRequest) -> str:
        if next(tries) == 0:
            raise RateLimitError("later", retry_after_seconds=Real(2), status_code=Count(429))
        return "x"

    policy = RetryPolicy(max_attempts=Count(3), base_seconds=Real(0.5))
    assert _plain(policy.max_attempts)
    assert _plain(policy.base_seconds)
    async with (
        TraceWriter(path) as trace,
        open_pool(
            GatedDriver(FunctionDriver(answer), gate), observers=[trace], request_retries=policy
        ) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "q"))).wait()
    assert outcome.text == "x"
    assert read_trace(path).events
    assert _plain(gate.statistics().limit)


def test_settings_become_plain_numbers() -> None:
    """They are sent to providers, as JSON, and journaled."""
    quota = ResourceQuota(max_iterations=Count(3), max_cost_usd=Real(0.5), run_seconds=Real(9))
    model = ModelConfig(
        remote_model="m", max_tokens=Count(100), temperature=Real(0.5), top_p=Real(1),
        seed=Level.HIGH, context_window=Count(9000),
        options={"a": [Real(0.5), {"b": Count(3)}], "c": (Level.HIGH, True)},
    )  # fmt: skip
    every = [quota.max_iterations, quota.max_cost_usd, quota.run_seconds, model.max_tokens]
    every += [model.temperature, model.top_p, model.seed, model.context_window]
    assert [one for one in every if not _plain(one)] == []
    sent = b'{"a":[0.5,{"b":3}],"c":[3,true]}'
    assert msgspec.json.encode(model.options) == sent


def test_a_budget_counts_plain_numbers() -> None:
    """A snapshot of it is written."""
    budget = Budget(tokens=Count(100), cost_usd=Real(0.5), requests=Count(4), tool_calls=Count(5))
    with budget.reserve(tokens=Count(7), cost_usd=Real(0.25), requests=Count(1)) as reservation:
        reservation.commit(tokens=Count(6), cost_usd=Real(0.125))
    budget.change_limit("requests", Count(9))
    now = budget.statistics()
    assert now.tokens.left == 94
    parts = [now.tokens, now.requests, now.tool_calls, now.cost]
    numbers = [n for part in parts for n in (part.limit, part.committed, part.left)]
    assert [one for one in numbers if not _plain(one)] == []


def test_a_tool_has_a_plain_time_limit() -> None:
    """It is shown to models and sent to the nodes of a cluster."""

    @tool(timeout_seconds=Real(5))
    def look() -> str:
        """Look."""
        return "x"

    assert type(look.timeout_seconds) is float
    assert ToolRegistry([look]).names == ("look",)
