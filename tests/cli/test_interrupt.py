"""Ctrl-C, SIGTERM and a closed terminal: agents end in good order.

Results are kept, and the second is final.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agentpool._cli import main
from agentpool._cli._interrupt import Interruption, kept_handlers, watch_signals
from agentpool._cli._report import ExitCode
from tests.support.cli_runner import Desk, make_desk

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent with kill")


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="endless", c_txt="endless too", d_txt="four", e_txt="five")
    return desk


MAP = (
    "map", "reader.toml", "--each", "a.txt", "b.txt", "c.txt", "d.txt", "e.txt",
    "--reduce", "editor.toml", "--max-concurrent", "2", "--driver", "script:slow.toml",
)  # fmt: skip

# The first is done at once; the next two get out one word, and then nothing comes.
SLOW = """
[[answers]]
when = "endless"
text = "Half of it"
seconds = 3600
[[answers]]
text = "A note."
"""


@pytest.mark.parametrize("module", ["agentpool._cli._main", "agentpool._cli._show"])
def test_ctrl_c_while_the_command_is_imported(module: str) -> None:
    """The imports of a command take a while, and then it says as much as later."""
    code = f"""
import signal, sys
class Presses:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
from agentpool._cli import main
sys.meta_path.insert(0, Presses())
sys.exit(main(["--version"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "agentpool: interrupted\n")
    assert done.returncode == ExitCode.INTERRUPTED


def wait_for(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read standard error until *text* was there; return what was read."""
    assert process.stderr is not None
    seen = b""
    while text not in seen:
        piece = process.stderr.readline()
        assert piece, seen.decode()
        seen += piece
    return seen


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_during_map_keeps_what_there_is(desk: Desk, name: str) -> None:
    """Done is printed, partial is printed and marked, the rest is marked; exit 130."""
    desk.write(slow_toml=SLOW)
    process = desk.start(*MAP)
    wait_for(process, b"c.txt started")
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.decode() == (
        "## a.txt\n\nA note.\n\n"
        "## b.txt (cancelled)\n\nHalf \n\n"
        "## c.txt (cancelled)\n\nHalf \n\n"
        "## d.txt (cancelled)\n\n"
        "## e.txt (cancelled)\n\n"
        "## editor (cancelled)\n\n"
    )
    assert f"{name}: ending the agents" in err.decode()
    assert "1 completed, 5 cancelled in" in err.decode()
    assert f"; interrupted: {name}" in err.decode()
    assert b"Traceback" not in err
    assert b"editor started" not in err


def test_json_after_an_interruption_has_all_objects(desk: Desk) -> None:
    """A reader of the stream finds every input, and a summary that says so."""
    desk.write(slow_toml=SLOW)
    process = desk.start(*MAP, "--json")
    wait_for(process, b"c.txt started")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    *outcomes, summary = map(json.loads, out.splitlines())
    assert [one["status"] for one in outcomes] == ["completed", *["cancelled"] * 5]
    assert outcomes[0]["input"] == "a.txt"
    by_input = {one["input"]: one for one in outcomes}
    assert len(outcomes) == len(by_input)
    assert set(by_input) == {"a.txt", "b.txt", "c.txt", "d.txt", "e.txt", None}
    assert by_input["b.txt"]["error"]["type"] == "AgentCancelledError"
    assert by_input[None]["error"] is None
    assert (summary["interrupted"], summary["exit_code"]) == (True, 130)
    assert process.returncode == 130


def test_what_began_before_its_turn_to_be_printed_is_printed_all_the_same(desk: Desk) -> None:
    """Of two sources the second is at work while files of the first were not even read."""
    desk.write(slow_toml=SLOW)
    process = desk.start(
        "map", "reader.toml", "--each", "a.txt", "d.txt", "e.txt", "f.txt", "--each", "b.txt",
        "--max-concurrent", "1", "--driver", "script:slow.toml",
    )  # fmt: skip
    wait_for(process, b"b.txt started")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.decode() == (
        "## a.txt\n\nA note.\n\n"
        "## d.txt (cancelled)\n\n"
        "## e.txt (cancelled)\n\n"
        "## f.txt (cancelled)\n\n"
        "## b.txt (cancelled)\n\nHalf \n\n"
    )


def test_the_second_ctrl_c_ends_the_program_at_once(desk: Desk) -> None:
    """Here the agents' end is held up by output that nobody takes."""
    desk.write(slow_toml='[[answers]]\nwhen = "one"\ntext = "' + "x" * 200_000 + '"\n' + SLOW)
    process = desk.start(*MAP)
    wait_for(process, b"c.txt started")
    process.send_signal(signal.SIGINT)
    wait_for(process, b"interrupt again to end the program at once")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT
    process.communicate()


def test_ctrl_c_before_there_is_a_pool(desk: Desk) -> None:
    """Nothing has run, and nothing is left. The script is a pipe that says nothing."""
    os.mkfifo(desk.folder / "slow.toml")
    process = desk.start(*MAP)
    # Opening it waits until the command has opened it as well.
    with (desk.folder / "slow.toml").open("w"):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"agentpool: nothing done in" in err
    assert b"interrupted: SIGINT" in err
    assert b"Traceback" not in err


def test_ctrl_c_before_there_is_an_event_loop(desk: Desk) -> None:
    """The manifest is a pipe that says nothing.

    A signal that comes between two instructions, just before a read begins, does not end
    that read: in CPython, as in C. A person presses again, and so does this test.
    """
    os.mkfifo(desk.folder / "pipe.toml")
    process = desk.start("run", "pipe.toml", "Why?")
    with (desk.folder / "pipe.toml").open("w"):
        for _ in range(60):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
                break
    assert process.returncode == 130
    assert process.communicate()[1] == b"agentpool: interrupted\n"


def test_ctrl_c_while_the_query_is_typed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no event loop yet, and no traceback either."""

    class Keyboard:
        @property
        def buffer(self) -> object:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Keyboard())
    done = desk.scripted("run", "reader.toml", "-")
    assert (done.code, done.err) == (130, "agentpool: interrupted\n")


READS_PIPE = """
[[answers]]
tool = "shell"
arguments = { command = "cat pipe" }
times = 1
[[answers]]
text = "Read."
"""


@pytest.mark.parametrize(
    "words", [("run", "cat.toml", "Go"), ("chat", "cat.toml")], ids=["run", "chat"]
)
def test_a_closed_terminal_ends_the_programs_of_agents(desk: Desk, words: tuple[str, ...]) -> None:
    """They have process groups of their own, which the system does not tell."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    desk.write(
        cat_toml='name="cat"\n[[capabilities]]\ntype="shell"\nallowed_commands=["cat"]\n',
        pipe_toml=READS_PIPE,
    )
    os.mkfifo(desk.folder / "pipe")
    process, terminal = pty.fork()
    if process == 0:  # pragma: no cover  # another program from here on
        os.execv(  # noqa: S606  # no shell is wanted
            sys.executable,
            [sys.executable, "-m", "agentpool", *words, "--driver", "script:pipe.toml"],
        )
    if words[0] == "chat":
        os.write(terminal, b"Go\n")
    # Opening it waits until the program has opened it as well.
    with (desk.folder / "pipe").open("wb", buffering=0) as pipe:
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
        with pytest.raises(BrokenPipeError):
            pipe.write(b"Is anybody there?")


def test_handlers_are_as_they_were(desk: Desk) -> None:
    """Whoever calls ``main`` from a program keeps his own."""
    all_three = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(one) for one in all_three]
    with kept_handlers():
        for one in all_three:
            signal.signal(one, signal.SIG_IGN)
        assert main(["check", "reader.toml"]) == 0
    assert [signal.getsignal(one) for one in all_three] == before


def test_only_the_first_call_counts() -> None:
    """The reason that is reported is the one that it was."""
    interruption = Interruption()
    interruption.call("first")
    interruption.call("second")
    assert interruption.reason == "first"
    assert interruption.scope.cancel_called


async def test_who_knows_how_to_stop_is_asked() -> None:  # noqa: ASYNC124  # its scope is trio's
    """Then nothing is cut off."""
    reasons: list[str] = []
    interruption = Interruption()
    interruption.stop_with(reasons.append)
    interruption.call("enough")
    assert reasons == ["enough"]
    assert not interruption.scope.cancel_called


async def test_after_the_first_signal_the_system_handles_the_next() -> None:
    """That works even when this program no longer gets round to anything."""
    interruption = Interruption()
    with kept_handlers():
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, interruption)
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.reason == "SIGTERM"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


async def test_a_hangup_that_comes_twice_is_one() -> None:
    """The shell tells of it, and the system as well; the agents are still ending."""
    interruption = Interruption()
    with kept_handlers():
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, interruption)
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.reason == "SIGHUP"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_hangup_that_is_ignored_stays_so() -> None:
    """As ``nohup`` wants it."""
    interruption = Interruption()
    with kept_handlers():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, interruption)
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.reason == "SIGTERM"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
