"""What is told of results that are out of the ordinary."""

import io
import json

from agentpool import AgentCancelledError, AgentOutcome, AgentStatus
from agentpool._cli._report import ExitCode, Report, Result
from agentpool._cli._screen import Screen


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
