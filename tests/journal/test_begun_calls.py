"""A call that had begun when its process ended was spent, once, whatever becomes of it."""

from __future__ import annotations

from typing import Literal

import pytest
import trio

from agentpool import AgentManifest, Budget, SpawnConfig, StopReason, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call, say
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, Journal
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

CALLER = AgentManifest(name="caller", capabilities=())
Rule = Literal["report", "rerun"]


async def run(
    journal: Journal, budget: Budget, paid: list[int], on_unknown: Rule, dies_at: int | None
) -> list[str]:
    """Pay up to three times. Return what the model was told, or nothing if the process ended."""
    begun = trio.Event()

    @tool(on_unknown=on_unknown)
    async def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        if amount == dies_at:
            begun.set()
            await trio.sleep_forever()
        return f"paid {amount}"

    def answer(request: CompletionRequest) -> Answer:
        told = sum(isinstance(one, ToolMessage) for one in request.messages)
        return call("pay", amount=told) if told < 3 else say("end")

    async with open_pool(
        FunctionDriver(answer), tools=ToolRegistry([pay]), journal=journal, resume=True,
        budget=budget,
    ) as pool:  # fmt: skip
        handle = await pool.spawn(SpawnConfig(CALLER, "go", key="k"))
        if dies_at is not None:
            await begun.wait()
            pool.abort_all("the power is gone")
            return []
        outcome = await handle.wait()
    assert outcome.stop_reason is StopReason.TOOL_CALL_BUDGET
    return [one.content for one in outcome.messages if isinstance(one, ToolMessage)]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("rule", ["report", "rerun"])
@pytest.mark.parametrize("dies_at", [0, 1])
def test_a_begun_call_is_spent_once(rule: Rule, dies_at: int, *, stored: bool) -> None:
    """It is never told as one that was not run, and lets no other run beyond the limit."""

    async def scenario() -> None:
        journal = InMemoryJournal()
        paid: list[int] = []

        def limit() -> Budget:
            if stored:
                return Budget(tool_calls=dies_at + 1, per="ever", store=journal)
            return Budget(tool_calls=dies_at + 1)

        await run(journal, limit(), paid, rule, dies_at)
        budgets = [limit(), limit()]
        told, again = [await run(journal, one, paid, rule, None) for one in budgets]
        assert again == told  # by then it had ended
        used = [one.statistics().tool_calls.committed for one in budgets]
        assert used == [dies_at + 1] * 2
        assert told[dies_at].startswith("this call had begun" if rule == "report" else "paid")
        assert told[dies_at + 1].startswith("not run: budget")
        assert paid == [*range(dies_at + 1), *([dies_at] if rule == "rerun" else [])]

    simulate(scenario)
