"""Reading, writing and editing files."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest
import trio

from agentpool import Capability, ToolError
from agentpool.testing import lone_context
from agentpool.tools import FileWork, ToolRegistry, file_tools
from agentpool.tools.builtin import _files
from agentpool.tools.builtin._files import MAX_EDIT_BYTES, replace_once
from agentpool.tools.system._page import MAX_PAGE_LINES
from tests.support.tool_helpers import fail, file_kit, names_in, open_fds, result_of, use

READERS = ["file_read", "glob", "grep"]
WRITERS = ["file_write", "file_edit"]


# --- which tools there are


def test_each_grant_brings_its_tools_in_one_order(tmp_path: Path) -> None:
    """The same pool sends the same bytes."""
    read, write = Capability.file_read("."), Capability.file_write(".")
    for grants, names in (
        ([read], READERS),
        ([write], WRITERS),
        ([write, read], READERS + WRITERS),
        ([Capability.shell("ls"), Capability.file_read()], []),
        ([], []),
    ):
        assert [one.definition.name for one in file_tools(grants, folder=tmp_path)] == names


def test_a_tool_asks_for_all_that_it_can_do(tmp_path: Path) -> None:
    """So an agent with less than it was made with is not shown it."""
    registry = ToolRegistry(file_tools([Capability.file_read("/home", "/srv")], folder=tmp_path))
    privacy = lone_context().agent.manifest.privacy
    for grants, shown in (
        ([Capability.file_read("/home"), Capability.file_read("/srv")], 3),
        ([Capability.file_read("/")], 3),
        ([Capability.file_read("/home")], 0),
        ([Capability.file_write("/home", "/srv")], 0),
    ):
        assert len(registry.definitions_for(grants, privacy)) == shown


async def test_a_granted_folder_covers_what_is_below_it(tmp_path: Path) -> None:
    """In the original ``/home`` does not cover ``/home/u``."""
    (tmp_path / "home" / "u").mkdir(parents=True)
    (tmp_path / "home" / "u" / "a").write_text("here")
    kit = file_kit(tmp_path, read=[f"{tmp_path}/home"])
    assert await use(kit["file_read"], path="home/u/a") == "1\there"


# --- file_read


async def test_a_file_of_any_size_is_read_in_pages(tmp_path: Path) -> None:
    """The original refuses a file above 128 KiB before it looks at the page wanted."""
    lines = 300_000
    with (tmp_path / "big.txt").open("w") as file:
        file.writelines(f"line {n} é\n" for n in range(1, lines + 1))
    read = file_kit(tmp_path)["file_read"]
    page = await use(read, path="big.txt", offset=200_000, limit=2)
    assert page == (
        "200000\tline 200000 é\n200001\tline 200001 é\n"
        f"[{lines - 200_001} more lines, use offset=200002 to continue]"
    )
    first = (await use(read, path="big.txt")).split("\n")
    assert len(first) == MAX_PAGE_LINES + 1
    assert first[-1] == f"[{lines - MAX_PAGE_LINES} more lines, use offset=2001 to continue]"
    last = await use(read, path="big.txt", offset=lines)
    assert last == f"{lines}\tline {lines} é"
    assert "the file has 300000 lines" in await use(read, path="big.txt", offset=lines + 1)


async def test_a_line_like_a_bomb_takes_a_page_of_memory(tmp_path: Path) -> None:
    """Half a gigabyte that is one line; on the disk it takes a few kilobytes."""
    path = tmp_path / "bomb"
    with path.open("wb") as file:
        file.write(b"x" * 10_000)
        os.truncate(path, 500_000_000)
    read = file_kit(tmp_path)["file_read"]
    page = await use(read, path="bomb", limit=1)
    assert page.startswith("1\txxx")
    assert "[at least 67" in page
    assert len(page) < 3000


async def test_a_page_is_cut_between_characters_wherever_a_read_ends(tmp_path: Path) -> None:
    """A read of 256 KiB ends within a character of three bytes."""
    (tmp_path / "a").write_text("x\n" + "漢" * 200_000 + "\nend\n")
    read = file_kit(tmp_path)["file_read"]
    page = await use(read, path="a", column=199_990)
    assert page == f"1\t\n2\t{'漢' * 11}\n3\t"
    assert "\ufffd" not in await use(read, path="a")
    (tmp_path / "b").write_bytes("漢字".encode()[:-1])
    assert (await use(read, path="b")).startswith("1\t漢\ufffd")


async def test_a_binary_file_is_said_to_be_one(tmp_path: Path) -> None:
    """And a text in another coding is shown as well as it can be, and said to be so."""
    (tmp_path / "a.bin").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    kit = file_kit(tmp_path)
    told = await fail(kit["file_read"], path="a.bin")
    assert told == "'a.bin' is a binary file; only text in UTF-8 can be read"
    assert await use(kit["file_read"], path="latin.txt") == (
        "1\tcaf\ufffd\n[what is not UTF-8 is shown as \ufffd]"
    )
    assert "is a binary file" in await fail(
        kit["file_edit"], path="a.bin", old_string="ELF", new_string="x"
    )
    told = await fail(kit["file_edit"], path="latin.txt", old_string="caf", new_string="x")
    assert told == "'latin.txt' is not UTF-8: line 1; nothing was changed"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/environ", "pipe"])
async def test_what_never_ends_is_not_begun(tmp_path: Path, path: str) -> None:
    """Devices, pipes and the system's own files, under a grant of everything."""
    os.mkfifo(tmp_path / "pipe")
    kit = file_kit(tmp_path, read=["*"], write=["*"])
    with trio.fail_after(5):
        for name, more in (
            ("file_read", {}),
            ("file_write", {"content": "x"}),
            ("file_edit", {"old_string": "a", "new_string": "b"}),
        ):
            await fail(kit[name], path=path, **more)


