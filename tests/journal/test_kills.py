"""A real process is killed at random moments: see ``tests.journal.kills`` for 500 of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path


def test_what_was_killed_goes_on_and_does_nothing_twice() -> None:
    """The agents come to the same, and each repeats at most what it was at."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kills.py")), "40"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert isinstance(ast.parse(done.stdout, mode="eval").body, ast.Call)
    assert "kills=40" in done.stdout
