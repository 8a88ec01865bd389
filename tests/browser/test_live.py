"""The live page in a real browser: what it shows, and what its buttons do."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agentpool import AgentPool, AgentStatus, Budget, SpawnConfig, open_pool
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.live import ApprovalDesk, serve_live
from agentpool.tools import ToolRegistry, tool
from tests.support.chromium import Tab, chromium
from tests.support.fakes import (
    LiveDriver,
    calling,
    manifest,
    misnamed,
    query_of,
    tool_call,
    turns_of,
)

pytestmark = pytest.mark.browser


@tool(needs_approval=True)
def erase(what: str) -> str:
    """Erase something."""
    return f"erased {what}"


PATIENCE = 120

HOSTILE = "<img src=x onerror=alert(1)> \u202egnp.exe"


@asynccontextmanager
async def scene(folder: Path) -> AsyncGenerator[tuple[AgentPool, Tab, Tab]]:
    """Open a pool, and its page in two tabs."""
    desk = ApprovalDesk()

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        await trio.lowlevel.checkpoint()
        if query_of(request).startswith("erase") and turns_of(request) == 0:
            return calling(tool_call("erase", what="all"))
        if query_of(request) == "wait":
            on_delta(HOSTILE)
            await trio.sleep_forever()
        if query_of(request) == "fail":
            raise LookupError("there is nothing")
        return Completion("done")

    with trio.fail_after(PATIENCE):
        async with (
            open_pool(
                LiveDriver(answer),
                max_concurrent=2,
                approve=desk.ask,
                budget=Budget(requests=100),
                tools=ToolRegistry([erase]),
                name=HOSTILE.replace("\u202e", ""),
            ) as pool,
            serve_live(pool, approvals=desk) as page,
            chromium(folder) as browser,
        ):
            first, second = await browser.open(page.url), await browser.open(page.url)
            yield pool, first, second
            pool.abort_all()
            base = page.url.partition("#")[0]
            # Headless, it has no icon to ask for: all that it asks for is ours.
            assert browser.requests
            assert all(url.startswith((base, "data:")) for url in browser.requests)
            assert [one for one in browser.complaints if "409" not in one] == []


async def test_calls_are_approved_and_denied(tmp_path: Path) -> None:
    """One button each; the other tab learns it."""
    async with scene(tmp_path) as (pool, first, second):
        handle = await pool.spawn(SpawnConfig(manifest(), "erase"))
        await first.click('[data-call="1"] .approve')
        outcome = await handle.wait()
        assert any("erased all" in getattr(one, "content", "") for one in outcome.messages)
        await second.until("document.querySelector('#calls').hidden")

        handle = await pool.spawn(SpawnConfig(manifest(), "erase"))
        await second.until("document.querySelector('[data-call=\"2\"] input')")
        await second.run("document.querySelector('[data-call=\"2\"] input').value = 'not today'")
        await second.click('[data-call="2"] .deny')
        outcome = await handle.wait()
        assert any("not today" in getattr(one, "content", "") for one in outcome.messages)

        handle = await pool.spawn(SpawnConfig(manifest(), "erase"))
        await first.until("document.querySelector('[data-call=\"3\"] textarea')")
        await first.run(
            "document.querySelector('[data-call=\"3\"] textarea').value = '{\"what\": 1}'"
        )
        await first.run(
            'document.querySelector(\'[data-call="3"] textarea\').value = \'{"what": "some"}\''
        )
        await first.click('[data-call="3"] .approve')
        outcome = await handle.wait()
        assert any("erased some" in getattr(one, "content", "") for one in outcome.messages)


async def test_two_browsers_make_one_decision(tmp_path: Path) -> None:
    """The one that comes second is told so."""
    async with scene(tmp_path) as (pool, first, second):
        handle = await pool.spawn(SpawnConfig(manifest(), "erase"))
        for tab in (first, second):
            await tab.until("document.querySelector('[data-call=\"1\"] .deny')")
        # The second one clicks before it has seen what the first one did.
        await second.run("window.button = document.querySelector('[data-call=\"1\"] .deny')")
        await first.click('[data-call="1"] .approve')
        await second.run("window.button.click()")
        await second.until("document.querySelector('#told').textContent.includes('already')")
        outcome = await handle.wait()
        assert any("erased all" in getattr(one, "content", "") for one in outcome.messages)


async def test_agents_are_cancelled_and_slots_changed(tmp_path: Path) -> None:
    """What ends something wants two clicks, and what agents wrote stays text."""
    async with scene(tmp_path) as (pool, first, second):
        handles = await pool.fan_out(
            misnamed(SpawnConfig(manifest(), "wait"), f"{HOSTILE} {number}") for number in range(3)
        )
        await first.click('[data-agent="1"] .cancel')
        await first.until("document.querySelector('[data-agent=\"1\"] .sure')")
        assert not handles[0].has_ended
        await first.click('[data-agent="1"] .cancel')
        assert (await handles[0].wait()).status is AgentStatus.CANCELLED
        await second.until("document.querySelector('[data-agent=\"1\"].over')")
        await first.run("document.querySelector('#slots').value = 7")
        await first.click("#resize")
        await first.until("document.querySelector('#told').textContent === '7 slots'")
        assert pool.max_concurrent == 7
        assert await first.run("document.images.length") == 0
        shown = await first.run("document.body.textContent")
        assert "\u202e" not in shown
        assert "\u27e8U+202E\u27e9gnp.exe" in shown
        await second.click("#abort", times=2)
        for handle in handles[1:]:
            assert (await handle.wait()).status is AgentStatus.CANCELLED


async def test_without_a_limit_no_bar_is_full(tmp_path: Path) -> None:
    """Nobody is near the end of what has none."""
    async with scene(tmp_path) as (pool, first, _):
        await (await pool.spawn(SpawnConfig(manifest(), "say"))).wait()
        await first.until("document.querySelector('[data-kind=requests] meter')?.value === 1")
        told = await first.run("document.querySelector('[data-kind=tokens]').textContent")
        assert "of no limit" in told
        assert not told.startswith("tokens0 of")
        assert await first.run("document.querySelector('[data-kind=tokens] meter').value") == 0


async def test_the_colour_is_that_of_the_worst(tmp_path: Path) -> None:
    """The page stayed green where an agent had failed, also when it had ended."""
    async with scene(tmp_path) as (pool, first, _):
        await (await pool.spawn(SpawnConfig(manifest(), "say"))).wait()
        await first.until("document.querySelector('[data-agent=\"1\"].over')")
        assert await first.run("document.querySelector('#top').className") == "top "
        await (await pool.spawn(SpawnConfig(manifest(), "fail"))).wait()
        await first.until("document.querySelector('#top').className === 'top bad'")
