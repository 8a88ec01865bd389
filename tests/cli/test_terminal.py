"""The progress display on a real terminal, and what is written without one."""

import contextlib
import io
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool._cli._interrupt import Interruption
from agentpool._cli._progress import show
from agentpool._cli._screen import Screen, write_out
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver
from agentpool.live import AgentView, Board, BoardView, show_in_terminal
from agentpool.live import _display as _progress
from tests.support.cli_runner import Desk, make_desk

fcntl = pytest.importorskip("fcntl", reason="needs pseudo-terminals")
termios = pytest.importorskip("termios", reason="needs pseudo-terminals")
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
seconds = 0.4
"""


class Terminal(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", c_txt="three", slow_toml=SLOW)
    return desk


def on_terminal(
    desk: Desk, *words: str, both: bool = True, until: str = "", code: int = 0, **environ: str
) -> tuple[str, str]:
    """Run a command with a terminal as standard error; return what came there and elsewhere.

    Args:
        desk: Where.
        words: The command.
        both: Whether standard output is the terminal as well.
        until: Interrupt it when this was seen. Empty: let it come to its end.
        code: The exit code that it must have.
        environ: On top of the environment.
    """
    ours, theirs = pty.openpty()
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
        if until and until in seen.decode(errors="replace"):
            until = ""
            process.send_signal(signal.SIGINT)
    os.close(ours)
    out = process.communicate(timeout=60)[0] or b""
    assert process.returncode == code
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
    seen, _ = on_terminal(desk, *COMMAND)
    lines = [line for line in final_screen(seen) if line]
    assert lines[:-1] == [
        "## a.txt", "A fine note that is written word by word.",
        "## b.txt", "A fine note that is written word by word.",
        "## c.txt", "A fine note that is written word by word.",
        "## editor", "All of it is fine.",
    ]  # fmt: skip


def final_screen(seen: str) -> list[str]:
    """Return the lines of a terminal that was sent *seen*: as much of one as is needed."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", seen):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece.endswith("A") and piece.startswith("\x1b"):
            row -= int(piece[2:-1] or 1)
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif not piece.startswith("\x1b"):
            old = lines[row].ljust(column)
            lines[row] = old[:column] + piece + old[column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]


def test_a_small_terminal_shows_as_many_as_it_can(desk: Desk) -> None:
    """And says how many more there are; lines are cut at its edge."""
    pytest.importorskip("rich")
    desk.write(slow_toml='[[answers]]\ntext = "word \U0001f9c0 word"\nseconds = 0.3')
    seen, _ = on_terminal(desk, *COMMAND, LINES="4", COLUMNS="50")
    assert "… and 2 more" in shown(seen)
    assert "word" not in shown(seen).split("## a.txt")[0]


def test_the_display_is_on_the_terminal_and_the_results_in_their_file(desk: Desk) -> None:
    """``agentpool map … > notes.md`` shows progress all the same."""
    pytest.importorskip("rich")
    seen, out = on_terminal(desk, *COMMAND, both=False)
    assert "3 running" in shown(seen)
    assert "## a.txt" not in seen
    assert out.startswith("## a.txt\n\nA fine note that is written word by word.\n\n## b.txt")
    assert "\x1b" not in out


def test_no_color_is_respected(desk: Desk) -> None:
    """No colours; the display itself is not a colour."""
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
    stream, file = Terminal(), io.StringIO()
    for one in (stream, file):
        write_out(one, "a\x1b[2Jb\tc\n")
    assert stream.getvalue() == "a\\x1b[2Jb\tc\n"
    assert file.getvalue() == "a\x1b[2Jb\tc\n"


async def test_lines_that_nobody_can_read_are_dropped() -> None:
    """There is no one left who could be told."""
    closed = io.StringIO()
    closed.close()
    screen = Screen(io.StringIO(), closed)
    await screen.write_lines(["lost"])
    await screen.write_lines([])


async def test_a_display_may_be_hidden_before_it_was_drawn() -> None:
    """A result may be there before the first picture; after the end there is none."""
    pytest.importorskip("rich")
    terminal = Terminal()
    display = _progress.open_display(terminal)
    assert display is not None
    display.hide()
    display.show()
    assert terminal.getvalue() == ""
    screen = Screen(terminal, terminal, display)
    await screen.close_display()
    await screen.draw(BoardView(
        agents=(), done=0, failed=0, ended_otherwise=0, queued=0, tokens=0, tokens_per_second=0.0
    ))  # fmt: skip
    assert "done" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("a-name-that-is-far-too-long-for-it", "end", "a-name-that-is-far-too-…"),
        ("漢字漢字漢字漢字漢字漢字漢字", "語" * 60, "漢字漢字漢字漢字漢字漢 … "),
    ],
)
def test_what_is_too_long_is_cut(
    monkeypatch: pytest.MonkeyPatch, name: str, words: str, says: str
) -> None:
    """Characters that take two columns count as two."""
    cells = pytest.importorskip("rich.cells")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    display = _progress.open_display(terminal)
    assert display is not None
    agent = AgentView(
        agent_id=1, name=name, phase="writes", seconds=1.0, tokens=2, last_words=words
    )
    display.draw(BoardView(
        agents=(agent,), done=0, failed=0, ended_otherwise=0, queued=0, tokens=0,
        tokens_per_second=0.0,
    ))  # fmt: skip
    display.close()
    line = shown(terminal.getvalue()).splitlines()[0]
    assert says in line
    assert cells.cell_len(line.rstrip()) <= 80


