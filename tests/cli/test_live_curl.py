"""The live page without a browser: the commands of the how-to, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_live import SCRIPT, WRITER, link_of
from tests.support.cli_runner import Desk, make_desk

CURL = shutil.which("curl")

pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "watch-a-pool-live.md"


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and a script, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(script_toml=SCRIPT, writer_toml=WRITER)
    return desk


def command(holds: str) -> str:
    """Return the command of the page that has *holds* in it."""
    (found,) = re.findall(
        rf"^\$ (curl .*{re.escape(holds)}.*)$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    return str(found)


def run(told: str, environment: dict[str, str]) -> str:
    """Return what *told* prints, run by a shell as a reader would."""
    # What curl returns when its time is over is no failure here.
    done = subprocess.run(
        ["/bin/sh", "-c", told], env={"PATH": os.environ["PATH"], **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout


def environment_of(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Return the variables that the page has the reader set."""
    base, headers = link_of(process)
    return {"PAGE": base, "TOKEN": headers["X-Agentpool-Token"]}


def until(told: str, environment: dict[str, str], answer: str) -> None:
    """Run *told* until it answers so: before, there is nothing to decide or to end."""
    end = time.monotonic() + 60
    while (said := run(told, environment)) != answer:
        assert time.monotonic() < end, said
        time.sleep(0.05)


def test_what_waits_is_seen_and_decided(desk: Desk) -> None:
    """The call runs, and the command goes on."""
    words = ("run", "writer.toml", "write it", "--driver", "script:script.toml", "--live")
    process = desk.start(*words)
    try:
        environment = environment_of(process)
        calls: list[Any] = []
        end = time.monotonic() + 60
        while not calls:
            assert time.monotonic() < end
            seen = run(command("/events"), environment)
            last = seen.strip().split("\n\n")[-1]
            calls = json.loads(last.removeprefix("data: "))["calls"] if last else []
        ((number, agent, name, parent, tool, arguments, _),) = calls
        assert (number, agent, name, parent, tool) == (1, 1, "writer", 0, "file_write")
        assert json.loads(arguments) == {"path": "a.txt", "content": "one"}
        assert run(command("approve"), environment) == "decided"
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, b"Written.\n")


def test_an_agent_is_ended(desk: Desk) -> None:
    """And without `Origin` it is told what to add."""
    words = ("run", "reader.toml", "endless", "--driver", "script:script.toml", "--live")
    process = desk.start(*words)
    try:
        environment = environment_of(process)
        told = command("cancel").replace('"agent": 4', '"agent": 1')
        refused = run(told.replace('-H "Origin: $PAGE" ', ""), environment)
        assert refused == "it does not say which page asks; send the page's address as Origin"
        until(told, environment, "agent 1 is ending")
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"reader cancelled after" in err


def test_each_action_of_the_table_is_one() -> None:
    """Each is JSON that the page takes."""
    from agentpool.live._actions import _DECODER

    rows = re.findall(r'^\| `(\{"do".*?\})` \|', PAGE.read_text("utf-8"), re.MULTILINE)
    done = [_DECODER.decode(row) for row in rows]
    assert len({type(one) for one in done}) == 8
