"""What had come of an answer when its program was killed is seen in all views."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.support.cli_runner import Desk, make_desk

SLOW = """
[[answers]]
text = "one two three four"
seconds = 3600
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with the trace of a program that was killed while its model wrote."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(slow_toml=SLOW)
    path = desk.folder / "k.trace"
    writer = desk.start(
        "run", "reader.toml", "hi", "--driver", "script:slow.toml", "--trace", "k.trace"
    )
    until = time.monotonic() + 60
    while not (path.exists() and b"text_delta" in path.read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.02)
    writer.kill()
    writer.communicate(timeout=60)
    return desk


def test_the_text_that_had_come_is_shown(desk: Desk) -> None:
    """It was in the trace, and nowhere else."""
    told = desk.call("show", "k.trace", "--agent", "1").out
    assert "--- model, as far as it had come\none " in told
    (one,) = desk.call("show", "k.trace", "--agent", "1", "--json").lines
    assert one["begun_text"] == "one "
    desk.call("show", "k.trace", "--html", "k.html")
    found = re.search(r'id="data">(.*?)</script>', (desk.folder / "k.html").read_text())
    assert found is not None
    assert json.loads(found[1])["agents"][0][18] == ["", "one "]
    assert "1 reader: writes 'one '" in desk.call("show", "k.trace", "--follow").out


def test_what_an_open_request_took_is_unknown(desk: Desk) -> None:
    """It was 0 tokens and $0."""
    shown = desk.call("show", "k.trace").out
    assert "1 request: ? tokens in, ? out, ? USD" in shown
    assert re.search(r"^1 reader +open .* \? +\? USD$", shown, re.MULTILINE)
    (found,) = desk.call("show", "k.trace", "--json").lines
    assert (found["unmeasured_requests"], found["cost_usd"]) == (1, None)
    desk.call("show", "k.trace", "--html", "k.html")
    page = (desk.folder / "k.html").read_text()
    assert "<dt>tokens</dt><dd>?</dd>" in page
    assert "<dt>cost</dt><dd>?</dd>" in page
    assert "? in; ? out" in page


def test_an_agent_that_was_ended_has_its_text_once(desk: Desk) -> None:
    """In its conversation, where its end has put it."""
    path = desk.folder / "e.trace"
    writer = desk.start(
        "run", "reader.toml", "hi", "--driver", "script:slow.toml", "--trace", "e.trace"
    )
    until = time.monotonic() + 60
    while not (path.exists() and b"text_delta" in path.read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.02)
    writer.terminate()
    writer.communicate(timeout=60)
    told = desk.call("show", "e.trace", "--agent", "1").out
    assert (told.count("one "), "as far as it had come" in told) == (1, False)
