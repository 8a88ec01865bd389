"""Files that are written for a user: what the command line cannot show of the rules."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Never

import pytest

from agentpool._disk_file import (
    _find_lock,
    check_file,
    check_locks,
    is_marked_open,
    mark_open,
    open_to_write,
    write_whole,
)
from agentpool.journal import JournalError, open_journal


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
        with pytest.raises(OSError, match="not a pipe"):
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


def _lock_of_nfs(_: int) -> Never:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("lock", [_lock_of_nfs, lambda _: b""], ids=["no locks", "no effect"])
async def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Callable[[int], object]
) -> None:
    """Two processes could write a journal at once there."""
    monkeypatch.setattr("agentpool._disk_file._find_lock", lambda: lock)
    with pytest.raises(JournalError, match=r"has no locks, so two processes could write"):
        async with open_journal(tmp_path / "j.db"):
            raise AssertionError
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # nothing waits here


def _unknown(_: int) -> Never:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("lock", [_find_lock(), _unknown, None])
async def test_a_file_system_with_locks_is_used_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Callable[[int], object] | None
) -> None:
    """Also where it is not known whether it has any."""
    monkeypatch.setattr("agentpool._disk_file._find_lock", lambda: lock)
    async with open_journal(tmp_path / "j.db"):
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]  # noqa: PTH208  # the same
    check_locks(tmp_path / "none" / "j.db")  # there is no such folder


def test_a_file_that_is_written_can_be_told(tmp_path: Path) -> None:
    """As long as its writer has it open, and not while another process looks."""
    path = tmp_path / "a.trace"
    with path.open("wb") as writer, path.open("rb") as reader, path.open("rb") as other:
        assert not is_marked_open(reader.fileno())
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not mark_open(writer.fileno())
        fcntl.flock(other, fcntl.LOCK_UN)
        assert mark_open(writer.fileno())
        assert is_marked_open(reader.fileno())
        writer.close()
        assert not is_marked_open(reader.fileno())


def test_where_nothing_can_be_marked_a_file_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: whoever follows it goes on."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (tmp_path / "a.trace").open("wb") as file:
        assert mark_open(file.fileno())
        assert is_marked_open(file.fileno())


@pytest.mark.parametrize("gone", ["module", "command"])
def test_a_system_without_such_locks_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """As on Windows, and on macOS."""
    if gone == "module":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setitem(sys.modules, "fcntl", ModuleType("fcntl"))
    assert _find_lock() is None
