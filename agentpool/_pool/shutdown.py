"""Ends the agents of a pool in three steps: asks, waits, cancels."""

from __future__ import annotations

import enum
import gc
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final, final

import trio

from agentpool._messages import AgentId
from agentpool._pool.admission import Admission
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.ctrl_c import unbroken
from agentpool._scheduling.owner import Owner
from agentpool._scheduling.parking_lot import Lot
from agentpool._scheduling.slot import parked
from agentpool._scheduling.waits import Wait

_NEVER: Final = 1_000_000_000
"""More collections of the youngest objects than ever come before one of older objects."""


@unbroken
@final
class _YoungestOnly:
    """``with`` it, the garbage collector looks at the youngest objects alone.

    In any number of threads: the collector is the program's.
    """

    __slots__ = ("_before", "_inside", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a handler of signals may come in the middle
        self._inside = 0
        self._before = gc.get_threshold()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = gc.get_threshold()
                gc.set_threshold(self._before[0], _NEVER, _NEVER)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._inside == 1:
                gc.set_threshold(*self._before)
            self._inside -= 1


_YOUNGEST_ONLY: Final = _YoungestOnly()


class ShutdownStep(enum.Enum):
    """The last step that was necessary to end all agents."""

    ASKED = "asked"
    """No agent was running."""
    WAITED = "waited"
    """All agents ended in time."""
    CANCELLED = "cancelled"
    """At least one agent did not end in time, and was cancelled."""


def cancel_all(
    started: tuple[AgentRecord, ...], why: tuple[str, str], *, is_left_open: bool = False
) -> None:
    """Cancel agents that have started. Those that have ended meanwhile are left out.

    All in one loop: trio makes each agent's exception at once, and the exception keeps the frames
    of all calls that led to it. So a call for each agent would be kept until the agent ends.

    Meanwhile the garbage collector looks at the youngest objects alone. All that is made here is in
    use, so it would find nothing, and with 10,000 agents it would look through every object of the
    program for that. It does not rest: afterwards it would look at all of them at once.

    Args:
        started: The agents.
        why: Who cancels them, and the reason.
        is_left_open: Whether the next process continues those that were not cancelled before.
    """
    with _YOUNGEST_ONLY:
        for record in started:
            if (slot := record.slot) is not None:
                record.mark_cancelled(why, is_left_open=is_left_open)
                slot.scope.cancel()
                if not slot.held:
                    slot.abandon()


def cancel_rest(records: Iterable[AgentRecord], reason: str, *, is_broken: bool) -> None:
    """Cancel the agents of a call that returns before they have ended.

    Args:
        records: The agents.
        reason: The reason in their outcomes.
        is_broken: Whether the call ends by an error, a cancellation or Ctrl-C. If it is the
            owner's, no end of its agents is recorded, so that the next process continues them.
    """
    for record in tuple(records):
        if is_broken and not record.depth and record.cancelled is None:
            record.noted().is_left_open = True
        record.cancel(reason)


async def end_in_steps(
    running: Mapping[AgentId, AgentRecord],
    idle: Lot,
    cancel: Callable[[str], object],
    grace_seconds: float,
) -> ShutdownStep:
    """Ask agents to stop, wait, and cancel the rest. Return the last step.

    Args:
        running: The agents that have not ended.
        idle: Waits until no agent is left.
        cancel: Cancels the agents for a reason.
        grace_seconds: How long to wait before the agents are cancelled.

    Cancellation:
        The agents are not cancelled.
    """
    for record in running.values():
        record.interrupt()
    if not running:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return ShutdownStep.ASKED
    # An agent of another pool that shuts this one down needs no slot for it.
    async with parked(Wait.other("the shutdown of a pool")):
        with trio.move_on_after(grace_seconds):  # noqa: ASYNC912  # an agent runs, so it waits
            while running:
                await idle.park()
            return ShutdownStep.WAITED
        cancel(f"it did not end within {grace_seconds:g} seconds of the shutdown")
        while running:
            await idle.park()
    await trio.lowlevel.checkpoint_if_cancelled()
    return ShutdownStep.CANCELLED


async def wait_empty(  # noqa: ASYNC910  # the block's end has checkpoints
    running: Mapping[AgentId, object], admission: Admission, idle: Lot, owner: Owner, name: str
) -> None:
    """Wait until no agent of the pool *name* is left, queued or *running*."""
    if running or admission.queued_count:
        # The owner may be an agent of another pool, which needs no slot for this.
        wait = Wait.all_of(running.keys(), f"the end of pool {name}")
        async with parked(wait, idle, owner):
            while running or admission.queued_count:
                await idle.park()
