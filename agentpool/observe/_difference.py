"""Finds the first event in which two traces differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Final, final

import msgspec

from agentpool._checks import expect_arguments
from agentpool._events import AgentFinished, Event, TextDelta, ThoughtDelta
from agentpool._messages import Json
from agentpool.observe._codec import event_to_json

_PIECES: Final = (TextDelta, ThoughtDelta)

_TIMES: Final = (
    "at_seconds",
    "attempt_seconds",
    "duration_seconds",
    "first_piece_seconds",
    "seconds",
    "waited_seconds",
)


MAX_FIELDS: Final = 5
"""The most fields that are named as different."""


@final
class FieldDifference(msgspec.Struct, frozen=True):
    """One value in which two events differ."""

    path: str
    """Where the value is, such as ``outcome.usage.input_tokens``."""
    first: Json
    """The value in the first trace. ``None``: that trace has no such value, or ``null``."""
    second: Json
    """The value in the second trace."""


@final
class Difference(msgspec.Struct, frozen=True):
    """The first difference between two traces."""

    place: int
    """The number of the event, from 1. Events with pieces of a text are not counted."""
    first: Event | None
    """The event of the first trace. ``None``: the first trace has ended."""
    second: Event | None
    """The event of the second trace. ``None``: the second trace has ended."""
    fields: tuple[FieldDifference, ...] = ()
    """The first `MAX_FIELDS` fields that differ. Empty if the events are of different kinds."""


def first_difference(first: Sequence[Event], second: Sequence[Event]) -> Difference | None:
    """Return the first difference between two traces, ignoring times. ``None``: no difference.

    Pieces of texts are ignored: an answer is cut into different pieces each time.
    """
    expect_arguments(first_difference, locals())
    one = (event for event in first if not isinstance(event, _PIECES))
    other = (event for event in second if not isinstance(event, _PIECES))
    for place, (left, right) in enumerate(zip_longest(one, other), 1):
        if left is None or right is None:
            return Difference(place, left, right)
        before, after = _timeless(left), _timeless(right)
        if before != after:
            values = msgspec.json.decode(before), msgspec.json.decode(after)
            fields = tuple(islice(_fields("", *values), MAX_FIELDS))
            return Difference(place, left, right, fields)
    return None


def _fields(path: str, first: Json, second: Json) -> Iterator[FieldDifference]:
    """Yield the innermost values that differ, without recursion: texts may nest deeply."""
    rest: list[tuple[str, Json, Json]] = [(path, first, second)]
    while rest:
        path, first, second = rest.pop()
        if first == second:
            continue
        one, other = _parts(first), _parts(second)
        if one is None or other is None or not (one or other):
            yield FieldDifference(path, first, second)
            continue
        names = dict.fromkeys((*one, *other))
        rest += [(f"{path}.{n}".lstrip("."), one.get(n), other.get(n)) for n in reversed(names)]


def _parts(value: Json) -> dict[str, Json] | None:
    """Return the parts of *value* by name or place. ``None``: *value* has no parts."""
    match value:
        case dict():
            return value
        case list():
            return {str(place): part for place, part in enumerate(value)}
        case _:
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
