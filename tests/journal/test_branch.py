"""A pool whose manifests or tools changed begins new runs that know what was settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    Budget,
    Capability,
    ModelConfig,
    SpawnConfig,
    UserMessage,
    open_pool,
)
from agentpool._cli import main
from agentpool._journal_records import begins_call
from agentpool.abc import CompletionRequest, OnUnknown, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import (
    InMemoryJournal,
    Journal,
    RecordKind,
    ResumeMismatchError,
    open_journal,
)
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import TEAM_TOOLS, ToolRegistry, tool

OLD = AgentManifest(name="reader", capabilities=())
NEW = attrs.evolve(OLD, model=ModelConfig(system_prompt="Be terse."))
PARENT = AgentManifest(name="parent", capabilities=(Capability.spawn(3),))

branch = partial(open_pool, name="kept", resume="branch")


@attrs.define
class Shop:
    """Counts what was paid, and what its model was asked."""

    paid: list[str] = attrs.field(factory=list[str])
    keys: list[str] = attrs.field(factory=list[str])
    asked: list[CompletionRequest] = attrs.field(factory=list[CompletionRequest])
    sticks_at: int = 99
    """Which request has no answer."""
    hangs: bool = False
    """Whether what is paid for never comes."""
    on_unknown: OnUnknown = "report"

    async def answer(self, request: CompletionRequest) -> Answer:
        """Buy one, two, and say what the results were."""
        self.asked.append(request)
        await trio.lowlevel.checkpoint()
        if len(self.asked) == self.sticks_at:
            await trio.sleep_forever()
        results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
        return call("pay", item=f"item {len(results)}") if len(results) < 2 else "; ".join(results)

    def tools(self, words: str = "Pay for it.") -> ToolRegistry:
        """Return the tool that pays, described in *words*."""

        async def pay(context: ToolContext, item: str) -> str:
            self.paid.append(item)
            self.keys.append(context.idempotency_key)
            if self.hangs:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return f"paid {item}"

        pay.__doc__ = words
        return ToolRegistry([tool(on_unknown=self.on_unknown)(pay)])

    async def buy(
        self,
        journal: Journal,
        config: SpawnConfig,
        words: str = "Pay for it.",
        **terms: Any,  # noqa: ANN401  # those of open_pool
    ) -> AgentOutcome:
        """Run *config*."""
        driver = FunctionDriver(self.answer)
        async with branch(driver, tools=self.tools(words), journal=journal, **terms) as pool:
            handle = await pool.spawn(config)
            return await handle.wait()


async def killed(shop: Shop, journal: Journal, config: SpawnConfig) -> None:
    """Run *config* until nothing happens any more."""
    with trio.move_on_after(1):
        await shop.buy(journal, config)


CHANGES: dict[str, Callable[[SpawnConfig], tuple[SpawnConfig, str]]] = {
    "the prompt": lambda config: (msgspec.structs.replace(config, manifest=NEW), "Pay for it."),
    "the query": lambda config: (msgspec.structs.replace(config, query="y"), "Pay for it."),
    "a tool": lambda config: (config, "Pay, and soon."),
    "both": lambda config: (msgspec.structs.replace(config, manifest=NEW), "Pay, and soon."),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sticks_at", [2, 3])
def test_what_was_settled_is_the_history_of_a_new_run(change: str, sticks_at: int) -> None:
    """No call is made again, and what was paid for counts in the budget, as after a crash."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop(sticks_at=sticks_at)
        config = SpawnConfig(OLD, "x", key="a")
        await killed(shop, journal, config)
        before = len(shop.paid)
        changed, words = CHANGES[change](config)
        budgets = [Budget(requests=100), Budget(requests=100)]
        first, again = [await shop.buy(journal, changed, words, budget=one) for one in budgets]
        assert first.text == again.text == "paid item 0; paid item 1"
        assert shop.paid == ["item 0", "item 1"]
        assert len(set(shop.keys)) == 2
        assert before == sticks_at - 1
        told = [one.text for one in first.messages if isinstance(one, UserMessage)]
        assert told == ["x", changed.query]
        used = [one.statistics().requests.committed for one in budgets]
        assert used == [len(shop.asked)] * 2
        (pool,) = await journal.pools()
        assert (pool.agents, pool.ended) == (1, 1)

    simulate(scenario)


