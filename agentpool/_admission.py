"""Who runs next: slots, the queue of newcomers, and agents that come back.

Rules:

1. At no instant do more agents hold a slot than there are slots.
2. Who gave a slot back to wait for others comes before who has not started.
3. Within each of the two, first come first served.
4. A newcomer is a plain value until it has a slot: no task, no scope, no inbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

import attrs
import trio

from agentpool._handle import AgentHandle
from agentpool._messages import AgentId
from agentpool._slot import Slot, SlotKeeper, current_slot, parked
from agentpool._waits import Wait


@final
@attrs.define(eq=False, repr=False)
class Admission(SlotKeeper):
    """Hands out the slots of one pool."""

    limiter: trio.CapacityLimiter
    """The slots. Its borrowers are ``Slot`` objects."""
    max_queued: int
    """Newcomers that may wait."""
    _start: Callable[[AgentHandle, Slot], None]
    _on_parked: Callable[[Slot, Wait], None]
    """Told before the slot is handed on."""
    _on_waiting: Callable[[AgentId], None]
    """Told afterwards."""
    _on_resumed: Callable[[Slot], None]
    outer: Slot | None = attrs.field(factory=current_slot.get)
    _newcomers: deque[AgentHandle] = attrs.field(factory=deque[AgentHandle])
    _withdrawn: int = 0
    _returning: deque[Slot] = attrs.field(factory=deque[Slot])
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def queued_count(self) -> int:
        """Newcomers that wait for their first slot."""
        return len(self._newcomers) - self._withdrawn

    @property
    def running_count(self) -> int:
        """Agents that hold a slot."""
        return self.limiter.borrowed_tokens

    def room_for(self, count: int) -> bool:
        """Whether *count* more newcomers would find a slot or a place in the queue."""
        # Slots that are free now are not promised to anybody: whoever comes back was
        # served when they became free.
        free = 0 if self._newcomers else max(0, int(min(self.limiter.available_tokens, count)))
        return count - free <= self.max_queued - self.queued_count

    async def enter(self, accept: Callable[[], AgentHandle]) -> AgentHandle:
        """Call *accept* as soon as a newcomer has room, waiting without a slot.

        An agent that waits here is accepted's parent: it takes its own slot again only
        after the newcomer was let in, so that a pool of one with no queue has children.

        Cancellation:
            If cancelled, nothing was accepted.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.room_for(1):
            handle = accept()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return handle
        async with parked(Wait.other("a place in the queue")):
            while not self.room_for(1):
                await self._room.park()
            return accept()

    def admit(self, handle: AgentHandle) -> None:
        """Queue *handle* and start it as soon as there is a slot. Ask ``room_for`` first."""
        self._newcomers.append(handle)
        self.pump()

    def withdraw(self, handle: AgentHandle) -> None:
        """Forget a newcomer that ended before it started. Its place counts as free."""
        self._withdrawn += 1
        self._room.unpark()
        if self._newcomers and self._newcomers[0] is handle:
            self._skip_withdrawn()

    def withdraw_all(self) -> tuple[AgentHandle, ...]:
        """Empty the queue and return who was in it."""
        left = tuple(handle for handle in self._newcomers if not handle.has_ended)
        self._newcomers.clear()
        self._withdrawn = 0
        self._room.unpark_all()
        return left

    def pump(self, *, newcomers: bool = True) -> None:
        """Hand out every slot that is free, first to those who come back."""
        limiter = self.limiter
        while limiter.borrowed_tokens < limiter.total_tokens:
            if self._returning:
                slot = self._returning.popleft()
                if slot.wanted:
                    self.limiter.acquire_on_behalf_of_nowait(slot)
                    slot.grant()
                    self._on_resumed(slot)
                continue
            self._skip_withdrawn()
            if not (newcomers and self._newcomers):
                self._room.unpark()
                return
            handle = self._newcomers.popleft()
            slot = Slot(self, handle.agent_id, trio.CancelScope())
            self.limiter.acquire_on_behalf_of_nowait(slot)
            if self._room:
                self._room.unpark()
            self._start(handle, slot)

    def resize(self, slots: float) -> None:
        """Change the number of slots. Who runs, runs on; fewer start until it fits."""
        self.limiter.total_tokens = slots
        self.pump()
        self._room.unpark_all()

    def leave(self, slot: Slot, *, newcomers: bool) -> None:
        """Take back the slot of an agent that ended, if it holds one.

        Args:
            slot: The agent's.
            newcomers: Whether newcomers may start. Not when the pool's nursery is
                cancelled: each would only start to be cancelled.
        """
        # A task holds its context, which holds the slot: the circle would be left to the
        # garbage collector, with all that was in the task.
        slot.task = None
        if slot.held:
            slot.held = False
            self.limiter.release_on_behalf_of(slot)
        self.pump(newcomers=newcomers)

    # The slots' side.

    def release(self, slot: Slot, wait: Wait) -> None:
        """Take back the slot of an agent that waits."""
        self._on_parked(slot, wait)
        self.limiter.release_on_behalf_of(slot)
        self.pump()
        self._on_waiting(slot.agent_id)

    def request(self, slot: Slot) -> None:
        """Put an agent that comes back in front of every newcomer."""
        self._returning.append(slot)
        self.pump()

    def _skip_withdrawn(self) -> None:
        while self._newcomers and self._newcomers[0].has_ended:
            self._newcomers.popleft()
            self._withdrawn -= 1
