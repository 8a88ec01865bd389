"""Ctrl-C: the first one ends the agents, the second one ends the program."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Final, final

import attrs
import trio

from agentpool import AgentPoolError, as_bystander

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a program to end. Both exist on every platform."""


@final
@attrs.define(eq=False)
class Interruption:
    """Whether the command was interrupted, and how it stops then."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Cancelled at an interruption, as long as no way to stop in good order is set."""
    reason: str | None = None
    """The reason for the stop. ``None``: no stop is wanted."""
    called: trio.Event = attrs.field(factory=trio.Event)
    """Set when a stop is wanted."""
    _stop: Callable[[str], None] | None = None

    def stop_with(self, stop: Callable[[str], None]) -> None:
        """Call *stop* with the reason at an interruption, instead of cancelling the scope."""
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
    """Wait for a signal and call *interruption*. A second signal ends the program immediately.

    Cancellation:
        The earlier signal handlers are restored.
    """
    with as_bystander(), trio.open_signal_receiver(*SIGNALS) as signals:
        task_status.started()
        name = signal.Signals(await anext(aiter(signals))).name
    # No await up to here since the receiver was closed: no signal falls between. The
    # system's own handling also works when the program no longer gets round to anything.
    for one in SIGNALS:
        signal.signal(one, signal.SIG_DFL)
    interruption.call(name)


@contextlib.asynccontextmanager
async def interruptible(
    interruption: Interruption, refuse: Callable[[AgentPoolError], Awaitable[None]]
) -> AsyncGenerator[trio.Nursery]:
    """Watch for signals inside the block; an interruption leaves it. Yield a nursery for its tasks.

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
    before = [(one, signal.getsignal(one)) for one in SIGNALS]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)