def test_one_that_has_not_changed_goes_on_as_ever() -> None:
    """Branching is for those that have."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop(sticks_at=3)
        config = SpawnConfig(OLD, "x", key="a")
        await killed(shop, journal, config)
        outcome = await shop.buy(journal, config)
        assert (outcome.iterations, outcome.repeated_requests) == (3, 1)
        assert (await shop.buy(journal, config)).text == outcome.text
        assert len(shop.asked) == 4

    simulate(scenario)


def test_one_that_had_ended_answers_anew_and_knows_what_it_said() -> None:
    """Then it has changed no more, whoever resumes it and how."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop()
        await shop.buy(journal, SpawnConfig(OLD, "x", key="a"))
        changed = SpawnConfig(NEW, "y", key="a")
        outcome = await shop.buy(journal, changed)
        assert (len(shop.paid), len(shop.asked)) == (2, 4)
        assert [one.text for one in outcome.messages if isinstance(one, UserMessage)] == ["x", "y"]
        assert await shop.buy(journal, changed, resume=True) == outcome
        with pytest.raises(ResumeMismatchError, match="resume='branch'"):
            await shop.buy(journal, SpawnConfig(OLD, "x", key="a"), resume=True)

    simulate(scenario)


def test_a_run_that_said_nothing_begins_without_a_history() -> None:
    """Its question is asked once; the request that had left is charged as reserved."""

    async def scenario() -> None:
        journal, shop, budget = InMemoryJournal(), Shop(sticks_at=1), Budget(requests=9)
        await killed(shop, journal, SpawnConfig(OLD, "x", key="a", history=(UserMessage("a"),)))
        changed = SpawnConfig(NEW, "y", key="a", history=(UserMessage("b"),))
        outcome = await shop.buy(journal, changed, budget=budget)
        assert [one.text for one in outcome.messages if isinstance(one, UserMessage)] == ["b", "y"]
        assert budget.statistics().requests.committed == len(shop.asked) == 4

    simulate(scenario)


def test_another_history_takes_the_place_of_the_old_one() -> None:
    """What was said since is kept, whichever process changes it, and however often."""

    async def scenario() -> None:
        journal, shop = InMemoryJournal(), Shop(sticks_at=2)

        def told(fact: str) -> SpawnConfig:
            return SpawnConfig(OLD, f"about {fact}", key="a", history=(UserMessage(fact),))

        def said(outcome: AgentOutcome) -> list[str]:
            return [one.text for one in outcome.messages if isinstance(one, UserMessage)]

        await killed(shop, journal, told("5"))
        shop.sticks_at = 4
        await killed(shop, journal, told("7"))
        (first, again) = [await shop.buy(journal, told("8")) for _ in range(2)]
        assert said(first) == ["8", "about 5", "about 7", "about 8"]
        assert first == again
        assert shop.paid == ["item 0", "item 1"]
        last = await shop.buy(journal, told("9"))  # it had ended
        assert said(last) == ["9", "about 5", "about 7", "about 8", "about 9"]
        assert shop.paid == ["item 0", "item 1"]
        assert await shop.buy(journal, told("9"), resume=True) == last

    simulate(scenario)


def test_a_call_that_may_have_run_is_told_as_such_and_not_made_again() -> None:
    """A person's word cannot be replaced by a branch."""

    async def scenario() -> None:
        config = SpawnConfig(OLD, "x", key="a")
        for on_unknown in ("report", "rerun", "ask", "stop"):
            journal, shop = InMemoryJournal(), Shop(hangs=True, on_unknown=on_unknown)
            await killed(shop, journal, config)
            shop.hangs = False
            outcome = await shop.buy(journal, msgspec.structs.replace(config, manifest=NEW))
            if on_unknown in {"ask", "stop"}:
                assert isinstance(outcome.error, ResumeMismatchError)
                assert "a person must say" in str(outcome.error)
                assert shop.paid == ["item 0"]
                continue
            assert shop.paid == ["item 0", "item 1"]
            assert outcome.text.startswith("was begun; it may or may not have been done")

    simulate(scenario)


