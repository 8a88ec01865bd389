"""Sees that no key is in anything that is written while the tests run.

What is looked at: log records; errors of ours with their notes, fields and causes, when
they are gone, as by then they have all they will ever have; events; what a test prints and
reads back; what the programs print that it starts; what pytest reports; and at the end
every file that was left in the temporary folder. What a server got in a request is none
of these: it is what a key is for.

A test that wrote a key fails. A file that has one fails the session.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import stat
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, cast

import attrs
import pytest

from agentpool import AgentPoolError
from agentpool.observe._hub import EventHub
from tests.support.keys import find_key, mask


def pytest_configure(config: pytest.Config) -> None:
    """Watch from now on."""
    watch = config.stash[_WATCH] = Watch()
    config.pluginmanager.register(watch)
    watch.begin()


@pytest.fixture(autouse=True, scope="session")
def _folder_of_the_session(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytestconfig.stash[_WATCH].folder = tmp_path_factory.getbasetemp()


def texts_of(error: BaseException) -> Generator[str]:
    """Yield all that is told of an error, and of those that a traceback shows with it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield f"{one!s}\n{one!r}\n{vars(one)!r}"  # a note is in its fields
        left.append(one.__cause__ or (None if one.__suppress_context__ else one.__context__))
        if isinstance(one, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", one).exceptions


@attrs.define(eq=False)
class Watch:
    """Looks at what is written, and says so when a key is in it."""

    _found: list[str] = attrs.field(factory=list[str])
    folder: Path | None = None
    """What holds the temporary folders of all tests. None: no test has one."""
    _patch: pytest.MonkeyPatch = attrs.field(factory=pytest.MonkeyPatch)
    _make_record: Callable[..., logging.LogRecord] = attrs.field(
        factory=logging.getLogRecordFactory
    )

    def look(self, where: str, *written: object) -> None:
        """Note whether a key is in something."""
        for one in written:
            near = find_key(one) if isinstance(one, str | bytes) else None
            if near is not None:
                self._found.append(f"a key is in {where}: {near!r}")

    def begin(self) -> None:
        """Stand where things are written."""
        logging.setLogRecordFactory(self._see_record)
        for name in ("agentpool", "client", "httpx", "httpx2", "mcp"):
            # All of it, as a user may want all of it. Not what httpcore has: it writes down
            # every header that comes, before anybody here can look at it.
            logging.getLogger(name).setLevel(logging.DEBUG)

        def see_error(error: AgentPoolError) -> None:
            """Look at an error that nobody needs any more."""
            self.look(f"a {type(error).__name__}", *texts_of(error))

        self._patch.setattr(AgentPoolError, "__del__", see_error, raising=False)
        self._see_argument(EventHub, "publish", "an event")
        self._see_result(pytest.CaptureFixture, "readouterr", "the test's output")
        self._see_result(subprocess.Popen, "communicate", "a program's output")

    def _see_argument(self, owner: type, name: str, where: str) -> None:
        inner = getattr(owner, name)

        def seen(own: Any, argument: object) -> Any:  # noqa: ANN401  # as what it stands for
            self.look(where, repr(argument))
            return inner(own, argument)

        self._patch.setattr(owner, name, seen)

    def _see_result(self, owner: type, name: str, where: str) -> None:
        inner = getattr(owner, name)

        def seen(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as what it stands for
            result = inner(*args, **kwargs)
            self.look(where, *result)
            return result

        self._patch.setattr(owner, name, seen)

    def _see_record(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401  # as in logging
        record = self._make_record(*args, **kwargs)
        with contextlib.suppress(TypeError, ValueError):  # what is wrong with it is said later
            self.look(f"a record of {record.name!r}", record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            self.look(f"a record of {record.name!r}", *texts_of(record.exc_info[1]))
        return record

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Fail the test in which a key was written."""
        report = yield
        self.look("the report", report.longreprtext, *(text for _, text in report.sections))
        if self._found:
            report.outcome = "failed"
            said = [mask(report.longreprtext), *self._found]
            report.longrepr = "\n".join(filter(None, said))
            report.sections = [(name, mask(text)) for name, text in report.sections]
            self._found.clear()
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look at the errors that are still there, and at every file."""
        gc.collect()
        for path in _files_in(self.folder):
            with contextlib.suppress(PermissionError):
                self.look(f"the file {path}", str(path), *_pieces_of(path))
        if self._found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was found after the last test."""
        if self._found:
            terminalreporter.section("keys that were written", red=True)
            terminalreporter.write("".join(f"{mask(line)}\n" for line in self._found))

    def pytest_unconfigure(self) -> None:
        """Go."""
        self._patch.undo()
        logging.setLogRecordFactory(self._make_record)


_PIECE_BYTES: Final = 1 << 20

_WATCH: Final = pytest.StashKey[Watch]()


def _files_in(folder: Path | None) -> Generator[Path]:
    """Yield what is a file itself: no link, which may lead out, and no pipe, which waits."""
    for parent, _, names in os.walk(folder or os.devnull):
        for name in names:
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _pieces_of(path: Path) -> Generator[bytes]:
    """Yield what is in a file, without its holes: some are as large as a model's weights."""
    with path.open("rb", buffering=0) as file:
        at = 0
        while True:
            try:
                at = file.seek(at, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # there is nothing after this
                    return
                raise
            # Of a key that lies across two pieces, one has a half, which is enough.
            yield file.read(_PIECE_BYTES)
            at += _PIECE_BYTES
