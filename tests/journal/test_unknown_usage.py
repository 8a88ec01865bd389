"""An answer that does not say what it used counts in the next process as it did in this one."""

from __future__ import annotations

from functools import partial

import pytest

from agentpool import AgentManifest, Budget, SpawnConfig, UserMessage, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.testing import simulate
from agentpool.tools import ToolContext, ToolRegistry, tool

GO = SpawnConfig(AgentManifest(name="reader", capabilities=()), "go", key="a")

open_kept = partial(open_pool, name="kept", resume=True)


def driver(price: float | None) -> FunctionDriver:
    """Return a driver that calls a tool once, and never says what it used."""

    def answer(request: CompletionRequest) -> Answer:
        is_first = request.messages[-1] == UserMessage("go")
        return call("think") if is_first else "done"

    return FunctionDriver(answer, estimate_usage=False, price_per_token_usd=price)


@tool(on_unknown="rerun")
async def think(context: ToolContext) -> str:
    """Ask the model."""
    request = CompletionRequest((UserMessage("think"), ToolMessage("1", "think", "it")))
    return (await context.agent.complete(driver(0.001), request)).text


@pytest.mark.parametrize("price", [0.001, None])
def test_unknown_usage_counts_the_same_in_the_next_process(price: float | None) -> None:
    """Of the agent's own answers and of a tool's; what was reserved is charged."""

    async def main() -> None:
        journal = InMemoryJournal()
        spent = list[tuple[float, float, float]]()
        for spawns in (True, True, False):
            budget = Budget(requests=100, tokens=100_000, allow_unpriced=True, cost_usd=100)
            tools = ToolRegistry([think])
            async with open_kept(
                driver(price), journal=journal, budget=budget, tools=tools
            ) as pool:
                if spawns:
                    await (await pool.spawn(GO)).wait()
                now = budget.statistics()
                spent.append((now.requests.committed, now.tokens.committed, now.cost.committed))
        assert spent[0] == spent[1] == spent[2]
        requests, tokens, cost = spent[0]
        assert requests == 3
        assert tokens > 3 * 20
        assert cost > 0

    simulate(main)
