"""Ctrl-C: the first one ends the agents, the second one ends the program.

Closing the terminal (SIGHUP) ends the agents as well. This signal is often sent twice, by the shell
and by the system, so the second one changes nothing. Under ``nohup``, the signal is ignored, and it
stays ignored.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Final, final

import attrs
import trio

from agentpool import AgentPoolError, as_bystander

_HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
"""The signal for a closed terminal. ``None``: this platform has no such signal."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([] if _HANGUP is None else [_HANGUP]))
"""The signals that ask a program to end."""


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask this program to end.

    A hangup is one of them unless it is ignored.
    """
    ignores_hangup = _HANGUP is not None and signal.getsignal(_HANGUP) is signal.SIG_IGN
    return tuple(one for one in _SIGNALS if one is not _HANGUP or not ignores_hangup)


@final
@attrs.define(eq=False)
class Interruption:
    """Whether the command was interrupted, and how it stops then."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """The scope that an interruption cancels, unless a way to stop in good order is set."""
    reason: str | None = None
    """The reason for the stop. ``None``: nobody has asked for a stop."""
    called: trio.Event = attrs.field(factory=trio.Event)
    """Set when the command is to stop."""
    _stop: Callable[[str], None] | None = None

    def stop_with(self, stop: Callable[[str], None]) -> None:
        """At an interruption, call *stop* with the reason instead of cancelling the scope."""
        self._stop = stop

    def call(self, reason: str) -> None:
        """Interrupt the command. Only the first call counts."""
        if self.reason is not None:
            return
        self.reason = reason
        self.called.set()
        if self._stop is None:
            self.scope.cancel()
        else:
            self._stop(reason)


async def watch_signals(  # noqa: ASYNC114  # interruptible() starts it
    interruption: Interruption, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait for a signal and call *interruption*. A second one ends the program immediately.

    Cancellation:
        The earlier signal handlers are restored.
    """
    heeded = heeded_signals()
    with as_bystander(), trio.open_signal_receiver(*heeded) as signals:
        task_status.started()
        name = signal.Signals(await anext(aiter(signals))).name
    # No await up to here since the receiver was closed: no signal falls between. The
    # system's own handling also works when the program no longer gets round to anything.
    for one in heeded:
        signal.signal(one, _stay if one is _HANGUP else signal.SIG_DFL)
    interruption.call(name)


def _stay(_number: int, _frame: object) -> None:
    """Do nothing.

    ``SIG_IGN`` will not do, since programs that are started meanwhile would inherit it.
    """


@contextlib.asynccontextmanager
async def interruptible(
    interruption: Interruption, refuse: Callable[[AgentPoolError], Awaitable[None]]
) -> AsyncGenerator[trio.Nursery]:
    """Watch for signals inside the block, which an interruption ends.

    Yield a nursery for its tasks.

    The tasks end with the block.

    Args:
        interruption: What a signal calls.
        refuse: Called with an error that the block raises.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, interruption)
        try:
            with interruption.scope:
                yield nursery
        except AgentPoolError as error:
            await refuse(error)
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def kept_handlers() -> Generator[None]:
    """Restore the signal handlers at the end of the block."""
    before = [(one, signal.getsignal(one)) for one in _SIGNALS]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)
