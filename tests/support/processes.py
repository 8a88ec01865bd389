"""Whether processes and descriptors are left behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import trio


def is_alive(pid: int) -> bool:
    """Return whether the process *pid* runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return True


async def wait_gone(pid: int) -> None:
    """Wait until the process *pid* has ended, for a few seconds at most."""
    with trio.fail_after(5):
        while is_alive(pid):  # noqa: ASYNC110  # the system tells nobody but its parent
            await trio.sleep(0.01)


def open_files() -> int | None:
    """Return how many descriptors this process has open. ``None``: unknown."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else None
