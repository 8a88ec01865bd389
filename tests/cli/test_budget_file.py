"""Limits of an hour, a day or a month on the command line, over many commands."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import sys
from pathlib import Path

import pytest
import trio

from agentpool import (
    AgentManifest,
    Budget,
    BudgetConfig,
    ManifestError,
    PoolPlan,
    SpawnConfig,
    StopReason,
    UsageError,
    open_manifest_pool,
)
from agentpool.drivers import FunctionDriver
from agentpool.journal import InMemoryJournal, open_journal
from agentpool.testing import simulate
from tests.support.cli_runner import Desk, make_desk

DAILY = """
name = "daily"
capabilities = []
[budget]
per = "day"
requests = 2
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", c_txt="three", daily_toml=DAILY)
    return desk


def used(file: Path) -> list[tuple[str, str, int]]:
    """Return the budgets that a file has: name, period without its date, requests."""
    with contextlib.closing(sqlite3.connect(file)) as opened:
        rows = opened.execute("SELECT name, period, requests FROM budgets").fetchall()
    return [
        (name, period.split()[0], requests)
        for name, period, requests in rows
        if not name.endswith(" (under way)")
    ]


def test_limits_per_day_hold_over_commands(desk: Desk) -> None:
    """In the file of this folder if no journal is named; without --per they hold for one."""
    words = ("run", "reader.toml", "Why?", "--max-requests", "2", "--per", "day")
    done = [desk.scripted(*words).code for _ in range(3)]
    assert done == [0, 0, 3]
    assert used(desk.folder / "agentpool.db") == [("command line", "day", 2)]
    last = desk.scripted(*words)
    assert "2 of 2 requests; 1 refused" in last.err
    assert desk.scripted(*words[:-2]).code == 0
    assert desk.scripted(*words[:-1], "month").code == 0  # another period is counted anew
    assert desk.scripted(*words, "--journal", "j.db").code == 0
    assert used(desk.folder / "j.db") == [("command line", "day", 1)]


def test_a_manifest_has_a_budget_for_all_commands(desk: Desk) -> None:
    """Its text says how much, and how much is left shows at the end of a command."""
    done = [desk.scripted("run", "daily.toml", "Why?") for _ in range(3)]
    assert [one.code for one in done] == [0, 0, 3]
    assert "2 of 2 requests; 1 refused" in done[-1].err
    assert used(desk.folder / "agentpool.db") == [("agents", "day", 2)]
    assert "all together 2 requests per day" in desk.call("check", "daily.toml").out
    # The limits of a command are told as its own.
    more = desk.scripted("run", "daily.toml", "Why?", "--max-requests", "9", "--journal", "j.db")
    assert (more.code, "1 of 9 requests; 0 refused" in more.err) == (0, True)


def test_what_a_limit_stopped_says_how_it_is_asked_again(desk: Desk) -> None:
    """With a greater limit as before it: the journal keeps the end, and its words can be done."""
    words = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--max-requests")
    for limit in ("1", "50"):
        done = desk.scripted(*words, limit, "--journal", "j.db")
        assert done.code == 3
        (told,) = (line for line in done.err.splitlines() if ".txt: stopped: " in line)
        assert "whatever the limit is now: another journal asks it again" in told
        assert "increase the limit" not in told
    assert desk.scripted(*words, "50", "--journal", "k.db").code == 0


@pytest.mark.parametrize("extra", [(), ("--workers", "2")])
def test_a_map_spends_of_both(desk: Desk, extra: tuple[str, ...]) -> None:
    """With workers as well: they share the file of their work."""
    words = ("map", "daily.toml", "--each", "a.txt", "b.txt", "c.txt", "--journal", "j.db")
    limits = ("--max-requests", "5", "--per", "month")
    done = desk.scripted(*words, *limits, *extra, "--json")
    assert done.code == 3
    stopped = [line for line in done.lines if line.get("stop_reason") == "request_budget"]
    assert len(stopped) == 1
    assert sorted(used(desk.folder / "j.db")) == [
        ("agents", "day", 2),
        ("command line", "month", 2),
    ]


def test_a_chat_spends_of_the_day(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not kept, too."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\nAgain\nOnce more\n"))
    chat = ("chat", "daily.toml", "--max-requests", "9", "--per", "hour")
    done = desk.scripted(*chat)
    assert done.out == "A note.\nA note.\n"
    assert "budget 'agents' has too little left: 2 of 2 requests are used" in done.err
    assert sorted(used(desk.folder / "agentpool.db")) == [
        ("agents", "day", 2),
        ("command line", "hour", 2),
    ]


