"""The time limit of one request, which does not count the time it waits for its turn.

Rules:

1. It limits everything in its block, including the tasks that are started there.
2. It stops while any of these waits for its turn: at a gate, for an amount that others have
   reserved in a budget, or for a slot. Such a wait is not the model's time. Deadlines around the
   clock are not moved.
3. Nested clocks stop together.
4. A clock belongs to one agent, or to a caller outside of the pool. Other agents do not stop it,
   even if they were started in its block.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Self, final

import trio

from agentpool._base import Live
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.slot import Slot, current_slot

if TYPE_CHECKING:
    from agentpool._scheduling.current_request import Clock


@unbroken
@final
class RequestClock(Live):
    """Moves the deadline of *scope* by the time spent in waits: ``with RequestClock(scope):``."""

    scope: trio.CancelScope
    """Ends the request at its deadline."""
    _left_seconds: float = math.inf
    """The time left when it was stopped."""
    _stops: int = 0
    """How many tasks wait for their turn."""
    _outer: Clock | None = None
    _slot: Slot | None = None
    _is_over: bool = False
    """Whether its scope now limits something else."""
    _token: Token[RequestClock | None] | None = None

    @property
    def seconds_left(self) -> float:
        """The time left; negative after the deadline."""
        return self._left_seconds if self._stops else self.scope.deadline - trio.current_time()

    def stop(self) -> None:
        """Stop the clock. Calls nest: it resumes after as many calls of ``go_on``."""
        self._left_seconds = self.seconds_left
        self._set(math.inf)
        self._stops += 1
        if self._outer is not None:
            self._outer.stop()

    def go_on(self) -> None:
        """Undo one ``stop``."""
        self._stops -= 1
        if not self._stops:
            self._set(trio.current_time() + self._left_seconds)
        if self._outer is not None:
            self._outer.go_on()

    def spend(self, seconds: float) -> None:
        """Subtract *seconds* from the time left."""
        self._left_seconds -= seconds
        self._set(self.scope.deadline - seconds)

    def lift(self) -> None:
        """Remove the time limit."""
        self._left_seconds = math.inf
        self._set(math.inf)

    def _set(self, deadline: float) -> None:
        if not self._is_over:
            self.scope.deadline = deadline

    def __enter__(self) -> Self:
        """Make this the clock that is stopped by waits in the block."""
        self._slot = current_slot.get()
        self._outer = current_clock()
        self._token = _clock.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Detach the clock, even from abandoned tasks that still wait."""
        assert self._token is not None  # noqa: S101  # it was entered
        self.end()
        _clock.reset(self._token)

    def end(self) -> None:
        """Stop limiting the scope: another limit takes over."""
        self._is_over = True

    def is_of(self, slot: Slot | None) -> bool:
        """Return whether the clock belongs to the agent of *slot*. ``None``: no agent."""
        return self._slot is slot


_clock: ContextVar[RequestClock | None] = ContextVar("agentpool_request_clock", default=None)


def current_clock() -> Clock | None:
    """Return the clock that limits the current task. ``None``: there is no limit."""
    slot, clock = current_slot.get(), _clock.get()
    if clock is not None and clock.is_of(slot):
        return clock
    asking = None if slot is None else slot.own_request()
    return None if asking is None else asking.clock


@contextmanager
def waiting_for_turn() -> Generator[None, None, None]:
    """Stop the clock of the current task inside the block."""
    clock = current_clock()
    if clock is None:
        yield
        return
    clock.stop()
    try:
        yield
    finally:
        clock.go_on()
