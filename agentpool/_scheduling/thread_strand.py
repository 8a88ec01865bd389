"""The strand of a thread, which may call its agent after the agent has left it behind."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import trio

from agentpool._scheduling.slot import current_slot
from agentpool._scheduling.strand import current_strand


@contextmanager
def strand_of_thread() -> Generator[None]:
    """Count a thread's calls back as the agent's only until the block is cancelled.

    The thread is started in the block and inherits its strand. If several tools run side by side,
    each has its own strand, which ends with the tool. A single tool uses the agent's strand.
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
            slot.own_strand = None
        raise
    finally:
        current_strand.reset(token)
