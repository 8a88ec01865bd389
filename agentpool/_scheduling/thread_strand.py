"""The strand of a thread, which may call its agent after the agent has left it behind."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import trio

from agentpool._scheduling.slot import current_slot, current_strand


@contextmanager
def strand_of_thread() -> Generator[None]:
    """Give calls back from a thread to the agent only until the block is cancelled.

    The thread is started in the block, and knows its strand from there. One of several tools that
    run side by side has a strand of its own, which ends with it; the only one shares the agent's.
    """
    slot = current_slot.get()
    if slot is None or current_strand.get() is not None:
        yield
        return
    strand = slot.strand_of(trio.lowlevel.current_task())
    token = current_strand.set(strand)
    try:
        yield
    except trio.Cancelled:
        if strand is not None and slot.held:
            # Nobody waits in it. If somebody does, the agent leaves the wait behind as well.
            strand.ended = True
            slot.strands = ()
        raise
    finally:
        current_strand.reset(token)
