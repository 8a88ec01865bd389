"""Shares work among processes, each a fork of this one."""

from __future__ import annotations

import ctypes
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, TypeVar, cast

import attrs

from agentpool._errors import UsageError

T = TypeVar("T")

FORK: Final = "fork"

NEVER: Final = 2**62
"""Where nobody need stop."""


@attrs.define(eq=False)
class Limit:
    """The first seed that failed, as far as any process knows."""

    value: int = NEVER


def shared_limit() -> Limit:
    """Return a limit that all processes see which are forked from now on."""
    # Whoever sets it looks before, without a lock: to lose that race is to search on for a
    # while, and costs nothing else.
    return cast("Limit", multiprocessing.RawValue(ctypes.c_longlong, NEVER))


def in_processes(shares: Sequence[Callable[[], T]]) -> list[T]:
    """Call each of *shares* in a process of its own, and return what they returned.

    Raises:
        UsageError: If this system cannot fork, or a process ended without a word.
    """
    if FORK not in multiprocessing.get_all_start_methods():
        raise UsageError("jobs > 1 needs a system that can fork processes; use jobs=1")
    context = multiprocessing.get_context(FORK)
    ends: list[tuple[BaseProcess, Connection]] = []
    for share in shares:
        ours, theirs = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(target=_work, args=(share, theirs), daemon=True)
        with warnings.catch_warnings():
            # Threads of this process may wait with a lock that the fork never gets: the
            # scenario's own are made in the fork, and it leaves without any cleanup.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        ends.append((process, ours))
    found: list[T] = []
    lost = 0
    for process, ours in ends:
        with ours:
            try:
                found.append(ours.recv())
            except EOFError:
                lost += 1
        process.join()
    if lost:
        raise UsageError(
            f"{lost} of {len(shares)} processes ended before their work did; run it with jobs=1 "
            "to see why"
        )
    return found


def _work(share: Callable[[], object], end: Connection) -> None:
    """Do one share, in its own process, and send what it came to."""
    with end:
        end.send(share())
