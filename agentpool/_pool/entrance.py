"""Where calls wait until a new agent has room: a free slot, or a place in the queue.

Rules:

1. Calls enter in the order in which they came. None overtakes one that waits.
2. A call that was woken wakes the next one when it has entered: several woken together would run in
   any order.
3. An agent waits here without its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, TypeVarTuple, final

import msgspec
import trio

from agentpool._base import Live
from agentpool._errors import PoolClosedError
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.line import Line
from agentpool._scheduling.pace import AGENT_STEPS, Pace
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait, WaitReason
from agentpool.observe._hub import EventHub

T = TypeVar("T")
U = TypeVar("U")
Ts = TypeVarTuple("Ts")


def _no_room_yet(_: int) -> bool:
    return False


@unbroken
@final
class Entrance(Live):
    """Lets the calls in that bring new agents to one pool."""

    pace: Pace
    """Decides when a call of the pool must yield even though it has nothing to wait for."""
    _hub: EventHub
    room_for: Callable[[int], bool] = _no_room_yet
    """Returns whether that many more new agents would find a slot or a place in the queue."""
    closed: bool = False
    """Whether the pool takes no more agents."""
    moment: float | None = None
    """The time at which the agents start that a call accepts in one step. ``None``: each looks."""
    line: Line = msgspec.field(default_factory=Line)
    """The calls that wait."""
    _let_in: int = 0
    """How many waiting calls were woken and have not run yet: one, until the pool closes."""

    async def enter(self, accept: Callable[[*Ts], AgentRecord], *args: *Ts) -> AgentRecord:
        """Call *accept* with *args* as soon as a new agent has room, waiting without a slot.

        An agent that waits here is the parent of the new agent. It takes its own slot again only
        after the new one has been let in, so that agents can have children even in a pool with one
        slot and no queue.

        Raises:
            Exception: An error from *accept*.

        Cancellation:
            If cancelled, nothing was accepted.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.may_enter():
            record = accept(*args)
            if self.pace.is_due(AGENT_STEPS):
                await trio.lowlevel.cancel_shielded_checkpoint()
            return record
        async with parked(Wait.other("a place in the queue", WaitReason.QUEUE)):
            place, is_let_in = self.line.new_place(), False
            while not (self.closed or (self.room_for(1) if is_let_in else self.may_enter())):
                self._let_in -= is_let_in  # somebody took the room without waiting
                await self.line.park(place)
                is_let_in = True
            try:
                try:
                    # Cancelled in the tick in which there was room: a map that is being left
                    # must start no agent that would never be cancelled.
                    await trio.lowlevel.checkpoint_if_cancelled()
                finally:
                    self._let_in -= is_let_in  # until then nobody may overtake
                return accept(*args)
            finally:
                self.offer()  # it is the next one's turn, whatever came of this one

    async def enter_each(
        self,
        accept: Callable[[T, U], AgentRecord],
        wanted: Iterable[tuple[T, U]],
        add: Callable[[AgentRecord], object],
    ) -> None:
        """Call *accept* for each of *wanted* as soon as the pool has room, without a slot.

        Args:
            accept: Accepts one.
            wanted: The arguments of each call.
            add: Called with each agent that was accepted.

        Raises:
            Exception: An error from *accept*.

        Cancellation:
            Agents that were accepted before stay accepted.
        """
        try:
            for one, other in wanted:
                if self.pace.is_due(AGENT_STEPS):
                    self.moment = None
                    await trio.lowlevel.checkpoint()
                if not self.may_enter():
                    self.moment = None
                    add(await self.enter(accept, one, other))
                    continue
                if self.moment is None and not self._hub.listening:
                    self.moment = self._hub.seconds()
                add(accept(one, other))
        finally:
            self.moment = None
        await trio.lowlevel.cancel_shielded_checkpoint()

    def may_enter(self) -> bool:
        """Return whether a call may enter without a wait: no other waits, and there is room."""
        return not (self.line or self._let_in) and self.room_for(1)

    def offer(self) -> None:
        """Wake the first call that waits, if there is room."""
        if self.line and not self._let_in and self.room_for(1):
            self._let_in = 1
            self.line.unpark(1)

    def check_open(self) -> None:
        """Raise if the pool accepts no more agents.

        Raises:
            PoolClosedError: If it accepts no more.
        """
        if self.closed:
            raise PoolClosedError("the pool has closed or was shut down, and takes no more agents")

    def close(self) -> None:
        """Wake all calls that wait: the pool has closed."""
        self.closed = True
        self._let_in += len(self.line)
        self.line.unpark_all()
