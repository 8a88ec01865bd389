"""Keys at a real terminal while the display is there."""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool._cli._keyboard import Keyboard, keyboard_of
from tests.support.cli_runner import Desk, make_desk
from tests.support.terminal import at_terminal, pty, termios

pytest.importorskip("rich")

COMMAND = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--driver", "script:slow.toml")

SLOW = """
[[answers]]
text = "It goes on and on, word by word"
seconds = 3600
"""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with two texts, and a model that takes an hour for each."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", slow_toml=SLOW)
    return desk


def test_c_ends_one_agent_or_all(desk: Desk) -> None:
    """It asks which; the terminal is as it was at the end, and no line is left of the display."""
    with at_terminal(desk, COMMAND, code=130, columns=40) as person:
        person.wait_for("2 running")
        person.wait_for("c ends an agent")
        person.type("x")  # means nothing
        person.type("c")
        listed = person.wait_for("nothing for none: ")
        assert "1 reader a.txt, writes" in listed
        assert "2 reader b.txt" in listed
        person.type("7\n")
        person.wait_for("no agent 7 runs")
        person.wait_for("c ends an agent")
        person.type("c")
        person.wait_for("nothing for none: ")
        person.type("1\n")
        person.wait_for("## a.txt (cancelled)")
        person.wait_for("0 done, 1 ended early, 1 running, 0")
        person.type("c")
        person.wait_for("nothing for none: ")
        person.type("\n")
        person.wait_for("1 running")
        person.type("c")
        person.wait_for("nothing for none: ")
        person.type("all\n")
        person.wait_for("## b.txt (cancelled)")
        person.wait_for("ended at the terminal: ending the agents")
        assert "c ends an agent" not in person.wait_for("2 cancelled in")
        assert termios.tcgetattr(person.fd) == person.settings
    assert person.seen.rindex("\x1b[?25h") > person.seen.rindex("\x1b[?25l")
    assert "\x1b[?25l" not in person.seen[person.seen.rindex("2 cancelled in") :]


def test_there_are_no_keys_where_standard_input_is_a_text(desk: Desk) -> None:
    """What is typed is the text, then."""
    words = ("map", "reader.toml", "--each", "-", "--driver", "script:script.toml")
    with at_terminal(desk, words) as person:
        person.wait_for("1 queued")
        person.type("cancel culture\n\x04")
        shown = person.wait_for("1 completed in")
    assert "c ends" not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


async def test_the_terminal_is_lent_to_whoever_asks() -> None:
    """Meanwhile it has lines and an echo again, and no key is read."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    keyboard = Keyboard(theirs)
    keys: list[str] = []

    async def read() -> None:
        while True:
            keys.append(await keyboard.key())

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)
            with keyboard.lent():
                assert termios.tcgetattr(theirs) == before
                os.write(ours, b"a line\n")
                await wait_all_tasks_blocked()
                assert not keys
                assert os.read(theirs, 100) == b"a line\n"
            # At once: a key that is pressed before the reader comes back is not shown.
            assert not termios.tcgetattr(theirs)[3] & termios.ECHO
            await wait_all_tasks_blocked()
            assert not termios.tcgetattr(theirs)[3] & termios.ECHO
            os.write(ours, b"k")
            while not keys:  # noqa: ASYNC110  # a terminal tells no event
                await trio.lowlevel.checkpoint()
            keyboard.close()
            keyboard.close()
            os.write(ours, b"l")
            await wait_all_tasks_blocked()
            with keyboard.lent():
                pass
            assert termios.tcgetattr(theirs) == before
            nursery.cancel_scope.cancel()
        assert keys == ["k"]
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize("side", [0, 1], ids=["error", "end"])
async def test_a_terminal_that_is_gone_has_no_keys(side: int) -> None:
    """The command goes on without them, whether that is an end or an error."""
    ends = pty.openpty()
    keyboard = Keyboard(ends[side])
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hang_up, ends[1 - side])
            assert await keyboard.key() == ""
    with contextlib.suppress(termios.error):
        keyboard.close()
    os.close(ends[side])


async def _hang_up(fd: int) -> None:
    await wait_all_tasks_blocked()
    os.close(fd)


def test_what_is_no_terminal_of_ours_has_no_keyboard() -> None:
    """A file, nothing at all, and the terminal of another session."""
    assert keyboard_of(None) is None
    assert keyboard_of(io.StringIO()) is None
    ours, theirs = pty.openpty()
    try:
        with open(theirs, closefd=False) as stream:
            assert keyboard_of(stream) is None
    finally:
        os.close(theirs)
        os.close(ours)
