"""Standard output and standard error: results, lines and the display, in turn.

Everything is written in a worker thread, so neither a pager that waits nor a terminal that was
stopped with Ctrl-S stops any agent. If results and the display share a terminal, one thing is
written at a time, above the display. Otherwise results and the display do not wait for each other.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from typing import TextIO, final

import attrs
import trio

from agentpool.live import BoardView, LiveDisplay


@final
@attrs.define(eq=False)
class Screen:
    """Writes results, lines and the display."""

    _out: TextIO
    _err: TextIO
    display: LiveDisplay | None = None
    """The display on the terminal. ``None``: there is none."""
    _for_err: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _for_out: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    # Of whoever holds _for_err. Not trio's own: all its threads may wait for inputs.
    _for_holder: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @property
    def is_terminal(self) -> bool:
        """Whether standard error is a terminal."""
        return self._err.isatty()

    async def write_result(self, text: str) -> None:
        """Write *text* to standard output.

        Raises:
            OSError: If the output cannot be written, or is no longer read.

        Cancellation:
            The text was written.
        """
        if self._out.isatty():
            await self._above(lambda: write_out(self._out, text))
        else:
            await trio.to_thread.run_sync(write_out, self._out, text, limiter=self._for_out)

    async def write_lines(self, lines: list[str]) -> None:
        """Write *lines* to standard error, above the display.

        Cancellation:
            The lines were written.
        """
        if lines:
            await self.write_prompt("".join(f"{line}\n" for line in lines))
        else:
            await trio.lowlevel.checkpoint()

    async def write_prompt(self, prompt: str) -> None:
        """Write text that need not end a line to standard error, above the display.

        Cancellation:
            It was written.
        """

        def write() -> None:
            # There is no place left to say that this cannot be written.
            with contextlib.suppress(OSError, ValueError):
                self._err.write(prompt)
                self._err.flush()

        await self._above(write)

    async def draw(self, view: BoardView) -> None:
        """Draw *view*, if there is a display.

        Cancellation:
            The view was drawn.
        """

        def draw() -> None:
            # Looked at here: it may have been closed while this waited for its turn.
            if self.display is not None:
                with contextlib.suppress(OSError, ValueError):
                    self.display.draw(view)

        await trio.to_thread.run_sync(draw, limiter=self._for_err)

    async def close_display(self) -> None:
        """Remove the display for good.

        Cancellation:
            The display is removed.
        """

        def close() -> None:
            display, self.display = self.display, None
            if display is not None:
                with contextlib.suppress(OSError, ValueError):
                    display.close()

        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(close, limiter=self._for_err)
        await trio.lowlevel.checkpoint()

    @contextlib.asynccontextmanager
    async def suspended(self) -> AsyncGenerator[Callable[[str], Awaitable[None]]]:
        """Remove the display, and hold back all other output, inside the block.

        Yields:
            A function that writes to standard error meanwhile. It raises ``OSError`` if it cannot
            write.

        Cancellation:
            The display is shown again.
        """

        async def write(text: str) -> None:
            await trio.to_thread.run_sync(write_out, self._err, text, limiter=self._for_holder)

        def change(*, hide: bool) -> None:
            display = self.display
            if display is not None:
                with contextlib.suppress(OSError, ValueError):
                    display.hide() if hide else display.show()

        async with self._for_err:
            try:
                hide = partial(change, hide=True)
                await trio.to_thread.run_sync(hide, limiter=self._for_holder)
                yield write
            finally:
                with trio.CancelScope(shield=True):
                    show = partial(change, hide=False)
                    await trio.to_thread.run_sync(show, limiter=self._for_holder)

    async def _above(self, write: Callable[[], None]) -> None:
        def run() -> None:
            with self._hidden():
                write()

        await trio.to_thread.run_sync(run, limiter=self._for_err)

    @contextlib.contextmanager
    def _hidden(self) -> Generator[None]:
        display = self.display
        if display is None:
            yield
            return
        display.hide()
        try:
            yield
        finally:
            display.show()


def write_out(stream: TextIO, text: str) -> None:
    """Write *text* to *stream*, whatever its encoding.

    Raises:
        OSError: If the output cannot be written, or is no longer read.
    """
    if stream.isatty():
        # Whatever a model writes, it does not steer the terminal.
        text = visible(text, "\n\t")
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def visible(text: str, also: str = "") -> str:
    r"""Return *text* with unprintable characters written as escapes.

    Args:
        text: Any text.
        also: More characters to leave as they are.

    >>> visible("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return "".join(c if c.isprintable() or c in also else repr(c)[1:-1] for c in text)


def drop_output() -> None:
    """Discard standard output from now on, because its reader has left.

    Otherwise the interpreter would try to write once more when it ends, and would complain.
    """
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