async def test_a_long_read_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    """A terabyte of nothing, on the way to a line that is not there."""
    path = tmp_path / "endless"
    path.write_text("begin\n" + "x" * 10_000)
    os.truncate(path, 10**12)
    read = file_kit(tmp_path)["file_read"]
    fds = open_fds()
    with trio.move_on_after(0.05) as scope:
        await result_of(read, path="endless", offset=10)
    assert scope.cancelled_caught
    assert open_fds() == fds


async def test_a_slow_disk_stops_only_those_who_read_from_it(tmp_path: Path) -> None:
    """Reading goes on in threads, so many at once, and the loop stays free."""
    (tmp_path / "a").write_text("text")
    release = threading.Event()
    work = FileWork()
    kit = file_kit(tmp_path, work=work)

    async def hang() -> None:
        await work.read("a", release.wait)

    async with trio.open_nursery() as nursery:
        for _ in range(7):
            nursery.start_soon(hang)
        await trio.testing.wait_all_tasks_blocked()
        assert await use(kit["file_read"], path="a") == "1\ttext"
        assert work.readers.borrowed_tokens == 7
        release.set()


# --- file_write


async def test_folders_are_made_and_files_replaced_whole(tmp_path: Path) -> None:
    """The original says that it makes folders, and does not."""
    kit = file_kit(tmp_path)
    told = await use(kit["file_write"], path="a/b/c.txt", content="schön\n")
    assert told == "Wrote 7 bytes to a/b/c.txt"
    path = tmp_path / "a" / "b" / "c.txt"
    assert path.read_text() == "schön\n"
    before = path.stat().st_ino
    await use(kit["file_write"], path="a/b/c.txt", content="")
    assert path.read_text() == ""
    assert path.stat().st_ino != before
    assert names_in(path.parent) == ["c.txt"]


async def test_a_dangling_link_does_not_lead_a_write_outside(tmp_path: Path) -> None:
    """In the original it does: what is not there is checked by its parent alone."""
    inner = tmp_path / "in"
    inner.mkdir()
    (inner / "link").symlink_to(tmp_path / "outside.txt")
    (inner / "folder").symlink_to(tmp_path / "nowhere")
    kit = file_kit(inner)
    for path in ("link", "folder/a.txt", "../outside.txt", f"{tmp_path}/outside.txt"):
        told = await fail(kit["file_write"], path=path, content="evil")
        assert "outside of what is granted" in told
    assert names_in(tmp_path) == ["in"]


