"""The progress display on a real terminal, and what is written without one."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

from agentpool._cli import _progress
from agentpool._cli._screen import Screen, write_out
from tests.desk import Desk, make_desk

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")

COMMAND = (
    "map", "reader.toml", "--each", "a.txt", "b.txt", "c.txt", "--reduce", "editor.toml",
    "--driver", "script:slow.toml",
)  # fmt: skip

SLOW = """
[[answers]]
when = "You edit."
text = "All of it is fine."
[[answers]]
text = "A fine note that is written word by word."
seconds = 1.0
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", c_txt="three", slow_toml=SLOW)
    return desk


def on_terminal(desk: Desk, *words: str, both: bool = True, **environ: str) -> tuple[str, str]:
    """Run a command with a terminal as standard error; return what came there and elsewhere.

    Args:
        desk: Where.
        words: The command.
        both: Whether standard output is the terminal as well.
        environ: On top of the environment.
    """
    import fcntl
    import struct
    import subprocess
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentpool", *words],
        cwd=desk.folder,
        env={**env, "TERM": "xterm-256color", **environ},
        stdin=theirs,
        stdout=theirs if both else subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so that the other end was closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    out = process.communicate(timeout=60)[0] or b""
    assert process.returncode == 0
    return seen.decode(), out.decode()


def shown(text: str) -> str:
    """Return *text* without what steers the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")


def test_a_terminal_shows_who_does_what(desk: Desk) -> None:
    """One line per agent and the counts; the cursor is back at the end."""
    pytest.importorskip("rich")
    seen, _ = on_terminal(desk, *COMMAND)
    text = shown(seen)
    assert re.search(r"reader a\.txt +writes +\d\.\d s +\d+ tok  .*A fine", text)
    assert re.search(r"0 done, 3 running, 1 queued · \d+ tokens, \d+ per second", text)
    assert "\x1b[36m" in seen  # the name is in colour
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert text.rstrip().splitlines()[-1].startswith("agentpool: 4 completed in")
    assert "started" not in text


def test_results_stand_above_the_display(desk: Desk) -> None:
    """What was printed is not wiped when the display is drawn again."""
    pytest.importorskip("rich")
    pyte = pytest.importorskip("pyte", reason="looks at the screen as a person would")
    seen, _ = on_terminal(desk, *COMMAND)
    screen = pyte.Screen(100, 24)
    pyte.Stream(screen).feed(seen)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert lines[:-1] == [
        "## a.txt", "A fine note that is written word by word.",
        "## b.txt", "A fine note that is written word by word.",
        "## c.txt", "A fine note that is written word by word.",
        "## editor", "All of it is fine.",
    ]  # fmt: skip


def test_the_display_is_on_the_terminal_and_the_results_in_their_file(desk: Desk) -> None:
    """``agentpool map … > notes.md`` shows progress all the same."""
    pytest.importorskip("rich")
    seen, out = on_terminal(desk, *COMMAND, both=False)
    assert "3 running" in shown(seen)
    assert "## a.txt" not in seen
    assert out.startswith("## a.txt\n\nA fine note that is written word by word.\n\n## b.txt")
    assert "\x1b" not in out


def test_no_color_is_respected(desk: Desk) -> None:
    """No colours; the display itself is no colour."""
    pytest.importorskip("rich")
    seen, _ = on_terminal(desk, *COMMAND, NO_COLOR="1")
    assert "3 running" in shown(seen)
    assert not re.search(r"\x1b\[3[0-7]m", seen)


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_no_display_for_those_who_want_none(desk: Desk, option: str) -> None:
    """It is for people who watch."""
    seen, _ = on_terminal(desk, *COMMAND, option)
    assert "running" not in seen
    assert "\x1b" not in seen


def test_a_dumb_terminal_gets_lines(desk: Desk) -> None:
    """It cannot go back and write over what it wrote."""
    seen, _ = on_terminal(desk, *COMMAND, TERM="dumb")
    assert "\x1b" not in seen
    assert "reader a.txt started" in seen


def test_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert _progress.open_display(sys.stderr) is None


def test_a_model_does_not_steer_the_terminal() -> None:
    """What it writes is shown, on a terminal; a file gets it as it is."""

    class Terminal(__import__("io").StringIO):  # type: ignore[misc]
        def isatty(self) -> bool:
            return True

    import io

    stream, file = Terminal(), io.StringIO()
    for one in (stream, file):
        write_out(one, "a\x1b[2Jb\tc\n")
    assert stream.getvalue() == "a\\x1b[2Jb\tc\n"
    assert file.getvalue() == "a\x1b[2Jb\tc\n"


async def test_lines_that_nobody_can_read_are_dropped() -> None:
    """There is no one left who could be told."""
    import io

    closed = io.StringIO()
    closed.close()
    screen = Screen(io.StringIO(), closed)
    await screen.write_lines(["lost"])
    await screen.write_lines([])
