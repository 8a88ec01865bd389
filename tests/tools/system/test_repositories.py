"""What an archive brings into a repository, git does not run."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import Capability
from agentpool.abc import Tool
from agentpool.tools import shell_tools
from agentpool.tools.system import _entries, _repository_check, _repository_settings
from tests.support.tool_helpers import fail, result_of, use

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="the programs are POSIX")

USER = "[user]\n\tname = a\n\temail = a@b.example\n"


def _git(folder: Path, *words: str) -> None:
    git = shutil.which("git")
    assert git is not None
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "protocol.file.allow=always")
    subprocess.run([git, "-C", str(folder), *who, *words], check=True, capture_output=True)


def _repository(folder: Path) -> Path:
    """Make a repository with one commit, and a change that is not in it."""
    folder.mkdir(parents=True)
    _git(folder, "init", "-q", "-b", "main", ".")
    (folder / "a.txt").write_text("a\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "one")
    (folder / "a.txt").write_text("b\n")
    return folder


def _archive(folder: Path, members: Mapping[str, str]) -> None:
    """Make the archive ``a.tar``, as a download or another agent would."""
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))


def _shell(folder: Path, *programs: str) -> Tool:
    """Return a shell for a user who has a name, and nothing else, in a configuration."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    if not (home / ".gitconfig").exists():
        (home / ".gitconfig").write_text(USER)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    (shell,) = shell_tools([Capability.shell(*programs)], environ=environ, folder=folder)
    return shell


@pytest.mark.parametrize(
    ("setting", "attributes", "command"),
    [
        ('[filter "x"]\n\tclean = "RUN"', "* filter=x", "git add ."),
        ('[filter "x"]\n\tsmudge = "RUN"', "* filter=x", "git checkout a.txt"),
        ('[filter "x"]\n\tprocess = "RUN"', "* filter=x", "git stash"),
        ('[diff]\n\texternal = "RUN"', "", "git diff"),
        ('[diff "x"]\n\tcommand = "RUN"', "* diff=x", "git diff"),
        ('[diff "x"]\n\ttextconv = "RUN"', "* diff=x", "git diff"),
        ('[core]\n\tsshCommand = "RUN"', "", "git ls-remote ssh://127.0.0.1/x"),
        ('[core]\n\tgitProxy = "RUN"', "", "git ls-remote git://127.0.0.1/x"),
        ('[remote "o"]\n\turl = x\n\tvcs = "x"', "", "git ls-remote o"),
        ('[credential]\n\thelper = "!RUN"', "", "git ls-remote http://127.0.0.1:1/x"),
        ('[gpg]\n\tprogram = "RUN"\n[commit]\n\tgpgsign = true', "", "git commit -am x"),
        ('[gpg "ssh"]\n\tdefaultKeyCommand = "RUN"', "", "git commit -am x"),
        ('[tar "x"]\n\tcommand = "RUN"', "", "git archive --format=x HEAD"),
        ('[trailer "x"]\n\tcmd = "RUN"', "", "git commit -am x --trailer x=y"),
        ('[man "x"]\n\tcmd = "RUN"\n[man]\n\tviewer = x', "", "git help git"),
        ('[core]\n\tfsmonitor = "RUN"', "", "git status"),
        ("[include]\n\tpath = ../more", "", "git status"),
        ('[includeIf "onbranch:main"]\n\tpath = ../more', "", "git status"),
        ('[branch "main"]\n\tmergeOptions = --strategy=x', "", "git merge main"),
        ('[submodule "x"]\n\tupdate = "!RUN"', "", "git status"),
        ('[url "ssh://127.0.0.1/"]\n\tinsteadOf = x', "", "git ls-remote x"),
        ("[core]\n\tworktree = ../..", "", "git checkout -f"),
        ('[alias]\n\tremote-x = "!RUN"', "", "git fetch x::y"),
        ('[alias]\n\tmerge-x = "!RUN"', "", "git cherry-pick --continue"),
        ('[alias "credential-x"]\n\tcommand = "!RUN"', "", "git fetch"),
        ('[rebase]\n\tinstructionFormat = "%s%nexec RUN"', "", "git pull --rebase"),
    ],
)
async def test_what_an_archive_configures_is_not_run(
    tmp_path: Path, setting: str, attributes: str, command: str
) -> None:
    """With tar granted beside git, that was a whole shell."""
    inside, ran = _repository(tmp_path / "in"), tmp_path / "ran"
    (inside / "more").write_text(f'[diff]\n\texternal = "touch {ran}; false"\n')
    config = (inside / ".git" / "config").read_text()
    more = setting.replace("RUN", f"touch {ran}; false")
    _archive(inside, {".git/config": f"{config}{more}\n", ".gitattributes": attributes})
    shell = _shell(inside, "git", "tar")
    assert "exit code 0" in await use(shell, command="tar -xf a.tar")
    told = (await result_of(shell, command=command)).content
    assert not ran.exists()
    assert "git may not be run here: the configuration of the repository at '.' sets" in told


