"""An answer that does not say what it used counts in the next process as it did in this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from agentpool import AgentManifest, Budget, SpawnConfig, Usage, UserMessage, open_pool
from agentpool._budget.budget import ledger_of
from agentpool._budget.spent import Spent, charge
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call, say
from agentpool.drivers._scripted import Answer
from agentpool.journal import SqliteJournal, open_journal
from agentpool.testing import simulate
from agentpool.tools import ToolContext, ToolRegistry, tool

GO = SpawnConfig(AgentManifest(name="reader", capabilities=()), "go", key="a")


async def in_file(folder: Path, scenario: Callable[[SqliteJournal], Awaitable[None]]) -> None:
    """Run *scenario* with a journal in a file, which can be pruned."""
    async with open_journal(folder / "kept.db") as journal:
        await scenario(journal)


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
def test_unknown_usage_counts_the_same_in_the_next_process(
    price: float | None, tmp_path: Path
) -> None:
    """Of the agent's own answers and of a tool's; what was reserved is charged."""

    async def main(journal: SqliteJournal) -> None:
        spent = list[tuple[float, float, float, int, int]]()
        for spawns in (True, True, False, False):
            if len(spent) == 3:
                await journal.prune("kept")
            budget = Budget(requests=100, tokens=100_000, allow_unpriced=True, cost_usd=100)
            tools = ToolRegistry([think])
            async with open_kept(
                driver(price), journal=journal, budget=budget, tools=tools
            ) as pool:
                if spawns:
                    await (await pool.spawn(GO)).wait()
                now = budget.statistics()
                used = now.requests.committed, now.tokens.committed, now.cost.committed
                spent.append((*used, now.unmeasured, now.unpriced))
        assert spent[0] == spent[1] == spent[2] == spent[3]
        requests, tokens, cost, unmeasured, unpriced = spent[0]
        assert (unmeasured, unpriced) == (3, 2 * (price is None))
        assert requests == 3
        assert tokens > 3 * 20
        assert cost > 0

    simulate(in_file, tmp_path, main)


def test_a_request_that_was_cut_is_unmeasured_in_each_process(tmp_path: Path) -> None:
    """Whether it is under way, was cut once or twice, or has been made again."""

    async def main(journal: SqliteJournal) -> None:
        asked = list[int]()

        async def answer(_: CompletionRequest) -> Answer:
            asked.append(1)
            await trio.sleep(10)
            return say("done", usage=Usage(60, 40))

        async def run(seconds: float) -> tuple[int, int]:
            budget = Budget(requests=100)
            with trio.move_on_after(seconds):
                async with open_kept(
                    FunctionDriver(answer), journal=journal, budget=budget
                ) as pool:
                    await (await pool.spawn(GO)).wait()
            now = budget.statistics()
            assert now.requests.committed == len(asked)
            return now.unmeasured, len(asked)

        assert await run(1) == (1, 1)
        assert await run(1) == (2, 2)
        assert await run(100) == (2, 3)
        assert await run(100) == (2, 3)
        await journal.prune("kept")
        assert await run(100) == (2, 3)

    simulate(in_file, tmp_path, main)


@pytest.mark.parametrize(("is_lost", "known"), [(True, (1, 1)), (False, (0, 1))])
def test_sums_of_an_older_version_are_unknown_as_they_were(
    known: tuple[int, int], *, is_lost: bool
) -> None:
    """A pruned file of it says only that a price was unknown; a limit on cost must not hold."""
    old = msgspec.json.decode(
        msgspec.json.encode({"tokens": 9, "cost_usd": None, "requests": 3, "is_lost": is_lost}),
        type=Spent,
    )
    account = ledger_of(Budget(cost_usd=1)).account
    charge(account, old)
    assert (account.unmeasured, account.unpriced) == known
    assert account.blind is not is_lost
