"""Signals and ends a child process together with its process group."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

import trio

KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process survives. Windows cannot end a process in any other way."""


def signal_group(process: trio.Process, number: int) -> None:
    """Send a signal to *process* and its group. Without process groups, end the process."""
    # No process is left, or (macOS) only dying ones are.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.kill()


async def end_group(process: trio.Process, grace_seconds: float) -> None:
    """End *process* and its group: ask, wait, kill. Call it shielded."""
    if process.returncode is None:
        signal_group(process, signal.SIGTERM)
        with trio.move_on_after(grace_seconds):
            await process.wait()
    # Also if the process itself is gone: what it started may not be. Its number is not given
    # to another group while one of them is there, nor that soon.
    signal_group(process, KILL)
    # A killed process ends; only the kernel's own delay is waited for.
    await process.wait()


def ending(returncode: int) -> str:
    """Return how a process ended, for people: ``exit code 1``, ``SIGKILL``."""
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
