"""What lies in a folder does not lead a granted program out of it, nor to run others."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from agentpool import Capability
from agentpool.tools import shell_tools
from agentpool.tools.system import _entries, _links_before_programs
from agentpool.tools.system._command_rules import steps_of, writes_by_name
from tests.support.tool_helpers import fail, file_kit, names_in, use

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="the programs are POSIX")


async def _run(folder: Path, command: str, *, well: bool, grant: str = "") -> str:
    name = command.split(maxsplit=1)[0]
    grants = [Capability.shell(grant or name)]
    (shell,) = shell_tools(grants, environ=os.environ, folder=folder)
    return await (use if well else fail)(shell, command=command)


def _folders(tmp_path: Path) -> tuple[Path, Path]:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "a.txt").write_text("a")
    with tarfile.open(inside / "a.tar", "w") as archive:
        for name in ("b.txt", "deep/lnk/evil"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    with zipfile.ZipFile(inside / "a.zip", "w") as zipped:
        zipped.writestr("deep/lnk/evil", "x")
    return inside, outside


WRITES = (
    "tar -xf a.tar", "tar xf a.tar", "tar -x -f a.tar", "tar --extract --file=a.tar",
    "tar -xft -f a.tar", "tar -cf deep/lnk/new.tar a.txt",
    "tar -xf a.tar --transform=s,b.txt,deep/lnk/evil,", "tar -xf a.tar --backup",
    "zip -r deep/lnk/new.zip a.txt", "unzip -o a.zip", "unzip -l --l -o a.zip",
)  # fmt: skip


@pytest.mark.parametrize("command", [one for one in WRITES if shutil.which(one.split()[0])])
async def test_no_archive_is_unpacked_through_a_link_that_leads_out(
    tmp_path: Path, command: str
) -> None:
    """The link was there before; nothing shows in the command."""
    inside, outside = _folders(tmp_path)
    (inside / "deep" / "lnk").symlink_to(outside)
    assert "'deep/lnk' is a link out of the folder" in await _run(inside, command, well=False)
    assert not names_in(outside)
    assert "b.txt" not in names_in(inside)


async def test_a_link_that_stays_inside_is_no_reason(tmp_path: Path) -> None:
    """Nor is one to a file that is not named, nor one in a folder that is only listed."""
    inside, outside = _folders(tmp_path)
    (outside / "tool").write_text("x")
    (inside / "deep" / "lnk").symlink_to("..")
    (inside / "tool").symlink_to(outside / "tool")
    (inside / "none").symlink_to(inside / "nothing")
    await _run(inside, "tar -xf a.tar", well=True)
    assert (inside / "evil").read_text() == "x"
    await _run(inside, "tar -czf new.tgz a.txt", well=True)
    assert "link out" in await _run(inside, "tar -cftool a.txt", well=False)
    assert (outside / "tool").read_text() == "x"
    (inside / "lnk").symlink_to(outside)
    for listing in ("tar tf a.tar", "tar -tvf a.tar", "tar --list -f a.tar"):
        assert "b.txt" in await _run(inside, listing, well=True)
    await _run(inside, "tar -xf a.tar", well=True, grant="*")


async def test_a_folder_with_too_much_in_it_is_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; a folder that cannot be listed is passed over."""
    inside, _ = _folders(tmp_path)
    assert _links_before_programs.outward_link(str(tmp_path / "none"), ()) is None
    monkeypatch.setattr(_entries, "MAX_ENTRIES", 3)
    assert "more than 3 entries" in await _run(inside, "tar -xf a.tar", well=False)


def test_where_a_program_is_led() -> None:
    """Each folder from the one before; a value that is missing is the folder itself."""
    assert steps_of("git", ["--no-pager", "-C", "a", "-C", "b", "log", "-C", "c"]) == ("a", "b")
    assert steps_of("git", ["-C"]) == ("",)
    assert steps_of("git", []) == ()
    assert steps_of("ls", ["-C", "a"]) == ()
    assert writes_by_name("tar", [])
    assert not writes_by_name("ls", ["-x"])
    assert not writes_by_name("git", ["log"])


# --- git


def _repository(folder: Path, *, ran: Path, bare: bool = False) -> None:
    git = shutil.which("git")
    assert git is not None
    words = [git, "init", "-q", *(["--bare"] if bare else []), str(folder)]
    subprocess.run(words, check=True)
    config = folder / "config" if bare else folder / ".git" / "config"
    worktree = f"\tworktree = {folder.parent}\n\tbare = false\n" if bare else ""
    config.write_text(
        f'[core]\n\trepositoryformatversion = 0\n{worktree}\tfsmonitor = "touch {ran}; false"\n'
    )


@pytest.mark.parametrize("kind", ["plain", "bare"])
@pytest.mark.parametrize(
    "command", ["git -C sub status", "git -C sub diff", "git -C sub/x add .", "git -C l status"]
)
async def test_git_is_led_into_no_other_repository(tmp_path: Path, command: str, kind: str) -> None:
    """What is configured there was written by whoever made it: a model, say, or a download."""
    ran, inside = tmp_path / "ran", tmp_path / "in"
    (inside / "sub" / "x").mkdir(parents=True)
    (inside / "l").symlink_to("sub")
    _repository(inside / "sub", ran=ran, bare=kind == "bare")
    assert "this is another repository" in await _run(inside, command, well=False)
    assert not ran.exists()