def test_a_period_without_a_limit_is_refused(desk: Desk) -> None:
    """It would limit nothing."""
    done = desk.call("run", "reader.toml", "Why?", "--per", "day")
    assert done.code == 2
    assert "--per day needs a limit; add --max-cost, --max-total-tokens or" in done.err
    assert not (desk.folder / "agentpool.db").exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("requests = 1", "budget.per: is missing; write one of hour, day, month, ever"),
        ("per = 'week'\nrequests = 1", "budget.per: must be one of 'hour', 'day', 'month', 'ever'"),
        ("per = 'day'", "budget.cost_usd: is missing; write it, or tokens, requests or"),
        ("per = 'day'\ntokens = 0", "budget.tokens: must be > 0, got 0"),
        ("per = 'day'\ncost_usd = -1.0", "budget.cost_usd: must be a finite number > 0"),
        ("per = 'day'\nrequests = 1\nname = ' '", "budget.name: must be one line of printable"),
        ("per = 'day'\nrequest = 1", "budget.request: unknown key; did you mean 'requests'?"),
        ("per = 'day'\nrequests = 1\nmax_tokens = 1", "budget.max_tokens: unknown key here"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(text: str, fault: str) -> None:
    """With its place."""
    with pytest.raises(ManifestError) as raised:
        AgentManifest.parse(f"[budget]\n{text}")
    assert any(str(one).startswith(fault) for one in raised.value.faults), raised.value.faults


def test_a_period_is_checked_in_code_too() -> None:
    """As in a file."""
    with pytest.raises(ManifestError, match=r"per: must be one of hour, day, month, ever"):
        BudgetConfig(per="week", requests=1)  # type: ignore[arg-type]


def manifest(name: str, requests: int, *, budget_name: str = "agents") -> AgentManifest:
    """Return one with a daily budget."""
    budget = BudgetConfig(per="day", requests=requests, name=budget_name)
    return AgentManifest(name=name, capabilities=(), budget=budget)


def test_the_budgets_of_manifests_are_opened_with_their_pool() -> None:
    """In the journal of the pool, or in a store; each of them holds, and so does the pool's."""

    async def reasons(plan: PoolPlan) -> list[StopReason | None]:
        async with open_manifest_pool(plan) as pool:
            for number in range(3):
                await pool.spawn(SpawnConfig(plan.manifests[0], f"ask {number}"))
            return [outcome.stop_reason for outcome in (await pool.join_all()).values()]

    async def scenario() -> None:
        store, driver = InMemoryJournal(), FunctionDriver(lambda _: "yes")
        end, spent = StopReason.END_TURN, StopReason.REQUEST_BUDGET
        two = (manifest("a", 2), manifest("b", 1, budget_name="other"))
        plan = PoolPlan(manifests=two, driver=driver, budget_store=store, max_concurrent=1)
        assert await reasons(plan) == [end, spent, spent]
        same = (manifest("a", 9, budget_name="third"), manifest("b", 9, budget_name="third"))
        whole = Budget(requests=1)
        plan = PoolPlan(manifests=same, driver=driver, journal=store, budget=whole)
        assert (await reasons(plan)).count(end) == 1
        assert whole.statistics().requests.committed == 1
        rows = [name for name, _ in store._used if not name.endswith(" (under way)")]
        assert rows == ["other", "agents", "third"]

    simulate(scenario)


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (
            PoolPlan(manifests=(manifest("a", 1),)),
            r"manifest 'a' has a \[budget\] per day, but no store to keep what is spent; open",
        ),
        (
            PoolPlan(manifests=(manifest("a", 1), manifest("b", 2)), journal=InMemoryJournal()),
            "manifests 'a' and 'b' have budgets with the same name, 'agents', but different limits",
        ),
    ],
)
def test_budgets_that_cannot_be_kept_or_told_apart_are_refused(plan: PoolPlan, fault: str) -> None:
    """Before a model is opened."""

    async def scenario() -> None:
        with pytest.raises(UsageError, match=fault):
            async with open_manifest_pool(plan):
                raise AssertionError

    simulate(scenario)


def test_a_limit_may_be_changed_between_two_processes(tmp_path: Path) -> None:
    """The journal of a pool is not one of another manifest by that."""

    async def scenario() -> None:
        driver = FunctionDriver(lambda _: "yes")
        for requests in (1, 2):
            async with open_journal(tmp_path / "j.db") as journal:
                one = manifest("a", requests)
                plan = PoolPlan(manifests=(one,), driver=driver, journal=journal, resume=True)
                async with open_manifest_pool(plan) as pool:
                    handle = await pool.spawn(SpawnConfig(one, "ask", key="a"))
                    assert (await handle.wait()).stop_reason is StopReason.END_TURN
        assert len(driver.requests) == 1

    trio.run(scenario)
