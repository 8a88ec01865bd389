"""Finds out who holds a lease, and whether that process is still alive.

A process may open a file more than once. Each opening counts as a separate holder, and counts as
dead once it is closed.
"""

from __future__ import annotations

import itertools
import os
import socket
import time  # noqa: TID251  # a lease is held against other processes: their clock is the wall's
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import msgspec

from agentpool._errors import RunBusyError
from agentpool._journal_records import LeaseHolder
from agentpool._lease import NOBODY, LeaseState

_NUMBERS: Final = itertools.count(1)

_OPENINGS: Final = set[int]()
"""The openings in this process that have not been closed yet."""


@contextmanager
def an_opening() -> Generator[int]:
    """Give an opening its number; it can hold leases until the block ends."""
    number = next(_NUMBERS)
    _OPENINGS.add(number)
    try:
        yield number
    finally:
        _OPENINGS.discard(number)


def this_process(opening: int) -> LeaseHolder:
    """Return an opening in this process as a lease holder."""
    return LeaseHolder(socket.gethostname(), os.getpid(), start_of(os.getpid()), opening)


def start_of(pid: int) -> str:
    """Return when process *pid* started, in ticks since boot. Empty: unknown, or it has ended.

    One that was killed has its number until its parent has waited for it, which may take for ever.
    The fields are those of proc(5): the state, the number of threads, the start.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # one line
            # The name, in parentheses, may have anything in it.
            fields = file.read().rpartition(")")[2].split()
        state, threads, started = fields[0], fields[17], fields[19]
    except (OSError, IndexError):
        return ""
    # The first thread of a process may end before the others.
    return "" if state in "ZXx" and int(threads) <= 1 else started


def is_dead(holder: LeaseHolder) -> bool:
    """Return whether *holder* is known to have ended, which is ``False`` for other machines."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's process
    if holder.started and start_of(holder.pid) != holder.started:
        return True
    return holder.pid == os.getpid() and holder.opening not in _OPENINGS


def holder_of(state: LeaseState) -> LeaseHolder | None:
    """Return the holder of a lease. ``None``: the lease has no holder.

    Raises:
        ValueError: If the stored holder is damaged.
    """
    if state.holder == NOBODY:
        return None
    try:
        return msgspec.json.decode(state.holder, type=LeaseHolder)
    except RecursionError as exc:
        raise ValueError("a holder is nested too deeply") from exc


def live_holder(state: LeaseState) -> LeaseHolder | None:
    """Return the current holder of a lease. ``None``: the lease or its holder has ended.

    Raises:
        ValueError: If the stored holder is damaged.
    """
    holder = holder_of(state)
    if holder is None:
        return None
    return holder if state.is_held(now=time.time(), is_dead=is_dead(holder)) else None


def refuse_if_busy(
    pool: str, state: LeaseState, me: str, silent_since: float | None = None
) -> None:
    """Raise if an opening other than *me* holds the lease of *pool*.

    Raises:
        RunBusyError: If such an opening holds the lease and has written since *silent_since*.
        ValueError: If the stored holder is damaged.
    """
    now = time.time()
    # Also of a lease that is over: what is written there is read whenever it is looked at.
    holder = holder_of(state)
    dead = holder is not None and is_dead(holder)
    if holder is None or state.may_be_claimed(me, now=now, is_dead=dead, silent_since=silent_since):
        return
    until, ahead = state.latest_end(now), state.ahead_of(now)
    if holder.host == socket.gethostname() and holder.pid == os.getpid():
        raise RunBusyError(
            f"pool {pool!r} of the journal is open in this process already, by a second "
            "open_journal of the same file; wait until that block ends, or share one journal",
            host=holder.host,
            pid=holder.pid,
            until=until,
        )
    clock = f" its last write is {ahead:,.0f} seconds ahead of the clock here;" if ahead else ""
    raise RunBusyError(
        f"pool {pool!r} of the journal is in use by process {holder.pid} on {holder.host};"
        f"{clock} "
        f"wait until it ends, or until it has written nothing for {until - now:.0f} seconds",
        host=holder.host,
        pid=holder.pid,
        until=until,
    )