async def test_a_folder_that_looks_like_a_repository_is_none(tmp_path: Path) -> None:
    """Its files can be written one by one, without a ".git" among them."""
    ran, inside = tmp_path / "ran", tmp_path / "in"
    _repository(inside, ran=ran, bare=True)
    assert "safe.bareRepository" in await _run(inside, "git status", well=False)
    assert not ran.exists()


def _with_a_remote(inside: Path, *, ran: Path) -> None:
    """Make a repository, and one without a work tree below it, to which it pushes."""
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "-q", "-b", "main", str(inside)], check=True)
    subprocess.run([git, "init", "-q", "--bare", str(inside / "sub")], check=True)
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    words = [git, "-C", str(inside), *who, "commit", "-q", "--allow-empty", "-m", "one"]
    subprocess.run(words, check=True)
    for remote in (("remote", "add", "o", "sub"), ("config", "push.default", "current")):
        subprocess.run([git, "-C", str(inside), *remote], check=True)
    hook = inside / "sub" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)


@pytest.mark.parametrize("command", ["push ./sub HEAD:refs/heads/x", "push o", "fetch sub"])
async def test_git_gives_nothing_to_a_folder_that_looks_like_a_repository(
    tmp_path: Path, command: str
) -> None:
    """Its hooks run where it is pushed to, and a patch can make them."""
    ran, inside = tmp_path / "ran", tmp_path / "in"
    _with_a_remote(inside, ran=ran)
    assert "transport 'file' not allowed" in await _run(inside, f"git {command}", well=False)
    assert not ran.exists()


async def test_git_goes_into_folders_of_its_own_repository(tmp_path: Path) -> None:
    """They are what -C is for; and a link that leads out is none of them."""
    inside = tmp_path / "in"
    _repository(inside, ran=tmp_path / "ran")
    (inside / ".git" / "config").write_text("")
    (inside / "sub").mkdir()
    (inside / "sub" / "a.txt").write_text("a")
    assert "a.txt" in await _run(inside, "git -C sub status --short -uall", well=True)
    (inside / "out").symlink_to(tmp_path)
    assert "another repository" in await _run(inside, "git -C out status", well=False)


@pytest.mark.parametrize("path", [".git/config", ".git/hooks/post-commit", ".GIT/config", "s/.git"])
async def test_what_git_is_configured_by_is_not_written(tmp_path: Path, path: str) -> None:
    """With git granted beside it, that was a whole shell."""
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    (tmp_path / ".git" / "config").write_text("[core]\n")
    kit = file_kit(tmp_path)
    assert "is inside .git" in await fail(kit["file_write"], path=path, content="[alias]")
    if path == ".git/config":
        edit = kit["file_edit"]
        told = await fail(edit, path=path, old_string="[core]", new_string="[alias]")
        assert "is inside .git" in told
    assert (tmp_path / ".git" / "config").read_text() == "[core]\n"
    await use(kit["file_write"], path=".gitignore", content="x")


def _with_links_to_its_own_files(inside: Path) -> None:
    """Make a repository with programs, and with links to its hooks and out of it."""
    (inside / "sub").mkdir(parents=True)
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "-q", "-b", "main", str(inside)], check=True)
    for name in ("e.sh", "post-commit", "sub/x"):
        (inside / name).write_text(f"#!/bin/sh\necho > {inside.parent}/ran\n")
        (inside / name).chmod(0o755)
    for name, target in (("hooks", ".git/hooks"), ("-d", ".git/hooks"), ("out", "..")):
        (inside / name).symlink_to(target)
    (inside / "sub" / "up").symlink_to("..")
    who = (git, "-C", str(inside), "-c", "user.name=a", "-c", "user.email=a@b.example")
    subprocess.run([*who, "add", "-A"], check=True)
    subprocess.run([*who, "commit", "-q", "-m", "one"], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "git mv e.sh .git/hooks/post-commit",
        "git mv e.sh .GIT/hooks/post-commit",
        "git mv e.sh sub/../.git/hooks/post-commit",
        "git mv e.sh hooks/post-commit",
        "git mv e.sh post-commit hooks",
        "git mv -f e.sh hooks",
        "git mv -- e.sh -d/post-commit",
        "git -C sub mv ../e.sh up/hooks/post-commit",
        "git mv e.sh out/e.sh",
        "git mv e.sh out",
    ],
)
async def test_git_moves_nothing_to_where_it_would_run(tmp_path: Path, command: str) -> None:
    """It renames first, and then says that the new name is not one that it may have."""
    inside = tmp_path / "in"
    _with_links_to_its_own_files(inside)
    said = await _run(inside, command, well=False)
    assert "may not move anything to or from" in said
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "e.sh").exists()
    assert "exit code 0" in await _run(inside, "git mv e.sh sub/e.sh", well=True)
    assert (inside / "sub" / "e.sh").exists()


@pytest.mark.parametrize("command", ["git format-patch -1", "git format-patch --always -1 HEAD"])
async def test_git_writes_no_patch_through_a_link(tmp_path: Path, command: str) -> None:
    """It names its files itself, and a link of such a name may be in the repository."""
    inside = tmp_path / "in"
    _with_links_to_its_own_files(inside)
    (inside / "out").unlink()
    for name in ("hooks", "-d"):
        (inside / name).unlink()
    (inside / "0001-one.patch").symlink_to("../outside")
    assert "is a link out of the folder" in await _run(inside, command, well=False)
    assert not (tmp_path / "outside").exists()
    (inside / "0001-one.patch").unlink()
    assert "0001-one.patch" in await _run(inside, command, well=True)
    assert "may not be run with" in await _run(inside, f"{command} --numbered-files", well=False)
