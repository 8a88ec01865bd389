"""Chooses the node for a piece of work.

Rules:

1. Work that wants labels goes to a node that has all of them.
2. Of those, one where the model is open goes first, unless it has twice as much to do, and a
   little more, as the one that has the least.
3. Otherwise the one that has the least to do; of equals the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol, TypeVar

SLACK: Final = 4
"""Pieces of work by which a node where the model is open may be behind, beside the double."""


class Candidate(Protocol):
    """A node that accepts work."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        ...

    @property
    def load(self) -> int:
        """The number of pieces of work that the node has."""
        ...

    def has_model(self, model: int) -> bool:
        """Return whether a driver is open there."""
        ...


C = TypeVar("C", bound=Candidate)


def choose(
    candidates: Iterable[C], wanted: Mapping[str, str], model: int | None = None
) -> C | None:
    """Return the node for a piece of work. ``None``: no node has those labels.

    Args:
        candidates: The nodes that take work.
        wanted: The labels that it must have.
        model: The driver that it asks. ``None``: it asks none.
    """
    # One pass, and no values made on the way: each request comes by here.
    least, least_load, warm, warm_load = None, 0, None, 0
    for one in candidates:
        if wanted and not wanted.items() <= one.labels.items():
            continue
        load = one.load
        if least is None or load < least_load:
            least, least_load = one, load
        if model is not None and one.has_model(model) and (warm is None or load < warm_load):
            warm, warm_load = one, load
    if warm is not None and warm_load <= 2 * least_load + SLACK:
        return warm
    return least
