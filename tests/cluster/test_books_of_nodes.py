"""What a budget counts is what was sent to nodes, however these are stopped or killed.

The nodes are a test's own, on a virtual clock. Each seed is another order of the program's tasks,
and another plan of faults.
"""

from __future__ import annotations

import random

import attrs
import pytest
import trio

from agentpool import AgentOutcome, AgentStatus, Budget, RetryPolicy
from agentpool.cluster import NodeLostError, open_cluster_pool
from agentpool.observe import BudgetStatistics
from agentpool.testing import simulate
from tests.cluster.test_edges import terms
from tests.cluster.test_same_behaviour import job
from tests.support.odd_nodes import USED, Books, OddSource, odd_cluster

LEASE = 3.0
AGENTS = 8
SEEDS = 24


@attrs.frozen
class Found:
    """What there is at the end."""

    books: Books
    outcomes: dict[str, AgentOutcome]
    """By what each was asked, as in the books."""
    budget: BudgetStatistics


async def break_nodes(chance: random.Random, source: OddSource) -> None:
    """Kill, cut off or stop a node, again and again. A stopped one goes on in time, or too late."""
    while True:
        await trio.sleep(chance.uniform(0.0, 2.0))
        node = source.nodes[chance.choice(sorted(source.nodes))]
        match chance.choice(["kill", "cut off", "stop", "stop for long"]):
            case "kill":
                node.die()
            case "cut off":
                node.cut_off()
                await trio.sleep(LEASE)
                node.die()
            case "stop":
                node.stop()
                await trio.sleep(chance.uniform(0.0, 0.5 * LEASE))
                node.go_on(in_time=True)
            case _:
                node.stop()
                await trio.sleep(2 * LEASE)
                node.go_on(in_time=False)


async def run(seed: int, attempts: int, *, limit: int | None = None) -> Found:
    """Run agents on three nodes which break; some are spawned late, and some seeds abort."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    retries = RetryPolicy(max_attempts=attempts, base_seconds=0.1, max_total_seconds=3600)
    async with (
        odd_cluster(terms(LEASE), 3, seconds=5.0) as (cluster, source),
        open_cluster_pool(cluster, max_concurrent=8, request_retries=retries,
                          budget=Budget(requests=limit or 1000), random_seed=seed) as pool,
        trio.open_nursery() as nursery,
    ):  # fmt: skip
        for _ in range(2):
            nursery.start_soon(break_nodes, chance, source)
        handles = []
        for number in range(AGENTS):
            await trio.sleep(chance.uniform(0.0, 1.0))
            handles.append(await pool.spawn(job(f"{number}")))
        if seed % 4 == 3:
            await trio.sleep(chance.uniform(0.0, 2.0))
            pool.abort_all("enough")
        outcomes = {f"{place}": await one.wait() for place, one in enumerate(handles)}
        budget = pool.statistics().budget
        nursery.cancel_scope.cancel()
    assert budget is not None
    return Found(source.books, outcomes, budget)


def notes(error: BaseException) -> list[str]:
    """Return what was added to an error."""
    return getattr(error, "__notes__", [])


@pytest.mark.parametrize("attempts", [1, 4])
def test_what_was_sent_is_charged_and_nothing_else(attempts: int) -> None:
    """Also what a stopped node had been sent and never began, and each further attempt."""
    lost = repeated = never_begun = 0
    for seed in range(SEEDS):
        found = simulate(run, seed, attempts, seed=seed)
        books, budget = found.books, found.budget
        assert budget.requests.committed == books.sent.total(), seed
        assert budget.requests.reserved == budget.tokens.reserved == 0
        assert budget.unmeasured + budget.tokens.committed >= books.answered.total(), seed
        assert max(books.sent.values(), default=0) <= attempts, seed
        assert books.at_once == 1, seed  # no agent is at two nodes at once
        for name, outcome in found.outcomes.items():
            assert books.begun[name] <= books.sent[name]
            used = outcome.usage.total_tokens
            if outcome.status is AgentStatus.COMPLETED:
                assert used >= USED.total_tokens, (seed, name)
            elif outcome.status is AgentStatus.FAILED:
                # Nothing else fails, and what was not sent to the lost node goes elsewhere.
                error = outcome.error
                assert isinstance(error, NodeLostError), (seed, name)
                # A node that was lost while it opened the model counts as an attempt as well.
                was_opening = any("to open the model" in note for note in notes(error))
                assert error.was_sent
                assert books.sent[name] or was_opening, (seed, name)
                lost += 1
            else:
                assert seed % 4 == 3, (seed, name)
        repeated += sum(count > 1 for count in books.sent.values())
        never_begun += books.sent.total() - books.begun.total()
    assert never_begun
    assert (lost if attempts == 1 else repeated) > SEEDS  # it was about something


def test_a_limit_of_requests_holds_over_nodes_that_break() -> None:
    """As many reach a node as it allows, with those that were made again."""
    for seed in range(2):
        found = simulate(run, 4 * seed, 4, seed=seed)
        wanted = found.books.sent.total()
        limit = wanted - 3
        short = simulate(_limited, 4 * seed, limit, seed=seed)
        assert short.books.sent.total() == short.budget.requests.committed <= limit


async def _limited(seed: int, limit: int) -> Found:
    return await run(seed, 4, limit=limit)
