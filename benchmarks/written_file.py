"""Write what was measured to a file, or say in one line why that cannot be done."""

from __future__ import annotations

import argparse
from pathlib import Path


def check_writable(option: str, path: Path, parser: argparse.ArgumentParser) -> None:
    """End with a line if *path*, which *option* gave, cannot be written; what is there stays."""
    if path.exists() and not path.is_file():
        parser.error(f"{option} must be a file, and {path} is none")
    try:
        _neighbour_of(path).write_text("[]\n")
        _neighbour_of(path).unlink()
    except OSError as error:
        parser.error(f"{option} cannot be written: {error.strerror}: {path}")


def write_whole(path: Path, text: str) -> None:
    """Put *text* in the place of what was in *path*, in one step, so a full disk loses nothing.

    Raises:
        OSError: It cannot be written.
    """
    neighbour = _neighbour_of(path)
    try:
        neighbour.write_text(text, encoding="utf-8")
        neighbour.replace(path)
    except OSError:
        neighbour.unlink(missing_ok=True)
        raise


def _neighbour_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