async def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Never a half: it is written beside its place and renamed."""
    texts = ["a" * 200_000, "b" * 200_000]
    path = tmp_path / "a"
    path.write_text(texts[0])
    write = file_kit(tmp_path)["file_write"]
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    thread = threading.Thread(target=watch)
    thread.start()
    for text in texts * 10:
        await use(write, path="a", content=text)
    done.set()
    thread.join()
    assert seen <= set(texts)


async def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    """In the system's words, without a path of this machine."""
    kit = file_kit(tmp_path)
    (tmp_path / "folder").mkdir()
    told = await fail(kit["file_write"], path="folder", content="x")
    assert told == "'folder' is a folder; only ordinary files are opened"
    told = await fail(kit["file_write"], path="n" * 300, content="x")
    assert told == f"{'n' * 300!r}: File name too long"
    assert names_in(tmp_path) == ["folder"]


async def test_half_of_a_character_is_written_as_its_mark(tmp_path: Path) -> None:
    """No file can have it, and a model that is told so writes the same once more."""
    await use(file_kit(tmp_path)["file_write"], path="a", content="\ud800")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "\ufffd"


async def test_a_cancelled_write_is_whole_or_not_there(tmp_path: Path) -> None:
    """The thread is waited for."""
    write = file_kit(tmp_path)["file_write"]
    with trio.CancelScope() as scope:
        scope.cancel()
        await result_of(write, path="a", content="x")
    assert not names_in(tmp_path)


# --- file_edit


async def test_a_piece_that_occurs_once_is_replaced(tmp_path: Path) -> None:
    """And the line is told."""
    (tmp_path / "a").write_text("one\ntwo\nthree\n")
    edit = file_kit(tmp_path)["file_edit"]
    told = await use(edit, path="a", old_string="two\nthr", new_string="2\nthr")
    assert told == "Edited a at line 2"
    assert (tmp_path / "a").read_text() == "one\n2\nthree\n"
    assert "there is no file" in await fail(edit, path="b", old_string="a", new_string="b")


@pytest.mark.parametrize(
    ("text", "old", "new", "fault"),
    [
        ("abc", "x", "y", "is not in the file"),
        ("abcabc", "bc", "y", "occurs more than once, at lines 1 and 1"),
        ("a\naXa", "a", "y", "at lines 1 and 2"),
        ("aaa", "aa", "y", "occurs more than once"),
        ("abc", "", "y", "must not be empty"),
        ("abc", "b", "b", "nothing would change"),
    ],
)
def test_a_piece_must_occur_once(text: str, old: str, new: str, fault: str) -> None:
    """Two that overlap are two."""
    with pytest.raises(ToolError, match=fault):
        replace_once(text, old, new)


def test_line_ends_stay_as_they_are() -> None:
    """A model sees lines without their ends, and writes line feeds."""
    assert replace_once("a\r\nb\r\nc", "a\nb", "x\ny") == ("x\r\ny\r\nc", 1)
    assert replace_once("a\r\nb", "a\r\nb", "x\ny") == ("x\r\ny", 1)
    assert replace_once("a\nb", "a\nb", "x\r\ny") == ("x\ny", 1)


async def test_a_large_file_is_not_edited(tmp_path: Path) -> None:
    """It would be held in memory several times."""
    with (tmp_path / "a").open("wb") as file:
        file.truncate(MAX_EDIT_BYTES + 1)
    edit = file_kit(tmp_path)["file_edit"]
    told = await fail(edit, path="a", old_string="a", new_string="b")
    assert f"has {MAX_EDIT_BYTES + 1} bytes" in told


