"""The first event in which two traces differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, final

import msgspec

from agentpool._checks import expect_arguments
from agentpool._events import AgentFinished, Event, TextDelta, ThoughtDelta
from agentpool.observe._codec import event_to_json

_PIECES: Final = (TextDelta, ThoughtDelta)

_TIMES: Final = (
    "at_seconds",
    "duration_seconds",
    "first_piece_seconds",
    "seconds",
    "waited_seconds",
)


@final
class Difference(msgspec.Struct, frozen=True):
    """The first difference between two traces."""

    place: int
    """Which event, from 1, of those that are not pieces of a text."""
    first: Event | None
    """The event of the first trace. ``None``: it has ended."""
    second: Event | None
    """The event of the second trace. ``None``: it has ended."""


def first_difference(first: Sequence[Event], second: Sequence[Event]) -> Difference | None:
    """Return the first difference of *first* and *second*, ignoring times. ``None``: none.

    Pieces of texts are not looked at: how an answer is cut into pieces differs each time.
    """
    expect_arguments(first_difference, locals())
    one = (event for event in first if not isinstance(event, _PIECES))
    other = (event for event in second if not isinstance(event, _PIECES))
    for place, (left, right) in enumerate(zip_longest(one, other), 1):
        if left is None or right is None or _timeless(left) != _timeless(right):
            return Difference(place, left, right)
    return None


def _timeless(event: Event) -> bytes:
    names = event.__struct_fields__
    zeros: dict[str, float] = {name: 0.0 for name in _TIMES if name in names}
    zeros |= {"sequence": 0} | ({"request_id": 0} if "request_id" in names else {})
    event = msgspec.structs.replace(event, **zeros)
    if isinstance(event, AgentFinished):
        outcome = msgspec.structs.replace(event.outcome, started_at=None, finished_at=0.0)
        event = msgspec.structs.replace(event, outcome=outcome)
    return event_to_json(event)
