"""Which node gets a piece of work.

Rules:

1. Work that wants labels goes to a node that has all of them.
2. Of those, one where the model is open goes first, unless it has twice as much to do, and a
   little more, as the one that has the least.
3. Otherwise the one that has the least to do; of equals the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

SLACK: Final = 4
"""Pieces of work by which a node where the model is open may be behind, beside the double."""


@final
@attrs.frozen
class Candidate:
    """A node that takes work."""

    name: str
    labels: Mapping[str, str]
    load: int
    """Pieces of work that it has."""
    has_model: bool
    """Whether the driver is open there."""


def choose(candidates: Sequence[Candidate], wanted: Mapping[str, str]) -> Candidate | None:
    """Return the node that gets a piece of work. ``None``: no node has those labels."""
    fitting = [one for one in candidates if wanted.items() <= one.labels.items()]
    if not fitting:
        return None
    least = min(fitting, key=_load)
    warm = [one for one in fitting if one.has_model]
    if not warm:
        return least
    best = min(warm, key=_load)
    return best if best.load <= 2 * least.load + SLACK else least


def _load(candidate: Candidate) -> int:
    return candidate.load
