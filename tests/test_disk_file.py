"""Files that are written for a user: what the command line cannot show of the rules."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Never

import pytest

from agentpool._disk_file import check_file, open_to_write, write_whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with something in it."""
    path = tmp_path / "a"
    path.write_bytes(b"before")
    path.chmod(0o644)
    return path


def be_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every file on the disk one of another user."""
    uid = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_a_file_of_another_user_is_not_written_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made beforehand in a shared folder, it would be read by who made it."""
    be_another_user(monkeypatch)
    with pytest.raises(OSError, match="belongs to another user"):
        write_whole(path, b"secret")
    with pytest.raises(OSError, match="belongs to another user"):
        open_to_write(path)
    assert path.read_bytes() == b"before"


def test_a_file_that_is_shared_is_added_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory of a group has one owner and many writers."""
    be_another_user(monkeypatch)
    check_file(path, added_to=True)
    os.close(open_to_write(path, append=True))
    assert path.read_bytes() == b"before"


def test_root_leaves_a_file_to_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose user is root and whose folders are a person's."""
    found = path.stat()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if found.st_uid == 0:
        os.chown(path, 12345, -1)
    write_whole(path, b"after")
    assert path.stat().st_ino == found.st_ino
    assert path.read_bytes() == b"after"


def test_where_nothing_can_be_renamed_the_file_is_written_in_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is mounted into a container alone is busy."""

    def busy(*_: object) -> Never:
        raise OSError(errno.EBUSY, "busy")

    found = path.stat()
    monkeypatch.setattr(os, "replace", busy)
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"
    assert path.stat().st_ino == found.st_ino
    with pytest.raises(OSError, match="busy"):
        write_whole(path.with_name("new"), b"after")
    assert [one.name for one in path.parent.iterdir()] == ["a"]


def test_what_takes_the_place_of_a_file_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at, it was a file; opened, it is a pipe, with a reader or with none."""
    was = path.stat()
    path.unlink()
    os.mkfifo(path)
    stats = iter([was, was])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", lambda _: next(stats))
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            open_to_write(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(OSError, match="is a pipe"):
            open_to_write(path)
        os.close(reader)


def test_a_new_file_is_its_owners_from_the_beginning(tmp_path: Path) -> None:
    """Whatever the process gives to new files."""
    before = os.umask(0)
    try:
        write_whole(tmp_path / "a", b"x")
        os.close(open_to_write(tmp_path / "b"))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}
