"""What the process that searches does, and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from agentpool._messages import Json
from agentpool.tools.system import _search_child
from agentpool.tools.system._kernel_systems import kernel_devices
from agentpool.tools.system._search_child import (
    MAX_LINE_BYTES,
    MAX_MEMORY_BYTES,
    MAX_SHOWN_CHARS,
    GlobPattern,
    Grep,
    Request,
    excerpt,
    grep,
    limit_process,
    main,
    text_lines,
)

if sys.platform == "win32":
    pytest.skip("there are no descriptors of folders", allow_module_level=True)


def request_for(
    folder: Path,
    kind: str,
    pattern: str,
    *,
    fd: int | None = None,
    shown: str = "",
    limit: int = 10,
    max_entries: int = 1000,
    seconds: float = 60,
) -> Request:
    """Return a request for *folder*."""
    return Request(
        kind=kind, fd=fd, path=str(folder), shown=shown, pattern=pattern, include="*",
        ignore_case=False, limit=limit, max_entries=max_entries, seconds=seconds,
    )  # fmt: skip


def run(request: Request) -> list[dict[str, Json]]:
    """Have *request* done here, and return what was said."""
    target = io.BytesIO()
    source = io.BytesIO(json.dumps(request._asdict()).encode() + b"\n")
    main(source, target, limit=lambda _: None)
    return [cast("dict[str, Json]", json.loads(line)) for line in target.getvalue().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a few files."""
    for name in ("a.py", "sub/b.py", "sub/.hidden/c.py", ".top.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one\ntwo\n")
    (tmp_path / "link").symlink_to("sub")
    (tmp_path / "link.py").symlink_to("a.py")
    return tmp_path


@pytest.mark.parametrize("by_fd", [True, False], ids=["by descriptor", "by path"])
def test_both_ways_to_name_a_folder_find_the_same(folder: Path, *, by_fd: bool) -> None:
    """Where folders have no descriptors, by its path."""
    fd = os.open(folder, os.O_RDONLY) if by_fd else None
    found = run(request_for(folder, "glob", "**/*.py", fd=fd))
    assert {str(one["path"]) for one in found[:-1]} == {"a.py", "sub/b.py"}
    assert found[-1] == {"end": "", "total": 2}
    found = run(request_for(folder, "grep", "tw", fd=fd))
    assert found == [
        {"path": "a.py", "line": 2, "text": "two"},
        {"path": "sub/b.py", "line": 2, "text": "two"},
        {"end": ""},
    ]
    assert len(run(request_for(folder / "a.py", "grep", "tw", shown="a.py"))) == 2
    if fd is not None:
        os.close(fd)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a/a", False),
        ("**", "a/b/c", True),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("a/**/c", "b/c", False),
        ("**/b/**/b/**", "b/x/b/y", True),
        ("**/b/**/b/**", "b/x/y", False),
        ("*", ".a", False),
        (".*", ".a", True),
        ("**/a", ".b/a", False),
        ("[!a]?c", "bbc", True),
        ("[!a]?c", "abc", False),
    ],
)
def test_patterns_are_matched_part_by_part(pattern: str, path: str, *, fits: bool) -> None:
    """And no part is tried twice, however many stars there are."""
    glob = GlobPattern(pattern)
    states = glob.start
    for name in path.split("/"):
        states = glob.step(states, name)
    assert glob.is_whole(states) is fits


def test_many_stars_take_no_longer() -> None:
    """Matched by trying, 30 of them in a path of 60 parts would take for ever."""
    glob = GlobPattern("/".join(["**", "a"] * 30 + ["b"]))
    states = glob.start
    for _ in range(60):
        states = glob.step(states, "a")
        assert glob.goes_on(states)
    assert not glob.is_whole(states)


def test_the_newest_are_kept(folder: Path) -> None:
    """However many there are, no more than wanted are held."""
    for n in range(20):
        (folder / f"{n}.txt").write_text("")
        os.utime(folder / f"{n}.txt", (n, n))
    found = run(request_for(folder, "glob", "*.txt", limit=3))
    assert [one.get("path") for one in found] == ["19.txt", "18.txt", "17.txt", None]
    assert found[-1] == {"end": "", "total": 20}


