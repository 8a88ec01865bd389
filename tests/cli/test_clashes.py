"""No command writes over a file that it reads, or that it writes as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli_runner import Desk, make_desk


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with inputs, a trace and other spellings of their paths."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(notes_txt="one", fact_json='{"type": "object"}', photo_png=b"\x89PNG\r\n\x1a\n")
    desk.write(m_gguf="a model")
    (tmp_path / "sr").mkdir()
    (tmp_path / "sr" / "a.py").write_text("print(1)")
    assert desk.scripted("run", "reader.toml", "hello", "--trace", "q.trace").code == 0
    (tmp_path / "link.toml").symlink_to("reader.toml")
    (tmp_path / "other").symlink_to("sr")
    (tmp_path / "away").symlink_to("new.html")
    return desk


def files_of(desk: Desk) -> dict[str, bytes]:
    """Return what is in the folder."""
    return {
        str(path.relative_to(desk.folder)): path.read_bytes()
        for path in desk.folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "map reader.toml --each sr --output-dir sr",
            "--output-dir 'sr' would write over the input, 'sr/a.py'; name another folder",
        ),
        ("map reader.toml --each sr --output-dir other", "over the input, 'sr/a.py'"),
        ("map reader.toml --each sr/a.py - --output-dir sr", "over the input, 'sr/a.py'"),
        (
            "map reader.toml --each sr --output-dir out --report out/a.py",
            "'out' would write over the file of --report, 'out/a.py'",
        ),
        (
            "map reader.toml --each sr --output-dir out --trace out/a.py.partial",
            "over the file of --trace",
        ),
        (
            "map reader.toml --each sr --report sr/a.py",
            "--report 'sr/a.py' would write over the input, 'sr/a.py'; name another file",
        ),
        ("map reader.toml --each notes.txt --trace notes.txt", "over the input, 'notes.txt'"),
        (
            "map reader.toml --each sr --reduce editor.toml --trace editor.toml",
            "over the manifest, 'editor.toml'",
        ),
        ("map reader.toml --each none sr --trace sr/../sr/a.py", "over the input, 'sr/a.py'"),
        (
            "run reader.toml hi --trace reader.toml",
            "--trace 'reader.toml' would write over the manifest, 'reader.toml'; name another file",
        ),
        ("run reader.toml hi --report ./sr/../reader.toml", "over the manifest, 'reader.toml'"),
        ("run reader.toml hi --report link.toml", "over the manifest, 'reader.toml'"),
        ("run link.toml hi --report reader.toml", "over the manifest, 'link.toml'"),
        (
            "run reader.toml hi --report x.html --trace x.html",
            "--report 'x.html' would write over the file of --trace, 'x.html'",
        ),
        (
            "run reader.toml hi --report away --trace new.html",
            "--report 'away' would write over the file of --trace, 'new.html'",
        ),
        ("run reader.toml hi --memory m.db --trace ./m.db", "over the memory, 'm.db'"),
        ("run reader.toml hi --journal j.db --report j.db", "over the journal, 'j.db'"),
        (
            "run reader.toml hi --session sky --report agentpool.db",
            "over the journal, 'agentpool.db'",
        ),
        ("run reader.toml hi --schema fact.json --trace fact.json", "over the schema, 'fact.json'"),
        (
            "run reader.toml hi --attach photo.png --trace photo.png",
            "over the attachment, 'photo.png'",
        ),
        (
            "run reader.toml hi --trace script.toml --driver script:script.toml",
            "over the script, 'script.toml'",
        ),
        ("run hi --model m.gguf --trace m.gguf", "over the model, 'm.gguf'"),
        ("chat reader.toml --trace reader.toml", "over the manifest, 'reader.toml'"),
        ("chat --session a --trace agentpool.db", "over the journal, 'agentpool.db'"),
        ("serve reader.toml --report reader.toml", "over the manifest, 'reader.toml'"),
        (
            "show q.trace --html q.trace",
            "--html 'q.trace' would write over the trace, 'q.trace'; name another file",
        ),
        ("show q.trace --diff notes.txt --html notes.txt", "leave one out"),
    ],
)
def test_no_file_of_the_command_is_written_over(desk: Desk, words: str, said: str) -> None:
    """It says which option and which file, and nothing is changed or made."""
    (desk.folder / "none").mkdir()
    before = files_of(desk)
    done = desk.call(*words.split())
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert files_of(desk) == before


def test_what_is_apart_is_written(desk: Desk) -> None:
    """A copy in another folder is another file, and so is what stood there before."""
    shutil.copytree(desk.folder / "sr", desk.folder / "out")
    words = ("map", "reader.toml", "--each", "sr", "--output-dir", "out")
    done = desk.scripted(*words, "--trace", "q.trace", "--report", "q.html")
    assert (done.code, (desk.folder / "out" / "a.py").read_text()) == (0, "A note.\n")
    assert (desk.folder / "sr" / "a.py").read_text() == "print(1)"


def test_a_path_that_no_system_has_is_refused_where_it_is_read(desk: Desk) -> None:
    """It is no file, and so none that is written over."""
    done = desk.scripted("map", "reader.toml", "--each", "a\0b", "--trace", "t")
    assert (done.code, "cannot be read" in done.err) == (1, True)


@pytest.mark.parametrize("option", ["--trace", "--report"])
def test_no_journal_or_memory_is_written_over(desk: Desk, option: str) -> None:
    """Also where the command has no journal: a slip of an option would cost all runs."""
    assert desk.scripted("run", "reader.toml", "hello", "--journal", "j.db").code == 0
    before = files_of(desk)
    done = desk.scripted("run", "reader.toml", "hello", option, "j.db")
    assert done.code == 2
    said = f"{option} 'j.db' would write over an SQLite file, such as a journal or a memory; name"
    assert said in done.err
    assert files_of(desk) == before
    (desk.folder / "pipe").symlink_to("/dev/null")
    assert "j.db" not in desk.scripted("run", "reader.toml", "hello", option, "pipe").err