@pytest.mark.parametrize("columns", [20, 40, 57, 59])
def test_a_narrow_terminal_shows_what_matters(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Name, phase and time, and all counts on two lines; nothing is wrapped."""
    cells = pytest.importorskip("rich.cells")
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    display = _progress.open_display(terminal)
    assert display is not None
    agent = AgentView(
        agent_id=1, name="reader of books", phase="writes", seconds=1.5, tokens=2, last_words="x"
    )
    display.draw(BoardView(
        agents=(agent,), done=3, failed=0, ended_otherwise=0, queued=2, tokens=1234,
        tokens_per_second=81.0,
    ))  # fmt: skip
    display.close()
    lines = shown(terminal.getvalue()).splitlines()
    assert all(cells.cell_len(line.strip("\r")) <= columns for line in lines)
    if columns == 40:
        assert lines[0].rstrip() == "reader of books  writes            1.5 s"
        assert lines[1].rstrip() == "3 done, 1 running, 2 queued"
        assert lines[2].rstrip().startswith("1,234 tokens, 81 per second")


def test_ctrl_c_gives_the_terminal_back(desk: Desk) -> None:
    """The display goes, what there is is printed, and the cursor is as it was."""
    pytest.importorskip("rich")
    desk.write(slow_toml='[[answers]]\ntext = "Half of it"\nseconds = 3600')
    seen, _ = on_terminal(desk, *COMMAND, until="3 running", code=130)
    text = shown(seen)
    assert "SIGINT: ending the agents; interrupt again to end the program at once" in text
    assert "## a.txt (cancelled)\n\nHalf" in text
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")


async def test_an_interruption_removes_the_display_where_no_key_is_read() -> None:
    """The next signal ends the program at once, and the cursor must be there then."""
    pytest.importorskip("rich")
    terminal = Terminal()
    screen = Screen(io.StringIO(), terminal, _progress.open_display(terminal))
    interruption = Interruption()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show, Board(1), screen, interruption, False, None)  # noqa: FBT003  # start_soon passes no names
        interruption.call("SIGINT")
        with trio.fail_after(30):
            while screen.display is not None:  # noqa: ASYNC110  # it tells no event
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    seen = terminal.getvalue()
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")


def test_a_display_says_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model takes seconds, and nobody should have to guess for what."""
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "6")
    terminal = Terminal()
    display = _progress.open_display(terminal)
    assert display is not None
    display.draw(BoardView(
        agents=(), done=0, failed=0, ended_otherwise=0, queued=2, tokens=0, tokens_per_second=0.0,
        loading="a/model/with/a/long/name.gguf", loading_seconds=2.25, keys="c ends an agent",
    ))  # fmt: skip
    display.close()
    lines = shown(terminal.getvalue()).splitlines()
    assert lines[0] == "loads, 2.2 s: a/model/with/a/long/name.…"
    assert lines[1].rstrip() == "0 done, 0 running, 2 queued"
    assert lines[3].rstrip().startswith("c ends an agent")


@pytest.mark.parametrize("raises", [False, True])
async def test_an_embedder_shows_a_pool(monkeypatch: pytest.MonkeyPatch, *, raises: bool) -> None:
    """It leaves no line behind, and the cursor as it was; an error comes alone."""
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()

    async def answer(_: CompletionRequest) -> str:
        with trio.fail_after(60):
            while "1 running" not in terminal.getvalue():  # noqa: ASYNC110  # a thread draws
                await trio.sleep(0.01)
        return "done"

    with pytest.raises(ZeroDivisionError) if raises else contextlib.nullcontext():
        async with (
            show_in_terminal(stream=terminal) as board,
            open_pool(FunctionDriver(answer), observers=[board]) as pool,
        ):
            await pool.spawn(SpawnConfig(AgentManifest(name="reader"), "Read this"))
            await pool.join_all()
            if raises:
                raise ZeroDivisionError
    seen = terminal.getvalue()
    assert "reader" in seen
    assert final_screen(seen) == [""] * len(final_screen(seen))
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert board.look().done == 1


async def test_where_there_is_no_terminal_nothing_is_shown() -> None:
    """A file, say."""
    file = io.StringIO()
    async with show_in_terminal(total=3, stream=file) as board:
        await trio.lowlevel.checkpoint()
    assert board.look().queued == 3
    assert file.getvalue() == ""
