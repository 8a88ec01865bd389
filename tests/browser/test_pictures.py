"""The pictures of the docs, taken anew of what the code shows today.

``AGENTPOOL_PICTURES=docs/how-to nox -s browser`` puts them there.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentpool import Budget, SpawnConfig, Usage, open_pool
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.live import AgentView, ApprovalDesk, BoardView, open_display, serve_live
from agentpool.observe import TraceWriter, read_trace, render_report
from agentpool.tools import ToolRegistry, tool
from tests.support.chromium import chromium
from tests.support.fakes import LiveDriver, calling, manifest, query_of, tool_call, turns_of
from tests.support.troubled_pool import troubled_pool

pytestmark = pytest.mark.browser

PATIENCE = 120

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--hide-scrollbars",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "width", "height"), [("report.png", 1280, 1300), ("report-narrow.png", 400, 1400)]
)
def test_a_picture_of_the_report(tmp_path: Path, name: str, width: int, height: int) -> None:
    """What went wrong, and the timeline, at two widths."""

    async def main() -> None:
        async with TraceWriter(tmp_path / "a.trace", secrets=()) as trace:
            await troubled_pool([trace])

    trio.run(main, clock=MockClock(autojump_threshold=0))
    page, picture = tmp_path / "a.html", tmp_path / name
    page.write_text(render_report(read_trace(tmp_path / "a.trace")), encoding="utf-8")
    subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}",
         f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, height)
    if folder := os.environ.get("AGENTPOOL_PICTURES"):
        shutil.copy(picture, Path(folder) / name)


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        """It is one."""
        return True


AGENTS = (
    ("librarian walden.txt", "writes", 4.2, 61, "a mile from any neighbor, in a house which I had"),
    ("librarian emma.txt", "search", 3.9, 48, "Emma Woodhouse, handsome, clever, and rich"),
    ("librarian moby-dick.txt", "thinks", 3.1, 0, ""),
    ("librarian kidnapped.txt", "a gate", 2.0, 0, ""),
)


def test_a_picture_of_the_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands at the bottom of a terminal, as a drawing that loads nothing."""
    consoles = pytest.importorskip("rich.console")
    texts = pytest.importorskip("rich.text")
    for name, value in (("COLUMNS", "92"), ("LINES", "16"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    display = open_display(terminal)
    assert display is not None
    agents = tuple(
        AgentView(agent_id=n, name=name, phase=phase, seconds=s, tokens=tokens, last_words=words)
        for n, (name, phase, s, tokens, words) in enumerate(AGENTS, start=1)
    )
    display.draw(BoardView(
        agents=agents, done=3, failed=0, ended_otherwise=1, queued=1, tokens=412,
        tokens_per_second=38.0, keys="c ends an agent · a answers 1 that wait",
    ))  # fmt: skip
    drawn = terminal.getvalue().replace("\x1b[?25l", "")
    display.close()
    console = consoles.Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
    console.print(texts.Text.from_ansi(drawn))
    title = "agentpool map librarian.toml --each books/*.txt"
    svg = console.export_svg(title=title, unique_id="d")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    for name, *_ in AGENTS:
        assert name.replace(" ", "&#160;") in svg
    assert "url(http" not in svg
    picture = tmp_path / "display.svg"
    picture.write_text(svg, encoding="utf-8")
    if folder := os.environ.get("AGENTPOOL_PICTURES"):
        shutil.copy(picture, Path(folder) / picture.name)


@tool(needs_approval=True)
def erase(what: str) -> str:
    """Erase something."""
    return f"erased {what}"


@tool
async def search(words: str) -> str:
    """Look for words in the shelves."""
    await trio.sleep(2)
    return f"found {words}"


TEXTS = {
    "walden": "a mile from any neighbor, in a house which I had built myself",
    "emma": "Emma Woodhouse, handsome, clever, and rich, with a comfortable home",
    "dracula": "Left Munich at 8:35 P.M., on 1st May, arriving at Vienna early",
}


async def say(request: CompletionRequest, on_delta: OnDelta) -> Completion:
    """Answer word by word, with a call before the answer where the query is about one."""
    query, turn = query_of(request), turns_of(request)
    usage = Usage(420, 60, 180)
    await trio.sleep(1)
    if turn == 0 and query in {"shelf", "emma"}:
        erases = tool_call("erase", what="shelf 7")
        said = calling(erases if query == "shelf" else tool_call("search", words="Woodhouse"))
        return Completion(
            said.text, said.tool_calls, said.finish_reason, usage, "m-1", cost_usd=0.0021
        )
    for word in TEXTS.get(query, "one moment").split():
        on_delta(f"{word} ")
        await trio.sleep(0.6)
    if query == "dracula":
        return Completion("May", usage=usage, model="m-1", cost_usd=0.0034)
    await trio.sleep_forever()
    raise AssertionError


async def test_a_picture_of_the_live_page(tmp_path: Path) -> None:
    """A call that waits for a decision, and agents at work."""
    folder, desk = os.environ.get("AGENTPOOL_PICTURES"), ApprovalDesk()
    budget = Budget(requests=40, cost_usd=0.5, name="night")
    size = {"width": 1280, "height": 1060, "deviceScaleFactor": 1, "mobile": False}
    with trio.fail_after(PATIENCE):
        async with (
            open_pool(
                LiveDriver(say), max_concurrent=4, approve=desk.ask, budget=budget,
                tools=ToolRegistry([erase, search]), name="night readers",
            ) as pool,
            serve_live(pool, approvals=desk) as page,
            chromium(tmp_path) as browser,
        ):  # fmt: skip
            await pool.fan_out(
                SpawnConfig(manifest(), query, name=f"reader {query}")
                for query in ("shelf", "walden", "emma", "dracula", "later")
            )
            tab = await browser.open(page.url)
            await browser.call("Emulation.setDeviceMetricsOverride", tab.session, **size)
            await browser.call("Emulation.setScrollbarsHidden", tab.session, hidden=True)
            for shown in ("Waiting for your decision", "writes", "waits for you"):
                await tab.until(f"document.body.innerText.includes({shown!r})")
            if folder:
                await trio.sleep(6)  # for bars that one can see
            taken = await browser.call("Page.captureScreenshot", tab.session, format="png")
            pool.abort_all()
    data = base64.b64decode(taken["data"])
    assert struct.unpack(">II", data[16:24]) == (1280, 1060)
    if folder:
        (Path(folder) / "live.png").write_bytes(data)
