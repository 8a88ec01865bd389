"""Writes the changelog from docs/news into each source distribution."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ChangelogHook(BuildHookInterface[Any]):
    """Adds ``CHANGELOG.md``: what the next release says, above those of earlier ones."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        root = Path(self.root)
        kept = root / "CHANGELOG.md"
        earlier = kept.read_text("utf-8") if kept.exists() else ""
        done = subprocess.run(
            [sys.executable, "-m", "towncrier", "build", "--draft", "--version",
             self.metadata.version],
            cwd=root, capture_output=True, encoding="utf-8", check=True,
        )  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        written = Path(self._folder.name) / "CHANGELOG.md"
        written.write_text(f"{done.stdout.strip()}\n\n{earlier}", encoding="utf-8")
        build_data["force_include"][str(written)] = "CHANGELOG.md"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling once the distribution is written."""
        self._folder.cleanup()
