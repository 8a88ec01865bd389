"""``--live``: the page of a command, and who answers for calls."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from agentpool import UsageError
from agentpool.live import listen
from tests.support.cli_runner import Desk, make_desk

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ended by signals")

SCRIPT = """
[[answers]]
when = "write it"
tool = "file_write"
arguments = { path = "a.txt", content = "one" }
[[answers]]
when = "endless"
text = "It goes on and on"
seconds = 3600
[[answers]]
text = "Written."
"""

WRITER = """
name = "writer"
[model]
system_prompt = "You write."
[[capabilities]]
type = "file_write"
allowed_paths = ["."]
ask_first = true
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and a script, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(script_toml=SCRIPT, writer_toml=WRITER)
    return desk


def link_of(process: subprocess.Popen[bytes]) -> tuple[str, dict[str, str]]:
    """Return the address of the page, and what its buttons send."""
    assert process.stderr is not None
    seen = ""
    while (found := re.search(r"(http://127\.0\.0\.1:\d+)/#(\S+)", seen)) is None:
        line = process.stderr.readline().decode()
        assert line, seen
        seen += line
    return found[1], {"Origin": found[1], "X-Agentpool-Token": found[2]}


def press(process: subprocess.Popen[bytes], what: dict[str, object]) -> httpx.Response:
    """Press a button of the page."""
    base, headers = link_of(process)
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{base}/do", content=json.dumps(what), headers=headers)


def test_agents_are_ended_on_the_page(desk: Desk) -> None:
    """The link is said on standard error; the command ends as if the agents had been ended."""
    process = desk.start(
        "run", "reader.toml", "endless", "--driver", "script:script.toml", "--live"
    )  # fmt: skip
    try:
        base, headers = link_of(process)
        with httpx.Client(trust_env=False, timeout=60) as client:
            while True:
                done = client.post(f"{base}/do", json={"do": "cancel", "agent": 1}, headers=headers)
                if done.status_code == 200:  # before, it was not there yet
                    break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert out.startswith(b"It")
    assert b"reader cancelled after" in err


def test_a_call_is_approved_on_the_page(desk: Desk) -> None:
    """Without a terminal the page is asked, and no call is refused unasked."""
    process = desk.start(
        "run", "writer.toml", "write it", "--driver", "script:script.toml", "--live"
    )  # fmt: skip
    try:
        base, headers = link_of(process)
        with httpx.Client(trust_env=False, timeout=60) as client:
            wanted = {"do": "approve", "call": 1}
            while client.post(f"{base}/do", json=wanted, headers=headers).status_code != 200:
                pass  # it is not asked yet
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, b"Written.\n")
    assert (desk.folder / "a.txt").read_text() == "one"


def test_a_port_that_is_taken_is_told_before_anything_else(desk: Desk) -> None:
    """And nothing runs."""
    with listen() as taken:
        port = taken.getsockname()[1]
        done = desk.scripted("run", "reader.toml", "x", "--live", f"127.0.0.1:{port}")
    assert done.code == 2
    assert "try another port" in done.err
    done = desk.scripted("run", "reader.toml", "x", "--live", "0.0.0.0:0")
    assert done.code == 2
    assert "--live must be a loopback address such as 127.0.0.1:0, got '0.0.0.0'; " in done.err
    with pytest.raises(UsageError, match="port must be from 0 to 65535, got 70000"):
        listen(port=70_000)


def test_the_link_must_be_said_somewhere(desk: Desk) -> None:
    """With --quiet nobody would learn it."""
    done = desk.scripted("run", "reader.toml", "x", "--quiet", "--live")
    assert done.code == 2
    assert "--live prints where the page is" in done.err


def test_serve_has_the_page_too(desk: Desk) -> None:
    """While it waits for its clients."""
    process = desk.start(
        "serve", "reader.toml", "--driver", "script:script.toml", "--live",
        stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert press(process, {"do": "resize", "slots": 7}).text == "7 slots"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()


LATER = (
    "map", "writer.toml", "--each", "1.md", "2.md", "--journal", "j.db",
    "--driver", "script:script.toml", "--approve",
)  # fmt: skip


def press_until_done(base: str, headers: dict[str, str], what: dict[str, object]) -> None:
    """Press a button of the page as soon as it is there."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        while client.post(f"{base}/do", json=what, headers=headers).status_code != 200:
            pass


def test_a_question_for_later_can_be_answered_on_the_page(desk: Desk) -> None:
    """While others work: then its agent goes on in this very command."""
    desk.write(**{"1_md": "write it", "2_md": "endless"})
    process = desk.start(*LATER, "later", "--live")
    try:
        base, headers = link_of(process)
        press_until_done(base, headers, {"do": "approve", "call": 1})
        press_until_done(base, headers, {"do": "cancel", "agent": 2})
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert b"## 1.md\n\nWritten." in out
    assert (desk.folder / "a.txt").read_text() == "one"


def test_a_kept_question_is_put_to_the_page_of_the_next_command(desk: Desk) -> None:
    """The same command goes on with the answer that is given there."""
    desk.write(**{"1_md": "write it", "2_md": "two"})
    assert desk.call(*LATER, "later").code == 4
    process = desk.start(*LATER, "ask", "--live")
    try:
        base, headers = link_of(process)
        press_until_done(base, headers, {"do": "approve", "call": 1})
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert b"## 1.md\n\nWritten." in out
    assert (desk.folder / "a.txt").read_text() == "one"
