"""What the demo promises of the packaged model. Run by ``nox -s live``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[2] / "examples"

RIGHT = {
    "awakening.txt": ("The Awakening", "Kate Chopin", "1899"),
    "dracula.txt": ("Dracula", "Bram Stoker", "1897"),
    "frankenstein.txt": ("Frankenstein", "Mary Shelley", "1818"),
    "kidnapped.txt": ("Kidnapped", "Robert Louis Stevenson", "1886"),
    "middlemarch.txt": ("Middlemarch", "George Eliot", "1871"),
    "moby-dick.txt": ("Moby-Dick", "Herman Melville", "1851"),
    "walden.txt": ("Walden", "Henry David Thoreau", "1854"),
    "woman-in-white.txt": ("The Woman in White", "Wilkie Collins", "1860"),
}


def test_the_demo_is_right_seven_times_of_eight() -> None:
    """And its table ends the run."""
    done = subprocess.run(
        [
            sys.executable, "-m", "agentpool", "map", "librarian.toml", "--each", "books",
            "--schema", "book.json", "--quiet",
        ],
        cwd=EXAMPLES, capture_output=True, text=True, check=True,
    )  # fmt: skip
    table = done.stdout.partition("\n\n")[2].splitlines()
    right = [
        name
        for name, values in RIGHT.items()
        if any(line.startswith(name) and all(map(line.__contains__, values)) for line in table)
    ]
    assert len(right) >= 7, done.stdout
