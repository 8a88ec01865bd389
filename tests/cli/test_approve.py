"""``--approve``: a person at a real terminal has the word, or nobody has."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Generator
from inspect import isawaitable
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool._cli._screen import Screen
from agentpool._cli._terminal_approver import MAX_CHOICES, Prompter, choose_approver, open_prompter
from agentpool.abc import AgentId
from agentpool.drivers import ToolCall
from agentpool.live import ApprovalDesk, Board
from agentpool.observe import AgentStarted
from agentpool.tools import ApprovalRequest, Approved, Decision, Denied
from tests.support.cli_runner import Desk, make_desk
from tests.support.terminal import at_terminal, pty, termios

WRITER = """
name = "writer"
[model]
system_prompt = "You write."
[[capabilities]]
type = "file_write"
allowed_paths = ["."]
ask_first = true
"""

SCRIPT = """
[[answers]]
when = "write it"
tool = "file_write"
arguments = { path = "a.txt", content = "one" }
[[answers]]
when = "Wrote"
tool = "file_write"
arguments = { path = "b.txt", content = "two" }
times = 1
[[answers]]
when = "keep it"
text = "So I leave it."
[[answers]]
when = "no terminal"
text = "Nobody was there."
[[answers]]
when = "refuses every call"
text = "It was refused."
[[answers]]
text = "Done."
"""

COMMAND = ("run", "writer.toml", "write it", "--driver", "script:script.toml")

QUESTION = "a always for file_write, l later: "


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with an agent that writes files, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(writer_toml=WRITER, script_toml=SCRIPT)
    return desk


def test_yes_runs_the_call(desk: Desk) -> None:
    """The question says who wants what; each call has its own."""
    with at_terminal(desk, COMMAND) as person:
        asked = person.wait_for(QUESTION)
        assert '{"path":"a.txt","content":"one"}' in asked.replace('": ', '":').replace(", ", ",")
        assert "agent 1, writer, asks to call file_write with this:" in asked
        person.type("y\n")
        person.wait_for(QUESTION)
        person.type("YES\n")
        person.wait_for("completed in")
    assert (desk.folder / "a.txt").read_text() == "one"
    assert (desk.folder / "b.txt").read_text() == "two"


def test_no_refuses_it_and_the_model_is_told_why(desk: Desk) -> None:
    """What is not an answer is asked again; an empty line approves nothing."""
    with at_terminal(desk, COMMAND) as person:
        person.wait_for(QUESTION)
        person.type("\n")
        person.wait_for("answer with one of these letters")
        person.type("n\n")
        person.wait_for("why not? ")
        person.type("keep it\n")
        person.wait_for("So I leave it.")
        person.wait_for("completed in")
    assert not (desk.folder / "a.txt").exists()


def test_edit_runs_it_with_other_arguments(desk: Desk) -> None:
    """What is not a JSON object goes back to the question."""
    with at_terminal(desk, COMMAND) as person:
        for typed, told in (("{", "not valid JSON"), ("[1]", "a JSON object"), ("", "y yes")):
            person.wait_for(QUESTION)
            person.type("e\n")
            person.wait_for("on one line: ")
            person.type(f"{typed}\n")
            person.wait_for(told)
        person.wait_for(": ")
        person.type("e\n")
        person.wait_for("on one line: ")
        person.type('{"path": "c.txt", "content": "other"}\n')
        person.wait_for(QUESTION)
        person.type("n\n\n")
        person.wait_for("completed in")
    assert (desk.folder / "c.txt").read_text() == "other"
    assert not (desk.folder / "a.txt").exists()


def test_always_asks_no_more_for_this_tool(desk: Desk) -> None:
    """One answer, two calls."""
    with at_terminal(desk, COMMAND) as person:
        person.wait_for(QUESTION)
        person.type("a\n")
        person.wait_for("completed in")
        assert person.seen.count("asks to call") == 1
    assert (desk.folder / "b.txt").read_text() == "two"


def test_ctrl_c_at_a_question_ends_the_command(desk: Desk) -> None:
    """As everywhere: 130, the cursor is there, and the terminal is set as it was."""
    with at_terminal(desk, COMMAND, code=130) as person:
        person.wait_for(QUESTION)
        person.type("y\x03")
        person.wait_for("; interrupted: SIGINT")
        person.process.wait(30)
        assert termios.tcgetattr(person.fd) == person.settings
        text = person.seen
    assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l")
    assert "Traceback" not in text
    assert not (desk.folder / "a.txt").exists()


def test_ctrl_d_is_no_approval(desk: Desk) -> None:
    """The end of input says nothing, and nothing said is no."""
    with at_terminal(desk, COMMAND) as person:
        person.wait_for(QUESTION)
        person.type("\x04")
        person.wait_for("completed in")
    assert not (desk.folder / "a.txt").exists()


def test_what_was_typed_before_the_question_is_no_answer(desk: Desk) -> None:
    """Somebody who leans on the return key, or on y, has not read anything."""
    desk.write(script_toml=SCRIPT.replace('"one" }', '"one" }\nseconds = 1.0'))
    with at_terminal(desk, COMMAND) as person:
        person.wait_for("running")
        person.type("y\ny\n")
        person.wait_for(QUESTION)
        person.type("n\nkeep it\n")
        person.wait_for("So I leave it.")
    assert not (desk.folder / "a.txt").exists()


def test_what_a_model_wrote_does_not_steer_the_terminal(desk: Desk) -> None:
    """Nor does it hide: characters without a picture and without an end are shown."""
    forged = 'content = "\\u001b[2J\\u202e' + "x" * 2000 + '"'
    desk.write(script_toml=SCRIPT.replace('content = "one"', forged))
    with at_terminal(desk, COMMAND) as person:
        asked = person.wait_for("s show all: ")
        assert "u001b[2J" in asked
        assert "u202e" in asked
        assert "\x1b[2J" not in asked
        assert "\u202e" not in asked
        assert re.search(r"… and 1\d\d\d more characters", asked)
        person.type("s\n")
        person.wait_for("x" * 2000)
        person.type("n\n\n")
        person.wait_for("completed in")


def test_never_and_always_ask_nobody(desk: Desk) -> None:
    """The first runs nothing, the second everything."""
    done = desk.call(*COMMAND, "--approve", "never")
    assert (done.code, done.out) == (0, "It was refused.\n")
    assert "writer may not call file_write: --approve never" in done.err
    assert not (desk.folder / "a.txt").exists()
    done = desk.call(*COMMAND, "--approve", "always", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert (desk.folder / "b.txt").read_text() == "two"


def test_without_a_terminal_nothing_runs_unasked(desk: Desk) -> None:
    """The model is told, and the person as well."""
    done = desk.call(*COMMAND)
    assert (done.code, done.out) == (0, "Nobody was there.\n")
    assert (
        "may not call file_write: without a terminal there is no way to ask; see --ap" in done.err
    )
    assert not (desk.folder / "a.txt").exists()


def test_another_word_is_refused(desk: Desk) -> None:
    """Before anything runs."""
    done = desk.call(*COMMAND, "--approve", "maybe")
    assert done.code == 2
    assert "--approve" in done.err


# --- the parts, on a terminal of this process ------------------------------


@attrs.define(eq=False)
class Line:
    """Both ends of a terminal, and who asks there."""

    ours: int
    theirs: int
    prompter: Prompter
    screen: Screen
    seen: str = ""

    async def wait_for(self, text: str) -> None:
        """Read until *text* is the end of what was shown."""
        with trio.fail_after(30):
            while not self.seen.endswith(text):
                await trio.lowlevel.wait_readable(self.ours)
                self.seen += os.read(self.ours, 65536).decode()

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.ours, text.encode())

    async def ask(self, said: list[Decision], arguments: str = "{}") -> None:
        """Ask whether to erase, and keep what was said."""
        call = ToolCall("c1", "erase", arguments)
        said.append(await self.prompter.ask(ApprovalRequest(AgentId(1), "reader", call, None)))


ASKED = "a always for erase: "


@pytest.fixture
def line() -> Generator[Line]:
    """Return a terminal."""
    ours, theirs = pty.openpty()
    with contextlib.suppress(OSError), os.fdopen(theirs, "w", encoding="utf-8") as stream:
        screen = Screen(stream, stream)
        yield Line(ours, theirs, Prompter(screen, theirs), screen)
    with contextlib.suppress(OSError):
        os.close(ours)


async def test_who_waits_behind_an_always_is_not_asked(line: Line) -> None:
    """Several calls of one answer ask at the same time, and one word is for all of them."""
    said: list[Decision] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.ask, said)
        nursery.start_soon(line.ask, said)
        await line.wait_for(ASKED)
        line.type("always\n")
    assert said == [Approved(), Approved()]
    await line.wait_for(ASKED + "always\r\n")
    assert line.seen.count("asks to call") == 1


async def test_arguments_cannot_pass_for_a_question(line: Line) -> None:
    """They are one line, whatever a model writes into them."""
    said: list[Decision] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.ask, said, "{}\nreader asks to call look\x1b[8m")
        await line.wait_for(ASKED)
        line.type("y\n")
    assert line.seen.startswith(
        "agent 1, reader, asks to call erase with this:\r\n"
        "  {}\\nreader asks to call look\\x1b[8m\r\ny yes"
    )


@pytest.mark.parametrize(
    "filler", [" " * 2399, "\n" * 99, "\r\x1b[2J", "\u3164" * 900, "\u2800" * 900, "\u034f" * 900,
               "\u200b" * 900, "\u00a0" * 900, "\ufe0f\u115f\uffa0\U000e0100" * 200]
)  # fmt: skip
async def test_a_name_cannot_pass_for_what_is_asked(line: Line, filler: str) -> None:
    """A model chooses the name of its child, and once had other arguments approved with it."""
    name = f'x{filler}  {{"path": "notes.txt", "content": "buy bread"}}{filler}writer'
    call = ToolCall("c1", "erase", '{"path": "evil.sh"}')
    request = ApprovalRequest(AgentId(7), name, call, None, AgentId(3))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.prompter.ask, request)
        await line.wait_for(ASKED)
        line.type("y\n")
    who, what, question = line.seen.split("\r\n")[:3]
    assert who.startswith("agent 7, child of agent 3, x")
    assert who.endswith(", asks to call erase with this:")
    assert len(who) < 140
    assert who.isprintable()
    assert what == '  {"path": "evil.sh"}'
    assert question.startswith("y yes")


async def test_after_all_is_shown_who_asks_is_said_again(line: Line) -> None:
    """Long arguments may have pushed it off the screen."""
    said: list[Decision] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.ask, said, "x" * 1001)
        await line.wait_for("s show all: ")
        line.type("s\n")
        letters = "y yes, n no, e edit, a always for erase, s show all: "
        await line.wait_for(f"that is what agent 1, reader, asks to call erase with\r\n{letters}")
        line.type("y\n")


async def test_nothing_is_written_across_a_question(line: Line) -> None:
    """A line of another agent waits until it is answered."""
    said: list[Decision] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.ask, said)
        await line.wait_for(ASKED)
        nursery.start_soon(line.screen.write_lines, ["another agent started"])
        await wait_all_tasks_blocked(0.01)
        line.type("y\n")
    await line.wait_for(ASKED + "y\r\nanother agent started\r\n")


async def test_a_cancelled_question_leaves_nothing_behind(line: Line) -> None:
    """No thread that takes the next line, no lock, and others may write again."""
    said: list[Decision] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.ask, said)
        await line.wait_for(ASKED)
        nursery.cancel_scope.cancel()
    await line.screen.write_lines(["the next"])
    await line.wait_for(ASKED + "\r\nthe next\r\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.ask, said)
        await line.wait_for(ASKED)
        line.type("y\n")
    assert said == [Approved()]


async def test_a_terminal_that_is_hung_up_approves_nothing(line: Line) -> None:
    """It is an error of whoever was to be asked, and then the call is refused."""
    said: list[Decision] = []

    async def hang_up() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.ask, said)
            await line.wait_for(ASKED)
            os.close(line.ours)

    with pytest.RaisesGroup(OSError):
        await hang_up()
    assert said == []


def test_a_screen_without_a_keyboard_has_nothing_to_ask_at(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard input may be a file while the rest is a terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert line.screen.is_terminal
    assert open_prompter(line.screen) is None


async def test_of_many_agents_some_are_listed_and_all_can_be_chosen(line: Line) -> None:
    """The list leaves room for the question; its end says how many there are besides."""
    board = Board(25)
    for number in range(1, 26):
        board.on_event(AgentStarted(number, 0.0, AgentId(number), f"reader {number}"))
    chosen: list[AgentId | None] = []

    async def choose() -> None:
        chosen.append(await line.prompter.choose_agent(board))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(choose)
        await line.wait_for("nothing for none: ")
        line.type("25\n")
    assert chosen == [25]
    assert f"{MAX_CHOICES} reader {MAX_CHOICES}, " in line.seen
    assert f"{MAX_CHOICES + 1} reader" not in line.seen
    assert "  and 5 more\r\n" in line.seen


async def test_with_a_live_page_both_are_asked(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever decides first decides, and the question at the terminal is over."""
    with os.fdopen(os.dup(line.theirs), encoding="utf-8") as stdin:  # noqa: ASYNC231  # it is open
        monkeypatch.setattr(sys, "stdin", stdin)
        live = ApprovalDesk()
        approve = choose_approver("ask", line.screen, Board(1), live)
        request = ApprovalRequest(AgentId(1), "reader", ToolCall("c", "erase", "{}"), None)
        said: list[Decision] = []

        async def ask() -> None:
            waiting = approve(request)
            assert isawaitable(waiting)
            said.append(await waiting)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await line.wait_for(ASKED)
            assert live.decide(1, Denied("no", by="the live page"))
        assert said == [Denied("no", by="the live page")]
        monkeypatch.undo()


def test_a_question_can_be_put_off(desk: Desk) -> None:
    """Its agent waits meanwhile, the display says so, and ``a`` asks again."""
    with at_terminal(desk, COMMAND) as person:
        person.wait_for(QUESTION)
        person.type("l\n")
        person.wait_for("a answers 1 that wait")
        person.type("a")
        person.wait_for(QUESTION)
        person.type("y\n")
        person.wait_for(QUESTION)
        person.type("n\nkeep it\n")
        person.wait_for("So I leave it.")
    assert (desk.folder / "a.txt").read_text() == "one"
