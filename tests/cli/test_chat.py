"""``agentpool chat`` and ``run --session``: conversations in the terminal that are kept."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentpool._cli import main
from tests.support.cli_runner import Desk, Done, make_desk
from tests.support.small_disk import SMALL_BYTES, small_files

ECHO = "".join(
    f'[[answers]]\nwhen="{word}"\ntext="about {word}"\n' for word in ("cats", "dogs", "birds")
)
SLOW = f'[[answers]]\nwhen="endless"\ntext="{"on " * 7200}"\nseconds=3600\n'
SHELF = '[[answers]]\nwhen="broken"\nerror="it is out of order"\n' + SLOW + ECHO


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and a script, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(shelf_toml=SHELF)
    return desk


def say(desk: Desk, monkeypatch: pytest.MonkeyPatch, *lines: str, words: str = "") -> Done:
    """Chat with the reader, and type *lines*."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return desk.call("chat", "reader.toml", "--driver", "script:shelf.toml", *words.split())


def test_a_chat_is_kept_and_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a name; and a run can be a turn of it."""
    first = say(desk, monkeypatch, "cats?", "", "dogs?", words="--session zoo")
    assert (first.code, first.out) == (0, "about cats\nabout dogs\n")
    assert "(session zoo: 0 turns; /help says more)" in first.err
    words = ("run", "reader.toml", "birds?", "--session", "zoo", "--driver", "script:shelf.toml")
    assert desk.call(*words).out == "about birds\n"
    then = say(desk, monkeypatch, "/history", words="--session zoo --quiet")
    assert then.out == "> cats?\nabout cats\n> dogs?\nabout dogs\n> birds?\nabout birds\n"
    assert "(session" not in then.err
    listed = desk.call("runs", "list", "agentpool.db").out
    assert listed.startswith("session zoo: 3 of 3 agents ended")


def test_an_answer_that_is_known_is_shown_without_a_request(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not streamed then, so it is written as a whole: the kill came after the answer."""
    assert say(desk, monkeypatch, "cats?", words="--session zoo").out == "about cats\n"
    with contextlib.closing(sqlite3.connect(desk.folder / "agentpool.db")) as file:
        file.execute("DELETE FROM records WHERE kind = 'ended'")
        file.commit()
    desk.write(shelf_toml='[[answers]]\nerror = "it must not be asked"\n')
    done = say(desk, monkeypatch, "/again", words="--session zoo")
    assert (done.code, done.out) == (0, "about cats\n")
    done = say(desk, monkeypatch, words="--session zoo")
    assert "(session zoo: 1 turn; /help says more)" in done.err


def test_a_chat_without_a_name_leaves_no_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be branched all the same."""
    done = say(
        desk, monkeypatch, "/sessions", "/history", "cats?", "/branch b", "/sessions", "/exit"
    )
    assert (done.code, done.out) == (0, "nothing was said yet\nabout cats\n")
    assert done.err.splitlines()[-2:] == ["chat", "b"]
    assert not (desk.folder / "agentpool.db").exists()


def test_turns_are_taken_back_and_branched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is not understood is said, and nothing is sent."""
    done = say(
        desk, monkeypatch,
        "cats?", "/branch", "/branch one", "dogs?", "/undo 2", "/undo 9", "/undo x", "/nope",
        "/model", " /cats", "/sessions", "/again", "/help", "/quit", "birds?",
        words="--session zoo --journal z.db",
    )  # fmt: skip
    assert (done.code, done.out.splitlines()) == (0, ["about cats", "about dogs", "about cats"])
    assert "(there is no command /nope; see /help)" in done.err
    assert "(there is no command /model; see /help)" in done.err
    assert "(no turn was cut off, so /again has nothing to go on with)" in done.err
    assert "(session 'one' has 0 turns; cannot undo 9)" in done.err
    assert "(turns left: 0)" in done.err
    assert "a session's name must be a line of text, got ''" in done.err
    assert "zoo\none\n" in done.err
    assert "/undo [N]" in done.err
    assert desk.call("runs", "list", "z.db").out.count("\n") == 2


