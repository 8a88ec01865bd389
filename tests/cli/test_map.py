"""``agentpool map``: one agent for each file, in order, and one bad input costs no other."""

import io
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from agentpool import AgentOutcome, AgentStatus
from agentpool._cli._inputs import short_names
from agentpool._cli._reduce import notes_of
from agentpool._cli._result import Result
from tests.support.cli_runner import Desk, make_desk


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and five texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="broken", c_txt=b"\xff", d_txt="  \n", e_txt="five")
    return desk


def test_utf_16_without_a_mark_is_no_text(desk: Desk) -> None:
    """It can be read as UTF-8, with a NUL in every other place."""
    desk.write(**{f"{name}_txt": "one".encode(name) for name in ("utf-16-le", "utf-16-be")})
    for name in ("utf-16-le", "utf-16-be"):
        done = desk.scripted("map", "reader.toml", "--each", f"{name}.txt")
        assert done.code == 1
        assert "has NUL characters, so it is not text, or is UTF-16; save it as UTF-8" in done.err


def test_results_come_in_the_order_of_the_files(desk: Desk) -> None:
    """Whoever is done first."""
    desk.write(script_toml='[[answers]]\nwhen="one"\nseconds=0.1\ntext="1"\n[[answers]]\ntext="5"')
    done = desk.scripted("map", "reader.toml", "--each", "a.txt", "e.txt")
    assert (done.code, done.out) == (0, "## a.txt\n\n1\n\n## e.txt\n\n5\n\n")
    ends = re.findall(r"reader (\S+) completed", done.err)
    assert ends == ["e.txt", "a.txt"]


def test_several_sources_are_taken_level(desk: Desk) -> None:
    """A short source is not kept waiting by a long one, and results keep their order."""
    desk.write(**{f"{name}_txt": name for name in ("m1", "m2", "m3", "p1", "p2")})
    sources = ["--each", "m1.txt", "m2.txt", "m3.txt", "--each", "p1.txt", "gone.txt", "p2.txt"]
    done = desk.scripted("map", "reader.toml", *sources, "--max-concurrent", "1")
    assert re.findall("^## (.*)$", done.out, re.MULTILINE) == [
        "m1.txt", "m2.txt", "m3.txt", "p1.txt", "gone.txt (failed)", "p2.txt",
    ]  # fmt: skip
    starts = re.findall(r"reader (\S+) started", done.err)
    assert starts == ["m1.txt", "p1.txt", "m2.txt", "m3.txt", "p2.txt"]


def test_one_bad_input_costs_no_other(desk: Desk) -> None:
    """Broken, no text, empty, missing: each is said, and the rest is done."""
    files = ["a.txt", "b.txt", "c.txt", "d.txt", "gone.txt", "e.txt"]
    done = desk.scripted("map", "reader.toml", "--each", *files, "--max-concurrent", "1")
    assert done.code == 1
    assert re.findall("^## (.*)$", done.out, re.MULTILINE) == [
        "a.txt", "b.txt (failed)", "c.txt (failed)", "d.txt (failed)", "gone.txt (failed)",
        "e.txt",
    ]  # fmt: skip
    errors = [line for line in done.err.splitlines() if line.startswith("agentpool: error")]
    assert errors == [
        "agentpool: error: b.txt: BadRequestError: the model is out of order",
        "agentpool: error: input 'c.txt' is not UTF-8: line 1; save it as UTF-8",
        "agentpool: error: input 'd.txt' is empty; there is nothing to ask",
        f"agentpool: error: input 'gone.txt' cannot be read: {os.strerror(2)}; check the path",
    ]
    assert "2 completed, 4 failed" in done.err


def test_json_names_the_input(desk: Desk) -> None:
    """Also of one from which no agent could be made."""
    done = desk.scripted("map", "reader.toml", "--each", "a.txt", "c.txt", "--json")
    good, bad, summary = done.lines
    assert (good["input"], good["status"], good["agent_id"]) == ("a.txt", "completed", 1)
    assert (bad["input"], bad["status"], bad["agent_id"]) == ("c.txt", "failed", None)
    assert (bad["usage"], bad["cost_usd"], bad["seconds"]) == (None, None, None)
    assert bad["error"]["type"] == "UsageError"
    assert (summary["completed"], summary["failed"], summary["exit_code"]) == (1, 1, 1)


