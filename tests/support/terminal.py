"""A person at the terminal of a command."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Generator, Sequence

import attrs
import pytest

from tests.support.cli_runner import Desk

fcntl = pytest.importorskip("fcntl", reason="needs pseudo-terminals")
termios = pytest.importorskip("termios", reason="needs pseudo-terminals")
pty = pytest.importorskip("pty", reason="needs pseudo-terminals")


@attrs.define(eq=False)
class Person:
    """Somebody at the terminal of a command."""

    process: subprocess.Popen[bytes]
    fd: int
    settings: object
    seen: str = ""
    read_to: int = 0

    def wait_for(self, text: str) -> str:
        """Read until *text* was there after what was waited for last; return what is new."""
        deadline = time.monotonic() + 30
        while (place := self.seen.find(text, self.read_to)) < 0:
            piece = self._read() if time.monotonic() < deadline else ""
            assert piece, f"no {text!r} in {self.seen!r}"
            self.seen += piece
        before, self.read_to = self.read_to, place + len(text)
        return self.seen[before : self.read_to]

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.fd, text.encode())

    def _read(self) -> str:
        if not select.select([self.fd], [], [], 30)[0]:
            return ""  # it says nothing more
        try:
            return os.read(self.fd, 65536).decode(errors="replace")
        except OSError:  # Linux says so that the other end was closed
            return ""


@contextlib.contextmanager
def at_terminal(
    desk: Desk, command: Sequence[str], *, code: int = 0, rows: int = 24, columns: int = 80
) -> Generator[Person]:
    """Start a command whose terminal is a real one, Ctrl-C included, and see it end with *code*."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentpool", *command],
        cwd=desk.folder,
        env={**env, "TERM": "xterm-256color"},
        stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
        # No other thread holds a lock that this one call takes.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # see above
    )  # fmt: skip
    try:
        yield Person(process, ours, termios.tcgetattr(theirs))
        assert process.wait(30) == code
    finally:
        process.kill()
        process.wait(30)
        os.close(theirs)
        os.close(ours)
