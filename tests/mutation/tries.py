"""A plugin of pytest: in place of all tests, tries mutants, each in a fork of this process.

For the mutation run alone, which starts it with ``-p tests.mutation.tries``. To read the tests
and what they import takes longer than most of them, so it is done once.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import signal
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from types import FunctionType
from typing import Final

import attrs
import msgspec
import pytest

import agentpool
from tests.mutation.mutant import break_node
from tests.mutation.swap import functions_of, swap

PACKAGE: Final = Path(agentpool.__file__).parent

LEAST_SECONDS: Final = 30
"""Before a test hangs: on a busy machine the fastest takes a while."""


class Try(msgspec.Struct, frozen=True):
    """A mutant, and the tests that may notice it."""

    room: str
    index: int
    """Which node is broken."""
    tests: list[tuple[str, float]]
    """With their seconds."""


class Tried(msgspec.Struct, frozen=True):
    """What came of it."""

    nth: int
    """Which of the tries. Past the last: none, but all tests that noticed something, in a row and
    without a mutant."""
    by: str | None
    """The test that was red."""
    was_swapped: bool = True
    """Else it changes what runs when the room is loaded, and needs a process of its own."""


class Work(msgspec.Struct, frozen=True):
    """What is to be tried, and how."""

    tries: list[Try]
    jobs: int
    answers: int
    """A pipe for what comes of them."""


_GREEN, _RED, _NOT_SWAPPED, _BROKEN = 0, 10, 11, 12


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try each mutant, so many at a time."""
    work = msgspec.json.decode(Path(os.environ["AGENTPOOL_MUTANTS"]).read_bytes(), type=Work)
    os.set_inheritable(work.answers, False)  # noqa: FBT003  # as os has it
    rooms = {one.room for one in work.tries}
    for room in rooms:
        importlib.import_module("agentpool." + room.removesuffix(".py").replace("/", "."))
    forks = _Forks(session, {room: functions_of(PACKAGE / room) for room in rooms})

    def answer() -> None:
        os.write(work.answers, msgspec.json.encode(forks.reap()) + b"\n")

    for nth, one in enumerate(work.tries):
        while len(forks.running) == work.jobs:
            answer()
        forks.begin(nth, one.tests, one)
    while forks.running:
        answer()
    # Or it is the order in which they run, and no mutant, that they notice.
    forks.begin(len(work.tries), sorted(forks.noticing.items(), key=itemgetter(1, 0)), None)
    answer()
    return True


@attrs.define
class _Forks:
    """The forks that run tests now."""

    _session: pytest.Session
    _functions: dict[str, list[FunctionType]]
    """Those of each room."""
    running: dict[int, _Fork] = attrs.field(factory=dict[int, "_Fork"])
    """By their process ids."""
    noticing: dict[str, float] = attrs.field(factory=dict[str, float])
    """The tests that were red, with their seconds."""

    def begin(self, nth: int, tests: Sequence[tuple[str, float]], one: Try | None) -> None:
        """Run *tests* in a fork that has the mutant, if there is one."""
        fork = _Fork(nth, tests)
        items = {item.nodeid: item for item in self._session.items}
        pid = os.fork()
        if pid == 0:
            code = _BROKEN
            with contextlib.suppress(BaseException):
                code = self._try(fork, items, one)
            os._exit(code)
        self.running[pid] = fork

    def _try(self, fork: _Fork, items: dict[str, pytest.Item], one: Try | None) -> int:
        os.setsid()
        if one is not None and not _put_in(one, self._functions[one.room]):
            return _NOT_SWAPPED
        chosen = [(items[test], seconds) for test, seconds in fork.tests]
        return _RED if _is_red(self._session, chosen, fork.at) else _GREEN

    def reap(self) -> Tried:
        """Wait for one of them, and return what came of it."""
        pid, status = os.wait()
        fork = self.running.pop(pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what its tests have started
        code = os.waitstatus_to_exitcode(status)
        if code == _BROKEN:
            raise RuntimeError(f"try {fork.nth} could not be made: is a test of it gone?")
        if code in {_GREEN, _NOT_SWAPPED}:
            return Tried(fork.nth, None, was_swapped=code == _GREEN)
        test, seconds = fork.tests[int.from_bytes(fork.at[:4], "big")]
        self.noticing[test] = seconds
        return Tried(fork.nth, test if code == _RED else f"{test} (signal {-code})")


@attrs.define
class _Fork:
    """One fork."""

    nth: int
    """Which of the tries."""
    tests: Sequence[tuple[str, float]]
    at: mmap.mmap = attrs.field(factory=lambda: mmap.mmap(-1, 4))
    """Which of its tests is running; it writes this."""


def _put_in(one: Try, functions: Sequence[FunctionType]) -> bool:
    """Break the room that is loaded; ``False``: it is too late for that."""
    room = PACKAGE / one.room
    before = room.read_text()
    return swap(functions, room, before, break_node(before, one.index))


def _is_red(
    session: pytest.Session, tests: Sequence[tuple[pytest.Item, float]], at: mmap.mmap
) -> bool:
    """Run *tests*; return whether one failed. *at* says which is running."""
    # Several forks would write what is printed into one file.
    capture = session.config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    for nth, (item, seconds) in enumerate(tests):
        at[:4] = nth.to_bytes(4, "big")
        # It ends the process: by then the test hangs.
        signal.setitimer(signal.ITIMER_REAL, LEAST_SECONDS + 20 * seconds)
        following = tests[nth + 1][0] if nth + 1 < len(tests) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return True
    return False
