"""What a handle says of the wait of its agent."""

from __future__ import annotations

import logging

import pytest
from trio.testing import wait_all_tasks_blocked

from agentpool import Capability, CapabilityKind, SpawnConfig, open_pool
from agentpool.abc import Completion
from agentpool.drivers import ScriptedDriver, ToolCall
from agentpool.tools import TEAM_TOOLS, ToolRegistry
from tests.support.fakes import hanging_driver, manifest

LISTEN = Completion("", (ToolCall("1", "wait_for_message", "{}"),))


def listener(name: str) -> SpawnConfig:
    """Return an agent that may hear of others."""
    grants = (Capability(CapabilityKind.MESSAGE),)
    return SpawnConfig(manifest(capabilities=grants), "Listen.", name=name)


async def test_a_handle_says_what_its_agent_waits_for() -> None:
    """And nothing before it has a slot, when it works, and when it has ended."""
    driver = ScriptedDriver([LISTEN, "Heard."])
    async with open_pool(driver, tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = pool.spawn_nowait(listener("a"))
        assert handle.waits_for == ""
        await wait_all_tasks_blocked()
        assert handle.waits_for == "a message"
        await handle.send("Now")
        await handle.wait()
        assert handle.waits_for == ""
    async with open_pool(hanging_driver()) as pool:
        handle = pool.spawn_nowait(listener("a"))
        await wait_all_tasks_blocked()
        assert handle.waits_for == ""
        handle.cancel()


async def test_a_deadlock_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """No tool is broken, so nobody needs its insides."""
    caplog.set_level(logging.WARNING, "agentpool")
    driver = ScriptedDriver([LISTEN, "Nobody wrote."])
    async with open_pool(driver, tools=ToolRegistry(TEAM_TOOLS)) as pool:
        handle = pool.spawn_nowait(listener("silent"))
        outcome = await handle.wait()
    assert outcome.text == "Nobody wrote."
    (record,) = caplog.records
    assert record.getMessage() == (
        "agent 1 (silent) was told of a deadlock: tool 'wait_for_message' failed: DeadlockError: "
        "1 (silent) waits for a message, and no running agent can unblock it"
    )
