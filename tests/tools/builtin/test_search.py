"""Looking for files, and for what is in them."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from agentpool import Capability, CapabilityKind
from agentpool.abc import Tool
from agentpool.tools import FileWork
from agentpool.tools.builtin import _search
from agentpool.tools.builtin._search import MAX_FOUND, search_tools, split_pattern
from agentpool.tools.system import _search_child
from agentpool.tools.system._walk_in_roots import find_roots
from tests.support.tool_helpers import all_gone, fail, file_kit, open_fds, result_of, use


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a few files."""
    for name, text in (
        ("a.py", "import os\nprint('Hello')\n"),
        ("src/b.py", "hello = 1\n"),
        ("src/deep/er/c.py", "# nothing\nHELLO\n"),
        ("src/notes.txt", "hello there\n"),
        (".git/config", "hello = secret\n"),
        ("bin.dat", "hello\0"),
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.py").write_text("hello from outside\n")
    return tmp_path / "in"


def tools_with(folder: Path, *, seconds: float) -> dict[str, Tool]:
    """Return the tools with another time limit."""
    needed = Capability.file_read(".")
    roots = find_roots([needed], CapabilityKind.FILE_READ, str(folder))
    made = search_tools(roots, needed, FileWork(), seconds=seconds)
    return {one.definition.name: one for one in made}


# --- glob


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("*.py", ".", {"a.py"}),
        ("**/*.py", ".", {"a.py", "src/b.py", "src/deep/er/c.py"}),
        ("src/**/*.py", ".", {"src/b.py", "src/deep/er/c.py"}),
        ("**/*.py", "src", {"src/b.py", "src/deep/er/c.py"}),
        ("deep/*/c.py", "src/", {"src/deep/er/c.py"}),
        ("**", "src/deep", {"src/deep/er/c.py"}),
        ("**/**/c.*", ".", {"src/deep/er/c.py"}),
        ("./src/./b.py", ".", {"./src/./b.py"}),
        ("src/[ab].??", ".", {"src/b.py"}),
        ("../in/a.py", ".", {"../in/a.py"}),
        ("*/*", ".", {"src/b.py", "src/notes.txt"}),
        (".git/*", ".", {".git/config"}),
        (".*/*", ".", {".git/config"}),
    ],
)
async def test_files_are_found_by_their_paths(
    folder: Path, pattern: str, path: str, found: set[str]
) -> None:
    """Relative to where they were looked for, so that a model can read them."""
    kit = file_kit(folder)
    told = await use(kit["glob"], pattern=pattern, path=path)
    assert set(told.split("\n")) == found
    for one in found:
        await use(kit["file_read"], path=one)


async def test_the_newest_files_come_first_and_not_too_many(folder: Path) -> None:
    """As in the original; and how many more there are is said."""
    for n in range(MAX_FOUND + 5):
        (folder / f"{n}.txt").write_text("")
        os.utime(folder / f"{n}.txt", (n, n))
    lines = (await use(file_kit(folder)["glob"], pattern="*.txt")).split("\n")
    assert lines[0] == f"{MAX_FOUND + 4}.txt"
    assert lines[-2:] == ["5.txt", "[5 more files; narrow the pattern]"]
    assert await use(file_kit(folder)["glob"], pattern="*.none") == "No files found."


def test_the_plain_beginning_of_a_pattern_is_a_path() -> None:
    """It is walked with all checks, and links in it are followed."""
    for pattern, path, expected in (
        ("*.py", "a", ("a", "*.py")),
        ("b/c/*.py", "a/", ("a/b/c", "*.py")),
        ("b/c.py", ".", ("b", "c.py")),
        ("/b/*/c", "a", ("/b", "*/c")),
        ("/c.py", "a", ("/", "c.py")),
    ):
        assert split_pattern(pattern, path) == expected


# --- grep


async def test_grep_takes_real_regular_expressions(folder: Path) -> None:
    """In the original it is said to, and does not."""
    grep = file_kit(folder)["grep"]
    told = await use(grep, pattern=r"^\w+ = \d$")
    assert told == "src/b.py:1:hello = 1"
    told = await use(grep, pattern="hello", ignore_case=True, include="*.py")
    assert told.split("\n") == [
        "a.py:2:print('Hello')", "src/b.py:1:hello = 1", "src/deep/er/c.py:2:HELLO",
    ]  # fmt: skip
    assert await use(grep, pattern="here", path="src/notes.txt") == "src/notes.txt:1:hello there"
    assert await use(grep, pattern="nowhere") == "No matches found."


async def test_grep_stays_within_its_paths(folder: Path) -> None:
    """In the original it searches every file that can be read."""
    (folder / "link.py").symlink_to("../out/secret.py")
    (folder / "folder").symlink_to("../out")
    grep = file_kit(folder)["grep"]
    assert "outside" not in await use(grep, pattern="hello")
    for path in ("../out", "folder", "link.py", "/etc", "../out/secret.py"):
        told = await fail(grep, pattern="hello", path=path)
        assert "outside of what is granted" in told
    for pattern in ("../out/*", "folder/*", "/etc/*", f"{folder}/../out/*"):
        told = await fail(file_kit(folder)["glob"], pattern=pattern)
        assert "outside of what is granted" in told


