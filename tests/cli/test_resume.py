"""``agentpool runs resume``: the command that a journal is of is run again, and goes on."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.drivers import FunctionDriver
from agentpool.journal import open_journal
from tests.support.cli_runner import Desk, make_desk

MAP = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--journal", "j.db")


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", c_txt="three")
    return desk


def change_command(desk: Desk, change: str | bytes) -> None:
    """Change the command that the journal has."""
    with contextlib.closing(sqlite3.connect(desk.folder / "j.db")) as file:
        file.execute("UPDATE facts SET value = ? WHERE name LIKE 'command of %'", (change,))
        file.commit()


def test_a_killed_map_is_resumed_without_its_words(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder, with the file under another name; what was answered stays."""
    desk.write(b_txt="endless")
    process = desk.start(*MAP, "--json", "--driver", "script:script.toml")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    desk.write(script_toml='[[answers]]\nwhen="endless"\ntext="2"')
    other = desk.folder / "other"
    other.mkdir()
    for path in desk.folder.glob("j.db*"):  # what was written last is beside it
        path.rename(other / path.name.replace("j", "k", 1))
    monkeypatch.chdir(other)
    done = desk.call("runs", "resume", "k.db")
    assert [line.get("text") for line in done.lines[:2]] == ["A note.", "2"]
    assert done.code == 0
    assert done.err.startswith(f"in {desk.folder}: agentpool map reader.toml --each a.txt b.txt ")
    assert Path.cwd() == other
    assert not (desk.folder / "j.db").exists()


def test_a_run_is_resumed_and_the_last_command_that_was_not_refused(desk: Desk) -> None:
    """One with more inputs takes the place of the first; one of something else does not."""
    words = ("run", "reader.toml", "Why?", "--quiet", "--journal", "j.db")
    assert desk.scripted(*words).code == 0
    assert desk.scripted("run", "reader.toml", "Why not?", "--journal", "j.db").code == 2
    done = desk.call("runs", "resume", "j.db")
    assert (done.code, done.out, done.err) == (0, "A note.\n", "")
    assert desk.scripted(*MAP).code == 0
    assert desk.scripted(*MAP[:5], "c.txt", *MAP[5:]).code == 0
    ambiguous = desk.call("runs", "resume", "j.db")
    assert (ambiguous.code, ambiguous.err) == (
        2,
        "agentpool: error: say which pool to resume; the journal has 'run', 'map'\n",
    )
    assert desk.call("runs", "resume", "j.db", "map").out.count("A note.") == 3
    wrong = desk.call("runs", "resume", "j.db", "maps")
    assert (wrong.code, "has no pool 'maps'; it has 'run', 'map'" in wrong.err) == (2, True)


def test_a_changed_manifest_is_refused(desk: Desk) -> None:
    """As it is by the command itself."""
    assert desk.scripted(*MAP).code == 0
    manifest = (desk.folder / "reader.toml").read_text(encoding="utf-8")
    desk.write(reader_toml=manifest.replace("You read", "You look"))
    done = desk.call("runs", "resume", "j.db")
    assert (
        done.code,
        "already has an input with this key, but with a different manifest or text" in done.err,
    ) == (
        2,
        True,
    )


def test_what_cannot_be_resumed_is_told(desk: Desk) -> None:
    """A file that is not there, a conversation, a program's pool; words that make no sense."""
    assert "there is no journal 'k.db'" in desk.call("runs", "resume", "k.db").err
    for command in ("runs resume", "runs list", "runs show", "approve"):
        done = desk.call(*command.split(), ".")
        assert "'.' is a folder, and not a journal; name the file in it" in done.err, command
    assert "resume takes no --json" in desk.call("runs", "resume", "j.db", "--json").err
    words = ("run", "reader.toml", "Why?", "--session", "s", "--journal", "s.db")
    assert desk.scripted(*words).code == 0
    done = desk.call("runs", "resume", "s.db")
    assert (done.code, "a program, a chat or an earlier" in done.err) == (2, True)

    async def main() -> None:
        manifest = AgentManifest(name="reader", capabilities=())
        driver = FunctionDriver(lambda _: "there")
        async with (
            open_journal(desk.folder / "p.db") as journal,
            open_pool(driver, name="mine", journal=journal) as pool,
        ):
            await (await pool.spawn(SpawnConfig(manifest, "x"))).wait()

    trio.run(main)
    assert "pool 'mine' belongs to no command" in desk.call("runs", "resume", "p.db").err

    assert desk.scripted(*MAP).code == 0
    for change, told in (
        (b"[1", "j.db' is damaged: command is b'[1', not text; restore it"),
        ("[1", "has a command that cannot be read"),
        ('{"words": ["runs", "list", "j.db"], "folder": "."}', "cannot resume a pool"),
        ('{"words": ["run", "x"], "folder": "gone"}', "the folder of the command, 'gone', c"),
    ):
        change_command(desk, change)
        done = desk.call("runs", "resume", "j.db")
        assert (done.code, told in done.err) == (2, True), done.err


def test_a_pool_that_runs_is_left_to_its_process(desk: Desk) -> None:
    """Nothing is run a second time."""
    desk.write(a_txt="endless")
    process = desk.start(*MAP, "--driver", "script:script.toml", "--json")
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        done = desk.call("runs", "resume", "j.db")
        assert (done.code, done.out) == (2, "")
        assert f"pool 'map' is run by process {process.pid} on " in done.err
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_a_command_is_kept_before_it_has_an_agent(desk: Desk) -> None:
    """One whose only input is not there yet is run again when it is."""
    words = ("map", "reader.toml", "--each", "late.txt", "--journal", "j.db")
    assert desk.scripted(*words).code == 1
    desk.write(late_txt="here")
    done = desk.call("runs", "resume", "j.db")
    assert (done.code, done.out) == (0, "## late.txt\n\nA note.\n\n")


def test_a_journal_without_runs_has_none_to_resume(desk: Desk) -> None:
    """And says so, in place of asking which."""

    async def make() -> None:
        async with open_journal(desk.folder / "empty.db"):
            await trio.lowlevel.checkpoint()

    trio.run(make)
    done = desk.call("runs", "resume", "empty.db")
    assert (done.code, "the journal has no runs to resume" in done.err) == (2, True)
