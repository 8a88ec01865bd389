"""The attempts of one request in earlier processes, as recorded in the journal."""

from __future__ import annotations

from typing import final

from agentpool._base import Live
from agentpool._served_call import Loss


@final
class Attempts(Live):
    """The attempts of one request, in the order of their records."""

    open: int = 0
    """The attempts that were sent and left no other trace."""
    losses: list[Loss] = []  # noqa: RUF012  # each has its own
    """The usage of the attempts that broke off."""

    def begin(self) -> None:
        """Count an attempt that was sent."""
        self.open += 1
        # A process that was told to end its request does not make it again.
        if self.losses and self.losses[-1].was_cut:
            self.losses[-1] = _as_repeated(self.losses[-1])

    def lose(self, loss: Loss) -> None:
        """Count an attempt that broke off."""
        # One attempt may lose several: a fallback asks one driver after the other.
        self.open = max(0, self.open - 1)
        self.losses.append(loss)

    def leave_to_us(self) -> None:
        """Count the attempt that was cut off by a crash as one that this process repeats."""
        if self.losses and self.losses[-1].was_cut:
            self.losses[-1] = _as_repeated(self.losses[-1])


def _as_repeated(loss: Loss) -> Loss:
    return Loss(loss.tokens, loss.cost_usd, is_repeated=True)
