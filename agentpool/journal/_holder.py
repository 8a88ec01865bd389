"""Who holds a lease, and whether that process still lives."""

from __future__ import annotations

import os
import socket
import time  # noqa: TID251  # a lease is held against other processes: their clock is the wall's
from typing import Final

import msgspec

from agentpool._errors import RunBusyError
from agentpool._records import LeaseHolder

NOBODY: Final = ""
"""What stands in the place of a holder if there is none."""


def this_process() -> LeaseHolder:
    """Return who this process is."""
    return LeaseHolder(socket.gethostname(), os.getpid(), start_of(os.getpid()))


def start_of(pid: int) -> str:
    """Return when process *pid* started, in ticks since boot. Empty: unknown."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # one line
            # The name, in parentheses, may have anything in it.
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_dead(holder: LeaseHolder) -> bool:
    """Return whether *holder* is known to have ended; unknown for other machines."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's process
    return bool(holder.started) and start_of(holder.pid) != holder.started


def live_holder(text: str, seconds: float, renewed_at: float) -> LeaseHolder | None:
    """Return who holds a lease now. ``None``: it has ended, or its holder has.

    Raises:
        ValueError: If *text* is no holder.
    """
    if text == NOBODY:
        return None
    try:
        holder = msgspec.json.decode(text, type=LeaseHolder)
    except RecursionError as exc:
        raise ValueError("a holder is nested too deeply") from exc
    return None if is_dead(holder) or renewed_at + seconds <= time.time() else holder


def refuse_if_busy(pool: str, text: str, seconds: float, renewed_at: float) -> None:
    """Raise if another process holds the lease of *pool*.

    Raises:
        RunBusyError: If one does.
        ValueError: If *text* is no holder.
    """
    holder = live_holder(text, seconds, renewed_at)
    if holder is None:
        return
    # A clock that went back makes no lease longer than it was.
    until = min(renewed_at, time.time()) + seconds
    raise RunBusyError(
        f"pool {pool!r} of the journal is written by process {holder.pid} on {holder.host}; "
        f"wait for its end, or for {until - time.time():.0f} seconds without a sign of it",
        host=holder.host,
        pid=holder.pid,
        until=until,
    )
