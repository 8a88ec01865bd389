"""How long a model may take: a clock that stands still while the request waits for its turn.

Rules:

1. It limits what is done under it, in every task that is started there.
2. It stands still while any of that waits for its turn: at a gate, for what others have
   set aside of a budget, or for a slot. That is no time of the model. Deadlines around it
   go on.
3. Clocks lie within each other, and stand still together.
4. It is the clock of one agent, or of somebody who is none. Others do not stop it, though
   an agent may be started by a task that has one.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Self, final

import trio

from agentpool._base import Live
from agentpool._scheduling.slot import Slot, current_slot


@final
class RequestClock(Live):
    """``with RequestClock(scope):`` have the deadline of *scope* wait for turns as well."""

    scope: trio.CancelScope
    """What ends the request, when its deadline has come."""
    _left_seconds: float = math.inf
    """What was left when it was stopped."""
    _stops: int = 0
    """How many wait for their turn."""
    _outer: RequestClock | None = None
    _slot: Slot | None = None
    _is_over: bool = False
    """Whether its scope limits something else by now."""
    _token: Token[RequestClock | None] | None = None

    @property
    def seconds_left(self) -> float:
        """What is left, below 0 if it is over."""
        return self._left_seconds if self._stops else self.scope.deadline - trio.current_time()

    def stop(self) -> None:
        """Let it stand still, until it goes on as often as it was stopped."""
        self._left_seconds = self.seconds_left
        self._set(math.inf)
        self._stops += 1
        if self._outer is not None:
            self._outer.stop()

    def go_on(self) -> None:
        """Let it run again, if nobody else has stopped it."""
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
        """Let what is under it take as long as it likes from now on."""
        self._left_seconds = math.inf
        self._set(math.inf)

    def _set(self, deadline: float) -> None:
        if not self._is_over:
            self.scope.deadline = deadline

    def __enter__(self) -> Self:
        """Let whoever waits inside stop it."""
        self._slot = current_slot.get()
        self._outer = current_clock()
        self._token = _clock.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Let nobody stop it any more, not even a task that was left behind and waits."""
        assert self._token is not None  # noqa: S101  # it was entered
        self._is_over = True
        _clock.reset(self._token)

    def is_of(self, slot: Slot | None) -> bool:
        """Whether it is the clock of the agent that *slot* is of. ``None``: of nobody."""
        return self._slot is slot


_clock: ContextVar[RequestClock | None] = ContextVar("agentpool_request_clock", default=None)


def current_clock() -> RequestClock | None:
    """Return the clock that limits the current task. ``None``: none does."""
    clock = _clock.get()
    return clock if clock is not None and clock.is_of(current_slot.get()) else None


@contextmanager
def waiting_for_turn() -> Generator[None, None, None]:
    """While inside, the clock of the current task stands still."""
    clock = current_clock()
    if clock is None:
        yield
        return
    clock.stop()
    try:
        yield
    finally:
        clock.go_on()