def test_the_editor_gets_all_notes_with_their_files(desk: Desk) -> None:
    """In order, without those that failed."""
    desk.write(
        script_toml="""
        [[answers]]
        when = "Look:\\n\\na.txt:\\nA note.\\n\\ne.txt:\\nA note."
        text = "I saw them."
        [[answers]]
        when = "Read: "
        error = "the prompt and the text are one message"
        [[answers]]
        when = "Read:\\n\\n"
        text = "A note."
        """
    )
    files = ["a.txt", "c.txt", "e.txt"]
    prompts = ["--prompt", "Read:", "--reduce-prompt", "Look:"]
    done = desk.scripted(
        "map", "reader.toml", "--each", *files, "--reduce", "editor.toml", *prompts
    )
    assert done.out.endswith("## editor\n\nI saw them.\n\n")
    assert done.code == 1


def test_nothing_to_reduce_is_said(desk: Desk) -> None:
    """The editor is not asked about nothing."""
    done = desk.scripted("map", "reader.toml", "--each", "b.txt", "--reduce", "editor.toml")
    assert done.code == 1
    assert "agentpool: error: there is no answer to reduce; see the errors above" in done.err
    assert "editor started" not in done.err


def test_an_editor_that_cannot_run_is_said_first(desk: Desk) -> None:
    """Not after an hour of reading."""
    desk.write(editor_toml="[model]\nmax_tokens = 10\ncontext_window = 11")
    done = desk.scripted("map", "reader.toml", "--each", "a.txt", "--reduce", "editor.toml")
    assert (done.code, done.out) == (2, "")
    assert "started" not in done.err


def result(source: str, status: AgentStatus, text: str) -> Result:
    """Return what became of the file *source*."""
    outcome = AgentOutcome(agent_id=1, name="r", status=status, text=text)
    return Result(name="r", label=source, source=source, outcome=outcome)


def test_half_a_note_is_better_than_none() -> None:
    """What a guard stopped has words; what failed or was cancelled is left out."""
    results = [
        result("x/a.txt", AgentStatus.COMPLETED, " one\n"),
        result("x/b.txt", AgentStatus.STOPPED, "hal"),
        result("x/c.txt", AgentStatus.FAILED, "no"),
        result("x/d.txt", AgentStatus.COMPLETED, ""),
    ]
    assert notes_of(results) == "a.txt:\none\n\nb.txt:\nhal"


def test_a_file_may_have_any_name() -> None:
    """On Linux one that is not UTF-8: as it is, no request could carry it to the editor."""
    names = ("a\udcff.txt", "b\n.txt")
    notes = notes_of([result(name, AgentStatus.COMPLETED, "one") for name in names])
    assert notes.encode() == b"a .txt:\none\n\nb .txt:\none"


def test_files_with_the_same_name_are_told_apart() -> None:
    """By their whole path."""
    assert short_names(["a/x", "b/x", "c/y", "."]) == ["a/x", "b/x", "y", "."]


