"""Chooses the node for a piece of work.

Rules:

1. Work that requires labels goes to a node that has all of them.
2. Of these nodes, one where the model is already open is preferred, unless it has more work than
   twice the work of the least busy node plus ``SLACK``.
3. Otherwise the least busy node is chosen, and of equally busy nodes the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol, TypeVar

SLACK: Final = 4
"""How many pieces of work a node with the open model may have beyond twice the work of the least
busy node."""


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
        """Return whether a driver is open on the node."""
        ...


C = TypeVar("C", bound=Candidate)


def choose(
    candidates: Iterable[C], wanted: Mapping[str, str], model: int | None = None
) -> C | None:
    """Return the node for a piece of work. ``None``: no node has those labels.

    Args:
        candidates: The nodes that take work.
        wanted: The labels that the node must have.
        model: The driver that the work asks. ``None``: it asks no driver.
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
