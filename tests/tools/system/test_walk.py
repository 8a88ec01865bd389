"""The way to a place on the disk, and who cannot lead it astray."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentpool import Capability, CapabilityKind, ToolError
from agentpool.tools.system import _walk_in_roots
from agentpool.tools.system._places import Place
from agentpool.tools.system._roots import Roots
from agentpool.tools.system._walk_in_roots import CAN_WALK, MAX_LINKS, find_roots, open_place
from tests.support.tool_helpers import open_fds

pytestmark = pytest.mark.skipif(not CAN_WALK, reason="folders have no descriptors here")

both_ways = pytest.mark.parametrize("by_step", [True, False], ids=["by step", "at once"])


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Return a folder with ``in``, which is granted, and ``out``, which is not."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(f"this is {name}")
    return tmp_path


def roots_of(folder: Path, *paths: str) -> Roots:
    """Return the roots of a grant of *paths* to read, from *folder* on."""
    return find_roots([Capability.file_read(*paths)], CapabilityKind.FILE_READ, str(folder))


def read(roots: Roots, path: str, *, by_step: bool = True) -> str:
    """Read the file at *path* if the roots allow it."""
    with (
        open_place(roots, path, by_step=by_step) as place,
        os.fdopen(place.open_file()) as file,
    ):
        return file.read()


@both_ways
@pytest.mark.parametrize("path", ["a.txt", "./a.txt", "sub/../a.txt", "deep", "up/a.txt", "abs"])
def test_what_is_inside_is_found(room: Path, path: str, *, by_step: bool) -> None:
    """Links within what is granted are ordinary things, also those with a full path."""
    inner = room / "in"
    (inner / "sub").mkdir()
    (inner / "deep").symlink_to("sub/../sub/link")
    (inner / "sub" / "link").symlink_to("../a.txt")
    (inner / "up").symlink_to("sub/..")
    (inner / "abs").symlink_to(inner / "a.txt")
    assert read(roots_of(inner, "."), path, by_step=by_step) == "this is in"
    assert read(roots_of(inner, "."), f"{inner}/{path}", by_step=by_step) == "this is in"


@both_ways
@pytest.mark.parametrize(
    "path",
    ["../out/a.txt", "sub/../../out/a.txt", "link", "folder/a.txt", "chain", "/etc/passwd", "dang",
     "..", "/", "up/out/a.txt", "../innocent/a.txt"],
)  # fmt: skip
def test_nothing_leads_outside(room: Path, path: str, *, by_step: bool) -> None:
    """Dots, links to files and to folders, links to links, links to nothing."""
    inner = room / "in"
    (inner / "sub").mkdir()
    (inner / "link").symlink_to("../out/a.txt")
    (inner / "folder").symlink_to(room / "out")
    (inner / "chain").symlink_to("folder/a.txt")
    (inner / "dang").symlink_to(room / "out" / "not yet")
    (inner / "up").symlink_to("..")
    with pytest.raises(ToolError, match="outside of what is granted"):
        read(roots_of(inner, "."), path, by_step=by_step)


def test_nothing_is_learned_of_what_is_outside(room: Path) -> None:
    """Whether there is a file or not, the answer is the same."""
    roots = roots_of(room / "in", ".")
    for path in ("../out/a.txt", "../out/nothing", "../nowhere/b/c", "../out/a.txt/x"):
        with pytest.raises(ToolError, match="outside of what is granted"):
            read(roots, path)


@both_ways
def test_a_root_may_be_a_file(room: Path, *, by_step: bool) -> None:
    """Then it alone is granted."""
    roots = roots_of(room, "in/a.txt")
    assert read(roots, "in/a.txt", by_step=by_step) == "this is in"
    for path in ("in", "in/b.txt", "out/a.txt"):
        with pytest.raises(ToolError, match=r"outside of what is granted: in/a\.txt"):
            read(roots, path, by_step=by_step)


def test_several_grants_add_up(room: Path) -> None:
    """And a link may lead from one to the other."""
    (room / "in" / "link").symlink_to("../out/a.txt")
    roots = roots_of(room, "in", f"{room}/out")
    assert read(roots, "in/link") == "this is out"


def test_a_star_allows_every_path_but_this_process(room: Path) -> None:
    """``/proc`` has its memory and its keys."""
    roots = roots_of(room / "in", "*")
    assert read(roots, "../out/a.txt") == "this is out"
    (room / "in" / "sly").symlink_to("/proc/self/environ")
    for path in (
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "sly",
        "../" * 20 + "proc/1/maps",
    ):
        with pytest.raises(ToolError, match="outside of what is granted"):
            read(roots, path)


def test_a_grant_written_with_links_is_meant_as_it_was(room: Path) -> None:
    """And whoever turns the link afterwards changes nothing."""
    (room / "current").symlink_to("in")
    roots = roots_of(room, "current")
    assert read(roots, "current/a.txt") == "this is in"
    (room / "current").unlink()
    (room / "current").symlink_to("out")
    assert read(roots, "current/a.txt") == "this is in"
    (room / "in").rename(room / "gone")
    (room / "in").symlink_to("out")
    with pytest.raises(ToolError, match="outside of what is granted"):
        read(roots, "current/a.txt")


def test_a_circle_of_links_ends(room: Path) -> None:
    """As it does in the system."""
    (room / "in" / "a").symlink_to("b")
    (room / "in" / "b").symlink_to("a")
    with pytest.raises(ToolError, match=f"more than {MAX_LINKS} links"):
        read(roots_of(room / "in", "."), "a")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("none.txt", "there is no file 'none.txt'"),
        ("no/a.txt", "there is no folder 'no' on the way to 'no/a.txt'"),
        ("a.txt/b", "'a.txt' on the way to 'a.txt/b' is not a folder"),
        ("a.txt/..", "'a.txt' on the way to 'a.txt/..' is not a folder"),
        (".", "'.' is a folder; only ordinary files are opened"),
    ],
)
def test_a_way_that_ends_says_where(room: Path, path: str, text: str) -> None:
    """A model can put it right."""
    with pytest.raises(ToolError) as caught:
        read(roots_of(room / "in", "."), path)
    assert str(caught.value) == text


@both_ways
def test_only_ordinary_files_are_opened(room: Path, *, by_step: bool) -> None:
    """A pipe would wait for a writer, a device never ends, a socket is not a file."""
    inner = room / "in"
    os.mkfifo(inner / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(inner / "socket"))
    server.close()
    roots = roots_of(inner, ".", "/dev")
    for path, kind in (("pipe", "a pipe"), ("socket", "a socket"), ("/dev/zero", "a device")):
        with pytest.raises(ToolError, match=f"is {kind}; only ordinary files"):
            read(roots, path, by_step=by_step)


@contextmanager
def swapping(*states: list[tuple[Path, str | None]]) -> Generator[None, None, None]:
    """Go through *states* as fast as possible: each path a link to the text, or a folder."""
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for state in states:
                for path, target in state:
                    other = path.with_name(path.name + " next")
                    if target is None:
                        # The folder itself is kept beside it, and a rename puts it in place.
                        path.unlink()
                        path.with_name("kept").rename(path)
                    else:
                        path.rename(path.with_name("kept"))
                        other.symlink_to(target)
                        other.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(room: Path) -> None:
    """Whoever can rename at any moment still cannot make a read leave what is granted."""
    folder = room / "in" / "sub"
    folder.mkdir()
    (folder / "a.txt").write_text("this is sub")
    roots = roots_of(room / "in", ".")
    seen: set[str] = set()
    fds = open_fds()
    with swapping([(folder, "../../out")], [(folder, None)]):
        # Longer where the other thread has not had its turn yet.
        for attempt in range(300_000):
            try:
                seen.add(read(roots, "sub/a.txt"))
            except ToolError as error:
                seen.add("outside" if "outside" in str(error) else "gone")
            if attempt > 3000 and "outside" in seen:
                break
    assert seen <= {"this is sub", "outside", "gone"}
    assert "outside" in seen
    assert open_fds() == fds


def test_a_write_into_a_folder_that_is_swapped_stays_inside(room: Path) -> None:
    """The file is made in the folder that the walk holds, wherever its name leads by then."""
    folder = room / "in" / "sub"
    folder.mkdir()
    roots = roots_of(room / "in", ".")
    with swapping([(folder, "../../out")], [(folder, None)]):
        for _ in range(500):
            try:
                with open_place(roots, "sub/new.txt") as place:
                    place.write(b"new", instead_of=None)
            except (ToolError, OSError):
                continue
    assert sorted(one.name for one in (room / "out").iterdir()) == ["a.txt"]
    assert not list(room.rglob("*.tmp"))


def test_a_folder_that_becomes_a_link_between_two_looks_is_looked_at_again(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment that a race has to hit, hit every time."""
    folder = room / "in" / "sub"
    folder.mkdir()
    (room / "in" / "other").mkdir()
    (room / "in" / "other" / "a.txt").write_text("this is other")
    real_stat = os.stat

    def stat_then_swap(path: object, **options: object) -> os.stat_result:
        found = real_stat(path, **options)  # type: ignore[arg-type]  # handed on as it is
        if path == "sub" and folder.is_dir() and not folder.is_symlink():
            folder.rmdir()
            folder.symlink_to("other")
        return found

    monkeypatch.setattr(os, "stat", stat_then_swap)
    assert read(roots_of(room / "in", "."), "sub/a.txt") == "this is other"