def test_many_files_are_named_at_once() -> None:
    """Each was looked for among all: 20,000 took six seconds before anything began."""
    before = os.times().user
    names = short_names([f"texts/{n}" for n in range(20_000)])
    assert (names[0], names[-1]) == ("0", "19999")
    assert os.times().user - before < 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_input_may_be_a_pipe(desk: Desk) -> None:
    """As the shell makes them of ``<(command)``; the others go on while one waits."""
    os.mkfifo(desk.folder / "pipe")
    words = ["map", "reader.toml", "--each", "pipe", "--driver", "script:script.toml"]
    process = desk.start(*words)
    with Path(desk.folder / "pipe").open("w") as pipe:
        pipe.write("text")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"## pipe\n\nA note.\n\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_input_that_never_comes_costs_no_other(desk: Desk) -> None:
    """Nobody may ever write into a pipe, so the files behind it do not wait for it."""
    os.mkfifo(desk.folder / "pipe")
    words = ["map", "reader.toml", "--each", "pipe", "a.txt", "--driver", "script:script.toml"]
    process = desk.start(*words)
    assert process.stderr is not None
    assert process.stderr.readline() == b"[0/2] reader pipe waits for its input\n"
    assert any(b"a.txt completed" in line for line in process.stderr)
    with Path(desk.folder / "pipe").open("w") as pipe:
        pipe.write("text")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"## pipe\n\nA note.\n\n## a.txt\n\nA note.\n\n")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_an_input_without_an_end_costs_no_other(desk: Desk) -> None:
    """It was read until there was no memory left, and that was the end of all."""
    done = desk.scripted("map", "reader.toml", "--each", "/dev/zero", "a.txt")
    assert (done.code, done.out) == (1, "## /dev/zero (failed)\n\n## a.txt\n\nA note.\n\n")
    assert "input '/dev/zero' is larger than 67,108,864 bytes, and no model reads" in done.err


SLOW_FIRST = """
[[answers]]
when = "one"
seconds = 0.1
text = "1"
[[answers]]
text = "5"
"""


@pytest.mark.parametrize("flag", ["--json", "--unordered"])
def test_a_slow_input_holds_no_other_back(desk: Desk, flag: str) -> None:
    """With JSON lines, or when asked for, each result is written when it is there."""
    desk.write(script_toml=SLOW_FIRST)
    done = desk.scripted("map", "reader.toml", "--each", "a.txt", "e.txt", flag)
    assert done.code == 0
    assert done.out.index("e.txt") < done.out.index("a.txt")


def test_the_editor_gets_notes_in_order_whoever_is_first(desk: Desk) -> None:
    """What is printed early changes nothing about the reduction."""
    desk.write(script_toml=SLOW_FIRST)
    words = ("map", "reader.toml", "--each", "a.txt", "e.txt", "--reduce", "editor.toml")
    done = desk.scripted(*words, "--unordered", "--json")
    assert [line.get("input") for line in done.lines] == ["e.txt", "a.txt", None, None]


def test_results_written_before_a_kill_are_kept(desk: Desk) -> None:
    """Somebody who kills the program has what was there, though the first input hangs."""
    (desk.folder / "n_endless.txt").write_text("endless")
    words = ("--each", "n_endless.txt", "a.txt", "e.txt", "--driver", "script:script.toml")
    with desk.start("map", "reader.toml", *words, "--json") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.kill()
    assert {line["input"] for line in lines} == {"a.txt", "e.txt"}


def test_an_interruption_names_every_input(desk: Desk) -> None:
    """Those that ended and those that did not, once each, also when they come unordered."""
    (desk.folder / "n_endless.txt").write_text("endless")
    words = ("--each", "n_endless.txt", "a.txt", "e.txt", "--driver", "script:script.toml")
    command = ("map", "reader.toml", *words, "--json", "--max-concurrent", "1")
    with desk.start(*command, "--deadline", "3600") as process:
        assert process.stderr is not None
        while b"n_endless.txt started" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 130
    assert sorted(line["input"] for line in lines[:-1]) == ["a.txt", "e.txt", "n_endless.txt"]
    assert {line["status"] for line in lines[:-1]} == {"cancelled"}


def test_answers_go_into_a_folder(desk: Desk) -> None:
    """One file each, named after its input; what is not complete says so by its name."""
    manifest = (desk.folder / "reader.toml").read_text()
    desk.write(reader_toml=manifest + "[resources]\nmax_iterations = 3\n", n_txt="two\nlines")
    words = ("map", "reader.toml", "--each", "a.txt", "b.txt", "e.txt", "--output-dir", "out/new")
    done = desk.scripted(*words)
    assert (done.code, done.out) == (1, "")
    folder = desk.folder / "out" / "new"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "a.txt": "A note.\n",
        "e.txt": "A note.\n",
    }
    assert "b.txt: BadRequestError" in done.err