async def test_hooks_that_an_archive_brings_do_not_run(tmp_path: Path) -> None:
    """Git goes on without them, and without an editor; with every program granted they run."""
    inside, ran = _repository(tmp_path / "in"), tmp_path / "ran"
    hook = f"#!/bin/sh\ntouch {ran}\n"
    names = ("pre-commit", "post-commit", "post-checkout", "reference-transaction")
    _archive(inside, {f".git/hooks/{name}": hook for name in names})
    shell = _shell(inside, "git", "tar")
    await use(shell, command="tar -xf a.tar")
    assert "1 file changed" in await use(shell, command="git commit -m two a.txt")
    await use(shell, command="git checkout -b other")
    assert "empty commit message" in await fail(shell, command="git commit --allow-empty")
    assert not ran.exists()
    await use(_shell(inside, "*"), command="git checkout main")
    assert ran.exists()


def _submodule(tmp_path: Path) -> Path:
    """Make a repository with another in it, as ``git submodule`` does."""
    inside = _repository(tmp_path / "in")
    _repository(tmp_path / "other")
    _git(inside, "submodule", "add", "-q", str(tmp_path / "other"), "sub")
    _git(inside, "commit", "-q", "-m", "two")
    (inside / "sub" / "a.txt").write_text("c\n")
    return inside


@pytest.mark.parametrize("how", ["settings", "a link", "a place", "elsewhere"])
async def test_nor_what_it_configures_in_a_repository_below(tmp_path: Path, how: str) -> None:
    """Git looks into it to say what was changed there, and does what is configured there."""
    inside, ran = _submodule(tmp_path), tmp_path / "ran"
    shell = _shell(inside, "git", "tar")
    assert "sub" in await use(shell, command="git status --short")
    config = (inside / ".git" / "modules" / "sub" / "config").read_text()
    config += f'[diff]\n\texternal = "touch {ran}; false"\n'
    brought = {".git/modules/sub/config": config}
    if how == "a link":
        shutil.copytree(inside / ".git" / "modules" / "sub", inside / "evil")
        config = config.replace("../../../sub", "../sub")
        brought = {"sub/.git": "gitdir: ../evil\n", "evil/config": config}
    if how == "a place":
        (inside / "sub" / ".git").unlink()
        shutil.copytree(inside / ".git" / "modules" / "sub", inside / "sub" / ".git")
        brought = {"sub/.git/config": config.replace("../../../sub", "..")}
    if how == "elsewhere":
        brought = {".git/modules/sub/config": config.replace("../../../sub", "../../../..")}
    _archive(inside, brought)
    await use(shell, command="tar -xf a.tar")
    told = (await result_of(shell, command="git diff --submodule=diff")).content
    assert not ran.exists()
    assert "the configuration of the repository at 'sub' sets" in told or (
        how == "a link" and "'evil' is a repository's own folder" in told
    )


async def test_nor_what_it_configures_for_a_submodule_that_is_not_there(tmp_path: Path) -> None:
    """Git obeys it as soon as the submodule is checked out, which is in the same call."""
    inside, ran = _submodule(tmp_path), tmp_path / "ran"
    (inside / "sub" / "a.txt").write_text("a\n")
    _git(inside, "checkout", "-q", "-f", "--recurse-submodules", "HEAD~1")
    assert not (inside / "sub").exists()
    shell = _shell(inside, "git", "tar")
    assert "HEAD" in await use(shell, command="git status")
    config = (inside / ".git" / "modules" / "sub" / "config").read_text()
    filters = f'[filter "x"]\n\tsmudge = "touch {ran}; cat"\n'
    _archive(inside, {
        ".git/modules/sub/config": config + filters,
        ".git/modules/sub/info/attributes": "* filter=x\n",
    })  # fmt: skip
    await use(shell, command="tar -xf a.tar")
    told = await fail(shell, command="git checkout --recurse-submodules main")
    assert not ran.exists()
    assert "repository at '.git/modules/sub' sets 'filter.x.smudge'" in told