@pytest.mark.parametrize("changes_tool", [False, True])
def test_whatever_the_old_run_had_come_to_it_is_known_and_counted(changes_tool: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    """Killed after any record: the next process and the one after it count the same."""

    async def scenario() -> None:
        whole, shop = InMemoryJournal(), Shop()
        config = SpawnConfig(OLD, "x", key="a")
        await shop.buy(whole, config)
        records = await whole.read("kept")
        changed, words = CHANGES["a tool" if changes_tool else "the prompt"](config)
        for count in range(2, len(records)):
            journal, shop = InMemoryJournal(), Shop()
            journal._pools["kept"] = list(records[:count])
            begun = [one for one in records[:count] if one.kind is RecordKind.STARTED]
            requests = sum(not begins_call(one) for one in begun)
            budgets = [Budget(requests=99), Budget(requests=99)]
            first, again = [await shop.buy(journal, changed, words, budget=one) for one in budgets]
            assert first == again
            assert first.status is AgentStatus.COMPLETED
            calls = len(begun) - requests
            assert shop.paid in (["item 0", "item 1"][calls:], ["item 1"][calls:])
            used = [one.statistics().requests.committed for one in budgets]
            assert used == [requests + len(shop.asked)] * 2
            (pool,) = await journal.pools()
            assert (pool.agents, pool.ended) == (1, 1)

    simulate(scenario)


def test_children_of_the_old_run_are_over_and_what_they_spent_counts() -> None:
    """Killed after any record: they may have ended, be asking, or not be there."""

    async def answer(request: CompletionRequest) -> Answer:
        await trio.lowlevel.checkpoint()
        asked = str(request.messages[0])
        if "sub" in asked:
            return "done"
        results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
        return call("spawn_agent", query="sub") if not results else results[0]

    async def run(journal: Journal, manifest: AgentManifest, budget: Budget) -> AgentOutcome:
        driver, tools = FunctionDriver(answer), ToolRegistry(TEAM_TOOLS)
        async with branch(driver, tools=tools, journal=journal, budget=budget) as pool:
            handle = await pool.spawn(SpawnConfig(manifest, "x", key="a"))
            return await handle.wait()

    async def scenario() -> None:
        whole, budget = InMemoryJournal(), Budget(requests=99)
        await run(whole, PARENT, budget)
        assert budget.statistics().requests.committed == 3
        records = await whole.read("kept")
        for count in range(2, len(records)):
            journal = InMemoryJournal()
            journal._pools["kept"] = list(records[:count])
            requests = sum(
                one.kind is RecordKind.STARTED and not begins_call(one) for one in records[:count]
            )
            budgets = [Budget(requests=99), Budget(requests=99)]
            changed = attrs.evolve(PARENT, model=NEW.model)
            first, again = [await run(journal, changed, one) for one in budgets]
            assert first == again
            used = [one.statistics().requests.committed for one in budgets]
            assert used[0] == used[1] > requests
            (pool,) = await journal.pools()
            assert pool.agents == pool.ended

    simulate(scenario)


def test_a_branch_comes_to_the_same_after_any_crash() -> None:
    """At each write of the process that branches, and of those before and after it."""

    async def stuck(request: CompletionRequest) -> Answer:
        shop = Shop(on_unknown="rerun")
        if len(request.messages) >= 5:
            await trio.sleep_forever()
        return await shop.answer(request)

    async def scenario(journal: Journal) -> object:
        shop, budget = Shop(on_unknown="rerun"), Budget(requests=99)
        old, new = SpawnConfig(OLD, "x", key="a"), SpawnConfig(NEW, "y", key="a")
        begun = [one.body for one in await journal.read("kept") if one.kind is RecordKind.ACCEPTED]
        if not any(b"Be terse" in one for one in begun):
            with trio.move_on_after(1):
                driver = FunctionDriver(stuck)
                async with branch(driver, tools=shop.tools(), journal=journal) as pool:
                    await (await pool.spawn(old)).wait()
        outcome = await shop.buy(journal, new, budget=budget)
        texts = [one.text for one in outcome.messages if not isinstance(one, ToolMessage)]
        return texts, outcome.text, outcome.usage, outcome.status

    report = crash_everywhere(scenario)
    assert report.points == 2 * report.writes > 10


def test_the_command_line_shows_the_last_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent that was branched is one agent, which has not ended until its last run has."""
    file = str(tmp_path / "night.db")

    async def scenario() -> None:
        async with open_journal(file) as journal:
            await Shop().buy(journal, SpawnConfig(OLD, "x", key="a"))
            shop = Shop(sticks_at=1)
            await killed(shop, journal, SpawnConfig(NEW, "y", key="a"))
            (pool,) = await journal.pools()
            assert (pool.agents, pool.ended) == (1, 0)

    simulate(scenario)
    assert main(["runs", "show", file]) == 0
    assert "unfinished" in capsys.readouterr().out
    assert main(["show", file]) == 0
    assert capsys.readouterr().out.count("spawned") <= 1