async def test_edits_of_many_agents_are_all_there(tmp_path: Path) -> None:
    """Writes happen one at a time, whoever's tools they are."""
    (tmp_path / "a").write_text("".join(f"<{n}>" for n in range(40)))
    work = FileWork()
    kits = [file_kit(tmp_path, work=work) for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for n in range(40):

            async def edit(n: int = n) -> None:
                await use(
                    kits[n % 4]["file_edit"], path="a", old_string=f"<{n}>", new_string=f"[{n}]"
                )

            nursery.start_soon(edit)
    assert (tmp_path / "a").read_text() == "".join(f"[{n}]" for n in range(40))


async def test_what_has_changed_since_it_was_read_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's change is not lost without a word."""
    path = tmp_path / "a"
    path.write_text("one two")

    def slow_replace(text: str, old: str, new: str) -> tuple[str, int]:
        if path.exists():
            path.write_text("one two three")
        return replace_once(text, old, new)

    monkeypatch.setattr(_files, "replace_once", slow_replace)
    edit = file_kit(tmp_path)["file_edit"]
    told = await fail(edit, path="a", old_string="one", new_string="1")
    assert told == "'a' has changed meanwhile; read it again"
    assert path.read_text() == "one two three"


# --- what is not to be read, and how it is written


@pytest.mark.skipif(sys.platform != "linux", reason="only there is procfs")
@pytest.mark.parametrize("name", ["self/environ", "{}/environ", "thread-self/environ", "{}/maps"])
async def test_what_the_kernel_knows_of_a_process_is_no_file(name: str) -> None:
    """Keys stand in its environment, wherever the kernel's file system is mounted."""
    path = f"/proc/{name.format(os.getpid())}"
    tools = {one.definition.name: one for one in file_tools([Capability.file_read("/proc")])}
    assert "is kernel data" in await fail(tools["file_read"], path=path)
    assert "is kernel data" in await fail(tools["grep"], pattern=".", path=path)


@pytest.mark.skipif(sys.platform != "linux", reason="only there is procfs")
@pytest.mark.parametrize("name", ["self", "{}", "{}/task"])
async def test_the_folder_of_a_process_is_not_searched(name: str) -> None:
    """It is not begun, and nothing of it stays open."""
    path = f"/proc/{name.format(os.getpid())}"
    tools = {one.definition.name: one for one in file_tools([Capability.file_read("/proc")])}
    before = open_fds()
    for search in ("grep", "glob"):
        assert "is kernel data" in await fail(tools[search], pattern="*", path=path)
    assert open_fds() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only there is procfs")
async def test_other_files_of_the_kernel_can_be_read() -> None:
    """They say what the machine is, and nothing of a process."""
    tools = {one.definition.name: one for one in file_tools([Capability.file_read("/proc")])}
    assert "MemTotal" in await use(tools["file_read"], path="/proc/meminfo")


@pytest.mark.parametrize(
    ("text", "old", "new", "after"),
    [
        ("a\r\nb\r\n", "a", "x\ny", "x\r\ny\r\nb\r\n"),
        ("a\r\nb\r\n", "a\nb", "x\ny", "x\r\ny\r\n"),
        ("a\r\nb\r\n", "a\r\nb", "x\ny", "x\r\ny\r\n"),
        ("a\nb\n", "a\r\nb", "x\r\ny", "x\ny\n"),
        ("a\nb\n", "a", "x\r\ny", "x\ny\nb\n"),
        ("a\r\nb\n", "a", "x\ny", "x\ny\r\nb\n"),
        ("a", "a", "x\r\ny", "x\r\ny"),
    ],
)
def test_a_file_keeps_its_own_line_ends(text: str, old: str, new: str, after: str) -> None:
    """Both ways: models see lines without their ends, and write either."""
    assert replace_once(text, old, new)[0] == after


def test_line_ends_alone_are_no_change() -> None:
    """It would be undone by what keeps them."""
    with pytest.raises(ToolError, match="differ only in their line ends"):
        replace_once("a\nb\n", "a\n", "a\r\n")


async def test_a_private_file_is_private_while_it_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its temporary name, too: others would read what they may not."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o600)
    modes: list[int] = []

    set_mode = os.fchmod

    def watch(fd: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))  # all its data is there
        set_mode(fd, mode)

    monkeypatch.setattr(os, "fchmod", watch)
    await use(file_kit(tmp_path)["file_write"], path="secret", content="new")
    assert path.read_text() == "new"
    assert modes == [0o600]


async def test_a_line_far_away_is_not_looked_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hole costs nothing to write, and everything to read."""
    monkeypatch.setattr(_files, "MAX_SKIPPED_BYTES", 1_000_000)
    with (tmp_path / "hole").open("wb") as file:
        file.write(b"x" * 9000)
        file.truncate(60 * 1024**3)
    said = await fail(file_kit(tmp_path)["file_read"], path="hole", offset=10**9)
    assert "is not in the first 1,000,000 bytes" in said