async def test_grep_leaves_out_what_is_hidden_or_no_text(folder: Path) -> None:
    """Unless it is named."""
    grep = file_kit(folder)["grep"]
    found = await use(grep, pattern="hello")
    assert ".git" not in found
    assert "bin.dat" not in found
    assert await use(grep, pattern="hello", path=".git") == ".git/config:1:hello = secret"


async def test_grep_has_a_bound(folder: Path) -> None:
    """A pattern that fits every line does not fill the window."""
    (folder / "many.txt").write_text("same\n" * 1000)
    lines = (await use(file_kit(folder)["grep"], pattern="same")).split("\n")
    assert len(lines) == MAX_FOUND + 1
    assert lines[-1].startswith(f"[stopped: {MAX_FOUND} lines were found")


async def test_a_long_line_is_shown_around_what_was_found(folder: Path) -> None:
    """Cut between characters."""
    (folder / "min.js").write_text("é" * 10_000 + "needle" + "漢" * 10_000)
    told = await use(file_kit(folder)["grep"], pattern="needle")
    assert "needle" in told
    assert "\ufffd" not in told
    assert len(told) < 400


async def test_a_pattern_that_takes_for_ever_is_ended(folder: Path) -> None:
    """With what was found until then; no other agent notices."""
    (folder / "a.py").write_text("aaa\n" + "a" * 40 + "b\n")
    kit = tools_with(folder, seconds=0.2)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await trio.sleep(0.01)
            beats += 1

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            told = await use(kit["grep"], pattern="^(a|a)*$")
            nursery.cancel_scope.cancel()
    assert told.split("\n")[0] == "a.py:1:aaa"
    assert told.split("\n")[1].startswith("[stopped: out of time")
    assert beats > 30
    assert await all_gone(_search_child.__file__)


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(?P<a>", "[", "*", "\\"])
async def test_a_pattern_that_is_none_is_told(folder: Path, pattern: str) -> None:
    """In Python's words."""
    told = await fail(file_kit(folder)["grep"], pattern=pattern)
    assert "not a regular expression" in told


async def test_a_pattern_is_never_a_flag(folder: Path) -> None:
    """In the original it is an argument of a program, in front of no ``--``."""
    (folder / "flags.txt").write_text("-rf --help\n")
    kit = file_kit(folder)
    assert await use(kit["grep"], pattern="--help") == "flags.txt:1:-rf --help"
    assert await use(kit["glob"], pattern="--help") == "No files found."
    assert "there is nothing at '--help'" in await fail(kit["grep"], pattern="a", path="--help")


async def test_pipes_and_devices_are_passed_over(folder: Path) -> None:
    """Neither waits nor ends."""
    os.mkfifo(folder / "pipe.py")
    kit = file_kit(folder, read=[".", "/dev"])
    with trio.fail_after(20):
        assert "pipe" not in await use(kit["grep"], pattern="hello")
        assert "pipe" not in await use(kit["glob"], pattern="*")
        assert "is a pipe" in await fail(kit["grep"], pattern="x", path="pipe.py")
        assert "is a device" in await fail(kit["grep"], pattern="x", path="/dev/zero")
        assert "is a file" in await fail(kit["glob"], pattern="*", path="a.py")


async def test_a_search_that_is_cancelled_leaves_nothing(folder: Path) -> None:
    """No process, and nothing open."""
    (folder / "a.py").write_text("a" * 40 + "b\n")
    grep = file_kit(folder)["grep"]
    fds = open_fds()
    with trio.move_on_after(0.3) as scope:
        await result_of(grep, pattern="^(a|a)*$")
    assert scope.cancelled_caught
    assert await all_gone(_search_child.__file__)
    assert open_fds() == fds


async def test_a_search_ends_by_itself_when_it_has_seen_too_much(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says of what."""
    monkeypatch.setattr(_search, "MAX_ENTRIES", 3)
    told = await use(file_kit(folder)["glob"], pattern="**/*.py")
    assert told.endswith("[stopped: 3 files and folders were looked at; name a smaller folder]")


async def test_a_search_without_an_interpreter_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a program that embeds Python; or one whose interpreter does not work."""
    grep = file_kit(folder)["grep"]
    monkeypatch.setattr(sys, "executable", "")
    assert "no Python interpreter" in await fail(grep, pattern="x")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert "No such file" in await fail(grep, pattern="x")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "the search failed" in await fail(grep, pattern="x")


def environments_of_searches() -> list[bytes]:
    """Return the environment of each of our children that searches."""
    pids = [
        pid
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return [
        Path(f"/proc/{pid}/environ").read_bytes()
        for pid in pids
        if b"_search_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def test_keys_are_not_in_the_environment_of_the_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that reads any file and matches any pattern needs no key for it."""
    key = "sk-not-for-children"
    for name in ("OPENAI_API_KEY", "LC_TOKEN", "GGML_TOKEN", "PYTHON_KEY"):
        monkeypatch.setenv(name, key)
    (folder / "slow.txt").write_text("a" * 40 + "b")
    seen: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(use, tools_with(folder, seconds=2)["grep"], pattern="(a+)+$", path="slow.txt")
        )
        while not seen:
            await trio.sleep(0.01)
            seen += environments_of_searches()
        nursery.cancel_scope.cancel()
    assert key.encode() not in seen[0]
    assert b"PATH=" in seen[0]