@pytest.mark.parametrize("kind", ["glob", "grep"])
def test_it_stops_when_it_has_looked_at_enough(folder: Path, kind: str) -> None:
    """Entries, time, or finds; and says which."""
    assert run(request_for(folder, kind, "t*", max_entries=2))[-1]["end"] == "entries"
    assert run(request_for(folder, kind, "t*", seconds=-1))[-1]["end"] == "time"
    assert run(request_for(folder, "grep", "o", limit=1))[-1] == {"end": "limit"}


def test_folders_within_folders_have_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a descriptor."""
    monkeypatch.setattr(_search_child, "MAX_DEPTH", 1)
    (folder / "sub" / "deep").mkdir()
    (folder / "sub" / "deep" / "d.py").write_text("two")
    for kind, pattern in (("glob", "**/*.py"), ("grep", "two")):
        shown = json.dumps(run(request_for(folder, kind, pattern)))
        assert "sub/b.py" in shown
        assert "d.py" not in shown


def test_what_cannot_be_opened_or_has_gone_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may remove what was listed a moment ago."""
    fd = os.open(folder, os.O_RDONLY)

    def gone(*_: object, **__: object) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    real_stat = os.stat

    def gone_below(path: int | str, **_: object) -> os.stat_result:
        if not isinstance(path, int) and path != str(folder):
            gone()
        return real_stat(path)

    monkeypatch.setattr(os, "stat", gone_below)
    for named in (fd, None):
        found = run(request_for(folder, "glob", "*.py", fd=named))
        assert [one.get("path") for one in found] == ["a.py", None]
    monkeypatch.setattr(os, "open", gone)
    assert run(request_for(folder, "glob", "**/b.py", fd=fd)) == [{"end": "", "total": 0}]
    assert run(request_for(folder, "grep", "two", fd=fd)) == [{"end": ""}]
    assert run(request_for(folder, "grep", "two")) == [{"end": ""}]
    os.close(fd)


def test_a_pipe_that_takes_the_place_of_a_file_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened without waiting, and looked at."""
    real_open = os.open

    def swap_then_open(path: str, flags: int, **options: int) -> int:
        if path.endswith("a.py"):
            os.replace(folder / "pipe", folder / "a.py")  # noqa: PTH105  # the test's own swap
        return real_open(path, flags, **options)

    os.mkfifo(folder / "pipe")
    monkeypatch.setattr(os, "open", swap_then_open)
    found = run(request_for(folder, "grep", "two"))
    assert [one.get("path") for one in found] == ["sub/b.py", None]


def test_names_that_are_no_text_are_shown_as_well_as_they_can_be(folder: Path) -> None:
    """A name is bytes; the answer must be text."""
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/x\xff.txt")).write_text("two")
    except OSError:
        pytest.skip("this file system knows no such names")
    assert run(request_for(folder, "glob", "x*"))[0] == {"path": "x\ufffd.txt"}


def test_long_lines_are_searched_at_their_beginning() -> None:
    """A line of megabytes takes no more memory than a short one, and is one line."""
    text = "é" * 200_000 + "end\nnext"
    lines = list(text_lines(io.BytesIO(text.encode())))
    assert [number for number, _ in lines] == [1, 2]
    assert len(lines[0][1].encode()) <= MAX_LINE_BYTES + 3
    assert lines[1][1] == "next"
    exact = b"x" * MAX_LINE_BYTES
    assert len(list(text_lines(io.BytesIO(exact)))) == 1
    assert [n for n, _ in text_lines(io.BytesIO(exact + b"\r\ny"))] == [1, 2]
    assert not list(text_lines(io.BytesIO(b"a\0b")))


def test_a_piece_of_a_line_is_cut_between_characters() -> None:
    """With dots where it was cut."""
    assert excerpt("short", 0, 5) == "short"
    line = "漢" * 1000
    assert excerpt(line, 0, 1) == "漢" * MAX_SHOWN_CHARS + "…"
    assert excerpt(line, 500, 501) == "…" + "漢" * MAX_SHOWN_CHARS + "…"
    assert excerpt(line, 990, 1000) == "…" + "漢" * 70


def test_too_much_memory_is_said(folder: Path) -> None:
    """And not a traceback on the other side."""

    class Full(io.BytesIO):
        def write(self, data: object, /) -> int:
            if b'"line"' in cast("bytes", data):
                raise MemoryError
            return super().write(cast("bytes", data))

    target = Full()
    source = io.BytesIO(json.dumps(request_for(folder, "grep", "two")._asdict()).encode())
    main(source, target, limit=lambda _: None)
    assert b"it takes too much memory" in target.getvalue()


def test_a_pattern_that_is_none_is_said(folder: Path) -> None:
    """Nothing is searched then."""
    said: list[dict[str, object]] = []
    grep(request_for(folder, "grep", "("), said.append)
    assert "not a regular expression" in str(said[0]["error"])


def test_the_kernel_ends_it_if_nobody_else_does(folder: Path) -> None:
    """Whoever started it may be gone, and no Python code runs while it matches."""
    (folder / "a.py").write_text("a" * 40 + "b")
    request = request_for(folder, "grep", "^(a|a)*$", seconds=0.5)
    done = subprocess.run(
        [sys.executable, "-I", "-S", _search_child.__file__],
        input=json.dumps(request._asdict()).encode() + b"\n",
        capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode in {-signal.SIGXCPU, -signal.SIGKILL}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not limited")
def test_what_the_kernel_is_told() -> None:
    """A second more than it was given, and memory for any sane pattern."""
    code = (
        "import resource as r\n"
        "from agentpool.tools.system._search_child import limit_process\n"
        "limit_process(30.5)\n"
        "print(r.getrlimit(r.RLIMIT_CPU), r.getrlimit(r.RLIMIT_AS))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == f"(31, 31) ({MAX_MEMORY_BYTES}, {MAX_MEMORY_BYTES})\n"


def test_other_names_than_those_asked_for_are_not_opened(folder: Path) -> None:
    """Neither for their lines nor for the limit on how much is looked at."""
    request = request_for(folder, "grep", ".")._replace(include="*.none")
    assert not [said for said in run(request) if "line" in said]


def test_a_platform_without_limits_searches_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever asked has a clock too."""
    monkeypatch.setitem(sys.modules, "resource", None)
    limit_process(1.0)


