"""What went wrong has its time, and stands in the order in which it happened."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trio

from agentpool import SpawnConfig, open_pool
from agentpool.drivers import Completion, CompletionRequest, FunctionDriver, call, calls
from agentpool.observe import TraceWriter
from agentpool.tools import ToolRegistry, tool
from tests.support.cli_runner import Desk, make_desk
from tests.support.fakes import manifest, query_of, turns_of


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with the trace of a pool in which a tool fails, and then an agent."""
    desk = make_desk(tmp_path, capsys, monkeypatch)

    @tool
    def price(fruit: str) -> str:
        """Return the price of a fruit."""
        raise RuntimeError("the database is locked")

    async def answer(request: CompletionRequest) -> Completion | str:
        if query_of(request) == "line":
            await trio.sleep(0.2)
            raise ConnectionError("the line is dead")
        return "Nobody knows." if turns_of(request) else calls(call("price", fruit="pear"))

    async def main() -> None:
        async with (
            TraceWriter(desk.folder / "a.trace", secrets=(), command="agentpool map") as trace,
            open_pool(
                FunctionDriver(answer), tools=ToolRegistry([price]), observers=[trace]
            ) as pool,
        ):
            await pool.fan_out([SpawnConfig(manifest("shopper"), q) for q in ("line", "price")])
            await pool.join_all()

    trio.run(main)
    return desk


def test_the_tool_that_failed_before_an_agent_is_told_before_it(desk: Desk) -> None:
    """`failed first` named the agent, and the tool's failure had no time."""
    shown = desk.call("show", "a.trace").out
    tool_line, agent_line = re.findall(
        r"^(?:tool failed|first agent to fail|failed first): .*", shown, re.MULTILINE
    )
    when = r"after (\d\.\d\d) s: "
    tool = re.match(rf"tool failed: price of agent 2 \(shopper\), turn 1, {when}", tool_line)
    agent = re.match(rf"first agent to fail: agent 1 \(shopper\), {when}", agent_line)
    assert tool is not None
    assert agent is not None
    assert float(tool[1]) < float(agent[1])
    (found,) = desk.call("show", "a.trace", "--json").lines
    assert found["problems"] == [tool_line, agent_line]


def page(desk: Desk) -> str:
    """Return the page of the trace."""
    assert desk.call("show", "a.trace", "--html", "a.html").code == 0
    return (desk.folder / "a.html").read_text()


def test_the_page_has_the_times_and_the_order(desk: Desk) -> None:
    """And marks when the call ran that failed."""
    html = page(desk)
    when = r'<span class="when">after \d\.\d\d s</span>'
    titles = re.findall(rf"<strong>([^<]*)</strong> {when}", html)
    assert titles == ["A tool failed", "First agent to fail"]
    found = re.search(r'id="data">(.*?)</script>', html)
    assert found is not None
    data = json.loads(found[1])
    ((begin, end),) = data["agents"][1][19]
    assert 0 <= begin <= end < 0.2
    assert data["agents"][0][19] == []
    assert {one[0] for one in data["slow"]} == {"the model", "tool price"}


def test_the_page_says_what_was_run(desk: Desk) -> None:
    """Its title was `pool`."""
    html = page(desk)
    assert "<h1>shopper</h1>" in html
    assert '<p class="meta">agentpool map · manifest shopper · ' in html
    assert "agentpool map; manifest shopper" in desk.call("show", "a.trace").out


def test_a_command_says_which_it_is(desk: Desk) -> None:
    """And which model answered."""
    desk.scripted("run", "reader.toml", "hello", "--trace", "b.trace")
    assert "\nagentpool run; manifest reader" in desk.call("show", "b.trace").out


def test_queue_and_run_are_two_times(desk: Desk) -> None:
    """The page added them up, and the terminal did not."""
    lines = desk.call("show", "a.trace").out.splitlines()
    (head,) = [line for line in lines if line.startswith("agent  ")]
    assert head.split() == ["agent", "status", "queued", "ran", "turns", "tokens", "cost"]
    assert "<th>queued</th><th>ran</th>" in page(desk)


def test_an_agent_is_named_once_where_it_was_cancelled(desk: Desk) -> None:
    """It was named by the line and by its error."""

    async def main() -> None:
        async with (
            TraceWriter(desk.folder / "c.trace", secrets=()) as trace,
            open_pool(FunctionDriver(wait), observers=[trace]) as pool,
        ):
            handle = await pool.spawn(SpawnConfig(manifest("shopper"), "wait"))
            await trio.testing.wait_all_tasks_blocked()
            handle.cancel("enough")
            await handle.wait()

    async def wait(_: CompletionRequest) -> str:
        await trio.sleep_forever()

    trio.run(main)
    shown = desk.call("show", "c.trace").out
    assert re.search(
        r"^cancelled: agent 1 \(shopper\), after [\d.]+ s: by owner: enough$", shown, re.MULTILINE
    )


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_folder_is_told_what_to_name_in_its_place(desk: Desk, command: str) -> None:
    """`Is a directory` says nothing of what to do."""
    done = desk.call(command, ".")
    assert done.code != 0
    assert re.search(r"Is a directory; name a (trace|manifest) in it", done.out + done.err)


def test_a_name_that_no_folder_can_have_is_told_in_a_line(desk: Desk) -> None:
    """The system has its own words for it, and whoever opens the file says them."""
    done = desk.call("show", "x" * 300)
    assert (done.code, done.out) == (2, "")
    assert "File name too long" in done.err
    assert "Traceback" not in done.err


def test_a_damaged_trace_is_shown_as_far_as_it_goes(desk: Desk) -> None:
    """With the exit code that the help says."""
    with (desk.folder / "a.trace").open("ab") as file:
        file.write(b"\0\0\0\n")
    done = desk.call("show", "a.trace")
    assert (done.code, "this trace: 1 line is damaged" in done.out) == (0, True)
    assert "also where a trace is cut or damaged" in desk.call("show", "--help").out
