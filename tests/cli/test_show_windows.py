"""What left a model's window is seen in all views, with what stands for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from agentpool import AgentManifest, AgentOutcome, SpawnConfig, open_pool
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, ToolCall
from agentpool.observe import TraceWriter, WindowCut, read_trace, record_of
from agentpool.tools import ToolRegistry, tool
from tests.support.cli_runner import Desk, make_desk

TURNS = 60

MANIFEST = """
name = "reader"
capabilities = []
[model]
context_window = 4000
max_tokens = 300
[context]
strategy = "{strategy}"
[resources]
max_iterations = 100
max_tool_calls = 100
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder in which commands run."""
    return make_desk(tmp_path, capsys, monkeypatch)


@tool
def read_page(number: int) -> str:
    """Read a page."""
    return f"page {number}: " + "the whale swims in the sea and sings. " * 20


def traced(desk: Desk, strategy: str, summary: str = "") -> AgentOutcome:
    """Return the outcome of an agent that reads more pages than its window holds."""
    turns = 0

    async def answer(request: CompletionRequest) -> Completion | str:  # noqa: ASYNC124  # as drivers
        nonlocal turns
        last = request.messages[-1]
        if "Write down what is needed" in getattr(last, "text", ""):
            return summary
        turns += 1
        if turns > TURNS:
            return "all read"
        call = ToolCall(str(turns), "read_page", json.dumps({"number": turns}))
        return Completion("", (call,))

    async def main() -> AgentOutcome:
        config = SpawnConfig(AgentManifest.parse(MANIFEST.format(strategy=strategy)), "Read it.")
        async with (
            TraceWriter(desk.folder / "a.trace", secrets=()) as trace,
            open_pool(
                FunctionDriver(answer), tools=ToolRegistry([read_page]), observers=[trace]
            ) as pool,
        ):
            return await (await pool.spawn(config)).wait()

    outcome = trio.run(main)
    assert outcome.text == "all read"
    return outcome


def page_data(desk: Desk) -> list[Any]:
    """Return the agent's data on the page."""
    assert desk.call("show", "a.trace", "--html", "a.html").code == 0
    page = (desk.folder / "a.html").read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])["agents"][0]  # type: ignore[no-any-return]  # as report_data has it


def test_a_summary_that_fails_is_a_problem_in_all_views(desk: Desk) -> None:
    """It was asked for and paid, each time in vain; `show`, JSON and page said nothing of it."""
    traced(desk, "summary")
    shown = desk.call("show", "a.trace").out
    (line,) = [one for one in shown.splitlines() if one.startswith("no summary: ")]
    assert re.fullmatch(
        r"no summary: agent 1 \(reader\), after \d\.\d\d s: \d+ times, first before turn \d+: "
        r"the model wrote nothing",
        line,
    )
    (found,) = desk.call("show", "a.trace", "--json").lines
    assert found["problems"] == [line]
    told = desk.call("show", "a.trace", "--agent", "1").out
    assert "are no longer sent, there is no summary: the model wrote nothing" in told
    desk.call("show", "a.trace", "--html", "a.html")
    page = (desk.folder / "a.html").read_text()
    assert "No summary (" in page
    assert '<header class="top odd">' in page
    followed = desk.call("show", "a.trace", "--follow").out
    assert "the window was full: " in followed
    assert "there is no summary: the model wrote nothing" in followed


def test_a_summary_is_read_where_the_conversation_is(desk: Desk) -> None:
    """Its text was in the trace alone."""
    traced(desk, "summary", "Pages so far: whales sing.")
    told = desk.call("show", "a.trace", "--agent", "1").out
    assert "a summary replaces what was left out\nPages so far: whales sing." in told
    assert "no summary" not in desk.call("show", "a.trace").out
    *_, cuts, _, _ = page_data(desk)
    assert {cut[3] for cut in cuts} == {"Pages so far: whales sing."}
    (one,) = desk.call("show", "a.trace", "--agent", "1", "--json").lines
    assert {cut["summary"] for cut in one["window_cuts"]} == {"Pages so far: whales sing."}


def test_dropped_messages_and_stubs_are_marked_with_their_turns(desk: Desk) -> None:
    """As many as the outcome counts: stubs stood there as if the model still had them."""
    outcome = traced(desk, "clear_results")
    record = record_of(read_trace(desk.folder / "a.trace").events)
    marks = record.agents[1].window
    assert len(marks.gone) + marks.stubbed == outcome.messages_left_out
    assert min(len(marks.gone), marks.stubbed) > 0
    told = desk.call("show", "a.trace", "--agent", "1").out
    gone = re.findall(r"^--- .* \[not sent since turn (\d+)\]$", told, re.MULTILINE)
    stubs = re.findall(
        r"^--- read_page .* \[sent as a stub since turn (\d+)\]$", told, re.MULTILINE
    )
    assert (len(gone), len(stubs)) == (len(marks.gone), marks.stubbed)
    said = page_data(desk)[16]
    assert sum(bool(message[-1]) for message in said) == len(marks.gone)
    assert sum(bool(message[-2] and not message[-1]) for message in said) == marks.stubbed
    shown = desk.call("show", "a.trace").out
    counts = f"{len(marks.gone)} messages of the conversation left it, {marks.stubbed} tool results"
    assert f"window: agent 1 (reader): {counts} sent as stubs" in shown


def test_marks_say_what_requests_had(desk: Desk) -> None:
    """A stub is marked with the first turn whose request had it, and so is what was dropped."""
    traced(desk, "clear_results")
    events = read_trace(desk.folder / "a.trace").events
    marks = record_of(events).agents[1].window
    cuts = [event for event in events if isinstance(event, WindowCut)]
    assert [len(cut.stubs) for cut in cuts] == [cut.results for cut in cuts]
    assert {place for cut in cuts for place in cut.stubs} == set(marks.stubs)
    assert all(turn > place // 2 for place, turn in {**marks.gone, **marks.stubs}.items())


def test_an_older_trace_still_counts_its_stubs(desk: Desk) -> None:
    """It does not say which they were."""
    outcome = traced(desk, "clear_results")
    path = desk.folder / "a.trace"
    path.write_bytes(re.sub(rb',"stubs":\[[\d,]*\]', b"", path.read_bytes()))
    gone = len(record_of(read_trace(path).events).agents[1].window.gone)
    shown = desk.call("show", "a.trace").out
    assert f"{outcome.messages_left_out - gone} tool results sent as stubs" in shown