def test_nobody_who_listens_is_no_error(folder: Path) -> None:
    """It ends quietly when its output is closed."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", _search_child.__file__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        child.stdin.write(json.dumps(request_for(folder, "grep", "o")._asdict()).encode() + b"\n")
        child.stdin.close()
        assert child.wait(20) in {0, 120}
        assert b"Traceback" not in child.stderr.read()


def test_the_kernels_own_folders_are_not_gone_into(folder: Path) -> None:
    """Wherever they are mounted: keys stand in the environment of each process there."""
    assert Path("/proc").stat().st_dev in kernel_devices()
    assert folder.stat().st_dev not in kernel_devices()
    assert kernel_devices(str(folder / "none")) == frozenset()
    for kind, pattern, include in (
        ("glob", "*/*/environ", ""), ("glob", "proc/*/status", ""),
        ("glob", "*/*/task/*/environ", ""),
        ("grep", "^VmRSS", "status"), ("grep", "PATH=", "environ"),
    ):  # fmt: skip
        fd = os.open("/", os.O_RDONLY)
        request = request_for(Path("/"), kind, pattern, fd=fd)._replace(
            include=include, shown="/", closed=tuple(kernel_devices()), max_entries=20_000
        )
        found = [one for one in run(request) if str(one.get("path", "")).startswith("/proc/")]
        os.close(fd)
        assert not found


def test_a_file_that_cannot_be_read_does_not_end_the_search(tmp_path: Path) -> None:
    """A bad disk, or a file that the kernel gives no bytes of."""
    broken = Path("/proc/self/mem")  # it can be opened, and reading its beginning fails
    (tmp_path / "b.txt").write_text("hello")

    class Folder(Grep):
        """One whose first file is broken."""

        def search(self, file: BinaryIO, shown: str) -> None:
            if shown.endswith("a.txt"):
                with broken.open("rb") as unreadable:
                    super().search(unreadable, shown)
            super().search(file, shown)

    (tmp_path / "a.txt").write_text("hello")
    said: list[dict[str, object]] = []
    request = request_for(tmp_path, "grep", "hello")
    Folder(request, re.compile("hello"), said.append).look(str(tmp_path), "")
    assert [one["path"] for one in said] == ["b.txt"]


def test_one_file_that_cannot_be_read_is_said() -> None:
    """In words, and not as a traceback."""
    request = request_for(Path("/proc/self/mem"), "grep", "x")
    (said,) = run(request)
    assert "cannot be read: Input/output error" in str(said["error"])
