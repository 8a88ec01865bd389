"""What a process had under way when it died is unknown, and no process takes it for nothing."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from agentpool import (
    AgentManifest,
    Budget,
    SpawnConfig,
    Usage,
    UsageError,
    open_pool,
)
from agentpool._budget.statistics import BudgetStatistics
from agentpool._budget.store import _MARKS
from agentpool.abc import BudgetStore, Completion, CompletionRequest, OnDelta, StoredUse
from agentpool.drivers import FunctionDriver
from agentpool.journal import InMemoryJournal, JournalError, open_journal
from agentpool.observe import CompletionReceived, Event, Observer
from agentpool.testing import explore, simulate
from tests.support.fakes import LiveDriver

READER = AgentManifest(name="reader", capabilities=())
USED = 100
"""Tokens of each answer: fewer than are reserved for it."""


def short(_: CompletionRequest) -> Completion:
    """Answer."""
    return Completion(text="yes", usage=Usage(60, 40))


@attrs.define(eq=False)
class Mortal(BudgetStore):
    """The store of a process that dies at a call: from then on nothing reaches it."""

    kept: InMemoryJournal
    dies_at: int
    keeps_last: bool
    calls: int = 0

    async def spend(self, *words: Any) -> StoredUse:  # noqa: ANN401  # passed on
        """Spend, unless the process is dead or dies now."""
        self.calls += 1
        if self.calls < self.dies_at:
            return await self.kept.spend(*words)
        await trio.lowlevel.checkpoint()
        if self.calls == self.dies_at and self.keeps_last:
            await self.kept.spend(*words)
        raise JournalError("the simulated process is dead")


def of_team(store: BudgetStore, **terms: Any) -> Budget:  # noqa: ANN401  # as Budget takes them
    """Return the budget of all processes."""
    return Budget(requests=1_000, per="day", store=store, name="team", **terms)


async def look(store: BudgetStore) -> BudgetStatistics:
    """Return what the next process knows before it asks anything."""
    budget = of_team(store)
    async with open_pool(FunctionDriver(short), budget=budget):
        return budget.statistics()


async def work(driver: FunctionDriver, budget: Budget, agents: int = 3) -> None:
    """Run some agents beside each other, in a process that may die."""
    try:
        async with open_pool(driver, budget=budget) as pool:
            await pool.fan_out([SpawnConfig(READER, "go")] * agents)
            await pool.join_all()
    except* JournalError:
        pass


@pytest.mark.parametrize("keeps_last", [True, False])
@pytest.mark.parametrize("price", [0.0, None])
def test_after_a_death_at_any_call_all_that_is_unknown_is_told(
    price: float | None, *, keeps_last: bool
) -> None:
    """Never less; and more by what was settled, and not yet taken out."""
    ends = list[int]()

    async def scenario(dies_at: int) -> None:
        store = InMemoryJournal()
        mortal = Mortal(store, dies_at, keeps_last)
        driver = FunctionDriver(short, price_per_token_usd=price)
        await work(driver, of_team(mortal, allow_unpriced=True))
        lived = mortal.calls < dies_at
        if lived:
            ends.append(dies_at)
        tokens, _, requests, _ = store._used.get(("team", "day 1970-01-01"), (0, 0, 0, 0))
        known = await look(store)
        assert known.tokens.committed == tokens
        open_now = -(-(tokens - USED * requests) // 3_000)  # of those that hold a reservation
        assert open_now <= known.unmeasured <= 3
        if price is None:
            assert open_now <= known.unpriced
            assert known.cost_usd is None or not requests
        if lived:
            assert known.unmeasured == 0
        await trio.sleep(24 * 3600)
        assert (await look(store)).unmeasured == 0  # of a new day nothing is unknown

    for dies_at in range(1, 40):
        for seed in range(3):
            simulate(scenario, dies_at, seed=seed)
    assert 10 < min(ends) < 40


def test_what_another_process_has_under_way_is_unknown_until_it_is_settled() -> None:
    """And what is one's own is no other's."""

    async def scenario() -> None:
        store, go_on = InMemoryJournal(), trio.Event()

        async def answer(_: CompletionRequest, __: OnDelta) -> Completion:
            await go_on.wait()
            return Completion(text="yes", usage=Usage(60, 40))

        mine = of_team(store)
        async with open_pool(LiveDriver(answer), budget=mine) as pool:
            await pool.fan_out([SpawnConfig(READER, "go")] * 2)
            await trio.testing.wait_all_tasks_blocked()
            other = Mortal(store, 1_000, keeps_last=True)  # the store of another process
            assert (await look(other)).unmeasured == 2
            assert mine.statistics().unmeasured == 0
            assert (await look(store)).unmeasured == 0  # another budget of this process
            async with open_pool(FunctionDriver(short), budget=mine):
                assert mine.statistics().unmeasured == 0
            go_on.set()
            await pool.join_all()
        assert (await look(other)).unmeasured == 0
        assert store._used["team (under way)", "day 1970-01-01"] == (0, 0, 0, 0)

    explore(scenario, schedules=10)


CHILD = """
import sys
import trio
import trio.testing
from agentpool import AgentManifest, Budget, SpawnConfig, open_pool
from agentpool.drivers import FunctionDriver
from agentpool.journal import open_journal

async def answer(request):
    if "first" in request.messages[0].text:
        return "yes"
    print("asked", flush=True)
    await trio.sleep_forever()

