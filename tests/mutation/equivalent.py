"""Mutants that change nothing that anybody can see, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EQUIVALENT: Final[Mapping[tuple[str, str, str], str]] = {
    (
        "_messaging/inbox.py",
        "self._handed += self._readers.unpark(1)",
        "a number is one more",
    ): "a second reader is woken too, finds nothing and waits on; a message for it would have "
    "taken no place either",
    (
        "_scheduling/fair_queue.py",
        "self.weight = 1",
        "a number is one more",
    ): "a group gets the weight of its first item at once",
}
"""The room, the line as it is, and how it is broken; and why nobody can see it."""