@pytest.mark.parametrize(
    ("name", "leads_to", "kind", "command"),
    [
        ("COMMIT_EDITMSG", "config", tarfile.SYMTYPE, "git commit -am '[alias]'"),
        ("COMMIT_EDITMSG", "config", tarfile.LNKTYPE, "git commit -am '[alias]'"),
        ("MERGE_MSG", "config", tarfile.SYMTYPE, "git cherry-pick -e HEAD"),
        ("MERGE_MSG", "config", tarfile.LNKTYPE, "git cherry-pick -e HEAD"),
        ("logs/refs/heads/objects/x", "config", tarfile.LNKTYPE, "git status"),
        ("objects/info", "refs", tarfile.SYMTYPE, "git gc"),
        ("COMMIT_EDITMSG", "../../home/.gitconfig", tarfile.SYMTYPE, "git commit -am x"),
        ("modules", "../evil", tarfile.SYMTYPE, "git status"),
    ],
)
async def test_git_writes_through_no_link_in_its_folder(
    tmp_path: Path, name: str, leads_to: str, kind: bytes, command: str
) -> None:
    """A message became the configuration, of the repository or of the user."""
    inside = _repository(tmp_path / "in")
    shell = _shell(inside, "git", "tar")
    with tarfile.open(inside / "a.tar", "w") as archive:
        member = tarfile.TarInfo(f".git/{name}")
        member.type = kind
        up = "../" * name.count("/")
        member.linkname = ".git/config" if kind == tarfile.LNKTYPE else up + leads_to
        archive.addfile(member)
    if name == "objects/info":
        shutil.rmtree(inside / ".git" / name)
    await use(shell, command="tar -xf a.tar")
    before = [(inside / ".git/config").read_text(), (tmp_path / "home/.gitconfig").read_text()]
    told = await fail(shell, command=command)
    words = "symbolic" if kind == tarfile.SYMTYPE else "hard"
    assert f"in the repository's own folder is a {words} link" in told
    assert repr(name) in told or words == "hard"  # then both names are links
    assert before == [
        (inside / ".git/config").read_text(), (tmp_path / "home/.gitconfig").read_text(),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["a file", "a link", "a common folder", "from above"])
async def test_a_repository_whose_own_folder_is_among_its_files_is_no_place_for_git(
    tmp_path: Path, how: str
) -> None:
    """A commit in it can be its configuration, which git obeys in the call that writes it."""
    inside = _repository(tmp_path / "in")
    meta = inside / "sub" / "meta"
    meta.parent.mkdir()
    if how == "a common folder":
        shutil.copytree(inside / ".git", meta)
        (inside / ".git" / "commondir").write_text("../sub/meta\n")
    else:
        (inside / ".git").rename(meta)
        if how == "a link":
            (inside / ".git").symlink_to("sub/meta")
        else:
            (inside / ".git").write_text("gitdir: sub/meta\n")
    shell = _shell(meta.parent if how == "from above" else inside, "git")
    told = await fail(shell, command="git status")
    assert "meta' is a repository's own folder and is not called '.git'" in told


async def test_links_that_git_writes_nothing_through_are_no_reason(tmp_path: Path) -> None:
    """Git makes hard links of objects in a clone on the same disk; people link hooks."""
    _repository(tmp_path / "other")
    _git(tmp_path, "clone", "-q", str(tmp_path / "other"), "in")
    (tmp_path / "in" / ".git" / "hooks" / "pre-push").symlink_to(tmp_path / "hook")
    shell = _shell(tmp_path / "in", "git")
    assert "main" in await use(shell, command="git status")


async def test_tar_writes_through_no_link(tmp_path: Path) -> None:
    """With ``-h --overwrite`` it opens what a link leads to, wherever that is."""
    inside = _repository(tmp_path / "in")
    (tmp_path / "mine").write_text("mine")
    (inside / "link").symlink_to(tmp_path / "mine")
    _archive(inside, {"link": "not mine"})
    shell = _shell(inside, "tar")
    for options in ("-xhf a.tar --overwrite", "xhf a.tar", "-xf a.tar --dereference",
                    "-xf a.tar --overwrite", "-xf a.tar --deref"):  # fmt: skip
        assert "tar may not be run with" in await fail(shell, command=f"tar {options}")
    assert (tmp_path / "mine").read_text() == "mine"


