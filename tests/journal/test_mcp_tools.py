"""Tools of a real MCP server in a run that is resumed: no call is made again, none is guessed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agentpool import AgentStatus
from agentpool._outcome import StopReason
from agentpool.journal import InMemoryJournal, ResumeMismatchError, open_journal
from tests.journal.mcp_work import MODES, PLAIN, Work, deeds, offer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stub is ended by signals")

ROOT = Path(__file__).parents[2]
MAYBE = "it may or may not have been done"


async def begun(folder: Path, count: int) -> None:
    """Wait until so many calls of the second step have begun."""
    with trio.fail_after(120):
        while sum(step for _, step, _ in deeds(folder)) < count:  # noqa: ASYNC110  # another process's
            await trio.sleep(0.02)


async def test_a_process_is_killed_while_mcp_tools_run(tmp_path: Path) -> None:
    """Each of four agents had one call that ended and one that had begun."""
    offer(tmp_path, PLAIN)
    # A test session may keep the folder of the tests off the path of what it starts.
    program = f"import sys, runpy; sys.path.append({str(ROOT)!r}); "
    program += "runpy.run_module('tests.journal.mcp_work', run_name='__main__')"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command) as process:  # noqa: ASYNC220  # it outlives no test
        try:
            await begun(tmp_path, len(MODES))
        finally:
            process.kill()
    before = deeds(tmp_path)
    assert sorted((who, step) for who, step, _ in before) == sorted(
        (mode, step) for mode in MODES for step in (0, 1)
    )
    keys = {(who, step): key for who, step, key in before}
    assert len(set(keys.values())) == 2 * len(MODES)
    assert all(keys.values())
    (tmp_path / "open").touch()
    work = Work(tmp_path)
    async with open_journal(tmp_path / "j.db") as journal:
        outcomes = await work.run(journal, *MODES)
        later = Work(tmp_path)
        told = [(one.status, one.messages) for one in outcomes.values()]
        found = await later.run(journal, *MODES)
        assert [(one.status, one.messages) for one in found.values()] == told
        assert later.requests == 0
    again = [(who, step) for who, step, _ in deeds(tmp_path)[len(before) :]]
    assert sorted(again) == [("ask", 1), ("rerun", 1)]
    assert {(who, step): key for who, step, key in deeds(tmp_path)} == keys
    for mode in ("rerun", "ask"):
        assert outcomes[mode].text.count("did 1") == outcomes[mode].text.count("did 0") == 1
    assert MAYBE in outcomes["report"].text
    assert outcomes["stop"].status is AgentStatus.STOPPED
    assert outcomes["stop"].stop_reason is StopReason.UNKNOWN_OUTCOME
    (asked,) = work.approvals
    assert (asked.may_have_run, asked.call.name) == (True, "mcp_stub_deed")
    assert work.requests == 3  # one each, but for the one that was stopped


async def test_what_a_server_has_at_the_resume_is_looked_at(tmp_path: Path) -> None:
    """A tool that is gone or takes something else is seen, and nothing is called or asked."""
    offer(tmp_path, PLAIN)
    journal, work = InMemoryJournal(), Work(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run, journal, "report")
        await begun(tmp_path, 1)
        nursery.cancel_scope.cancel()
    (tmp_path / "open").touch()
    before, requests = deeds(tmp_path), work.requests

    async def differs(*tools: dict[str, object]) -> list[str]:
        offer(tmp_path, *tools)
        errors = [
            (await work.run(journal, "report"))["report"].error,
            (await work.run(journal, "report", resume="accept"))["report"].error,
        ]
        assert (deeds(tmp_path), work.requests) == (before, requests)
        assert all(isinstance(one, ResumeMismatchError) for one in errors)
        return [one.differs for one in errors if isinstance(one, ResumeMismatchError)]

    other = "the request has a different prompt, or different tools or settings"
    gone = "tool 'mcp_stub_deed' was called, which it no longer has or may not call,"
    assert await differs({"name": "other", "inputSchema": {"type": "object"}}) == [other, gone]
    schema = {"type": "object", "properties": {"who": {"type": "string"}}}
    offer(tmp_path, {"name": "deed", "inputSchema": schema})
    refused = (await work.run(journal, "report"))["report"].error
    assert isinstance(refused, ResumeMismatchError)
    assert (refused.differs, work.requests) == (other, requests)
    accepted = (await work.run(journal, "report", resume="accept"))["report"]
    assert (MAYBE in accepted.text, deeds(tmp_path)) == (True, before)


async def test_what_happens_to_such_calls_may_be_said_at_the_resume(tmp_path: Path) -> None:
    """The answers that were had are answers to the same."""
    offer(tmp_path, PLAIN)
    journal, work = InMemoryJournal(), Work(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run, journal, "report")
        await begun(tmp_path, 1)
        nursery.cancel_scope.cancel()
    (tmp_path / "open").touch()
    outcome = (await work.run(journal, "report", differs=True))["report"]
    assert outcome.text.count("did 1") == 1
    assert [step for _, step, _ in deeds(tmp_path)] == [0, 1, 1]