def test_a_chat_without_its_trace_is_no_success(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said is there, and the exit code says that the file is not whole."""
    with small_files():
        done = say(desk, monkeypatch, f"cats? {'x' * SMALL_BYTES}", words="--trace a.trace")
    assert (done.code, done.out) == (5, "about cats\n")
    assert "is not complete: File too large" in done.err


def test_what_fails_is_no_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code says that there was one."""
    done = say(desk, monkeypatch, "broken", "dogs?", "/history")
    assert (done.code, done.out) == (1, "about dogs\n> dogs?\nabout dogs\n")
    assert "(failed: it is out of order)" in done.err


def test_a_model_that_cannot_be_opened_costs_no_chat(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before goes on; without one there is no chat."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("cats?\n/model nobody/knows\ndogs?\n"))
    desk.write(loose_toml='name = "loose"\nprivacy = "Standard"\ncapabilities = []\n')
    done = desk.call("chat", "loose.toml", "--driver", "script:shelf.toml")
    assert done.code == 0
    assert done.out.splitlines() == ["about cats", "about dogs"]
    assert "agentpool: error: loose.toml" in done.err or "--model must be" in done.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("cats?\n"))
    done = desk.call("chat", "--model", "nobody")
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("chat", "a.toml", "b.toml"), "a chat has one manifest, got 2"),
        (("chat", "--journal", "j.db"), "--journal has no effect in a chat without --session"),
        (("run", "a.toml", "b.toml", "Why?", "--session", "x"), "has one manifest, got 2"),
        (("chat", "--session", ""), "a session's name must be a line of text"),
    ],
)
def test_what_has_no_meaning_is_refused(desk: Desk, words: tuple[str, ...], why: str) -> None:
    """Before anything is opened."""
    done = desk.call(*words)
    assert done.code == 2
    assert why in done.err


# --- what is pressed, in this process


class Keys(io.StringIO):
    """Somebody at a terminal, with a line or a key at each prompt."""

    def __init__(self, seen: io.StringIO, *typed: str) -> None:
        """Type *typed*: a line, or the name of a signal and what is to be seen after it."""
        super().__init__()
        self.seen, self.typed, self.is_left = seen, list(typed), False

    def isatty(self) -> bool:
        """It is one."""
        return True

    def readline(self, _size: int | None = -1, /) -> str:  # type: ignore[override]  # typeshed's base has bytes
        """Return the next line."""
        # Signals are handled in another thread, which has its own time.
        while self.typed and self.typed[0].startswith("SIG"):
            name, _, after = self.typed.pop(0).partition(" ")
            os.kill(os.getpid(), signal.Signals[name])
            while after not in self.seen.getvalue() and not self.is_left:
                time.sleep(0.01)
        return f"{self.typed.pop(0)}\n" if self.typed else ""


class Paper(io.StringIO):
    """Standard output on which *text* is seen, and a key is pressed then, once."""

    def __init__(self, text: str, key: signal.Signals) -> None:
        """Look for *text*."""
        super().__init__()
        self.text, self.key, self.pressed = text, key, False

    def write(self, text: str, /) -> int:
        """Take *text*."""
        if self.text in text and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), self.key)
        return super().write(text)


def press(
    monkeypatch: pytest.MonkeyPatch, paper: io.StringIO, *typed: str, words: str = ""
) -> tuple[int, str]:
    """Chat with the reader; return the exit code and what stood on standard error."""
    errors = io.StringIO()
    with monkeypatch.context() as patch:
        keys = Keys(errors, *typed)
        patch.setattr(sys, "stdin", keys)
        patch.setattr(sys, "stdout", paper)
        patch.setattr(sys, "stderr", errors)
        command = f"chat reader.toml --driver script:shelf.toml --approve never {words}"
        code = main(command.split())
        keys.is_left = True
        return code, errors.getvalue()


