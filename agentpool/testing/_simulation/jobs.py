"""Distributes work among forked processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Protocol, TypeVar, cast, final

import attrs

from agentpool._errors import UsageError
from agentpool.testing._simulation.findings import headline

T = TypeVar("T")

FORK: Final = "fork"

NEVER: Final = 2**62
"""The limit as long as no seed has failed."""


@attrs.define(eq=False)
class Limit:
    """The lowest failed seed that any process has found so far."""

    value: int = NEVER


def shared_limit() -> Limit:
    """Make a limit that all processes forked from now on share."""
    # Whoever sets it looks before, without a lock: to lose that race is to search on for a
    # while, and costs nothing else.
    return cast("Limit", multiprocessing.RawValue(ctypes.c_longlong, NEVER))


class Count(Protocol):
    """A number shared by all processes."""

    value: int

    def get_lock(self) -> AbstractContextManager[object]:
        """Return the lock that keeps other processes out."""
        ...


@final
@attrs.frozen(eq=False)
class Turns:
    """Seeds that processes take one by one, each when it is free.

    Fixed shares would end at different times, since some seeds take longer than others, and a
    processor may be busy with other work.
    """

    _seeds: Sequence[int]
    _taken: Count

    def __iter__(self) -> Iterator[int]:
        """Take seeds, one after another, until there are no more."""
        while True:
            with self._taken.get_lock():
                nth = self._taken.value
                self._taken.value = nth + 1
            if nth >= len(self._seeds):
                return
            yield self._seeds[nth]


def shared_turns(seeds: Sequence[int]) -> Turns:
    """Return turns shared by all processes that are forked from now on."""
    return Turns(seeds, cast("Count", multiprocessing.Value(ctypes.c_longlong, 0)))


def in_processes(shares: Sequence[Callable[[], T]]) -> list[T]:
    """Call each of *shares* in its own process, and return their results.

    Raises:
        UsageError: If this system cannot fork, or a process ended without a result.
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
            f"{lost} of {len(shares)} processes ended before their work was done; run it with "
            "jobs=1 to see why"
        )
    return found


def portable(error: Exception) -> Exception:
    """Return *error* in a form for another process, with its traceback as a note.

    An error that cannot be sent, such as one of a class made in a function, becomes an
    ``AssertionError`` with its type and its text.
    """
    told = "".join(traceback.format_exception(error))
    try:
        sent: object = pickle.loads(pickle.dumps(error))  # noqa: S301  # made on the left
    except Exception:  # noqa: BLE001  # whatever a class of the user's does
        sent = None
    if type(sent) is not type(error) or str(sent) != str(error):
        error = AssertionError(headline(error))
    error.add_note(f"in another process:\n{told}")
    return error


def _work(share: Callable[[], object], end: Connection) -> None:
    """Do one share in its own process, and send its result."""
    with end:
        end.send(share())
