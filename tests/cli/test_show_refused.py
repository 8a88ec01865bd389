"""Calls that were never made are seen wherever a user looks for why a run went wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from agentpool import AgentOutcome, SpawnConfig, open_pool
from agentpool.drivers import (
    AssistantMessage,
    Completion,
    ScriptedDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
    call,
    calls,
)
from agentpool.observe import TraceWriter
from agentpool.tools import ToolRegistry, tool
from tests.support.cli_runner import Desk, make_desk
from tests.support.fakes import manifest

CALLS_A_FILE = """
[[answers]]
tool = "file_read"
arguments = { path = "x.txt" }
times = 1
[[answers]]
text = "I could not read it."
"""

GRANT = '[[capabilities]] type = "file_read", allowed_paths = ["…"]'

NOT_GRANTED = f"unknown tool: file_read; there are no tools; its manifest grants it with {GRANT}"

ASKS = """
name = "asker"
[[capabilities]]
type = "file_read"
allowed_paths = ["."]
ask_first = true
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder in which commands run."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(s_toml=CALLS_A_FILE, asker_toml=ASKS, x_txt="hello")
    return desk


@tool
def price(item: str) -> str:
    """Return the price of an item."""
    return f"{item}: 3"


def trace_run(
    desk: Desk, answers: list[Completion | str], config: Callable[[], SpawnConfig]
) -> AgentOutcome:
    """Return what an agent with the tool ``price`` comes to, traced into ``t.trace``."""

    async def work() -> AgentOutcome:
        async with (
            TraceWriter(desk.folder / "t.trace", secrets=()) as trace,
            open_pool(
                ScriptedDriver(answers), tools=ToolRegistry([price]), observers=[trace]
            ) as pool,
        ):
            return await (await pool.spawn(config())).wait()

    return trio.run(work)


def plain(**resources: Any) -> Callable[[], SpawnConfig]:  # noqa: ANN401  # as a manifest takes them
    """Return what makes the config of a plain agent."""
    return lambda: SpawnConfig(manifest(name="a", **resources), "What is it?")


def refusals(desk: Desk, file: str = "t.trace") -> list[str]:
    """Return the lines of ``show`` that tell of calls that were refused, without their times."""
    lines = timeless(desk.call("show", file).out.splitlines())
    return [line for line in lines if line.startswith("refused: ") or "refused calls" in line]


def timeless(lines: list[str]) -> list[str]:
    """Return *lines* without the times of what they tell."""
    return [re.sub(r"(, turn \d+), after \d+\.\d\d s: ", r"\1: ", line) for line in lines]


def test_a_call_without_a_grant_is_seen_everywhere(desk: Desk) -> None:
    """In the trace, in the journal, as JSON and on the page: with the grant that is missing."""
    done = desk.call(
        "run", "reader.toml", "Read x.txt", "--driver", "script:s.toml",
        "--trace", "t.trace", "--journal", "j.db", "--report", "r.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    line = f"refused: file_read of agent 1 (reader), turn 1: {NOT_GRANTED}"
    for file in ("t.trace", "j.db"):
        assert refusals(desk, file) == [line]
        (found,) = desk.call("show", file, "--json").lines
        assert timeless(found["problems"]) == [line]
        assert [agent["refused_calls"] for agent in found["agents"]] == [1]
    page = (desk.folder / "r.html").read_text()
    assert "Call refused</strong>" in page
    assert "file_read, turn 1: unknown tool: file_read; there are no tools" in page
    assert '<dd>0</dd><dd class="more">1 refused</dd>' in page


def test_a_misspelt_tool_is_told_which_there_are(desk: Desk) -> None:
    """And beside a call that failed, both are among the problems."""
    trace_run(desk, [calls(call("prise"), call("price", item=3)), "It costs 3."], plain())
    assert refusals(desk) == [
        "refused: prise of agent 1 (a), turn 1: unknown tool: prise; there are price"
    ]
    (found,) = desk.call("show", "t.trace", "--json").lines
    failed, refused = timeless(found["problems"])
    assert failed.startswith("tool failed: price of agent 1 (a), turn 1: ")
    assert refused.startswith("refused: prise of agent 1 (a), turn 1: ")


def test_a_call_that_is_not_approved_is_refused(desk: Desk) -> None:
    """The page tells it once, with who decided."""
    done = desk.call(
        "run", "asker.toml", "Read x.txt", "--driver", "script:s.toml",
        "--trace", "t.trace", "--report", "r.html",
    )  # fmt: skip
    assert done.code == 0, done.err
    (line,) = refusals(desk)
    assert line.startswith("refused: file_read of agent 1 (asker), turn 1: not run: it was not app")
    assert (desk.folder / "r.html").read_text().count("Call refused</strong>") == 1


def test_a_call_that_is_made_too_often_is_refused(desk: Desk) -> None:
    """By the guard, in the turn in which it was."""
    same = [calls(call("price", item="tea")) for _ in range(3)]
    trace_run(desk, [*same, "It costs 3."], plain(max_repeated_calls=3))
    (line,) = refusals(desk)
    assert line.startswith("refused: price of agent 1 (a), turn 3: ping-pong detected: ")


def test_of_many_the_number_is_told(desk: Desk) -> None:
    """A model that calls what is not there may do so a hundred times."""
    many = calls(*(call("prise", n=n) for n in range(12)))
    trace_run(desk, [many, "Nothing."], plain())
    lines = refusals(desk)
    assert (len(lines), lines[-1]) == (11, "… and 2 more refused calls")


def test_what_the_end_of_an_agent_came_before_is_not_refused(desk: Desk) -> None:
    """The line of the agent says already why it ended; what was refused beside it is told."""
    last = calls(call("prise"), call("price", item="tea"), call("price", item="milk"))
    outcome = trace_run(desk, [last], plain(max_tool_calls=2))
    assert [m.content for m in outcome.messages if isinstance(m, ToolMessage)] == [
        "unknown tool: prise; there are price",
        "tea: 3",
        "not run: max tool calls reached (2)",
    ]
    (line,) = refusals(desk)
    assert line.startswith("refused: prise of agent 1 (a), turn 1: ")


def test_what_stands_in_the_history_was_refused_before(desk: Desk) -> None:
    """It is no problem of this run."""
    asked = ToolCall("1", "prise", "{}")
    said = (
        UserMessage("before"),
        AssistantMessage("", (asked,)),
        ToolMessage(asked.call_id, "prise", "unknown tool: prise", is_error=True),
        AssistantMessage("so be it"),
    )
    trace_run(
        desk, ["It costs 3."], lambda: SpawnConfig(manifest(name="a"), "And now?", history=said)
    )
    assert refusals(desk) == []