def test_an_answer_that_is_not_complete_is_marked(desk: Desk) -> None:
    """Half an answer must not look like a whole one."""
    (desk.folder / "long.txt").write_text("endless")
    words = ("--each", "long.txt", "--output-dir", "out", "--deadline", "0.2")
    assert desk.scripted("map", "reader.toml", *words).code == 3
    assert [path.name for path in (desk.folder / "out").iterdir()] == ["long.txt.partial"]


def test_a_folder_that_cannot_be_written_ends_the_command(desk: Desk) -> None:
    """At once where it is not a folder, and at the first answer otherwise."""
    words = ("map", "reader.toml", "--each", "a.txt", "e.txt", "--output-dir")
    done = desk.scripted(*words, "e.txt")
    reason = f"--output-dir 'e.txt' cannot be used: {os.strerror(17)}; name a folder"
    assert (done.code, done.err) == (2, f"agentpool: error: {reason}\n")
    (desk.folder / "out" / "a.txt").mkdir(parents=True)
    done = desk.scripted(*words, "out", "--max-concurrent", "1")
    assert done.code in {2, 130}
    assert (
        "answer 'out/a.txt' cannot be written: it must be a regular file, not a folder" in done.err
    )
    assert not list((desk.folder / "out").glob(".*"))


def test_texts_and_lines_are_not_mixed(desk: Desk) -> None:
    """Two places for one answer is a mistake of who writes the command."""
    words = ("map", "reader.toml", "--each", "a.txt", "--json", "--output-dir", "out")
    done = desk.scripted(*words)
    assert done.code == 2
    assert "--output-dir writes texts and --json prints lines; choose one" in done.err


def test_a_folder_stands_for_its_files(desk: Desk) -> None:
    """In the order of their names, without hidden files and folders."""
    folder = desk.folder / "texts"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.txt", "a.txt", ".hidden"):
        (folder / name).write_text(name)
    done = desk.scripted("map", "reader.toml", "--each", "texts", "e.txt")
    found = re.findall("^## (.*)$", done.out, re.MULTILINE)
    assert found == ["texts/a.txt", "texts/b.txt", "e.txt"]
    (desk.folder / "empty").mkdir()
    done = desk.scripted("map", "reader.toml", "--each", "empty")
    assert (done.code, done.out) == (2, "")
    assert "folder 'empty' has no file to read" in done.err


def test_a_folder_that_cannot_be_read_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the system's."""
    (desk.folder / "texts").mkdir()

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = desk.scripted("map", "reader.toml", "--each", "texts")
    assert done.err == (
        "agentpool: error: folder 'texts' cannot be read: Permission denied; check it\n"
    )


def test_standard_input_is_an_input(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside files, and under its own name."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a question")))
    done = desk.scripted("map", "reader.toml", "--each", "-", "a.txt", "--output-dir", "out")
    assert done.code == 0
    assert {path.name for path in (desk.folder / "out").iterdir()} == {"standard-input", "a.txt"}


def test_no_editor_is_asked_when_an_answer_cannot_be_written(desk: Desk) -> None:
    """It would be asked about a part of the answers, and paid for that."""
    (desk.folder / "out" / "a.txt").mkdir(parents=True)
    words = ("--output-dir", "out", "--max-concurrent", "1", "--reduce", "editor.toml")
    done = desk.scripted("map", "reader.toml", "--each", "a.txt", "e.txt", *words)
    assert done.code == 2
    assert "editor started" not in done.err


def test_inputs_that_are_named_twice_are_asked_once(desk: Desk) -> None:
    """Each would be paid twice, and both answers written into one file."""
    (desk.folder / "d").mkdir()
    for name in ("a.txt", "b.txt"):
        (desk.folder / "d" / name).write_text("text")
    words = ("map", "reader.toml", "--each", "d", "--each", "d", "d/a.txt", "--json")
    done = desk.scripted(*words)
    assert [line["input"] for line in done.lines[:-1]] == ["d/a.txt", "d/b.txt"]
    warning = "--each names 'd/a.txt' and 1 more input more than once; each of them is asked once"
    assert f"agentpool: warning: {warning}\n" in done.err
    assert "warning" not in desk.scripted(*words, "--quiet").err
