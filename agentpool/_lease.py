"""Leases with fences: which holder may act, and until when. For journals and clusters.

Two sides know of a lease: the *grantor*, such as a journal's file or the driver of a cluster,
and the *holder*, such as a worker or a machine. Times are seconds on the clock of the side that
asks; nothing here reads a clock.

Rules:

1. A lease has at most one holder. Every claim raises its fence, which never falls.
2. Only the fence decides who may write: a holder whose fence is not the newest may neither write
   nor renew. The clock only decides how long others wait before they claim.
3. A lease is over when its length has passed since the last renewal, or as soon as its holder is
   known to be dead or has given it up.
4. A clock that shows a time before the last renewal was set back, so it cannot show that the lease
   is over. A claimant may still claim if it has seen no renewal for the whole length of the lease,
   measured on a monotonic clock.
5. The holder counts from when it *requested* a renewal. The grantor counts from when it granted it,
   which is later. So the holder knows that its lease is over before another may claim it.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from agentpool._numbers import plain_number

NOBODY: Final = ""
"""The holder of a free lease."""


@final
class LeaseState(msgspec.Struct, frozen=True):
    """A lease as its grantor knows it.

    >>> first = LeaseState().claimed("a", seconds=30.0, now=100.0)
    >>> first.fence, first.may_be_claimed("b", now=129.0), first.may_be_claimed("b", now=130.0)
    (1, False, True)
    >>> second = first.claimed("b", seconds=30.0, now=130.0)
    >>> second.fence, second.renewed(first.fence, now=131.0)
    (2, None)
    """

    holder: str = NOBODY
    """The holder. Empty: the lease is free."""
    fence: int = 0
    """How often it was claimed or given up. 0: never."""
    seconds: float = 0.0
    """How long it lasts after a renewal."""
    renewed_at: float = 0.0
    """When it was renewed last."""

    def is_held(self, *, now: float, is_dead: bool = False) -> bool:
        """Return whether the lease is in force at *now*, as far as is known.

        Args:
            now: The time.
            is_dead: Whether the holder is known to have ended.
        """
        return self.holder != NOBODY and not is_dead and now < self.renewed_at + self.seconds

    def may_be_claimed(
        self, by: str, *, now: float, is_dead: bool = False, silent_since: float | None = None
    ) -> bool:
        """Return whether *by* may claim the lease at *now*.

        Args:
            by: The claimant. The present holder may claim it again.
            now: The time.
            is_dead: Whether the holder is known to have ended.
            silent_since: The last renewal that *by* knew of when it began to wait, if it has waited
                for the whole length of the lease. ``None``: it has not waited that long.
        """
        waited = silent_since is not None and silent_since == self.renewed_at
        return by == self.holder or waited or not self.is_held(now=now, is_dead=is_dead)

    def claimed(self, by: str, *, seconds: float, now: float) -> LeaseState:
        """Return the state after a permitted claim, with the next fence."""
        return LeaseState(by, self.fence + 1, plain_number(seconds), now)

    def renewed(self, fence: int, *, now: float) -> LeaseState | None:
        """Return the state after a write or renewal. ``None``: *fence* is out of date."""
        if fence != self.fence or self.holder == NOBODY:
            return None
        return msgspec.structs.replace(self, renewed_at=now)

    def released(self, fence: int) -> LeaseState | None:
        """Return the state after the holder's release. ``None``: *fence* is out of date."""
        if fence != self.fence or self.holder == NOBODY:
            return None
        return LeaseState(NOBODY, self.fence + 1, self.seconds, self.renewed_at)

    def went_back(self, now: float) -> bool:
        """Return whether the clock was set back since the last renewal: see rule 4."""
        return now < self.renewed_at

    def ahead_of(self, now: float) -> float:
        """Return how many seconds the last renewal is ahead of a clock that was set back, or 0."""
        return max(self.renewed_at - now, 0.0)

    def latest_end(self, now: float) -> float:
        """Return the latest time at which the lease ends, unless it is renewed.

        A clock that was set back does not make the lease longer.
        """
        return min(self.renewed_at, now) + self.seconds


@final
class HeldLease(msgspec.Struct, frozen=True):
    """A lease as its holder knows it.

    >>> held = HeldLease(fence=3, seconds=30.0, asked_at=100.0)
    >>> held.is_over(now=129.0), held.is_over(now=130.0)
    (False, True)
    """

    fence: int
    """The fence to send with each write."""
    seconds: float
    """How long it lasts after a renewal."""
    asked_at: float
    """When it requested the renewal that was granted last."""

    @property
    def ends_at(self) -> float:
        """When the holder must stop, unless the lease is renewed."""
        return self.asked_at + self.seconds

    def is_over(self, *, now: float) -> bool:
        """Return whether the holder must have stopped."""
        return now >= self.ends_at

    def renewed(self, asked_at: float) -> HeldLease:
        """Return the lease after a granted renewal that was requested at *asked_at*."""
        # Answers may come in another order than the questions.
        return msgspec.structs.replace(self, asked_at=max(asked_at, self.asked_at))
