"""From manifests to a running pool, in Python as on the command line."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from agentpool import (
    AgentManifest,
    Budget,
    PoolPlan,
    PrivacyError,
    RetryPolicy,
    SpawnConfig,
    UsageError,
    open_manifest_pool,
)
from agentpool.abc import CompletionRequest
from agentpool.drivers import (
    FunctionDriver,
    OverloadedError,
    ScriptedDriver,
    ToolMessage,
    UserMessage,
    call,
)
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import REMOTE
from tests.support.keys import KEY

READER = AgentManifest.parse("""
name = "reader"
[[capabilities]]
type = "file_read"
allowed_paths = ["."]
""")

DREAMER = AgentManifest.parse("""
name = "dreamer"
[[capabilities]]
type = "compute"
""")


async def test_grants_work_without_another_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that may read files has the tool for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("the sea is cold")

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        return last.content if isinstance(last, ToolMessage) else call("file_read", path="note.txt")

    plan = PoolPlan(manifests=(READER,), driver=FunctionDriver(answer))
    async with open_manifest_pool(plan) as pool:
        outcome = await (await pool.spawn(SpawnConfig(READER, "?"))).wait()
    assert "the sea is cold" in outcome.text


async def test_a_limit_on_cost_above_the_budget_needs_prices_too() -> None:
    """All that the pool spends is spent from the parent as well."""
    hosted = FunctionDriver(lambda _: "hm", price_per_token_usd=None)
    part = Budget(requests=3, parent=Budget(cost_usd=1.0))
    with pytest.raises(UsageError, match="no known price"):
        async with open_manifest_pool(PoolPlan(manifests=(READER,), driver=hosted, budget=part)):
            pytest.fail("it is open")


async def test_a_limit_on_cost_that_allows_unpriced_answers_needs_none() -> None:
    """It is held against what is known, as its owner said."""
    hosted = FunctionDriver(lambda _: "hm", price_per_token_usd=None)
    budget = Budget(cost_usd=1.0, allow_unpriced=True)
    plan = PoolPlan(manifests=(READER,), driver=hosted, budget=budget)
    async with open_manifest_pool(plan) as pool:
        assert (await (await pool.spawn(SpawnConfig(READER, "?"))).wait()).text == "hm"


@tool
async def shout(word: str) -> str:
    """Say it aloud.

    Args:
        word: What.
    """
    await trio.lowlevel.checkpoint()
    return word.upper()


async def test_a_plan_has_a_folder_and_tools_of_its_own(tmp_path: Path) -> None:
    """Paths begin in the folder, and tools of the program stand beside the granted ones."""
    (tmp_path / "note.txt").write_text("the sea is cold")
    calls = [call("file_read", path="note.txt"), call("shout", word="so it is")]

    def answer(request: CompletionRequest) -> Answer:
        results = [one.content for one in request.messages if isinstance(one, ToolMessage)]
        return calls[len(results)] if len(results) < len(calls) else " ".join(results)

    plan = PoolPlan(
        manifests=(READER,),
        driver=FunctionDriver(answer),
        folder=tmp_path,
        tools=ToolRegistry([shout]),
    )
    async with open_manifest_pool(plan) as pool:
        outcome = await (await pool.spawn(SpawnConfig(READER, "?"))).wait()
    assert "the sea is cold" in outcome.text
    assert outcome.text.endswith("SO IT IS")


async def test_a_pool_of_a_server_forgets_what_was_given_out() -> None:
    """There was no way to say so, and each outcome was kept for ever."""
    plan = PoolPlan(manifests=(READER,), driver=FunctionDriver(lambda _: "hm"), keep_outcomes=2)
    async with open_manifest_pool(plan) as pool:
        for _ in range(5):
            await (await pool.spawn(SpawnConfig(READER, "?"))).wait()
        assert list(await pool.join_all()) == [4, 5]


async def test_a_grant_that_nothing_furnishes_is_a_warning() -> None:
    """As it is on the command line; whoever wants it elsewhere says where."""
    plan = PoolPlan(manifests=(DREAMER, DREAMER), driver=FunctionDriver(lambda _: "hm"))
    (text,) = plan.warnings
    assert text.startswith("manifest 'dreamer' grants 'compute', for which this version has no")
    with pytest.warns(UserWarning, match="grants 'compute'") as caught:
        async with open_manifest_pool(plan):
            pass
    assert [one.filename for one in caught] == [__file__]
    told: list[str] = []
    async with open_manifest_pool(plan, warn=told.append):
        assert told == [text]


async def test_a_memory_file_outlives_the_pool(tmp_path: Path) -> None:
    """And a plan without one keeps nothing."""
    keeper = AgentManifest.parse('name = "keeper"\n[[capabilities]]\ntype = "memory"')
    config = SpawnConfig(keeper, "What do you know of whales?", memory_scope="all")
    driver = FunctionDriver(lambda _: "whales are grey")
    plan = PoolPlan(manifests=(keeper,), driver=driver, memory_file=str(tmp_path / "m.db"))
    for _ in range(2):
        async with open_manifest_pool(plan) as pool:
            await (await pool.spawn(config)).wait()
    asked = driver.requests[-1].messages[0]
    assert isinstance(asked, UserMessage)
    assert "whales are grey" in asked.text


async def test_what_cannot_work_is_refused_before_anything_runs() -> None:
    """A tier that forbids the driver, a limit on cost without a price, no manifest at all."""
    hosted = FunctionDriver(lambda _: "hm", privacy=REMOTE.privacy, price_per_token_usd=None)
    with pytest.raises(PrivacyError):
        async with open_manifest_pool(PoolPlan(manifests=(READER,), driver=hosted)):
            raise AssertionError
    unpriced = PoolPlan(
        manifests=(REMOTE,),
        driver=hosted,
        budget=Budget(cost_usd=1.0),
    )
    with pytest.raises(UsageError, match="a cost limit cannot be enforced"):
        async with open_manifest_pool(unpriced):
            raise AssertionError
    with pytest.raises(UsageError, match="needs at least one manifest"):
        PoolPlan(manifests=())
    with pytest.raises(UsageError, match=r"AgentManifest objects, got 'reader\.toml'"):
        PoolPlan(manifests=("reader.toml",))  # type: ignore[arg-type]  # a newcomer's hand


def test_a_plan_knows_the_keys_that_must_not_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its models, for who shows texts of its agents."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert PoolPlan(manifests=(REMOTE,)).secrets == (KEY,)


async def test_a_pool_goes_on_with_its_journal() -> None:
    """Under its name; whoever does not ask for it is told that there is one."""
    journal, asked = InMemoryJournal(), list[str]()

    def answer(request: CompletionRequest) -> Answer:
        asked.append("once")
        return "hm"

    plan = PoolPlan(
        manifests=(READER,), driver=FunctionDriver(answer), journal=journal, resume=True, name="n"
    )
    for _ in range(2):
        async with open_manifest_pool(plan) as pool:
            handle = await pool.spawn(SpawnConfig(READER, "?", key="one"))
            assert (await handle.wait()).text == "hm"
    assert asked == ["once"]
    with pytest.raises(UsageError, match="already has pool 'n'"):
        async with open_manifest_pool(attrs.evolve(plan, resume=False)):
            pass


async def test_a_plan_says_how_often_a_request_is_made_again() -> None:
    """As ``open_pool`` does."""
    plan = PoolPlan(
        manifests=(AgentManifest(name="a", capabilities=()),),
        driver=ScriptedDriver([OverloadedError("full"), "late"]),
        request_retries=RetryPolicy(max_attempts=1),
    )
    async with open_manifest_pool(plan) as pool:
        outcome = await (await pool.spawn(SpawnConfig(plan.manifests[0], "?"))).wait()
    assert str(outcome.error) == "full"
