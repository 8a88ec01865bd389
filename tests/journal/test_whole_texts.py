"""Texts with half a character, which no file can keep: mended, or refused where they name."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, SpawnConfig, ToolCall, UsageError, open_pool
from agentpool.abc import Completion, CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call, say
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, open_journal
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

HALF = "\ud83d"
READER = AgentManifest(capabilities=())


def test_an_answer_with_half_a_character_costs_no_other(tmp_path: Path) -> None:
    """It is the same in this process and the next, and is paid for once."""
    asked: list[str] = []

    @tool
    def look(what: str) -> str:
        """Look."""
        return f"seen {what}"

    def answer(request: CompletionRequest) -> Answer:
        query = request.messages[0].text  # type: ignore[union-attr]  # the query
        asked.append(query)
        if query == "call" and not isinstance(request.messages[-1], ToolMessage):
            asked_for = ToolCall(f"1{HALF}", "look", f'{{"what": "it {HALF}"}}')
            return Completion(tool_calls=(asked_for,))
        return say(f"half {HALF}, whole \ud83d\ude00") if query == "bad" else "fine"

    async def main() -> list[str]:
        async with (
            open_journal(tmp_path / "j.db") as journal,
            open_pool(
                FunctionDriver(answer), tools=ToolRegistry([look]), journal=journal, resume=True
            ) as pool,
        ):
            for query in ("one", "bad", "call"):
                await pool.spawn(SpawnConfig(READER, query, name=f"n{HALF}", key=query))
            return [outcome.text for outcome in (await pool.join_all()).values()]

    wanted = ["fine", "half \ufffd, whole 😀", "fine"]
    assert [simulate(main), simulate(main)] == [wanted, wanted]
    assert sorted(asked) == ["bad", "call", "call", "one"]


def test_what_is_raised_may_have_half_a_character(caplog: pytest.LogCaptureFixture) -> None:
    """An error of a tool, and one that ends a run."""
    # A log with half a character cannot be sent from one test process to another.
    caplog.set_level(logging.CRITICAL, "agentpool")

    @tool
    def fail() -> str:
        """Fail."""
        raise RuntimeError(f"no {HALF}")

    def answer(request: CompletionRequest) -> Answer:
        if len(request.messages) == 1:
            return call("fail")
        raise LookupError(f"gone {HALF}")

    async def main() -> None:
        journal = InMemoryJournal()
        for text in (f"gone {HALF}", "gone \ufffd"):
            async with open_pool(
                FunctionDriver(answer), tools=ToolRegistry([fail]), journal=journal, resume=True
            ) as pool:
                handle = await pool.spawn(SpawnConfig(READER, "go", key="k"))
                outcome = await handle.wait()
            assert text in str(outcome.error)

    simulate(main)


def test_names_with_half_a_character_are_refused() -> None:
    """A key and a pool's name must be found again; the name of an agent is only shown."""
    with pytest.raises(UsageError, match="key must not contain lone surrogates"):
        SpawnConfig(READER, "go", key=f"b{HALF}")
    assert SpawnConfig(READER, "go", name=f"b{HALF}").name == "b\ufffd"

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        driver = FunctionDriver(lambda _: "done")
        with pytest.raises(UsageError, match="name must be one line of printable text"):
            async with open_pool(driver, name=f"b{HALF}", journal=InMemoryJournal()):
                raise AssertionError

    simulate(main)
