"""Every file that a command writes, by one rule: only a file is ever replaced."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.cli_runner import Desk, make_desk

WRITERS = {
    "trace": ("run", "reader.toml", "hello", "--trace", "there"),
    "report": ("run", "reader.toml", "hello", "--report", "there"),
    "html": ("show", "old.trace", "--html", "there"),
    "answers": ("map", "reader.toml", "--each", "there.in", "--output-dir", "out"),
    "journal": ("run", "reader.toml", "hello", "--journal", "there"),
    "memory": ("run", "reader.toml", "hello", "--memory", "there"),
}
NOT_WHOLE = ("journal", "memory")
"""These are databases, and have to be one where they are there."""
BEGINNINGS = {
    "trace": '{"format":"agentpool-trace"}\n',
    "report": "<!doctype html>\n",
    "html": "<!DOCTYPE html>\n",
}
"""What is replaced by one of its kind alone begins so."""
KINDS = ("pipe", "socket", "device", "folder")


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with an input, a trace, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(there_in="one")
    (tmp_path / "out").mkdir()
    assert desk.scripted("run", "reader.toml", "hello", "--trace", "old.trace").code == 0
    return desk


@pytest.fixture
def terminal() -> Generator[str]:
    """Return the name of a device that is ours: a terminal that no one looks at."""
    ours, theirs = os.openpty()
    yield os.ttyname(theirs)
    os.close(theirs)
    os.close(ours)


def place_of(desk: Desk, writer: str) -> Path:
    """Return the file that the command writes."""
    return desk.folder / ("out/there.in" if writer == "answers" else "there")


def write(desk: Desk, writer: str) -> tuple[int, str]:
    """Run the command; return its code and what it says of errors."""
    words = WRITERS[writer]
    done = desk.call(*words) if words[0] == "show" else desk.scripted(*words)
    assert "Traceback" not in done.err
    return done.code, done.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_file_is_neither_replaced_nor_opened(
    desk: Desk, terminal: str, writer: str, kind: str
) -> None:
    """`--report /dev/full` as root put a file into the place of the device."""
    place = place_of(desk, writer)
    with socket.socket(socket.AF_UNIX) as server:
        match kind:
            case "pipe":
                os.mkfifo(place)
            case "socket":
                server.bind(os.path.relpath(place))
            case "device":
                place.symlink_to(terminal)
            case _:
                place.mkdir()
        before = place.stat()
        code, said = write(desk, writer)
    assert code in {1, 2}
    assert str(place.name) in said
    assert "it must be a regular file, not a" in said
    after = place.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert place.is_symlink() == (kind == "device")
    assert not [path for path in place.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_stays_and_its_file_is_written(desk: Desk, writer: str, is_there: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Whoever keeps reports on another disk links there."""
    place, target = place_of(desk, writer), desk.folder / "target"
    place.symlink_to(target)
    if is_there:
        target.touch()
    assert write(desk, writer)[0] == 0
    assert place.is_symlink()
    assert target.stat().st_size


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_keeps_its_mode_and_a_new_one_is_its_owners(desk: Desk, writer: str) -> None:
    """Who opened it to a group did so on purpose."""
    place = place_of(desk, writer)
    assert write(desk, writer)[0] == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    place.chmod(0o640)
    assert write(desk, writer)[0] == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o640


@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in NOT_WHOLE])
def test_a_file_with_two_names_keeps_both(desk: Desk, writer: str) -> None:
    """The other one had the old text for ever."""
    place, other = place_of(desk, writer), desk.folder / "other"
    place.write_text(BEGINNINGS.get(writer, "") + "what was here before " * 10_000)
    other.hardlink_to(place)
    assert write(desk, writer)[0] == 0
    assert other.samefile(place)
    assert "here before" not in other.read_text()


def test_a_folder_for_answers_is_its_owners(desk: Desk) -> None:
    """A new one; one that is there stays as it is."""
    words = ("map", "reader.toml", "--each", "there.in", "--output-dir")
    assert desk.scripted(*words, "new/inner").code == 0
    assert stat.S_IMODE((desk.folder / "new/inner").stat().st_mode) == 0o700
    (desk.folder / "out").chmod(0o755)
    assert desk.scripted(*words, "out").code == 0
    assert stat.S_IMODE((desk.folder / "out").stat().st_mode) == 0o755
