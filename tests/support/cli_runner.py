"""The command line as a person meets it: files in a folder, words, and what comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from agentpool._cli import main

READER = """
name = "reader"
capabilities = []
[model]
system_prompt = "You read."
max_tokens = 100
"""

EDITOR = """
name = "editor"
capabilities = []
[model]
system_prompt = "You edit."
max_tokens = 100
"""

SCRIPT = """
[[answers]]
when = "You edit."
text = "All of it is fine."
[[answers]]
when = "broken"
error = "the model is out of order"
[[answers]]
when = "endless"
text = "It goes on and on"
seconds = 3600
[[answers]]
text = "A note."
"""


@attrs.frozen
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@attrs.define(eq=False)
class Desk:
    """A folder with a reader, an editor and a script; commands run in it."""

    folder: Path
    _capsys: pytest.CaptureFixture[str]

    def write(self, **files: str | bytes) -> None:
        """Write files; ``a_toml="..."`` is ``a.toml``."""
        for name, content in files.items():
            path = self.folder / name.replace("_", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def call(self, *words: str) -> Done:
        """Run a command in this process."""
        self._capsys.readouterr()
        code = main(words)
        captured = self._capsys.readouterr()
        return Done(code, captured.out, captured.err)

    def scripted(self, *words: str) -> Done:
        """Run a command with the answers of ``script.toml``."""
        return self.call(*words, "--driver", "script:script.toml")

    def start(self, *words: str, **popen: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401  # as in subprocess
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "agentpool", *words],
            cwd=self.folder,
            env={**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": ""},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen},
        )


def make_desk(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a desk in *folder*, which becomes the current one."""
    monkeypatch.chdir(folder)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    desk = Desk(folder, capsys)
    desk.write(reader_toml=READER, editor_toml=EDITOR, script_toml=SCRIPT)
    return desk
