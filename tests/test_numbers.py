"""Numbers that no float can hold are refused where they are passed, not where they are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    BudgetConfig,
    ManifestError,
    ModelConfig,
    ResourceQuota,
    RestartPolicy,
    RetryPolicy,
    SpawnConfig,
    UsageError,
    UsageLimits,
    open_pool,
)
from agentpool.drivers import FallbackDriver, RequestGate, ScriptedDriver, TokenPrice
from agentpool.journal import open_journal
from agentpool.observe import TraceWriter
from agentpool.tools import shell_tools, tool
from tests.support.cli_runner import make_desk
from tests.support.fakes import hanging_driver, job, manifest

HUGE = 10**400
LONGER: Any = 10**5_000
"""Python refuses to write so long a number, even in an error."""


def _build(kind: Callable[..., object], name: str, *given: object) -> object:
    return lambda number: kind(*given, **{name: number})


@pytest.mark.parametrize("number", [HUGE, LONGER, -HUGE], ids=["huge", "longer", "negative"])
@pytest.mark.parametrize(
    "build",
    [
        _build(SpawnConfig, "deadline_seconds", manifest(), "?"),
        _build(SpawnConfig, "weight", manifest(), "?"),
        _build(SpawnConfig, "priority", manifest(), "?"),
        _build(ResourceQuota, "run_seconds"),
        _build(ResourceQuota, "request_seconds"),
        _build(ResourceQuota, "tool_seconds"),
        _build(ResourceQuota, "approval_seconds"),
        _build(ResourceQuota, "max_cost_usd"),
        _build(ResourceQuota, "max_iterations"),
        _build(ResourceQuota, "max_tokens_budget"),
        _build(ModelConfig, "seed"),
        _build(ModelConfig, "max_tokens"),
        _build(ModelConfig, "context_window"),
        _build(partial(BudgetConfig, per="day"), "cost_usd"),
        _build(partial(BudgetConfig, per="day"), "tokens"),
        _build(UsageLimits, "cost_limit_usd"),
        _build(UsageLimits, "request_limit"),
        _build(Budget, "cost_usd"),
        _build(Budget, "tokens"),
        _build(Budget(cost_usd=5).reserve, "cost_usd"),
        _build(Budget(tokens=5).reserve, "tokens"),
        _build(RetryPolicy, "base_seconds"),
        _build(RetryPolicy, "max_total_seconds"),
        _build(RetryPolicy, "max_attempts"),
        _build(RestartPolicy, "period_seconds"),
        _build(RestartPolicy, "delay_seconds"),
        _build(RestartPolicy, "max_restarts"),
        _build(FallbackDriver, "patience_seconds", hanging_driver()),
        _build(FallbackDriver, "cool_down_seconds", hanging_driver()),
        _build(FallbackDriver, "max_failures", hanging_driver()),
        _build(RequestGate, "tokens_per_minute"),
        _build(RequestGate, "max_in_flight"),
        _build(tool, "timeout_seconds"),
        lambda number: TokenPrice(input_usd_per_million=number, output_usd_per_million=1),
        lambda number: TraceWriter("x", grace_seconds=number),
        lambda number: shell_tools([], environ={}, seconds=number),
    ],
)
def test_a_number_that_no_float_holds_is_refused(
    build: Callable[[int], object], number: int
) -> None:
    """It would raise OverflowError in the pool, long after the error."""
    with pytest.raises((UsageError, ManifestError), match="got a number of more than 50 digits"):
        build(number)


@pytest.mark.parametrize("number", [HUGE, LONGER, -1, math.nan, True, "1"], ids=range(6))
async def test_the_end_of_a_pool_waits_for_seconds(
    number: Any,  # noqa: ANN401  # wrong types
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The pool goes on after a wrong one, and its agents are not asked to end."""
    async with open_pool(ScriptedDriver(["a", "b"])) as pool:
        handle = await pool.spawn(job())
        with pytest.raises(UsageError, match="grace_seconds must be"):
            await pool.shutdown(grace_seconds=number)
        assert (await handle.wait()).status is AgentStatus.COMPLETED
        assert (await (await pool.spawn(job())).wait()).status is AgentStatus.COMPLETED


async def test_a_lease_has_seconds(tmp_path: Path) -> None:
    """As all times have."""
    async with open_journal(tmp_path / "a.db") as journal:
        with pytest.raises(UsageError, match=r"lease_seconds must be .*, got a number of more th"):
            await journal.claim("pool", lease_seconds=HUGE)


@pytest.mark.parametrize("name", ["max_concurrent", "max_queued", "inbox_capacity"])
async def test_sizes_of_a_pool_are_numbers_that_can_be_written(name: str) -> None:
    """Before anything is opened."""
    terms: dict[str, Any] = {name: LONGER}
    with pytest.raises(UsageError, match=f"{name} must be a whole number >= ., got a number of m"):
        async with open_pool(ScriptedDriver(["x"]), **terms):
            pass  # pragma: no cover  # never entered


def test_a_manifest_says_which_number_is_too_large() -> None:
    """A file has the same bounds as Python code."""
    text = f'name = "a"\n[resources]\nrun_seconds = {HUGE}\nmax_cost_usd = {HUGE}'
    with pytest.raises(ManifestError, match="run_seconds: is too large"):
        AgentManifest.parse(text)


@pytest.mark.parametrize("word", ["9" * 400, "9" * 5_000], ids=["huge", "longer"])
@pytest.mark.parametrize("option", ["--max-requests", "--max-concurrent", "--seed", "--deadline"])
def test_the_command_line_says_which_number_is_too_large(
    option: str,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And ends as after any wrong option."""
    ended = make_desk(tmp_path, capsys, monkeypatch).scripted(
        "run", "reader.toml", "q", option, word
    )
    assert ended.code == 2
    assert option in ended.err
    assert "must have at most 18 digits" in ended.err or "number of seconds" in ended.err
    assert "Traceback" not in ended.err
