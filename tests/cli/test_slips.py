"""Slips in a command: each error names the option, says what it is, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentpool._cli import main
from tests.support.cli_runner import Desk, make_desk


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


GONE = "cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("run", "reader.toml", "Why?", "--schema", "fakt.json"),
            f"--schema 'fakt.json' {GONE}; check the path; did you mean 'fact.json'?",
        ),
        (
            ("run", "reader.toml", "Why?", "--driver", "script:script2.toml"),
            (
                f"the script of --driver 'script:script2.toml' {GONE}; check the path; "
                "did you mean 'script.toml'?"
            ),
        ),
        (
            ("run", "reader.toml", "Why?", "--driver", "script:no/such.toml"),
            f"the script of --driver 'script:no/such.toml' {GONE}; check the path",
        ),
        (
            ("run", "reader.toml", "Why?", "--schema", "empty"),
            "--schema 'empty' is empty; write the JSON Schema of an object into it",
        ),
        (
            ("run", "reader.toml", "Why?", "--driver", "script:empty"),
            (
                "the script of --driver 'script:empty' is empty; "
                'write [[answers]] and text = "..." into it'
            ),
        ),
        (
            ("run", "raeder.toml", "Why?"),
            f"raeder.toml: {GONE}; did you mean 'reader.toml'?",
        ),
        (
            ("check", "sub/raeder.toml"),
            f"sub/raeder.toml: {GONE}; did you mean 'sub/reader.toml'?",
        ),
        (
            ("run", "wrong.toml", "Why?"),
            (
                "wrong.toml: is not valid TOML: Invalid value (at line 1, column 8); "
                'put a text into quotes: name = "reader"'
            ),
        ),
        (
            ("run", "reader.toml", "Why?", "--trace", "nodir/x.trace"),
            (
                "the trace 'nodir/x.trace' cannot be written: 'nodir' is not a folder; make it, or "
                "name another file"
            ),
        ),
        (
            (
                "run",
                "reader.toml",
                "Why?",
                "--trace",
                "notes.txt",
                "--driver",
                "script:script.toml",
            ),
            (
                "the trace 'notes.txt' cannot be written: the existing file is not a trace; name "
                "another file, or delete it"
            ),
        ),
        (
            ("run", "reader.toml", "Why?", "--report", "notes.txt"),
            (
                "the report 'notes.txt' cannot be written: the file there is not a page; name "
                "another file, or delete it"
            ),
        ),
    ],
)
def test_a_slip_is_said_in_one_line(desk: Desk, words: tuple[str, ...], says: str) -> None:
    """Nothing is asked, and no file is touched."""
    (desk.folder / "sub").mkdir()
    (desk.folder / "sub/reader.toml").touch()
    desk.write(fact_json="{}", empty="", notes_txt="my notes\n", wrong_toml="name = x\n")
    done = desk.call(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == f"agentpool: error: {says}"
    assert (desk.folder / "notes.txt").read_text() == "my notes\n"


def test_a_model_file_that_is_not_there_is_that_of_an_option(desk: Desk) -> None:
    """The key of a manifest says nothing to whoever wrote none."""
    desk.write(note_gguf="")
    done = desk.call("run", "Why?", "--model", "nope.gguf")
    assert done.code == 2
    assert "names; did you mean 'note.gguf'?" in done.err
    assert "check the path that model_path, or --model, names" in done.err


def test_an_input_that_is_not_there_is_looked_for(desk: Desk) -> None:
    """As everything else that a command names."""
    desk.write(a_txt="one")
    done = desk.scripted("map", "reader.toml", "--each", "aa.txt")
    assert f"input 'aa.txt' {GONE}; check the path; did you mean 'a.txt'?" in done.err


@pytest.mark.parametrize("option", ["--trace", "--report", "--journal", "--memory"])
def test_no_file_is_written_to_standard_output(desk: Desk, option: str) -> None:
    """Nor is there one with that name afterwards."""
    done = desk.scripted("run", "reader.toml", "Why?", option, "-")
    assert done.code == 2
    assert f"argument {option}: must be a file, got '-': only answers go to" in done.err
    done = desk.scripted("run", "reader.toml", "Why?", option, "")
    assert f"argument {option}: must be a file, got an empty name; leave" in done.err
    assert not (desk.folder / "-").exists()


def test_a_page_is_no_text_file(desk: Desk) -> None:
    """A page and a trace of before are written anew, a text is not."""
    desk.write(notes_txt="my notes\n")
    words = ("run", "reader.toml", "Why?", "--trace", "a.trace", "--report", "a.html")
    assert [desk.scripted(*words).code for _ in range(2)] == [0, 0]
    done = desk.call("show", "a.trace", "--html", "notes.txt")
    assert (done.code, "the file there is not a page" in done.err) == (2, True)
    assert (desk.folder / "notes.txt").read_text() == "my notes\n"


def test_the_name_of_a_file_as_the_query_is_warned_of_if_not_quiet(desk: Desk) -> None:
    """The warning says what several files want."""
    desk.write(a_txt="hello")
    loud = desk.scripted("run", "reader.toml", "a.txt")
    assert "for several files: agentpool map MANIFEST --each a.txt\n" in loud.err
    quiet = desk.scripted("run", "reader.toml", "a.txt", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")


def test_main_reads_the_folder_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint is no reason for another error."""
    monkeypatch.setattr("os.listdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert main(["check", "gone.toml"]) == 2