def test_signals_end_what_they_should(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C the turn, and twice at the prompt the chat; SIGTERM the chat with its turn."""
    paper = Paper("on", signal.SIGINT)
    code, errors = press(
        monkeypatch, paper, "endless", "cats?", "SIGINT press it again", "SIGINT the end"
    )
    assert code == 130
    assert "(the turn was ended, and is not part of the conversation)\n> " in errors
    assert paper.getvalue().splitlines()[-1] == "about cats"
    paper = Paper("on", signal.SIGTERM)
    code, _ = press(monkeypatch, paper, "endless", words="--session zoo")
    assert code == 130
    desk.write(shelf_toml='[[answers]]\ntext="<think>hm</think>At last."\n')
    paper = Paper("nothing", signal.SIGTERM)
    code, errors = press(monkeypatch, paper, "/again", words="--session zoo --quiet")
    assert code == 0
    assert "/again" not in errors
    assert paper.getvalue().splitlines()[-1] == "At last."


def test_a_turn_that_is_stopped_is_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said so far is part of the conversation."""
    done = say(desk, monkeypatch, "endless", "/history", words="--deadline 0.5")
    assert done.code == 0
    assert "(stopped: " in done.err
    assert done.out.count("> endless") == 1


def test_tools_are_named_as_they_are_called(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what is said."""
    desk.write(
        reader_toml='name = "reader"\n[[capabilities]]\ntype = "memory"\n',
        shelf_toml='[[answers]]\nwhen="cats"\ntool="recall"\n'
        'arguments={query="x"}\n[[answers]]\ntext="None."\n',
    )
    done = say(desk, monkeypatch, "cats")
    assert (done.code, done.out) == (0, "None.\n")
    assert "(calls recall)" in done.err


def test_output_that_nobody_reads_ends_the_chat(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it ends every command."""

    class Closed(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise BrokenPipeError

    assert press(monkeypatch, Closed(), "cats?")[0] == 130
    assert desk.folder.exists()


# --- on a terminal


class Person:
    """Somebody at a terminal who chats."""

    def __init__(self, desk: Desk, *words: str) -> None:
        """Start the chat."""
        pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
        self.ours, theirs = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentpool", "chat", "reader.toml",
             "--driver", "script:shelf.toml", *words],
            cwd=desk.folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def see(self, text: str) -> None:
        """Read until *text* is there."""
        while text not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], 30)
            assert ready, self.seen
            piece = os.read(self.ours, 4096)
            assert piece, self.seen
            self.seen += piece.decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self.ours, f"{line}\n".encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait for the end, and return the exit code."""
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            os.close(self.ours)


def test_ctrl_c_ends_the_turn_and_not_the_chat(desk: Desk) -> None:
    """What was written of it is seen, and is not part of the conversation."""
    person = Person(desk, "--session", "zoo")
    person.see("> ")
    person.type("endless")
    person.see("on")
    person.interrupt()
    person.see("(the turn was ended, and is not part of the conversation)")
    person.see("> ")
    person.type("cats?")
    person.see("about cats")
    person.see("> ")
    person.type("/history")
    person.see("> cats?")
    person.see("> ")
    person.interrupt()
    person.see("press it again to end the chat")
    person.type("dogs?")
    person.see("about dogs")
    person.see("> ")
    person.interrupt()
    person.see("press it again to end the chat")
    person.interrupt()
    assert person.end() == 130


def test_a_turn_that_a_kill_cut_off_goes_on(desk: Desk) -> None:
    """With /again, or when the same is said."""
    person = Person(desk, "--session", "zoo")
    person.see("> ")
    person.type("endless")
    person.see("on")
    person.process.kill()
    person.end()
    desk.write(shelf_toml=ECHO + '[[answers]]\ntext="At last."\n')
    person = Person(desk, "--session", "zoo")
    person.see("(the last turn was cut off; /again goes on with it: endless)")
    person.see("> ")
    person.type("/again")
    person.see("At last.")
    person.see("> ")
    person.process.send_signal(signal.SIGTERM)
    assert person.end() == 130
