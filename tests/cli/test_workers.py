"""``agentpool map … --workers N``: processes that share the inputs, killed and frozen at will."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.cli_runner import Desk, make_desk
from tests.support.counting_model import counting_model
from tests.support.shared_maps import PATIENCE, SharedMap, end_all, is_stopped, send

MAP = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--journal", "j.db", "--workers", "2")


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", silent_toml='[[answers]]\nerror="asked"')
    return desk


def error(text: str) -> str:
    """Return the one line of *text* that says what is wrong."""
    (line,) = [line for line in text.splitlines() if line.startswith("agentpool: error: ")]
    return line.removeprefix("agentpool: error: ")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("--each a.txt --workers 2", "shares the inputs through a journal; add --journal FILE"),
        ("--each a.txt --journal j.db --lease 5", "--lease has no effect without --workers"),
        ("--each - --journal j.db --workers 2", "workers cannot share standard input; write it"),
        (
            "--each a.txt --journal j.db --workers 2 --trace t",
            "--trace works with one process only; leave",
        ),
        (
            "--each a.txt --journal j.db --workers 2 --approve later",
            "--approve later works with one",
        ),
        (
            "--each a.txt --journal j.db --workers 4 --max-concurrent 3",
            "4 workers divide --max-concurrent among them, but it is only 3; give a larger number",
        ),
        ("--each a.txt --journal j.db --workers 4 --rpm 3", "4 workers divide --rpm among them"),
        ("--each a.txt --journal j.db --workers 0", "must be a whole number >= 1, got '0'"),
    ],
)
def test_what_workers_cannot_do_is_refused(desk: Desk, words: str, wrong: str) -> None:
    """Before anything is opened."""
    done = desk.scripted("map", "reader.toml", *words.split())
    assert done.code == 2
    assert wrong in error(done.err)
    assert not Path("j.db").exists()


def test_the_results_are_those_of_one_process(desk: Desk) -> None:
    """In order, with the editor once; what cannot be read costs no other. Again, none is asked."""
    words = (*MAP[:5], "missing.txt", *MAP[5:], "--reduce", "editor.toml")
    first = desk.scripted(*words)
    notes = "## a.txt\n\nA note.\n\n## b.txt\n\nA note.\n\n## missing.txt (failed)\n\n"
    assert (first.code, first.out) == (1, f"{notes}## editor\n\nAll of it is fine.\n\n")
    assert error(first.err) == (
        "input 'missing.txt' cannot be read: No such file or directory; check the path"
    )
    silent = ("--driver", "script:silent.toml")
    again = (*MAP, *silent, "--reduce", "editor.toml")
    done = desk.call(*again, "--json")
    assert done.code == 0
    assert [line.get("text") for line in done.lines] == [
        "A note.", "A note.", "All of it is fine.", None,
    ]  # fmt: skip
    assert (first.err.splitlines()[-1].count("journal"), done.lines[-1]["from_journal"]) == (0, 3)
    resumed = desk.call("runs", "resume", "j.db")
    assert (resumed.code, resumed.out.count("A note.")) == (0, 2)
    assert " (3 from the journal) in " in resumed.err
    assert ", 0 tokens written (" in resumed.err
    # Which are refused: another text, other words, and one process alone.
    assert "add --workers, or name another" in error(desk.call(*MAP[:-2], *silent).err)
    other = desk.call(*again, "--prompt", "Who?")
    assert (other.code, other.out) == (2, "")
    assert "began 'map' with manifests or options that differ" in error(other.err)
    desk.write(a_txt="three")
    changed = desk.call(*again)
    assert changed.code == 2
    assert (
        "a.txt: journal 'j.db' already has an input with this key, but with a different"
        in error(changed.err)
    )


def test_progress_is_told_as_in_one_process(desk: Desk) -> None:
    """With the names of the files, and the whole path of those whose names are the same."""
    for folder in ("one", "two"):
        (desk.folder / folder).mkdir()
        (desk.folder / folder / "x.txt").write_text("text")
    (desk.folder / "two" / "y.txt").write_text("text")
    words = ("--each", "one", "two", "--journal", "j.db", "--workers", "2")
    done = desk.scripted("map", "reader.toml", *words)
    assert done.code == 0
    started = re.findall(r"\] (.*) started", done.err)
    assert sorted(started) == ["reader one/x.txt", "reader two/x.txt", "reader y.txt"]
    assert "[3/3] " in done.err.splitlines()[-2]


def test_without_an_answer_there_is_nothing_to_edit(desk: Desk) -> None:
    """Every input failed: the editor is not asked, and the command says so."""
    silent = ("--driver", "script:silent.toml")
    done = desk.call(*MAP, *silent, "--reduce", "editor.toml", "--json")
    assert done.code == 1
    assert (done.lines[-1]["completed"], done.lines[-1]["failed"]) == (0, 3)


def test_a_deadlock_in_a_worker_is_told(desk: Desk) -> None:
    """An agent that waits for nothing is told so in a worker too; it waited for ever."""
    desk.write(
        waiter_toml='name = "waiter"\n[[capabilities]]\ntype = "message"\n',
        script_toml='[[answers]]\ntool = "wait_for_message"\ntimes = 1\n\n'
        '[[answers]]\ntext = "Gone on."\n',
    )
    words = ("--each", "a.txt", "--journal", "j.db", "--workers", "2", "--json")
    done = desk.scripted("map", "waiter.toml", *words)
    assert (done.code, done.lines[0]["text"]) == (0, "Gone on.")
    assert done.lines[-1]["deadlocks"] == 1


def test_an_answer_that_cannot_be_written_ends_a_shared_map(desk: Desk) -> None:
    """The next run writes it without a request, and one whose input is gone is told."""
    (desk.folder / "out" / "a.txt").mkdir(parents=True)
    words = (*MAP, "--output-dir", "out")
    done = desk.scripted(*words)
    assert done.code != 0
    assert "a.txt" in error(done.err)
    (desk.folder / "out" / "a.txt").rmdir()
    desk.scripted(*words)
    (desk.folder / "b.txt").unlink()
    gone = desk.call(*words, "--driver", "script:silent.toml")
    assert gone.code == 1
    assert "input 'b.txt' cannot be read" in gone.out + gone.err


def test_a_map_of_one_process_is_not_shared(desk: Desk) -> None:
    """It would be asked again."""
    assert desk.scripted(*MAP[:-2]).code == 0
    done = desk.scripted(*MAP)
    assert done.code == 2
    assert error(done.err) == (
        "journal 'j.db' has a map that one process runs; leave out --workers, or name another "
        "--journal file"
    )


def test_what_no_worker_can_open_is_told_once(desk: Desk) -> None:
    """However many tried it."""
    done = desk.call(*MAP, "--model", "/nowhere.gguf")
    assert done.code == 2
    told = error(done.err)
    # What is missing first: llama.cpp, or the file.
    assert told.startswith(("the model file '/nowhere.gguf' cannot be read", "a local model needs"))
    assert done.err.count(told) == 1


def test_limits_of_the_command_hold_over_all_workers(tmp_path: Path) -> None:
    """Three requests are three, whoever makes them; --json tells what was spent."""
    with counting_model(0.05) as model:
        shared = SharedMap(tmp_path, model, 6, 30)
        command = shared.start("--max-requests", "3", "--json")
        try:
            _, err = command.communicate(timeout=PATIENCE)
            assert command.returncode == 3, err
            assert sum(model.counts().values()) == 3
        finally:
            end_all(shared, command)
        (out,) = tmp_path.glob("out-*")
        summary = json.loads(out.read_text().splitlines()[-1])
        assert (summary["completed"], summary["stopped"]) == (3, 4)
        assert summary["budget"]["requests"]["committed"] == 3


def test_killed_and_frozen_workers_are_replaced(tmp_path: Path) -> None:
    """One outcome for each input; only what was in flight is asked again, after the lease."""
    # Each answer takes so long that one worker has not done all before another one has begun;
    # the lease, that no worker which is only slow is taken for a frozen one.
    with counting_model(3.0) as model:
        shared = SharedMap(tmp_path, model, 12, 20)
        command = shared.start()
        try:
            pids = shared.wait_for_workers(2)
            model.wait_for(4)
            shared.stop_between_writes(pids[0])
            send(pids[1], signal.SIGKILL)
            # Whoever took the share of the frozen one over shows in the journal.
            until = time.monotonic() + 2 * PATIENCE
            while pids[0] in shared.workers_now():
                assert time.monotonic() < until
                time.sleep(0.5)
            send(pids[0], signal.SIGCONT)
            _, err = command.communicate(timeout=2 * PATIENCE)
            assert command.returncode == 0, err
            assert "has been silent for 20 seconds; another one takes over its inputs" in err
            assert "ended (SIGKILL); another one continues" in err
            assert shared.faults_after(6) == []
        finally:
            end_all(shared, command)


def test_a_worker_that_is_frozen_while_it_writes_is_ended(tmp_path: Path) -> None:
    """Nobody can take the file from it, and the others fail for nothing: its lease is the bound."""
    with counting_model(0.2) as model:
        model.more = "." * 200_000  # which takes its time to be written
        # So many that one is met at it before all is written, however seldom this process runs.
        shared = SharedMap(tmp_path, model, 60, 6)
        command = shared.start("--output-dir", "out")
        try:
            shared.wait_for_workers(2)
            shared.stop_within_a_write()
            model.more = ""
            _, err = command.communicate(timeout=2 * PATIENCE)
            assert command.returncode == 0, err
            assert "is stopped and blocks the journal for all others, so it is ended" in err
            assert "ended (SIGKILL); another one continues" in err
            assert set(shared.outcomes().values()) == {1}
        finally:
            end_all(shared, command)


def test_nothing_is_left_of_a_command_that_is_killed(tmp_path: Path) -> None:
    """Not a worker that is stopped either. Again with Ctrl-C, and then to the end."""
    with counting_model(0.5) as model:
        shared = SharedMap(tmp_path, model, 8, 30)
        commands: list[subprocess.Popen[str]] = []
        try:
            commands.append(shared.start())
            pids = shared.wait_for_workers(2)
            model.wait_for(1)
            send(pids[0], signal.SIGSTOP)
            while not is_stopped(pids[0]):
                time.sleep(0.01)
            commands[0].kill()
            assert shared.left_over() == []
            commands.append(shared.start())
            shared.wait_for_workers(2)
            commands[1].send_signal(signal.SIGINT)
            _, err = commands[1].communicate(timeout=2 * PATIENCE)
            assert commands[1].returncode == 130, err
            assert shared.left_over() == []
            commands.append(shared.start())
            _, err = commands[2].communicate(timeout=2 * PATIENCE)
            assert commands[2].returncode == 0, err
            assert shared.faults_after(12) == []
        finally:
            end_all(shared, *commands)