def test_a_folder_that_becomes_a_link_and_then_nothing_is_looked_at_again(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a link when it is opened, and gone when it is asked what it is."""
    folder, aside = room / "in" / "sub", room / "in" / "aside"
    folder.mkdir()
    (folder / "a.txt").write_text("this is sub")
    real_open, real_stat = os.open, os.stat
    opened: list[str] = []

    def swap_then_open(path: str, flags: int, **options: int) -> int:
        if path != "sub" or opened:
            return real_open(path, flags, **options)
        opened.append(path)
        folder.rename(aside)
        folder.symlink_to("aside")
        try:
            return real_open(path, flags, **options)
        finally:
            folder.unlink()

    def stat_then_put_back(path: object, **options: object) -> os.stat_result:
        try:
            return real_stat(path, **options)  # type: ignore[arg-type]  # handed on as it is
        finally:
            if path == "sub" and aside.exists():
                aside.rename(folder)

    monkeypatch.setattr(os, "open", swap_then_open)
    monkeypatch.setattr(os, "stat", stat_then_put_back)
    assert read(roots_of(room / "in", "."), "sub/a.txt") == "this is sub"
    assert opened


def test_a_link_that_is_none_any_more_is_looked_at_again(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the reading of the link."""
    link = room / "in" / "sub"
    link.symlink_to("nowhere")
    real_readlink = os.readlink

    def swap_then_readlink(path: str, **options: int) -> str:
        if path == "sub":
            link.unlink()
            link.mkdir()
            (link / "a.txt").write_text("this is sub")
        return real_readlink(path, **options)

    monkeypatch.setattr(os, "readlink", swap_then_readlink)
    assert read(roots_of(room / "in", "."), "sub/a.txt") == "this is sub"

    def refuse(path: str, **options: int) -> str:
        raise PermissionError(13, "Permission denied")

    (room / "in" / "link").symlink_to("sub")
    monkeypatch.setattr(os, "readlink", refuse)
    with pytest.raises(PermissionError):
        read(roots_of(room / "in", "."), "link")


def test_a_way_that_does_not_stop_changing_ends(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can keep a walk going for ever."""
    (room / "in" / "sub").symlink_to("nowhere")

    def never(path: str, **options: int) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "readlink", never)
    monkeypatch.setattr(_walk_in_roots, "_MAX_LOOKS", 10)
    with pytest.raises(ToolError, match="keeps changing"):
        read(roots_of(room / "in", "."), "sub/a.txt")


def test_a_closed_way_is_an_error_of_the_system(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is held open after it."""
    (room / "in" / "sub").mkdir()
    fds = open_fds()
    real_open = os.open

    def closed(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "sub":
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(PermissionError):
        read(roots_of(room / "in", "."), "sub/a.txt")
    assert open_fds() == fds


@both_ways
def test_folders_are_made_on_the_way_if_wanted(room: Path, *, by_step: bool) -> None:
    """Below what is granted, and up to it if it is not there yet."""
    roots = roots_of(room, "new/root")
    with open_place(roots, "new/root/a/b.txt", make_folders=True, by_step=by_step) as place:
        place.write(b"hello", instead_of=place.check_writable())
    assert (room / "new" / "root" / "a" / "b.txt").read_text() == "hello"
    with (
        pytest.raises(ToolError, match="outside of what is granted"),
        open_place(roots, "new/other/b.txt", make_folders=True, by_step=by_step),
    ):
        pytest.fail("that was not granted")
    assert not (room / "new" / "other").exists()


@both_ways
def test_a_dangling_link_inside_is_written_through(room: Path, *, by_step: bool) -> None:
    """It says where the file is to be, and that is granted."""
    (room / "in" / "link").symlink_to("target.txt")
    with open_place(roots_of(room / "in", "."), "link", by_step=by_step) as place:
        place.write(b"hello", instead_of=place.check_writable())
    assert (room / "in" / "link").is_symlink()
    assert (room / "in" / "target.txt").read_text() == "hello"


def test_a_link_that_takes_the_place_of_a_file_is_replaced(room: Path) -> None:
    """A rename does not follow it, so nothing outside is written."""
    with open_place(roots_of(room / "in", "."), "b.txt") as place:
        (room / "in" / "b.txt").symlink_to(room / "out" / "a.txt")
        with pytest.raises(ToolError, match="a link that was put there just now"):
            place.check_writable()
        place.write(b"mine", instead_of=None)
    assert (room / "out" / "a.txt").read_text() == "this is out"
    assert (room / "in" / "b.txt").read_text() == "mine"
    assert not (room / "in" / "b.txt").is_symlink()


def test_a_pipe_that_takes_the_place_of_a_file_does_not_hang(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened without waiting, looked at again, and closed."""
    roots = roots_of(room / "in", ".")
    fds = open_fds()
    with open_place(roots, "a.txt") as place:
        found = place.look()
        (room / "in" / "a.txt").unlink()
        os.mkfifo(room / "in" / "a.txt")

        def look(_: Place) -> os.stat_result | None:
            return found

        monkeypatch.setattr(Place, "look", look)
        with pytest.raises(ToolError, match="is a pipe"):
            place.open_file()
    assert open_fds() == fds


def test_permissions_are_kept_and_a_failed_write_leaves_nothing(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stays one; a full disk leaves the old file and nothing beside it."""
    path = room / "in" / "a.txt"
    path.chmod(0o750)
    roots = roots_of(room / "in", ".")
    with open_place(roots, "a.txt") as place:
        place.write(b"new", instead_of=place.check_writable())
    assert path.stat().st_mode & 0o777 == 0o750

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with open_place(roots, "a.txt") as place, pytest.raises(OSError, match="No space left"):
        place.write(b"newer", instead_of=place.check_writable())
    assert path.read_text() == "new"
    assert [one.name for one in (room / "in").iterdir()] == ["a.txt"]


def test_a_folder_needs_no_right_to_be_read_on_the_way(room: Path) -> None:
    """To pass is enough, as for anybody who names a path; and what is closed is an error."""
    if os.geteuid() == 0:
        pytest.skip("root may everything")
    (room / "in" / "sub").mkdir()
    (room / "in" / "sub" / "a.txt").write_text("x")
    (room / "in" / "sub").chmod(0o100)
    assert read(roots_of(room / "in", "."), "sub/a.txt") == "x"
    (room / "in" / "sub").chmod(0)
    with pytest.raises(PermissionError):
        read(roots_of(room / "in", "."), "sub/a.txt")
