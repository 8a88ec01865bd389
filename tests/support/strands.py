"""What the strands of an agent do, counted anew."""

from __future__ import annotations

from agentpool._scheduling.slot import Slot


def all_strands_wait(slot: Slot) -> bool:
    """Return whether an agent has strands, and all of them wait."""
    if slot.forked is None:
        return slot.own_strand is not None and slot.own_strand.waits > 0
    working = [strand for strand in slot.forked.strands if not strand.waits]
    assert slot.forked.busy == len(working)
    return not working
