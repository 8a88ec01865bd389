"""A limit that changes while agents spend."""

from __future__ import annotations

import pytest
import trio

from agentpool import AgentStatus, Budget, StopReason, UsageError, open_pool
from agentpool._budget.budget import ledger_of
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.testing import simulate
from tests.support.fakes import LiveDriver, job


def test_a_limit_is_raised_lowered_and_lifted() -> None:
    """What was used stays used."""
    budget = Budget(requests=1, cost_usd=2.0)
    budget.reserve(requests=1).charge()
    budget.change_limit("requests", 3)
    assert budget.statistics().requests.left == 2
    budget.change_limit("cost_usd", 0.5)
    assert budget.statistics().cost.limit == 0.5
    budget.change_limit("requests", None)
    assert budget.statistics().requests.limit is None


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, float("inf"), float("nan")])
def test_a_limit_that_means_nothing_changes_nothing(limit: float) -> None:
    """As at the beginning."""
    budget = Budget(tokens=5)
    with pytest.raises(UsageError, match="tokens must be a whole number"):
        budget.change_limit("tokens", limit)
    assert budget.statistics().tokens.limit == 5


def test_those_that_wait_are_looked_at_again() -> None:
    """A higher limit wakes them; a lower one stops them."""

    async def run() -> None:
        for limit, status in ((10_000_000, AgentStatus.COMPLETED), (100, AgentStatus.STOPPED)):
            budget, go = Budget(tokens=3_000), trio.Event()

            async def answer(_: CompletionRequest, __: OnDelta) -> Completion:
                await go.wait()  # noqa: B023  # of this round
                return Completion("done")

            async with open_pool(LiveDriver(answer), budget=budget, max_concurrent=4) as pool:
                handles = await pool.fan_out(job(f"a {n}") for n in range(4))
                await trio.testing.wait_all_tasks_blocked()
                assert ledger_of(budget).waiting
                budget.change_limit("tokens", limit)
                await trio.testing.wait_all_tasks_blocked()
                assert not ledger_of(budget).waiting
                go.set()
                last = await handles[-1].wait()
                assert last.status is status
                if status is AgentStatus.STOPPED:
                    assert last.stop_reason is StopReason.TOKEN_BUDGET

    simulate(run, seed=1)
