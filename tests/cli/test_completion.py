"""``agentpool completion``: a real shell completes commands, options and files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentpool._cli._arguments import parsers
from agentpool._cli._report import ExitCode
from agentpool._install import as_installed
from tests.support.cli_runner import Desk, make_desk

BASH = shutil.which("bash") or ""


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


def completed(desk: Desk, *words: str) -> set[str]:
    """Return what bash offers for the last of *words*."""
    script = desk.folder / "script.bash"
    script.write_text(desk.call("completion", "bash").out)
    line = " ".join(words)
    asked = f"""
source {script}
COMP_WORDS=({line} {"" if words[-1] else "''"})
COMP_CWORD={len(words) - 1}
_shtab_agentpool
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        [BASH, "-c", asked], cwd=desk.folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.skipif(not BASH, reason="there is no bash")
def test_bash_completes_commands_and_options(desk: Desk) -> None:
    """Every command, and the options of each."""
    assert set(parsers()) <= completed(desk, "agentpool", "")
    assert completed(desk, "agentpool", "run", "--max-t") == {"--max-tokens", "--max-total-tokens"}
    assert completed(desk, "agentpool", "run", "--approve", "") >= {"ask", "always", "never"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_has_a_script(desk: Desk, shell: str) -> None:
    """With every command in it."""
    done = desk.call("completion", shell)
    assert done.code == ExitCode.COMPLETED
    for name in parsers():
        assert name in done.out


def test_without_shtab_it_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that brings it."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    done = desk.call("completion", "bash")
    assert done.code == ExitCode.WRONG
    assert as_installed("pip install 'trio-agentpool[cli]'") in done.err


def test_another_shell_is_refused(desk: Desk) -> None:
    """With those that there are."""
    assert (
        "there is no 'fish'; it must be one of bash, zsh, tcsh"
        in desk.call("completion", "fish").err
    )
