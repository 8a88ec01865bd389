"""The right to run, and how an agent gives it back while it waits.

An agent that waits for others (a child, an answer, room in an inbox, a retry) holds no
slot meanwhile, so a pool of one runs any tree of parents and children. It takes a slot
again before it goes on, ahead of agents that have not started.

An agent may run several tools side by side. It waits only when all of these branches
wait: ``busy`` counts the ones that do not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar
from types import TracebackType
from typing import Self, final

import attrs
import trio

from agentpool._messages import AgentId


class SlotKeeper(ABC):
    """Whoever hands out slots."""

    @abstractmethod
    def release(self, slot: Slot) -> None:
        """Take the slot back and hand it on."""

    @abstractmethod
    def request(self, slot: Slot) -> None:
        """Grant *slot* now or later, before any newcomer, by ``slot.grant()``."""

    @abstractmethod
    def parked(self, slot: Slot, waits_for: str) -> None:
        """Take note that the agent waits."""

    @abstractmethod
    def resumed(self, slot: Slot) -> None:
        """Take note that the agent goes on."""


@final
@attrs.define(eq=False)
class Slot:
    """One running agent's right to run."""

    keeper: SlotKeeper
    agent_id: AgentId
    scope: trio.CancelScope
    """The agent's own scope: cancelled, it needs no slot to end."""
    held: bool = True
    busy: int = 1
    _granted: trio.Event | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it to be granted."""
        return self._granted is not None

    def grant(self) -> None:
        """Let the agent go on."""
        self.held = True
        if self._granted is not None:
            self._granted.set()
            self._granted = None

    def abandon(self) -> None:
        """Wake whoever waits for a slot: the agent is cancelled and ends without one."""
        if self._granted is not None:
            self._granted.set()
            self._granted = None

    def fork(self, branches: int) -> None:
        """Count *branches* side by side instead of one."""
        self.busy += branches - 1

    def branch_ended(self) -> None:
        """Count one branch less; the last one goes on as the agent itself."""
        self._idle()

    def park(self, waits_for: str) -> None:
        """Count one busy branch less; when none is left, give the slot back."""
        if self._idle():
            self.keeper.parked(self, waits_for)

    def _idle(self) -> bool:
        self.busy -= 1
        if self.busy == 0 and self.held:
            self.held = False
            self.keeper.release(self)
            return True
        return False

    async def resume(self) -> None:
        """Take a slot again, waiting for one.

        Cancellation:
            Not waited for when the agent itself is cancelled. If only a part of it is,
            the slot is waited for all the same: that part ends and the agent goes on.
        """
        self.busy += 1
        if self.held or self.scope.cancel_called:
            return
        if self._granted is None:
            self._granted = trio.Event()
            self.keeper.request(self)
        if self.held:
            self.keeper.resumed(self)
            return
        granted = self._granted
        # Shielded, since code that goes on without a slot would break the pool's bound. The
        # agent's own cancellation and deadline do end the wait: it ends without a slot.
        with trio.CancelScope(shield=True, deadline=self.scope.deadline):
            await granted.wait()
        if self.held:
            self.keeper.resumed(self)


current_slot: ContextVar[Slot | None] = ContextVar("agentpool_slot", default=None)
"""The slot of the agent that the current task belongs to. ``None``: not an agent."""


@final
@attrs.define(eq=False)
class parked:  # noqa: N801  # used as a statement: async with parked("a message")
    """``async with parked("what for"):`` wait without a slot, and take one afterwards.

    Outside of an agent it does nothing.
    """

    waits_for: str
    _slot: Slot | None = None

    async def __aenter__(self) -> Self:  # noqa: ASYNC910  # nothing to wait for: gives back
        """Give the slot back."""
        self._slot = current_slot.get()
        if self._slot is not None:
            self._slot.park(self.waits_for)
        return self

    async def __aexit__(  # noqa: ASYNC910  # waits only when the slot is gone
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take a slot again."""
        if self._slot is not None:
            await self._slot.resume()
