"""Single keys at the terminal while the display is shown.

Rules:

1. The terminal delivers single keys only while the display is shown, and only to the process in the
   foreground. Ctrl-C works as always.
2. While a question is asked, the terminal has its usual settings, and no key is read.
3. Keys are not read in a thread, so a wait that is given up leaves nothing behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TextIO, final

import attrs
import trio


@final
@attrs.define(eq=False)
class Keyboard:
    """The keys of one terminal."""

    _input_fd: int
    _restore: Callable[[], None] | None = attrs.field(init=False, default=None)
    """Restores the terminal's settings. ``None``: the settings are already restored."""
    _is_lent: bool = attrs.field(init=False, default=False)
    _is_closed: bool = attrs.field(init=False, default=False)
    _wait: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _back: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def key(self) -> str:
        """Wait for a key and return it. Empty: the terminal is closed.

        Cancellation:
            No key is lost. The terminal gives single keys until ``close``.
        """
        while True:  # noqa: ASYNC913  # each turn waits
            if self._is_lent or self._is_closed:
                await self._back.wait()
                continue
            try:
                self._take_keys()
                with trio.CancelScope() as self._wait:
                    await trio.lowlevel.wait_readable(self._input_fd)
                if self._restore is None:
                    continue  # it was lent or closed meanwhile
                return os.read(self._input_fd, 1).decode(errors="replace")
            except _terminal_errors():
                return ""  # noqa: ASYNC910  # it waited, or there is no terminal

    @contextmanager
    def lent(self) -> Generator[None]:
        """Restore the terminal's settings for a question, inside the block."""
        self._is_lent = True
        self._give_back()
        try:
            yield
        finally:
            self._is_lent = False
            if not self._is_closed:
                self._take_keys_again()
            self._back.set()
            self._back = trio.Event()

    def close(self) -> None:
        """Restore the terminal's settings for good."""
        self._is_closed = True
        self._give_back()

    def _take_keys(self) -> None:
        """Make the terminal deliver each key immediately, without showing it."""
        assert sys.platform != "win32"  # noqa: S101  # there are no keys, see keyboard_of()
        import termios  # noqa: PLC0415  # not everywhere

        if self._restore is None:
            before = termios.tcgetattr(self._input_fd)
            self._restore = partial(
                termios.tcsetattr, self._input_fd, termios.TCSANOW, [*before[:6], [*before[6]]]
            )
            before[3] &= ~(termios.ICANON | termios.ECHO)
            # Not when all is written: a terminal that is held with Ctrl-S would hold us up.
            termios.tcsetattr(self._input_fd, termios.TCSANOW, before)

    def _take_keys_again(self) -> None:
        """Stop showing keys now, rather than only when the next key is read."""
        with suppress(*_terminal_errors()):  # it is gone, as whoever waits for a key is told
            self._take_keys()

    def _give_back(self) -> None:
        self._wait.cancel()
        restore, self._restore = self._restore, None
        if restore is not None:
            with suppress(*_terminal_errors()):  # it is gone, and needs no settings
                restore()


def _terminal_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a terminal that is gone."""
    assert sys.platform != "win32"  # noqa: S101  # there are no keys, see keyboard_of()
    import termios  # noqa: PLC0415  # not everywhere

    return OSError, termios.error


def keyboard_of(stream: TextIO | None) -> Keyboard | None:
    """Return the keyboard of *stream*. ``None``: *stream* is not a terminal that we control.

    A process in the background would be stopped if it read from the terminal.
    """
    if sys.platform == "win32" or stream is None or stream.closed or not stream.isatty():
        return None
    try:
        fd = stream.fileno()
        is_ours = os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return None  # it is the terminal of another session, or only looks like one
    return Keyboard(fd) if is_ours else None
