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
        "_agent/request.py",
        "return self._done(answer)",
        "there is one more await",
    ): "a request that a budget pays begins a step later, and whoever is cancelled in that step "
    "has reserved and asked nothing",
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
        "_budget/budget.py",
        "kept = None if per is None or store is None else Kept.of(name, store, per)",
        "and is or, or is and",
    ): "both are given or neither; anything else was refused above",
    (
        "memory/_word_search.py",
        "if at + len(step) < end:",
        "a comparison is turned around",
    ): "the last step is cut between two words as well, and has the same words",
    (
        "memory/_word_search.py",
        "if at + len(step) < end:",
        "plus is minus",
    ): "every step is cut between two words, also the last one, and has the same words",
    (
        "_messaging/inbox.py",
        "return len(self._messages) - self._handed < self.capacity",
        "minus is plus",
    ): "a sender that waits beside a message which a reader was woken for goes on a step later, "
    "when that reader takes it and wakes the next sender itself",
    (
        "_agent/request.py",
        "return 0, None",
        "a number is one more",
    ): "without a budget and without a journal nobody looks at what it would be charged",
    (
        "_pool/deadlock.py",
        "if slot is None or slot.held or slot.wanted or slot.task is None:",
        "and is or, or is and",
    ): "an agent that runs has a slot's book, and one that holds or wants a slot has a task that "
    "works, which is found a few lines below; to look here costs less",
    (
        "_pool/deadlock.py",
        "elif not (book.listeners and self._stands_still(settled=False)):",
        "and is or, or is and",
    ): "a pool stands still only where somebody waits for a message, and is looked at again two "
    "steps later before anybody is told. To look here first costs less",
    (
        "_pool/deadlock.py",
        "self._tasks.clear()",
        "a call is gone",
    ): "the pool has ended, and its tasks go with it",
}
"""The room, the line as it is, and how it is broken; and why nobody can see it."""
