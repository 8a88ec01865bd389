"""What is told of results that are out of the ordinary."""

import io
import json

import pytest

from agentpool import (
    AgentCancelledError,
    AgentOutcome,
    AgentStatus,
    DeadlockError,
    DriverError,
    RetryPolicy,
    SpawnConfig,
    open_pool,
)
from agentpool._cli._report import ExitCode, Report
from agentpool._cli._result import Result
from agentpool._cli._screen import Screen
from agentpool.drivers import NetworkError, OverloadedError, ScriptedDriver
from agentpool.live import Board
from agentpool.observe import AgentFinished
from agentpool.testing import simulate
from tests.support.fakes import manifest


def result(status: AgentStatus, cost_usd: float | None) -> Result:
    """Return a result without a start."""
    error = AgentCancelledError("gone", cancelled_by="owner", reason="why not")
    outcome = AgentOutcome(
        agent_id=1, name="r", status=status, cost_usd=cost_usd, finished_at=1.0, error=error
    )
    return Result(name="r", label="r", outcome=outcome)


async def told(*results: Result) -> tuple[list[dict[str, object]], ExitCode]:
    """Return the JSON lines that *results* come to, and the exit code."""
    out = io.StringIO()
    report = Report(Screen(out, io.StringIO()), as_json=True, quiet=True, headings=False)
    for one in results:
        await report.add(one)
    code = await report.end(interrupted=None, seconds=0.0)
    return [json.loads(line) for line in out.getvalue().splitlines()], code


async def test_an_agent_that_never_started_took_no_time() -> None:
    """Not zero seconds: none."""
    (outcome, _), code = await told(result(AgentStatus.CANCELLED, 0.0))
    assert outcome["seconds"] is None
    assert code is ExitCode.FAILED


async def test_a_cost_that_nobody_knows_is_not_zero() -> None:
    """And it makes the sum unknown."""
    known, unknown = result(AgentStatus.COMPLETED, 0.5), result(AgentStatus.COMPLETED, None)
    lines, _ = await told(known, known)
    assert lines[-1]["cost_usd"] == 1.0
    lines, _ = await told(known, unknown, known)
    assert lines[-1]["cost_usd"] is None


@pytest.mark.parametrize(("count", "words"), [(1, "1 deadlock was"), (2, "2 deadlocks were")])
async def test_a_deadlock_is_told_at_the_end(count: int, words: str) -> None:
    """Also one that ended an agent: nobody has to look for it in a trace."""
    board, err = Board(), io.StringIO()
    for number in range(1, count + 1):
        stuck = AgentOutcome(
            agent_id=number, name="r", status=AgentStatus.FAILED,
            error=DeadlockError("round and round", agent_ids=(1, 2)),
        )  # fmt: skip
        board.on_event(AgentFinished(number, 1.0, number, "r", stuck))
    report = Report(Screen(io.StringIO(), err), as_json=False, quiet=False, headings=False)
    await report.add(result(AgentStatus.COMPLETED, 0.0))
    report.deadlocks = board.deadlocks
    await report.end(interrupted=None, seconds=0.0)
    assert f"; {words} told\n" in err.getvalue()


def test_an_error_says_how_often_the_model_was_asked() -> None:
    """Otherwise it looks as if nothing was tried."""
    err = io.StringIO()

    async def main() -> DriverError:
        report = Report(Screen(io.StringIO(), err), as_json=False, quiet=False, headings=False)
        driver = ScriptedDriver([OverloadedError("busy")] * 3)
        async with open_pool(driver, request_retries=RetryPolicy(max_attempts=3)) as pool:
            outcome = await (await pool.spawn(SpawnConfig(manifest(), "Hi"))).wait()
        await report.add(Result(name="r", label="r", outcome=outcome))
        assert isinstance(outcome.error, DriverError)
        return outcome.error

    assert simulate(main).attempts == 3
    assert "OverloadedError: busy (asked 3 times)\n" in err.getvalue()


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9/v1", "http://ada:pass@127.0.0.1:9/v1"])
async def test_an_address_of_the_environment_is_said_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """No file and no option has it, where a user would look for it."""
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    driver = ScriptedDriver([NetworkError("cannot connect to 127.0.0.1:9")])
    async with open_pool(driver, request_retries=RetryPolicy(max_attempts=1)) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "?"))).wait()
    err = io.StringIO()
    report = Report(Screen(io.StringIO(), err), as_json=False, quiet=True, headings=False)
    await report.add(Result(name="r", label="r", outcome=outcome))
    hint = " (127.0.0.1:9 is what OPENAI_BASE_URL says)" if url else ""
    assert err.getvalue().endswith(f"cannot connect to 127.0.0.1:9{hint}\n")