async def main(path, is_joint):
    async with open_journal(path) as journal:
        budget = Budget(requests=9, per="ever", store=journal, name="team", allow_unpriced=True)
        kept = {"journal": journal, "resume": True} if is_joint else {}
        driver = FunctionDriver(answer, price_per_token_usd=None)
        async with open_pool(driver, budget=budget, **kept) as pool:
            manifest = AgentManifest(name="reader", capabilities=())
            await (await pool.spawn(SpawnConfig(manifest, "first"))).wait()
            await pool.spawn(SpawnConfig(manifest, "second"))

trio.run(main, sys.argv[1], sys.argv[2] == "joint")
"""


@pytest.mark.parametrize("how", ["joint", "apart"])
async def test_the_request_of_a_killed_process_is_unknown(tmp_path: Path, how: str) -> None:
    """Killed with SIGKILL, and looked for in its file."""
    path = tmp_path / "spent.db"
    command = [sys.executable, "-c", CHILD, str(path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:  # noqa: ASYNC220  # short
        assert child.stdout is not None
        assert child.stdout.readline() == b"asked\n"
        child.kill()
    async with open_journal(path) as journal:
        for _ in range(2):
            budget = Budget(requests=9, per="ever", store=journal, name="team")
            async with open_pool(FunctionDriver(short), budget=budget):
                known = budget.statistics()
            # The first answer had no price either.
            assert (known.requests.committed, known.unmeasured, known.unpriced) == (2, 1, 2)
            assert known.cost_usd is None


async def test_budgets_of_one_name_in_one_process_do_not_take_each_other_for_lost() -> None:
    """Each pool of a server makes its own, and they end in any order."""
    store, go_on = InMemoryJournal(), trio.Event()

    async def answer(_: CompletionRequest, __: OnDelta) -> Completion:
        await go_on.wait()
        return Completion(text="yes", usage=Usage(60, 40))

    first, second = of_team(store), of_team(store)
    async with open_pool(LiveDriver(answer), budget=first) as pool:
        await pool.spawn(SpawnConfig(READER, "go"))
        await trio.testing.wait_all_tasks_blocked()
        await work(FunctionDriver(short), second)
        assert second.statistics().unmeasured == 0
        go_on.set()
    for budget in (first, second, of_team(store)):
        async with open_pool(FunctionDriver(short), budget=budget):
            assert budget.statistics().unmeasured == 0


@pytest.mark.parametrize("row", ["team (under way)", "team (unknown)"])
def test_a_name_that_the_store_uses_itself_is_refused(row: str) -> None:
    """Its amounts would be taken for requests of another budget."""
    with pytest.raises(UsageError, match=r"must have another name: .* end in ' \(unknown\)' or "):
        Budget(requests=1, per="day", store=InMemoryJournal(), name=row)
    assert Budget(requests=1, name=row).name == row


@attrs.define(eq=False)
class FailsOnce(Mortal):
    """A store that cannot be asked once, at that call."""

    async def spend(self, *words: Any) -> StoredUse:  # noqa: ANN401  # passed on
        """Spend, or fail."""
        self.calls += 1
        if self.calls == self.dies_at:
            await trio.lowlevel.checkpoint()
            raise JournalError("the disk is full")
        return await self.kept.spend(*words)


@pytest.mark.parametrize("price", [0.0, None])
def test_what_no_budget_will_settle_is_lost_for_the_next_one_of_the_process(
    price: float | None,
) -> None:
    """The store failed as a request was settled, and its pool has ended."""
    told = set[int]()

    async def scenario(fails_at: int) -> None:
        store = FailsOnce(InMemoryJournal(), fails_at, keeps_last=False)
        first = of_team(store, allow_unpriced=True)
        await work(FunctionDriver(short, price_per_token_usd=price), first, agents=1)
        store.dies_at = 0
        known = await look(store)
        tokens, _, requests, _ = store.kept._used.get(("team", "day 1970-01-01"), (0, 0, 0, 0))
        is_open = tokens > USED * requests
        told.add(known.unmeasured)
        assert known.unmeasured >= is_open
        assert known.unpriced >= is_open * (price is None)
        if requests and not first._ledger.kept.has_news:  # type: ignore[union-attr]
            assert known.unmeasured == 0

    for fails_at in range(1, 12):
        simulate(scenario, fails_at)
    assert told == {0, 1}


class Leaves(Observer):
    """Ends the program as an answer arrives, before it is written down."""

    def on_event(self, event: Event) -> None:
        """End it."""
        if isinstance(event, CompletionReceived):
            raise SystemExit


def test_an_answer_that_was_not_written_down_is_lost_for_the_next_budget_of_the_process() -> None:
    """Where the journal of the pool is the store, its end would have been written with it."""

    async def scenario() -> None:
        store = InMemoryJournal()
        with pytest.RaisesGroup(SystemExit, flatten_subgroups=True, allow_unwrapped=True):
            async with open_pool(
                FunctionDriver(short), budget=of_team(store), journal=store, observers=[Leaves()]
            ) as pool:
                await pool.spawn(SpawnConfig(READER, "go"))
                await pool.join_all()
        known = await look(store)
        assert known.unmeasured == 1
        assert known.tokens.committed > USED

    explore(scenario, schedules=5)


def test_what_budgets_of_a_store_know_of_each_other_is_freed_with_them() -> None:
    """As in a server with a budget for each of its users, and one journal."""
    store = InMemoryJournal()
    first = of_team(store)
    names = _MARKS[store]
    for number in range(100):
        Budget(requests=1, per="day", store=store, name=f"user {number}")
    gc.collect()
    assert list(names) == [("team", "day")]
    assert of_team(store)._ledger.kept.marks is first._ledger.kept.marks  # type: ignore[union-attr]
    gone = weakref.ref(store)
    del store, first
    gc.collect()
    assert gone() is None
