"""Decides how long a node may work without a message from its program.

Rules:

0. The lease begins when the node first reports that it is ready: its imports may take longer than
   the lease, and before that it has no work.
1. A node numbers its messages, and its program names the last number that it received. The answer
   renews the lease from the moment at which the node sent the message with that number, since a
   message that was long on its way proves nothing about the time since it was sent.
2. When three quarters of the lease have passed, the node cancels all of its work, so that there is
   time to clean up.
3. When the whole lease has passed, the node's process ends, before any task takes another step,
   even if something blocks its loop.

The program waits for the length of the lease, from the moment at which it gave up the node, before
it gives the same work to another node. Only durations count, so clocks need not agree.
"""

from __future__ import annotations

import enum
import math
from typing import Final, final

import attrs

CANCEL_AT: Final = 0.75
"""The part of the lease after which the work is cancelled."""

POLL_PART: Final = 0.2
"""The part of the lease for which the program waits for a node's news, so that the lease is renewed
in time."""


class Phase(enum.Enum):
    """What a node may do."""

    WORK = "work"
    CANCEL = "cancel"
    END = "end"


@final
@attrs.define(eq=False)
class Lease:
    """One node's lease."""

    seconds: float
    """The length of the lease."""
    renewed_at: float = math.inf
    """When the program was last known to be there, by the caller's clock. Infinity: the lease has
    not begun."""

    def begin(self, now: float) -> None:
        """Begin the lease, unless it has already begun."""
        if self.renewed_at == math.inf:
            self.renewed_at = now

    def renew(self, heard_at: float, now: float) -> None:
        """Record that the program was there at *heard_at*. A late message renews nothing."""
        if self.phase(now) is Phase.WORK:
            self.renewed_at = max(self.renewed_at, heard_at)

    def phase(self, now: float) -> Phase:
        """Return what the node may do."""
        gone = now - self.renewed_at
        if gone >= self.seconds:
            return Phase.END
        return Phase.CANCEL if gone >= CANCEL_AT * self.seconds else Phase.WORK

    def seconds_to(self, phase: Phase, now: float) -> float:
        """Return the seconds until a phase begins, at least 0."""
        part = CANCEL_AT if phase is Phase.CANCEL else 1.0
        return max(0.0, self.renewed_at + part * self.seconds - now)
