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
    (
        "_agent/retry_policy.py",
        "MAX_DOUBLINGS: Final = 60",
        "a number is one more",
    ): "no delay may be that long",
    (
        "_agent/request.py",
        "if clock is not None:",
        "there is one more await",
    ): "a delay begins a step later, and whoever is cancelled in that step has asked nothing",
    (
        "_pool/map.py",
        "if len(self._sources) > 1:",
        "a comparison is turned around",
    ): "one source alone lets others go on between two queries",
    (
        "_messaging/post_office.py",
        "return tuple(sent)",
        "there is one more await",
    ): "it begins a step later, and sends to those who are there then",
    (
        "_pool/deadlock.py",
        "self._tasks.clear()",
        "a call is gone",
    ): "the pool has ended, and its tasks go with it",
}
"""The room, the line as it is, and how it is broken; and why nobody can see it."""
