"""The pictures of the docs, taken anew of what the code shows today.

``AGENTPOOL_PICTURES=docs/how-to nox -s browser`` puts them there.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentpool.observe import TraceWriter, read_trace, render_report
from tests.support.troubled_pool import troubled_pool

pytestmark = pytest.mark.browser

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