async def test_what_people_configure_is_no_reason(tmp_path: Path) -> None:
    """Nor is a folder below that only looks like a repository, nor what the user configures."""
    inside, ran = _submodule(tmp_path), tmp_path / "ran"
    for key, value in {
        "remote.origin.url": "https://example.org/x.git", "branch.main.merge": "refs/heads/main",
        "core.hooksPath": ".husky", "core.editor": "vi", "alias.st": "status -sb",
        "branch.main.vscode-merge-base": "origin/main", "extensions.worktreeConfig": "true",
        "lfs.repositoryformatversion": "0", "core.fsmonitor": "true", "gc.auto": "0",
        "http.https://example.org/.extraheader": "X: y", "vscode.x": "y", "github.user": "me",
        "am.threeWay": "true", "diff.python.xfuncname": "def", "protocol.version": "2",
        "submodule.sub.update": "rebase",
    }.items():  # fmt: skip
        _git(inside, "config", key, value)
    _git(inside, "sparse-checkout", "init")
    for name in ("empty/.git", "dangling"):
        (inside / "deep" / name).mkdir(parents=True)
    (inside / "deep" / "dangling" / ".git").write_text("gitdir: ../nowhere/.git/x\n")
    shell = _shell(inside, "git")
    assert "a.txt" in await use(shell, command="git status --short")
    assert "a.txt" in await use(_shell(inside / "sub", "git"), command="git status --short")
    own = tmp_path / "home" / ".gitconfig"
    own.write_text(f'{USER}[diff]\n\texternal = "touch {ran} && true"\n')
    await use(shell, command="git diff")
    assert ran.exists()


async def test_no_other_program_runs_between_the_check_and_the_end_of_git(tmp_path: Path) -> None:
    """What it writes meanwhile would not be looked at. Who came first goes first."""
    inside, ran = _repository(tmp_path / "in"), tmp_path / "ran"
    config = (inside / ".git" / "config").read_text()
    _archive(inside, {".git/config": f'{config}[diff]\n\texternal = "touch {ran}; false"\n'})
    os.mkfifo(inside / "gate")
    shell = _shell(inside, "git", "tar", "cat", "true")
    ended: list[str] = []
    told: dict[str, str] = {}

    async def run(command: str) -> None:
        told[command] = (await result_of(shell, command=command)).content
        ended.append(command)

    commands = ("cat gate", "true", "git diff", "tar -xf a.tar", "git status")
    async with trio.open_nursery() as nursery:
        for command in commands:
            nursery.start_soon(run, command)
            await wait_all_tasks_blocked()
        # Only a program that reads lets it be opened.
        gate = await trio.to_thread.run_sync((inside / "gate").open, "w")
        with trio.fail_after(10):
            while ended != ["true"]:  # noqa: ASYNC110  # programs have no events
                await trio.sleep(0.001)
        await wait_all_tasks_blocked()
        assert ended == ["true"]
        gate.write("open")
        gate.close()
    assert ended == ["true", *(one for one in commands if one != "true")]
    assert told["git diff"].startswith("diff --git")
    assert "'diff.external'" in told["git status"]
    assert not ran.exists()


async def test_what_cannot_be_looked_through_is_no_place_for_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is too much."""
    inside = _submodule(tmp_path)
    shell = _shell(inside, "git")
    with monkeypatch.context() as patch:
        patch.setattr(_entries, "MAX_ENTRIES", 3)
        assert "more than 3 entries" in await fail(shell, command="git status")
    with monkeypatch.context() as patch:
        patch.setattr(_repository_settings, "MAX_REPOSITORIES", 0)
        assert "more than 0 repositories" in await fail(shell, command="git status")
    config = inside / ".git" / "modules" / "sub" / "config"
    config.write_text(config.read_text() + "[alias]\n" + "x = y\n" * 2_000)
    with monkeypatch.context() as patch:
        patch.setattr(_repository_check, "_MAX_SETTINGS_BYTES", 20_000)
        assert "longer than 20000 bytes" in await fail(shell, command="git status")
    with monkeypatch.context() as patch:
        patch.setattr(_repository_check, "_LIST_SECONDS", 0)
        assert "did not answer in 0 seconds" in await fail(shell, command="git status")
    assert "a.txt" in await use(shell, command="git status --short")
    assert list(_repository_settings.repositories_below(str(inside / "nowhere"))) == []
    told = await fail(shell, command="git -C nowhere status")
    assert "cannot be asked for its configuration here: [Errno 2]" in told
    (inside / ".git" / "config").write_text("[core")
    assert "bad config line" in await fail(shell, command="git status")
